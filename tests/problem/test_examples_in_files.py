"""Examples that stay in a file: what enters a problem, and what is read of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import (
    DiffusionMixturePrior,
    InverseProblem,
    LowRankGaussianMixture,
    MemorizedPrior,
    _batches,
    evidence,
    linearize,
    lookup,
)
from ppl_memprior.diffusion import dps
from ppl_memprior.diffusion.guidance import guidance_scale
from ppl_memprior.distributions._mixture.examples import HostRows
from ppl_memprior.problem._fingerprint import problem_fingerprint

pytestmark = pytest.mark.arithmetic  # another Python computes the same

NUM, EVENT = 80, (5, 6)  # the fewest that are screened, and so left in a file, are 64
ROWS = np.random.default_rng(0).normal(size=(NUM, *EVENT)).astype(np.float32)
FIELD = np.random.default_rng(1).normal(size=EVENT).astype(np.float32)
MATRIX = jnp.asarray(np.random.default_rng(2).normal(size=(3, 30)) / 6, jnp.float32)
DATA = np.asarray(MATRIX @ ROWS[7].ravel())


class CountedFile:
    """A memory-mapped array that says which rows have been read, as Zarr's are read."""

    chunks = (1, *EVENT)

    def __init__(self, path):
        self.mapped = np.load(path, mmap_mode="r")
        self.shape, self.dtype = self.mapped.shape, self.mapped.dtype
        self.rows = []

    def __getitem__(self, key):
        self.rows += np.arange(NUM)[key].ravel().tolist()
        return np.asarray(self.mapped[key])


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 600)  # twenty examples
    np.save(tmp_path / "x.npy", ROWS)
    return CountedFile(tmp_path / "x.npy")


def mixture(examples):
    return DiffusionMixturePrior(examples, 0.3)


def problem_of(prior):
    def model(data=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(MATRIX @ x.ravel(), 0.5).to_event(1), obs=data)

    return InverseProblem(model, data=DATA)


def in_file(kind, file):
    """The problem with its examples in the file, of which nothing has been read yet."""
    prior = kind(file)
    assert isinstance(prior.examples, HostRows)
    file.rows.clear()  # to measure them, the prior has read them
    return problem_of(prior)


@pytest.mark.parametrize("kind", [mixture, MemorizedPrior])
def test_a_problem_reads_those_examples_that_are_taken(kind, file):
    problem = in_file(kind, file)
    assert problem.num_examples == NUM and file.rows == []
    indices = np.array([[3, 4, 5], [-1, 3, 40]])
    np.testing.assert_array_equal(problem.take(indices), ROWS[indices])
    assert sorted(file.rows) == [3, 4, 5, 40, NUM - 1]
    file.rows.clear()
    np.testing.assert_array_equal(problem.take(2), ROWS[2])
    np.testing.assert_array_equal(jax.jit(problem.take)(jnp.asarray([8, 1])), ROWS[[8, 1]])
    assert sorted(file.rows) == [1, 2, 8]
    assert problem.take([]).shape == (0, *EVENT)


def test_examples_in_memory_are_taken_likewise():
    kinds = [
        MemorizedPrior(ROWS),
        mixture(ROWS),
        LowRankGaussianMixture(ROWS, 0.3, np.zeros((NUM, 0, *EVENT)), np.zeros((NUM, 0))),
    ]
    for prior in kinds:
        np.testing.assert_array_equal(problem_of(prior).take([[4], [-2]]), ROWS[[[4], [-2]]])
    scaled = DiffusionMixturePrior(ROWS, 0.3, alpha=0.5)
    np.testing.assert_allclose(problem_of(scaled).take([4, 2]), 0.5 * ROWS[[4, 2]], rtol=1e-6)


def test_wrong_indices_are_refused(file):
    for problem in (problem_of(mixture(ROWS)), in_file(mixture, file)):
        for index in (NUM, -NUM - 1):
            with pytest.raises(IndexError, match=f"index {index} is out of range: .* 0 to 79"):
                problem.take([0, index])
        with pytest.raises(TypeError, match=r"whole numbers, got an array of bool.*flatnonzero"):
            problem.take(np.ones(NUM, bool))


@pytest.mark.parametrize("kind", [mixture, MemorizedPrior])
def test_lookup_reads_each_example_once(kind, file):
    problem = in_file(kind, file)
    found, expected = lookup(problem), lookup(problem_of(kind(ROWS)))
    assert np.bincount(file.rows, minlength=NUM).max() <= 2  # the last batch may be filled up
    assert isinstance(found.examples, HostRows) and found.examples.array is file
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-5)
    np.testing.assert_array_equal(found.take(3), ROWS[3])


def test_linearize_reads_examples_as_it_comes_to_them(file):
    problem = in_file(mixture, file)
    found, expected = linearize(problem), linearize(problem_of(mixture(ROWS)))
    reads = np.bincount(file.rows, minlength=NUM)
    assert reads[1:].max() <= 2 and reads[0] <= 5  # the shapes are those of the first one
    # the same programs, whatever the examples lie in
    np.testing.assert_allclose(found.locs, expected.locs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.log_evidence, expected.log_evidence, rtol=1e-5)


def test_the_guidance_scale_reads_blocks(file):
    problem = in_file(mixture, file)
    found, expected = guidance_scale(problem), guidance_scale(problem_of(mixture(ROWS)))
    assert np.bincount(file.rows, minlength=NUM).max() <= 4  # mean, spread, predictions
    spread = np.sqrt(np.sum((ROWS - ROWS.mean(0)) ** 2) / NUM)
    np.testing.assert_allclose(found.model, spread, rtol=1e-5)
    np.testing.assert_allclose(found.data, expected.data, rtol=1e-5)


def test_methods_take_a_problem_of_examples_in_a_file(file):
    problem, same = in_file(mixture, file), problem_of(mixture(ROWS))
    key = jax.random.key(0)
    draws = [dps(each, key, num_samples=3, num_steps=5).latents["x"] for each in (problem, same)]
    np.testing.assert_allclose(*draws, rtol=1e-3, atol=1e-3)  # five steps carry rounding along
    curves = [evidence(each, sigma=[0.2, 0.4]).log_evidence for each in (problem, same)]
    np.testing.assert_allclose(*curves, rtol=1e-5)


def test_the_fingerprint_is_that_of_the_same_examples_in_memory(file):
    assert problem_fingerprint(in_file(mixture, file)) == problem_fingerprint(
        problem_of(mixture(ROWS))
    )
    assert np.bincount(file.rows, minlength=NUM).max() <= 3


def test_advice_about_a_memorized_prior_reads_no_more_than_one_example(file):
    problem = in_file(MemorizedPrior, file)
    with pytest.raises(ValueError, match="Give the prior a bandwidth"):
        linearize(problem)
    assert set(file.rows) <= {0}
