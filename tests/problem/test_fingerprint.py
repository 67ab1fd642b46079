"""What tells one problem from another, and what a problem takes along to another process."""

from __future__ import annotations

import copy
import gc
import pickle
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import DiffusionMixturePrior, InverseProblem, MemorizedPrior, _batches
from ppl_memprior.distributions._mixture.examples import HostRows
from ppl_memprior.problem._cache import remembered
from ppl_memprior.problem._fingerprint import problem_fingerprint


def small(examples=(-1.0, 0.5), sigma=0.3, data=0.2, gain=1.0, noise=0.3, hyper=None):
    """A problem of one unknown; with `hyper`, the noise's scale is latent, with that scale."""
    prior = DiffusionMixturePrior(jnp.asarray(examples), sigma)

    def model(data=None):
        x = numpyro.sample("x", prior)
        scale = noise if hyper is None else numpyro.sample("scale", dist.HalfNormal(hyper))
        numpyro.sample("y", dist.Normal(gain * x, scale), obs=data)

    return InverseProblem(model, data=data)


def test_fingerprint_sees_every_part_of_the_problem():
    changes = [
        {},
        {"examples": (-1.0, 0.6)},
        {"data": 0.3},
        {"gain": 1.1},
        {"hyper": 1.0},
        {"hyper": 2.0},
    ]
    found = [problem_fingerprint(small(**change)) for change in changes]
    assert len(set(found)) == len(changes)
    assert problem_fingerprint(small()) == found[0]


def test_a_problem_survives_pickling_and_is_the_same():
    problem = small(hyper=1.0)
    expected = problem_fingerprint(problem)
    rebuilt = cloudpickle.loads(cloudpickle.dumps(problem))
    assert problem_fingerprint(rebuilt) == expected


def test_what_is_remembered_is_made_once_and_by_a_copy_again():
    problem, made = small(), []

    def make():
        made.append(1)
        return object()

    first = remembered(problem, "a", make)
    assert remembered(problem, "a", make) is first and len(made) == 1
    assert remembered(problem, "b", make) is not first
    for other in (copy.copy(problem), cloudpickle.loads(cloudpickle.dumps(problem))):
        assert remembered(other, "a", make) is not first


def test_what_is_remembered_is_made_once_by_several_threads():
    problem, made = small(), []

    def make():
        made.append(1)
        time.sleep(0.05)  # long enough for the other threads to ask as well
        return remembered(problem, "inner", object)

    with ThreadPoolExecutor(4) as threads:
        values = list(threads.map(lambda _: remembered(problem, "outer", make), range(4)))
    assert len(made) == 1 and len(set(map(id, values))) == 1


def test_a_problem_is_freed_with_what_is_remembered_of_it():
    def used():
        problem = small()
        remembered(problem, "refers to the problem", lambda: lambda: problem)
        return weakref.ref(problem)

    gone = used()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("part", [np.s_[:], np.s_[100:], np.s_[::2, 1:]], ids=str)
def test_examples_in_a_file_are_pickled_as_their_place(tmp_path, monkeypatch, part):
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 1000)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")[part]
    prior = MemorizedPrior(mapped)
    assert isinstance(prior.examples, HostRows)
    content = pickle.dumps(prior)
    # weights and names only: the rows are 12 to 24 kB
    assert len(content) < 4000 + 8 * len(mapped)
    np.testing.assert_array_equal(np.asarray(pickle.loads(content).examples), mapped)


def test_a_mapped_file_that_is_not_there_is_named(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 3), np.float32))
    content = pickle.dumps(HostRows(np.load(tmp_path / "x.npy", mmap_mode="r")))
    (tmp_path / "x.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"x\.npy"):
        pickle.loads(content)
