"""A posterior as the next prior: two updates give what one gives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import special, stats

from ppl_memprior import (
    DiffusionMixturePrior,
    InverseProblem,
    LowRankGaussianMixture,
    linearize,
    lookup,
)
from ppl_memprior.comparison import check_methods
from ppl_memprior.comparison.trees.datatree import _bandwidth
from ppl_memprior.inference import mode_jump, tempered_smc

pytestmark = pytest.mark.arithmetic

D, SIGMA = 12, 0.5


def updates(dtype):
    """Posteriors after the first data and after both, and what NumPy says of both at once."""
    rng = np.random.default_rng(0)
    examples = rng.normal(size=(3, D))
    operators = [4 * rng.normal(size=(m, D)) for m in (4, 3)]
    data = [a @ examples[1] + rng.normal(size=len(a)) for a in operators]

    def model(prior, operator, data=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(operator @ x, 0.5).to_event(1), obs=data)

    posterior = DiffusionMixturePrior(jnp.asarray(examples, dtype), SIGMA)
    posteriors = []
    for operator, values in zip(operators, data, strict=True):
        problem = InverseProblem(
            model, posterior, jnp.asarray(operator, dtype), data=jnp.asarray(values, dtype)
        )
        posterior = linearize(problem)
        posteriors.append(posterior)

    operator, values = np.concatenate(operators), np.concatenate(data)
    gain = np.linalg.inv(np.eye(D) / SIGMA**2 + operator.T @ operator / 0.25)
    means = examples + (values - examples @ operator.T) @ operator / 0.25 @ gain
    covariance = 0.25 * np.eye(len(values)) + SIGMA**2 * operator @ operator.T
    log_joint = np.log(1 / 3) + np.array(
        [stats.multivariate_normal(operator @ x, covariance).logpdf(values) for x in examples]
    )
    return posteriors, means, gain, log_joint


# a condition number of about 1e3 and a log-evidence of hundreds: 1e-3 relative in float32
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-3), (np.float64, 1e-9)])
def test_two_updates_are_the_joint_update(dtype, tolerance):
    with jax.enable_x64(dtype is np.float64):
        (first, second), means, gain, log_joint = updates(dtype)
        evidence = special.logsumexp(log_joint)
        total = float(first.log_evidence) + float(second.log_evidence)
        np.testing.assert_allclose(total, evidence, rtol=tolerance)
        np.testing.assert_allclose(second.locs, means, atol=tolerance)
        np.testing.assert_allclose(
            np.exp(second.log_weights), special.softmax(log_joint), atol=10 * tolerance
        )
        rows, scales = np.asarray(second.directions, float), np.asarray(second.direction_scales)
        assert rows.shape == (3, 7, D)  # four directions of the first data, three of the second
        for v, t in zip(rows, scales, strict=True):
            covariance = SIGMA**2 * (np.eye(D) - v.T @ v) + (v.T * t**2) @ v
            np.testing.assert_allclose(covariance, gain, atol=tolerance)


def test_other_methods_take_a_posterior_as_prior_or_refuse():
    mixture = LowRankGaussianMixture(
        [[0.0, 0.0], [1.0, 1.0]], 0.5, [[[1.0, 0.0]], [[0.0, 1.0]]], [[0.1], [0.2]], [0.0, -1.0]
    )

    def model(data=None):
        x = numpyro.sample("x", mixture)
        numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=data)

    problem = InverseProblem(model, data=jnp.asarray([0.2, 0.1]))
    np.testing.assert_array_equal(problem.examples, mixture.locs)
    expected = special.log_softmax([0.0, -1.0]) + [
        stats.norm(x, 0.5).logpdf([0.2, 0.1]).sum() for x in np.asarray(mixture.locs)
    ]
    posterior = lookup(problem)
    np.testing.assert_allclose(posterior.log_weights, special.log_softmax(expected), rtol=1e-4)
    check_methods(problem, ["lookup", "linearized", "nuts"])
    with pytest.raises(ValueError, match="dps needs a prior with a denoiser"):
        check_methods(problem, ["dps"])
    assert _bandwidth(problem) == {"bandwidth": 0.5}


@pytest.mark.slow
def test_samplers_take_a_posterior_as_prior():
    """The mean of two updates in one dimension, by NUTS with jumps and by tempering."""
    examples = jnp.array([-1.0, 1.0])

    def model(prior, y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, 0.5), obs=y)

    first = linearize(InverseProblem(model, DiffusionMixturePrior(examples, 0.5), y=0.2))
    second = InverseProblem(model, first, y=0.4)
    exact = float(linearize(second).mean)
    jumps = mode_jump(second, jax.random.key(0), num_samples=500, num_warmup=0, num_chains=2)
    particles = tempered_smc(second, jax.random.key(1), num_particles=500)
    # 1,000 and 2,000 draws of a standard deviation of 0.4: five standard errors
    np.testing.assert_allclose(jumps.latents["x"].mean(), exact, atol=0.07)
    np.testing.assert_allclose(particles.latents["x"].mean(), exact, atol=0.07)
