"""What tells one problem from another, and what a problem takes along to another process."""

from __future__ import annotations

import pickle

import cloudpickle
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import DiffusionMixturePrior, InverseProblem, MemorizedPrior, _batches
from ppl_memprior.distributions._mixture.examples import HostRows
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
    assert problem.derived and not rebuilt.derived
    assert problem_fingerprint(rebuilt) == expected


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
