"""The importance correction, against quadrature in one and two dimensions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from ppl_memprior import DiffusionMixturePrior, InverseProblem, MemorizedPrior, linearize, psis
from ppl_memprior.forward import stylized
from ppl_memprior.inference._psis import PsisPosterior

pytestmark = pytest.mark.arithmetic

KEY = jax.random.key(7)
NUM_DRAWS = 8_000


def binned_distance(posterior, edges, mass):
    """Total variation of the masses of the bins, and what the draws' number makes of it.

    A multinomial sample of size ESS has on average half of sum sqrt(2 mass / (pi ESS)).
    """
    weights = np.exp(np.asarray(posterior.log_weights, float))
    draws = np.asarray(posterior.draws, float)
    found, _ = np.histogramdd(draws.reshape(len(draws), -1), edges, weights=weights)
    noise = 0.5 * np.sum(np.sqrt(2 * mass / (np.pi * float(posterior.effective_sample_size))))
    return 0.5 * np.abs(found - mass).sum(), noise


def cubic_bins(exact, count=60):
    cumulative = np.concatenate(
        [[0], np.cumsum(0.5 * (exact.density[1:] + exact.density[:-1]) * np.diff(exact.grid))]
    )
    inside = exact.grid[(cumulative > 1e-6) & (cumulative < 1 - 1e-6)]
    edges = np.linspace(inside[0], inside[-1], count + 1)
    edges[0], edges[-1] = exact.grid[0], exact.grid[-1]
    return [edges], np.diff(np.interp(edges, exact.grid, cumulative))


def correct_cubic(cubic_problem, observation, sigma, num_draws):
    problem = cubic_problem(observation, sigma)
    return psis(problem, linearize(problem), KEY, num_draws=num_draws)


@pytest.fixture(scope="module")
def corrected(cubic_problem):
    """Where plain linearization is off by 0.45 in total variation."""
    return correct_cubic(cubic_problem, 3.0, 0.5, NUM_DRAWS)


def test_corrects_a_wrong_linearization(corrected, cubic_quadrature):
    exact = cubic_quadrature(3.0, 0.5)
    distance, noise = binned_distance(corrected, *cubic_bins(exact))
    assert corrected.khat < 0.7 and 0.4 < corrected.effective_sample_size / NUM_DRAWS < 0.6
    # the weighted draws are not multinomial; their noise is that of their ESS within a factor
    assert distance < 1.5 * noise < 0.06
    assert abs(corrected.log_evidence - exact.log_evidence) < 4 * corrected.log_evidence_error
    assert 0 < corrected.log_evidence_error < 0.03
    mean = np.trapezoid(exact.grid * exact.density, exact.grid)
    variance = np.trapezoid((exact.grid - mean) ** 2 * exact.density, exact.grid)
    error = np.sqrt(variance / corrected.effective_sample_size)
    assert abs(corrected.mean - mean) < 4 * error
    # relative standard error sqrt(2 / ESS) for a normal, this one being close to it
    np.testing.assert_allclose(
        corrected.variance, variance, rtol=4 * np.sqrt(2 / (0.4 * NUM_DRAWS))
    )


def test_the_posterior_is_a_distribution_over_its_draws(corrected):
    assert isinstance(corrected, MemorizedPrior)
    assert corrected.num_forward_evaluations == NUM_DRAWS
    draws = corrected.sample(jax.random.key(1), (5000,))
    assert np.isin(draws, corrected.draws).all()
    # 5000 draws among the weighted ones: four standard errors of their mean
    assert abs(draws.mean() - corrected.mean) < 4 * np.sqrt(corrected.variance / 5000)
    np.testing.assert_allclose(corrected.weights.sum(), 1, rtol=1e-4)
    returned = jax.jit(lambda p: p)(corrected)
    np.testing.assert_array_equal(returned.log_weights, corrected.log_weights)
    np.testing.assert_array_equal(returned.khat, corrected.khat)


def test_standard_error_is_that_of_repetitions():
    """Heavy and light weights, a stratum of each: known expectation, 200 repetitions."""
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(200):
        log_ratios = np.concatenate([rng.normal(0, 0.5, 900), rng.normal(1, 0.3, 100)])
        found = PsisPosterior(jnp.zeros(1000), log_ratios, (900, 100))
        values.append(float(found.log_evidence))
        errors.append(float(found.log_evidence_error))
    expected = np.log(0.9 * np.exp(0.125) + 0.1 * np.exp(1.045))
    # the spread of 200 values is known to 1 / sqrt(400) = 5 %, four of which are 20 %
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.2)
    assert abs(np.mean(values) - expected) < 4 * np.std(values) / np.sqrt(200)


@pytest.mark.parametrize("shape", [0.3, 1.1])
def test_khat_is_the_shape_of_the_tail(shape):
    """Pareto ratios of known shape; the fit of 3 sqrt(20000) values is good to about 0.1."""
    ratios = stats.genpareto(shape).rvs(20_000, random_state=np.random.default_rng(1))
    found = PsisPosterior(jnp.zeros(20_000), np.log(1 + ratios), (20_000,))
    assert float(found.khat) == pytest.approx(shape, abs=0.2)
    assert (found.khat < 0.7) == (shape < 0.7)


def test_flat_and_missing_tails():
    flat = PsisPosterior(jnp.zeros(100), np.zeros(100), (100,))
    assert flat.khat == -np.inf and flat.log_evidence == 0 and flat.log_evidence_error == 0
    assert flat.effective_sample_size == pytest.approx(100)
    few = np.where(np.arange(100) < 7, np.log(2.0), -np.inf)
    sparse = PsisPosterior(jnp.zeros(100), few, (100,))
    assert sparse.khat == np.inf and sparse.effective_sample_size == pytest.approx(7)
    np.testing.assert_allclose(sparse.log_evidence, np.log(0.14), rtol=1e-5)
    # the smoothing leaves the smaller ratios alone, whatever their constant
    shifted = np.random.default_rng(2).standard_t(3, 1000)
    shifted[:50] = -np.inf
    values = [
        PsisPosterior(jnp.zeros(1000), shifted + c, (1000,)).log_evidence for c in (0.0, -50.0)
    ]
    np.testing.assert_allclose(values[0], values[1] + 50, atol=1e-4)


def folded(noise):
    """Data at x^2 = 0.5, whose mode no linearization at an example finds."""
    prior = DiffusionMixturePrior(jnp.asarray([1.0, 2.0]), 1.0)

    def model(y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x**2, noise), obs=y)

    problem = InverseProblem(model, y=0.5)
    # where noise is small p(data) is the prior's density of x^2
    x = np.sqrt(0.5) * np.array([1.0, -1.0])
    density = stats.norm.pdf(x[:, None], loc=[1.0, 2.0]).mean(axis=1)
    return problem, np.log(density.sum() / (2 * np.sqrt(0.5)))


@pytest.mark.parametrize("noise", [3e-3, 1e-4])
def test_a_proposal_that_misses_is_neither_trusted_nor_fatal(noise):
    problem, exact = folded(noise)
    corrected = psis(problem, linearize(problem), jax.random.key(0))
    assert corrected.khat > 0.7
    # a few draws of the prior hit by chance, and smoothing their weights would cost 100 nats; with
    # a smaller noise none of them does
    assert noise < 1e-3 or abs(corrected.log_evidence - exact) < 6
    assert np.isfinite(corrected.weights).all() and np.isfinite(corrected.log_evidence_error)


def test_a_proposal_far_away_is_not_mistaken_for_a_flat_tail():
    prior = DiffusionMixturePrior(jnp.asarray([0.0, 1.0]), 1.0)

    def model(y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, 0.1), obs=y)

    problem = InverseProblem(model, y=0.5)
    corrected = psis(problem, dist.Normal(50.0, 1e-3), jax.random.key(0))
    # the prior's share is what is left: 400 draws, of which a tenth explain the data
    assert np.isfinite(corrected.khat) and corrected.effective_sample_size < 100
    z = stats.norm.pdf(0.5, loc=[0.0, 1.0], scale=np.sqrt(1.01)).mean()
    # some forty draws count: four relative standard errors of sqrt(1 / 40)
    assert abs(corrected.log_evidence - np.log(z)) < 4 / np.sqrt(40)


def test_any_likelihood_and_any_proposal():
    """A Cauchy likelihood has no residual; the proposal is a plain normal distribution."""
    examples = jnp.asarray([[-0.5, 0.2], [0.7, 0.1]])

    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(examples, 0.4))
        numpyro.sample("y", dist.Cauchy(x, 0.5).to_event(1), obs=data)

    problem = InverseProblem(model, data=jnp.asarray([0.3, -0.1]))
    proposal = dist.Normal(jnp.zeros(2), 0.8).to_event(1)
    found = psis(problem, proposal, KEY, num_draws=4000)
    axis = np.linspace(-4, 4, 401)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    prior = np.mean([stats.norm(e, 0.4).pdf(grid).prod(-1) for e in np.asarray(examples)], axis=0)
    joint = prior * stats.cauchy([0.3, -0.1], 0.5).pdf(-grid + 2 * np.array([0.3, -0.1])).prod(-1)
    exact = np.log(joint.sum() * (axis[1] - axis[0]) ** 2)
    assert abs(found.log_evidence - exact) < 4 * found.log_evidence_error < 0.1
    again = psis(problem, proposal, KEY, num_draws=4000)
    np.testing.assert_array_equal(again.log_weights, found.log_weights)


def test_refuses_what_it_cannot_take(cubic_problem):
    problem = cubic_problem(0.0, 0.3)
    proposal = dist.Normal(0.0, 1.0)
    with pytest.raises(ValueError, match="psis needs a prior with a density"):
        psis(cubic_problem(0.0, 0.0), proposal, KEY)
    with pytest.raises(ValueError, match=r"event shape \(3,\); the prior's site 'x' has \(\)"):
        psis(problem, dist.Normal(jnp.zeros(3), 1.0).to_event(1), KEY)
    with pytest.raises(ValueError, match=r"batch shape \(3,\)"):
        psis(problem, dist.Normal(jnp.zeros(3), 1.0), KEY)
    for bad in (dist.HalfNormal(1.0), MemorizedPrior(jnp.asarray([0.0, 1.0]))):
        with pytest.raises(ValueError, match="no density on all of"):
            psis(problem, bad, KEY)
    with pytest.raises(TypeError, match="got a float"):
        psis(problem, 1.0, KEY)
    with pytest.raises(ValueError, match="num_draws must be an integer of at least 25, got 3"):
        psis(problem, proposal, KEY, num_draws=3)
    with pytest.raises(ValueError, match=r"defensive_share must be in \[0, 1\), got 1"):
        psis(problem, proposal, KEY, defensive_share=1)

    def two_latents(data=None):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.1))
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([0.0, 1.0]), 0.1))
        numpyro.sample("y", dist.Normal(x, scale), obs=data)

    with pytest.raises(ValueError, match="also has 'scale'"):
        psis(InverseProblem(two_latents, data=0.0), proposal, KEY)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            lambda x: jnp.where(x > 99, 0.0, jnp.nan),
            r"zero at all 30 draws \(the simulation failed at 30 of them\)",
        ),
        (lambda x: jnp.where(x > 99, 0.0, -jnp.inf), "zero at all 30 draws:"),
    ],
)
def test_likelihoods_that_fail(image, message):
    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([-1.0, 1.0]), 0.5))
        numpyro.factor("y", image(x))

    with (
        pytest.raises(ValueError, match=message),
        pytest.warns(UserWarning, match="weights are unbounded"),
    ):
        psis(InverseProblem(model), dist.Normal(0.0, 1.0), KEY, num_draws=30, defensive_share=0)


# The goal, at a size where sampling noise is below it.


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.5, 0.3, 0.05])
@pytest.mark.parametrize("observation", [0.0, 1.5, 3.0])
def test_cubic_is_within_half_a_percent(cubic_problem, cubic_quadrature, observation, sigma):
    exact = cubic_quadrature(observation, sigma)
    found = correct_cubic(cubic_problem, observation, sigma, 1_000_000)
    distance, noise = binned_distance(found, *cubic_bins(exact))
    assert distance < 0.005, f"{distance:.4f}, of which sampling noise {noise:.4f}"
    assert abs(found.log_evidence - exact.log_evidence) < 4 * found.log_evidence_error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("observation", "sigma", "iterations"),
    [
        (stylized.OBSERVATION_2D, 0.5, 0),
        (stylized.OBSERVATION_2D, 0.3, 0),
        (stylized.OBSERVATION_2D, 0.05, 0),
        # where iterating takes the proposal further away
        ((-1.5, 0.5), 0.5, 10),
    ],
)
def test_quadratic_is_within_one_percent(observation, sigma, iterations):
    """Two dimensions, 30 x 30 bins that hold all but a few millionths of the mass."""
    noise_scale = stylized.NOISE
    examples = np.asarray(stylized.EXAMPLES_2D)

    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray(examples), sigma))
        numpyro.sample("y", dist.Normal(stylized.quadratic(x), noise_scale).to_event(1), obs=data)

    problem = InverseProblem(model, data=jnp.asarray(observation))
    proposal = linearize(problem, iterations=iterations)
    found = psis(problem, proposal, KEY, num_draws=1_000_000)

    axes = [np.linspace(-7, 7, 4201), np.linspace(-5, 4, 2701)]
    middles = [0.5 * (axis[1:] + axis[:-1]) for axis in axes]
    first, second = np.meshgrid(*middles, indexing="ij")
    log_prior = np.logaddexp.reduce(
        [-0.5 * ((first - a) ** 2 + (second - b) ** 2) / sigma**2 for a, b in examples]
    ) - np.log(len(examples) * 2 * np.pi * sigma**2)
    residuals = (
        first + 0.3 * first * second - observation[0],
        second + 0.2 * first**2 - observation[1],
    )
    misfit = residuals[0] ** 2 + residuals[1] ** 2
    log_likelihood = -0.5 * misfit / noise_scale**2 - np.log(2 * np.pi * noise_scale**2)
    cells = np.exp(log_prior + log_likelihood) * (14 / 4200) * (9 / 2700)
    evidence = cells.sum()

    edges, fine = [], cells / evidence
    for axis, other in ((0, 1), (1, 0)):
        cumulative = np.concatenate([[0], np.cumsum(fine.sum(other))])
        inside = np.flatnonzero((cumulative > 1e-6) & (cumulative < 1 - 1e-6))
        chosen = np.unique(np.linspace(inside[0], inside[-1], 31).round().astype(int))
        chosen[0], chosen[-1] = 0, len(axes[axis]) - 1
        edges.append(chosen)
    mass = np.add.reduceat(np.add.reduceat(fine, edges[0][:-1], 0), edges[1][:-1], 1)
    bins = [axis[chosen] for axis, chosen in zip(axes, edges, strict=True)]
    distance, noise = binned_distance(found, bins, mass)
    assert distance < 0.01, f"{distance:.4f}, of which sampling noise {noise:.4f}"
    assert abs(found.log_evidence - np.log(evidence)) < 4 * found.log_evidence_error
