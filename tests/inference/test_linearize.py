"""The linearized Gaussian-mixture posterior, against quadrature and closed algebra."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import special, stats

from ppl_memprior import DiffusionMixturePrior, InverseProblem, linearize
from ppl_memprior.forward import stylized


# Total variation to quadrature of the mixture whose weights include the determinant, to three
# decimals; the method's own error, so a changed weight, mean or covariance moves it.
@pytest.mark.parametrize(
    ("observation", "sigma", "expected"),
    [
        (0.0, 0.5, 0.119),
        (0.0, 0.05, 0.0018),
        pytest.param(0.0, 0.3, 0.038, marks=pytest.mark.slow),
        pytest.param(3.0, 0.5, 0.453, marks=pytest.mark.slow),
        pytest.param(3.0, 0.3, 0.330, marks=pytest.mark.slow),
    ],
)
def test_stylized_problem(cubic_problem, cubic_quadrature, observation, sigma, expected):
    posterior = linearize(cubic_problem(observation, sigma))
    exact = cubic_quadrature(observation, sigma)
    density = np.exp(np.asarray(jax.vmap(posterior.log_prob)(exact.grid), float))
    digits = 4 if expected < 0.01 else 3
    assert round(exact.total_variation(density), digits) == expected


def iterated_variation(problem, exact):
    posterior = linearize(problem, iterations=50)
    assert np.all(posterior.report.converged)
    density = np.exp(np.asarray(jax.vmap(posterior.log_prob)(exact.grid), float))
    return exact.total_variation(density)


# The same with every component linearized at its mode: again the method's own error.
@pytest.mark.parametrize(
    ("observation", "sigma", "expected"),
    [
        (3.0, 0.5, 0.031),
        pytest.param(0.0, 0.5, 0.032, marks=pytest.mark.slow),
        pytest.param(0.0, 0.3, 0.025, marks=pytest.mark.slow),
        pytest.param(3.0, 0.3, 0.032, marks=pytest.mark.slow),
        pytest.param(0.0, 0.05, 0.0019, marks=pytest.mark.slow),
    ],
)
def test_iterated_stylized_problem(cubic_problem, cubic_quadrature, observation, sigma, expected):
    exact = cubic_quadrature(observation, sigma)
    variation = iterated_variation(cubic_problem(observation, sigma), exact)
    assert variation <= expected + (5e-5 if expected < 0.01 else 5e-4)  # as rounded there


@pytest.mark.slow
@pytest.mark.parametrize("sigma", stylized.BANDWIDTHS)
@pytest.mark.parametrize("observation", [(0.0, 0.0), (2.0, 1.0), (-1.5, 0.5)])
def test_iterating_does_no_harm_in_two_dimensions(observation, sigma):
    examples = np.asarray(stylized.EXAMPLES_2D)
    prior = DiffusionMixturePrior(jnp.asarray(examples, jnp.float32), sigma)

    def model(data=None):
        x = numpyro.sample("x", prior)
        noise = dist.Normal(stylized.quadratic(x), stylized.NOISE).to_event(1)
        numpyro.sample("y", noise, obs=data)

    # the cells are a seventh of the noise wide and less; the bandwidths' tails lie inside
    axes = [np.linspace(-5, 7, 901), np.linspace(-5, 5, 901)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    squared = np.sum((grid[:, None] - examples) ** 2, -1) / sigma**2
    first, second = grid.T
    image = np.stack([first + 0.3 * first * second, second + 0.2 * first**2], -1)
    misfit = np.sum((image - observation) ** 2, -1) / stylized.NOISE**2
    log_joint = special.logsumexp(-0.5 * squared, axis=1) - 0.5 * misfit
    exact = special.softmax(log_joint)
    problem = InverseProblem(model, data=jnp.asarray(observation))

    def variation(posterior):
        log_prob = np.asarray(jax.jit(posterior.log_prob)(jnp.asarray(grid, jnp.float32)), float)
        return 0.5 * np.abs(special.softmax(log_prob) - exact).sum()

    plain, iterated = variation(linearize(problem)), variation(linearize(problem, iterations=50))
    print(observation, sigma, plain, iterated)
    assert iterated <= plain + 1e-3


@pytest.mark.parametrize(("d", "m"), [(3, 6), (6, 3), (4, 4)])
def test_linear_problem_is_exact(linear_problem, d, m):
    """Both sides of the algebra, more data than unknowns and the reverse, with correlated noise."""
    given = linear_problem(d, m)
    posterior = linearize(given.problem)
    j, s2 = given.operator, given.sigma**2
    precision = np.eye(d) / s2 + j.T @ np.linalg.solve(given.covariance, j)
    covariance = np.linalg.inv(precision)
    predictions = given.examples @ j.T
    means = given.examples + (
        np.linalg.solve(given.covariance, (given.data - predictions).T).T @ j @ covariance
    )
    log_joint = np.log(given.weights) + [
        stats.multivariate_normal(f, s2 * j @ j.T + given.covariance).logpdf(given.data)
        for f in predictions
    ]
    # float32 with condition numbers up to 1e3: a few units in the fourth digit
    np.testing.assert_allclose(posterior.component_means, means, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(
        np.exp(posterior.log_weights), special.softmax(log_joint), rtol=1e-2, atol=1e-4
    )
    np.testing.assert_allclose(posterior.log_evidence, special.logsumexp(log_joint), atol=5e-3)
    np.testing.assert_allclose(
        posterior.component_variances, np.tile(np.diag(covariance), (5, 1)), rtol=2e-3
    )
    assert posterior.linearization_error < 1e-2


def test_image_sites_and_pytree(cubic_problem):
    examples = jax.random.normal(jax.random.key(0), (4, 2, 3))

    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(examples, 0.2))
        numpyro.sample("y", dist.Normal(jnp.sum(x**2, axis=0), 0.1).to_event(1), obs=data)

    posterior = linearize(InverseProblem(model, data=jnp.ones(3)))
    assert posterior.event_shape == (2, 3)
    draws = posterior.sample(jax.random.key(1), (7,))
    assert draws.shape == (7, 2, 3)
    returned = jax.jit(lambda p: p)(posterior)
    np.testing.assert_array_equal(returned.log_prob(draws), posterior.log_prob(draws))
    np.testing.assert_array_equal(returned.log_evidence, posterior.log_evidence)
    assert posterior.report.misfit.shape == (4,)
    assert posterior.num_gradient_evaluations == 4 * 3  # three data: reverse mode


def test_permuting_examples_permutes_components(linear_problem):
    given = linear_problem(3, 6)
    problem = given.problem
    order = np.array([3, 1, 4, 0, 2])
    prior = DiffusionMixturePrior(
        problem.examples[order], given.sigma, weights=problem.prior.weights[order]
    )
    matrix = jnp.asarray(given.operator, jnp.float32)

    def model(data=None):
        x = numpyro.sample("x", prior)
        noise = dist.MultivariateNormal(matrix @ x, jnp.asarray(given.covariance, jnp.float32))
        numpyro.sample("y", noise, obs=data)

    permuted = linearize(InverseProblem(model, data=jnp.asarray(given.data, jnp.float32)))
    original = linearize(problem)
    np.testing.assert_allclose(permuted.log_weights, original.log_weights[order], atol=1e-4)
    np.testing.assert_allclose(permuted.log_evidence, original.log_evidence, atol=1e-4)


def test_refuses_what_it_cannot_take(cubic_problem):
    with pytest.raises(ValueError, match="MemorizedPrior has no bandwidth"):
        linearize(cubic_problem(0.0, 0.0))

    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([1.0, -1.0]), 1e-3))
        numpyro.sample("y", dist.Normal(jnp.sqrt(x), 0.1, validate_args=False), obs=data)

    with pytest.raises(ValueError, match=r"1 of 2 examples \(number 1\)"):
        linearize(InverseProblem(model, data=1.0))

    def heavy_tails(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([1.0, -1.0]), 0.1))
        numpyro.sample("y", dist.Cauchy(x, 0.1), obs=data)

    with pytest.raises(ValueError, match="linearize needs a residual, and site 'y' has Cauchy"):
        linearize(InverseProblem(heavy_tails, data=1.0))
