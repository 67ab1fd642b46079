"""Jumps between modes: the posterior by quadrature and by closed algebra, where NUTS stays put."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer import NUTS
from scipy import special, stats

from ppl_memprior import DiffusionMixturePrior, InverseProblem, ModeJump
from ppl_memprior.forward import stylized
from ppl_memprior.inference import default_proposal, mode_jump, nuts

CHAINS, DRAWS = 4, 2500


def mode_weights(density, grid, examples):
    """Mass of a density on a grid that lies nearest to each example."""
    nearest = np.argmin(np.abs(grid[:, None] - np.asarray(examples)), axis=1)
    mass = density / density.sum()
    return np.bincount(nearest, weights=mass, minlength=len(examples))


def drawn_weights(draws, examples):
    flat = np.asarray(draws).reshape(-1, 1)
    nearest = np.argmin(np.abs(flat - np.asarray(examples)), axis=1)
    return np.bincount(nearest, minlength=len(examples)) / len(flat)


def total_variation(p, q):
    return 0.5 * np.abs(p - q).sum()


@pytest.fixture(scope="module")
def narrow(cubic_problem):
    """Ten thousand draws of the stylized problem in the memorized regime."""
    return mode_jump(
        cubic_problem(0.5, 0.05),
        jax.random.key(1),
        num_samples=DRAWS,
        num_warmup=500,
        num_chains=CHAINS,
        local_every=5,
    )


def test_right_where_nuts_does_not_mix(narrow, cubic_problem, cubic_quadrature):
    draws = narrow.latents["x"]
    exact = cubic_quadrature(0.5, 0.05)
    weights = mode_weights(exact.density, exact.grid, stylized.EXAMPLES)
    assert draws.shape == (CHAINS, DRAWS)
    assert split_gelman_rubin(draws) < 1.01
    # nine of ten jumps are accepted: at least 7,000 effective draws, a standard error of 0.006 if
    # two modes shared the mass and 0.004 here; 0.01 is 2.4 of them
    assert total_variation(drawn_weights(draws, stylized.EXAMPLES), weights) < 0.01
    # within the mode, 0.02 is 1.3 standard errors of the mean over the posterior's width
    mean = np.trapezoid(exact.grid * exact.density, exact.grid)
    sd = np.sqrt(np.trapezoid((exact.grid - mean) ** 2 * exact.density, exact.grid))
    assert abs(draws.mean() - mean) < 0.04 * sd
    assert abs(draws.std() / sd - 1) < 0.03


def test_nuts_alone_does_not_mix(cubic_problem):
    alone = nuts(
        cubic_problem(0.5, 0.05), jax.random.key(1), num_samples=500, num_warmup=300, num_chains=4
    )
    assert split_gelman_rubin(alone.latents["x"]) > 2


def test_statistics_and_counts(narrow, cubic_problem):
    stats = narrow.sample_stats
    assert {value.shape for value in stats.values()} == {(CHAINS, DRAWS)}
    np.testing.assert_array_equal(
        stats["num_forward_evaluations"], stats["num_steps"] + 1, "leapfrog steps and one jump"
    )
    np.testing.assert_array_equal(
        stats["num_steps"] > 0, np.tile(np.arange(DRAWS) % 5 == 0, (4, 1))
    )
    # the proposal's: a solve for each gradient, and one more, at each example and each of its steps
    proposal = default_proposal(cubic_problem(0.5, 0.05))
    extra = narrow.cost.num_forward_evaluations - narrow.cost.num_gradient_evaluations
    assert extra == proposal.num_forward_evaluations - proposal.num_gradient_evaluations
    assert narrow.cost.num_gradient_evaluations > stats["num_steps"].sum() + 4 * 3000
    # accepted as often as the acceptance probabilities say: 0.005 standard errors of 10,000 flips
    np.testing.assert_allclose(
        stats["jump_accepted"].mean(), stats["jump_accept_prob"].mean(), atol=0.015
    )
    assert stats["jump_accept_prob"].mean() > 0.8
    nearest = np.argmin(
        np.abs(narrow.latents["x"][..., None] - np.asarray(stylized.EXAMPLES)), axis=-1
    )
    np.testing.assert_array_equal(stats["component"], nearest)
    problem = cubic_problem(0.5, 0.05)
    x = jnp.asarray(narrow.latents["x"][:, -20:].ravel())
    energy = -jax.vmap(lambda v: problem.log_likelihood(v) + problem.prior.log_prob(v))(x)
    # the energy that a jump stored is that of its position, to float32 rounding
    np.testing.assert_allclose(stats["potential_energy"][:, -20:].ravel(), energy, rtol=1e-4)
    assert (stats["energy"] - stats["potential_energy"] > -1e-3).all(), "kinetic energy"


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.3, 0.1, 0.05, 0.01])
def test_every_bandwidth(cubic_problem, cubic_quadrature, sigma):
    result = mode_jump(
        cubic_problem(0.5, sigma),
        jax.random.key(2),
        num_samples=DRAWS,
        num_warmup=500,
        num_chains=CHAINS,
    )
    exact = cubic_quadrature(0.5, sigma)
    weights = mode_weights(exact.density, exact.grid, stylized.EXAMPLES)
    draws = result.latents["x"]
    assert split_gelman_rubin(draws) < 1.01
    # standard errors between 0.003 and 0.007, for 10,000 draws of which NUTS and the jumps leave
    # at least half effective: 0.01 is 1.4 of the largest, with a fixed seed
    assert total_variation(drawn_weights(draws, stylized.EXAMPLES), weights) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.3, 0.1, 0.05, 0.01])
def test_two_dimensions(sigma):
    examples = np.asarray(stylized.EXAMPLES_2D)
    # between the two examples that are near each other and the origin, so that several modes count
    observation = np.array([0.55, 0.45])

    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray(examples, float), sigma))
        noise = dist.Normal(stylized.quadratic(x), stylized.NOISE).to_event(1)
        numpyro.sample("y", noise, obs=data)

    problem = InverseProblem(model, data=jnp.asarray(observation, float))
    result = mode_jump(
        problem, jax.random.key(0), num_samples=DRAWS, num_warmup=500, num_chains=CHAINS
    )
    first, second = np.meshgrid(*[np.linspace(-4, 6, 2001)] * 2, indexing="ij")
    grid = np.stack([first, second], axis=-1)
    predicted = np.stack([first + 0.3 * first * second, second + 0.2 * first**2], axis=-1)
    prior = sum(np.exp(-0.5 * np.sum((grid - e) ** 2, -1) / sigma**2) for e in examples)
    misfit = np.sum((observation - predicted) ** 2, -1) / stylized.NOISE**2
    joint = prior * np.exp(-0.5 * misfit)

    def nearest(points):
        squares = [np.sum((points - e) ** 2, axis=-1) for e in examples]
        return np.argmin(squares, axis=0)

    weights = np.bincount(nearest(grid).ravel(), joint.ravel() / joint.sum(), minlength=5)
    draws = result.latents["x"]
    found = np.bincount(nearest(draws).ravel(), minlength=5) / (CHAINS * DRAWS)
    assert weights[2] < 0.01 and np.sort(weights)[-2] > 0.05
    assert all(split_gelman_rubin(draws[..., k]) < 1.01 for k in range(2))
    # three modes share the mass: the total variation's standard error is about 0.006
    assert total_variation(found, weights) < 0.015
    mean = np.sum(grid * joint[..., None], axis=(0, 1)) / joint.sum()
    assert np.abs(draws.mean(axis=(0, 1)) - mean).max() < 0.02


def linear_mixture(d, num_examples, sigma, num_data, seed):
    """A linear problem whose data lie between examples, and its exact posterior in float64."""
    rng = np.random.default_rng(seed)
    # examples in a small ball, so that a handful of modes share the mass
    examples = rng.normal(size=(num_examples, d))
    operator = rng.normal(size=(num_data, d)) / np.sqrt(d)
    noise = 0.5
    data = operator @ examples[:4].mean(axis=0) + noise * rng.normal(size=num_data)
    prior = DiffusionMixturePrior(jnp.asarray(examples, jnp.float32), sigma)
    matrix = jnp.asarray(operator, jnp.float32)

    def model(y=None):
        x = numpyro.sample("x", prior)
        prediction = jnp.matmul(matrix, x, precision="highest")
        numpyro.sample("y", dist.Normal(prediction, noise).to_event(1), obs=y)

    problem = InverseProblem(model, y=jnp.asarray(data, jnp.float32))
    gain_covariance = sigma**2 * operator @ operator.T + noise**2 * np.eye(num_data)
    residuals = data - examples @ operator.T
    solved = np.linalg.solve(gain_covariance, residuals.T).T
    weights = special.softmax(-0.5 * np.sum(residuals * solved, axis=1))
    means = examples + sigma**2 * solved @ operator
    inverse = np.linalg.inv(np.eye(d) / sigma**2 + operator.T @ operator / noise**2)
    return problem, weights, means, inverse


def check_linear_mixture(d, num_examples, sigma, num_data, num_samples, num_warmup):
    problem, weights, means, covariance = linear_mixture(d, num_examples, sigma, num_data, seed=0)
    result = mode_jump(
        problem, jax.random.key(0), num_samples=num_samples, num_warmup=num_warmup, num_chains=4
    )
    draws = result.latents["x"]
    stats = result.sample_stats
    # where the proposal is the posterior, nine of ten jumps come from it and are accepted
    assert stats["jump_accept_prob"].mean() > 0.85
    total = 4 * num_samples
    found = np.bincount(stats["component"].ravel(), minlength=num_examples) / total
    heavy = weights > 0.05
    assert heavy.sum() >= 2
    # a draw keeps its mode with probability 0.1: the effective number is above 0.8 of the draws;
    # four standard errors
    error = np.sqrt(weights * (1 - weights) / (0.8 * total))
    assert (np.abs(found - weights)[heavy] < 4 * error[heavy]).all()
    flat, component = draws.reshape(total, d), stats["component"].ravel()
    for n in np.flatnonzero(heavy):
        inside = flat[component == n]
        sd = np.sqrt(np.diag(covariance))
        # four and a half standard errors in each of d coordinates, draws all but independent
        assert (
            np.abs(inside.mean(axis=0) - means[n]) < 4.5 * sd / np.sqrt(0.7 * len(inside))
        ).all()
        spread = np.linalg.solve(np.linalg.cholesky(covariance), (inside - means[n]).T)
        # mean of d * draws squares of standard normals: standard error sqrt(2 / (d * draws))
        assert abs(np.mean(spread**2) - 1) < 5 * np.sqrt(2 / (0.7 * spread.size))
        sample = np.cov(inside.T)
        scale = np.outer(sd, sd)
        # entries of a sample covariance: standard error about sqrt(2 / draws) of the scale
        assert np.abs((sample - covariance) / scale).max() < 6 * np.sqrt(2 / (0.7 * len(inside)))
    return split_gelman_rubin(draws.reshape(4, num_samples, d)[..., 0])


@pytest.mark.slow
def test_linear_mixture_small():
    assert check_linear_mixture(6, 20, 0.3, 3, num_samples=2500, num_warmup=300) < 1.01


@pytest.mark.slow
def test_linear_mixture_full_size():
    assert check_linear_mixture(100, 1000, 0.05, 8, num_samples=1000, num_warmup=200) < 1.02


@pytest.mark.slow
def test_noise_scale_is_sampled_along():
    """A second latent site, against quadrature in two dimensions."""

    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray(stylized.EXAMPLES), 0.1))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        with numpyro.plate("repeats", 3):
            numpyro.sample("y", dist.Normal(stylized.cubic(x), scale), obs=data)

    data = np.array([0.1, 0.3, -0.2])
    problem = InverseProblem(model, data=jnp.asarray(data))
    result = mode_jump(
        problem, jax.random.key(0), num_samples=DRAWS, num_warmup=1000, num_chains=CHAINS
    )
    x, log_scale = np.meshgrid(np.linspace(-4, 4, 3001), np.linspace(-6, 2, 1201), indexing="ij")
    scale = np.exp(log_scale)
    prior = sum(np.exp(-0.5 * ((x - e) / 0.1) ** 2) for e in stylized.EXAMPLES)
    misfit = np.sum((data[:, None, None] - x - 0.3 * x**3) ** 2, axis=0)
    # density of the logarithm of the scale: one factor of the scale
    joint = prior * np.exp(-0.5 * scale**2 - 0.5 * misfit / scale**2) * scale ** (1 - 3)
    joint /= joint.sum()
    weights = mode_weights(joint.sum(axis=1), x[:, 0], stylized.EXAMPLES)
    draws = result.latents
    assert split_gelman_rubin(draws["x"]) < 1.01 and split_gelman_rubin(draws["scale"]) < 1.01
    # two modes share the mass; at least 3,000 effective draws, a standard error of 0.009
    assert total_variation(drawn_weights(draws["x"], stylized.EXAMPLES), weights) < 0.03
    mean = np.sum(joint * scale)
    sd = np.sqrt(np.sum(joint * (scale - mean) ** 2))
    # at least 1,000 effective draws of the scale: four standard errors
    assert abs(draws["scale"].mean() - mean) < 0.13 * sd


@pytest.mark.slow
def test_double_precision_and_a_hyperprior_on_the_bandwidth():
    with jax.enable_x64(True):

        def model(data=None):
            sigma = numpyro.sample("sigma", dist.LogNormal(-2.0, 0.5))
            x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray(stylized.EXAMPLES), sigma))
            numpyro.sample("y", dist.Normal(stylized.cubic(x), stylized.NOISE), obs=data)

        problem = InverseProblem(model, data=0.5)
        result = mode_jump(
            problem, jax.random.key(0), num_samples=DRAWS, num_warmup=1000, num_chains=CHAINS
        )
    draws = result.latents
    assert draws["x"].dtype == np.float64
    x, log = np.meshgrid(np.linspace(-4, 4, 3001), np.linspace(-5, 1, 601), indexing="ij")
    sigma = np.exp(log)
    prior = sum(np.exp(-0.5 * ((x - e) / sigma) ** 2) / sigma for e in stylized.EXAMPLES)
    misfit = (0.5 - x - 0.3 * x**3) / stylized.NOISE
    joint = prior * np.exp(-0.5 * misfit**2 - 0.5 * ((log + 2.0) / 0.5) ** 2)
    joint /= joint.sum()
    weights = mode_weights(joint.sum(axis=1), x[:, 0], stylized.EXAMPLES)
    assert split_gelman_rubin(draws["x"]) < 1.01 and split_gelman_rubin(draws["sigma"]) < 1.01
    # at least 3,000 effective draws: two standard errors of the lighter mode's mass
    assert total_variation(drawn_weights(draws["x"], stylized.EXAMPLES), weights) < 0.02
    # at least 1,000 effective draws of the logarithm of sigma: four standard errors
    mean = np.sum(joint * log)
    sd = np.sqrt(np.sum(joint * (log - mean) ** 2))
    assert abs(np.log(draws["sigma"]).mean() - mean) < 0.13 * sd


@pytest.mark.slow
def test_simulation_based_calibration():
    """Ranks of the truth among thinned posterior draws are uniform (Talts et al. 2018)."""
    repetitions, kept, num_warmup, thinning = 400, 9, 50, 10
    examples = jnp.asarray(stylized.EXAMPLES)
    prior = DiffusionMixturePrior(examples, 0.1)

    def model(y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(stylized.cubic(x), 2.0), obs=y)

    truth_key, noise_key = jax.random.split(jax.random.key(11))
    truths = np.asarray(prior.sample(truth_key, (repetitions,)))
    noise = 2.0 * jax.random.normal(noise_key, (repetitions,))
    data = stylized.cubic(truths) + noise
    # one proposal for all data sets, broad as the data are weak; so they run side by side
    kernel = ModeJump(NUTS(model), prior)
    keys = jax.random.split(jax.random.key(12), repetitions)
    states = kernel.init(keys, num_warmup, None, (), {"y": 0.0})

    @jax.jit
    @jax.vmap
    def rank(state, y, truth):
        arguments = (), {"y": y}
        inner = kernel.inner_kernel.refresh(state.inner_state, *arguments)

        def step(state, _):
            state = kernel.sample(state, *arguments)
            return state, state.z["x"]

        steps = num_warmup + kept * thinning
        _, draws = jax.lax.scan(step, state._replace(inner_state=inner), length=steps)
        return jnp.sum(draws[num_warmup + thinning - 1 :: thinning] < truth)

    ranks = np.asarray(rank(states, data, truths))
    counts = np.bincount(ranks, minlength=kept + 1)
    assert counts.sum() == repetitions and len(counts) == kept + 1
    # ten equally probable ranks; a fixed seed, so this is no flaky test
    assert stats.chisquare(counts).pvalue > 0.01
