"""Examples that stay in a file: what enters a problem, and what is read of them."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.spatial.distance import pdist

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
from ppl_memprior.diffusion.noise import levels_for
from ppl_memprior.diffusion.spread import smallest_distance
from ppl_memprior.distributions._mixture.examples import HostRows
from ppl_memprior.inference import gibbs
from ppl_memprior.inference.mcmc._gibbs import _log_joint
from ppl_memprior.problem._fingerprint import problem_fingerprint

from ..counted_file import CountedFile

pytestmark = pytest.mark.arithmetic  # another Python computes the same

NUM, EVENT = 80, (5, 6)  # the fewest that are screened, and so left in a file, are 64
ROWS = np.random.default_rng(0).normal(size=(NUM, *EVENT)).astype(np.float32)
FIELD = np.random.default_rng(1).normal(size=EVENT).astype(np.float32)
MATRIX = jnp.asarray(np.random.default_rng(2).normal(size=(3, 30)) / 6, jnp.float32)
DATA = np.asarray(MATRIX @ ROWS[7].ravel())


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 600)  # twenty examples
    np.save(tmp_path / "x.npy", ROWS)
    return CountedFile(tmp_path / "x.npy")


def mixture(examples):
    return DiffusionMixturePrior(examples, 0.3)


def scaled_mixture(examples):
    return DiffusionMixturePrior(examples, 0.3, alpha=0.5)


def problem_of(prior):
    def model(data=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(MATRIX @ x.ravel(), 0.5).to_event(1), obs=data)

    return InverseProblem(model, data=DATA)


def in_file(kind, file):
    """The problem with its examples in the file, of which nothing has been read yet."""
    prior = kind(file)
    assert isinstance(prior.examples, HostRows)
    file.forget()  # to measure them, the prior has read them
    return problem_of(prior)


@pytest.mark.parametrize("kind", [mixture, MemorizedPrior])
def test_a_problem_reads_those_examples_that_are_taken(kind, file):
    problem = in_file(kind, file)
    assert problem.num_examples == NUM and file.rows == []
    indices = np.array([[3, 4, 5], [-1, 3, 40]])
    np.testing.assert_array_equal(problem.take(indices), ROWS[indices])
    assert sorted(file.rows) == [3, 4, 5, 40, NUM - 1]
    file.forget()
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


TWENTY = 20  # examples in a batch of the file


def with_scale(prior):
    """A model with the noise scale among its unknowns, for `gibbs`."""

    def model(data=None):
        scale = numpyro.sample("scale", dist.Gamma(4.0, 8.0))
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(MATRIX @ x.ravel(), scale).to_event(1), obs=data)

    return model


def test_the_joint_density_of_gibbs_is_that_of_each_example(file, monkeypatch):
    # a prediction has a value of the example and three data
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 400)
    prior = MemorizedPrior(file)
    file.forget()
    given = numpyro.handlers.substitute(with_scale(prior), {"scale": 0.7})
    seeded = numpyro.handlers.seed(given, 0)
    program = jax.jit(
        lambda data: _log_joint(seeded, "x", jnp.asarray(ROWS[0]), (), {"data": data})
    )
    found, _ = program(DATA)
    assert file.largest <= TWENTY
    residuals = (DATA - ROWS.reshape(NUM, -1) @ np.asarray(MATRIX).T) / 0.7
    expected = -0.5 * np.sum(residuals**2, axis=1) - 3 * np.log(0.7 * np.sqrt(2 * np.pi))
    expected += stats.gamma(4.0, scale=1 / 8.0).logpdf(0.7) - np.log(NUM)
    np.testing.assert_allclose(found, expected, rtol=1e-4)  # float32, squares of up to a hundred


def test_gibbs_takes_examples_in_a_file(file):
    prior = MemorizedPrior(file)
    file.forget()
    draws = [
        gibbs(
            InverseProblem(with_scale(each), data=DATA),
            jax.random.key(0),
            num_samples=4,
            num_warmup=4,
            num_chains=2,
        ).latents
        for each in (prior, MemorizedPrior(ROWS))
    ]
    assert file.largest <= TWENTY
    np.testing.assert_array_equal(draws[0]["x"], draws[1]["x"])
    # eight trajectories carry the rounding of sums in another order along
    np.testing.assert_allclose(draws[0]["scale"], draws[1]["scale"], rtol=1e-3)


def test_noise_levels_end_below_the_smallest_distance_of_all_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 600)
    rows = ROWS.copy()
    rows[70] = rows[3]  # a copy, in another batch
    rows[61] = rows[2] + np.float32(0.01)  # the nearest pair, in two batches
    np.save(tmp_path / "x.npy", rows)
    file = CountedFile(tmp_path / "x.npy")
    problem = in_file(MemorizedPrior, file)
    distances = pdist(rows.reshape(NUM, -1).astype(float))
    least = distances[distances > 0].min()
    assert least < 0.1  # the pair
    # float32: the difference 0.01 of numbers near one has five digits
    np.testing.assert_allclose(smallest_distance(problem), least, rtol=1e-4)
    np.testing.assert_allclose(levels_for(problem, 10)[-2], 0.01 * least, rtol=1e-4)
    assert file.largest <= TWENTY
    assert smallest_distance(problem_of(MemorizedPrior(np.ones((3, *EVENT))))) == np.inf


@pytest.mark.parametrize("kind", [mixture, scaled_mixture])
def test_evidence_at_a_bandwidth_reads_batches(kind, file):
    problem = in_file(kind, file)
    found = evidence(problem, sigma=[0.2, 0.4])
    assert file.largest <= TWENTY
    same = problem_of(mixture(np.asarray(kind(ROWS).component_means)))
    # 1e-5: rounding of float32 in sums of another order
    np.testing.assert_allclose(
        found.log_evidence, evidence(same, sigma=[0.2, 0.4]).log_evidence, rtol=1e-5
    )


def test_a_scaled_mixture_stays_in_its_file(file):
    found = lookup(in_file(scaled_mixture, file))
    assert file.largest <= TWENTY
    assert isinstance(found.examples, HostRows) and found.examples.array is file
    expected = lookup(problem_of(MemorizedPrior(np.float32(0.5) * ROWS)))
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-5)
    np.testing.assert_array_equal(found.take([3, 70]), np.float32(0.5) * ROWS[[3, 70]])
    again = pickle.loads(pickle.dumps(HostRows(np.load(file.path, mmap_mode="r"), 0.5)))
    np.testing.assert_array_equal(np.asarray(again), np.float32(0.5) * ROWS)
