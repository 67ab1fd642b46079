"""Diffusion posterior sampling: the reverse process is right, the guidance does what it says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import DiffusionMixturePrior, InverseProblem, MemorizedPrior
from ppl_memprior.diffusion import dps
from ppl_memprior.diffusion.guidance import dps_guidance
from ppl_memprior.diffusion.noise import levels_for, polynomial_levels

pytestmark = pytest.mark.arithmetic

EXAMPLES = jnp.asarray([[-2.0, 0.0], [1.0, 1.0], [2.0, -1.0]])
WEIGHTS = jnp.asarray([0.5, 0.3, 0.2])


def problem_with(prior, noise=0.2, data=(0.9, 1.1)):
    def model(data=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=data)

    return InverseProblem(model, data=jnp.asarray(data))


def test_without_pull_of_the_data_the_prior_comes_back():
    """With a vanishing step the reverse process must sample the prior's weights and widths."""
    problem = problem_with(DiffusionMixturePrior(EXAMPLES, 0.1, weights=WEIGHTS))
    result = dps(problem, jax.random.key(0), num_samples=3000, num_steps=150, step_size=1e-9)
    nearest = np.argmin(np.linalg.norm(result.latents["x"][0][:, None] - EXAMPLES, axis=-1), axis=1)
    share = np.bincount(nearest, minlength=3) / 3000
    # binomial standard error at most 0.0091; the discretization adds less than that
    np.testing.assert_allclose(share, WEIGHTS, atol=0.035)
    spread = np.std(result.latents["x"][0] - np.asarray(EXAMPLES)[nearest])
    assert abs(spread / 0.1 - 1) < 0.1


def test_data_decide_between_the_examples():
    prior = MemorizedPrior(EXAMPLES, weights=WEIGHTS)
    result = dps(problem_with(prior), jax.random.key(1), num_samples=100, num_steps=100)
    nearest = np.argmin(np.linalg.norm(result.latents["x"][0][:, None] - EXAMPLES, axis=-1), axis=1)
    # The exact posterior has all its weight on example 1, the prior 0.3: the guidance must bring
    # most draws there, and that it brings not all is the method's own error (0.82 with this key).
    assert np.mean(nearest == 1) > 0.7
    assert result.cost.num_gradient_evaluations == 100 * 100
    assert result.cost.num_forward_evaluations == 100 * 100 + 3
    assert (result.sample_stats["skipped_steps"] == 0).all()


def test_guidance_is_the_gradient_of_the_residual_norm():
    problem = problem_with(DiffusionMixturePrior(EXAMPLES, 0.1))
    x, sigma = jnp.asarray([0.3, 0.2]), jnp.asarray(0.8)

    def norm(point):
        denoised = problem.prior.denoise(point, 1.0, sigma)
        return np.linalg.norm(np.asarray(problem.residual(denoised), float))

    step = 1e-2
    numeric = [(norm(x + step * e) - norm(x - step * e)) / (2 * step) for e in jnp.eye(2)]
    # central differences in float32: the rounding of the norm over the step
    np.testing.assert_allclose(dps_guidance(problem, x, sigma).gradient, numeric, atol=5e-3)


def test_units_do_not_matter():
    """Models in other units, with the operator adapted, give the same draws in those units."""

    def scaled(unit):
        def model(data=None):
            x = numpyro.sample("x", DiffusionMixturePrior(unit * EXAMPLES, unit * 0.1))
            numpyro.sample("y", dist.Normal(jnp.tanh(x / unit), 0.2).to_event(1), obs=data)

        problem = InverseProblem(model, data=jnp.asarray([0.5, 0.4]))
        return dps(problem, jax.random.key(2), num_samples=8, num_steps=30).latents["x"][0] / unit

    np.testing.assert_allclose(scaled(1024.0), scaled(1.0), rtol=1e-3, atol=1e-3)


def test_steps_without_a_finite_gradient_are_counted_and_survived():
    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([0.5, 2.0]), 0.3))
        numpyro.sample("y", dist.Normal(jnp.log(x - 0.4), 0.2, validate_args=False), obs=data)

    result = dps(InverseProblem(model, data=0.3), jax.random.key(3), num_samples=50, num_steps=50)
    assert np.isfinite(result.latents["x"][0]).all()
    assert result.sample_stats["skipped_steps"].sum() > 0


def test_noise_levels():
    levels = polynomial_levels(10.0, 0.1, 5)
    np.testing.assert_allclose(levels[0], 10.0, rtol=1e-5)
    np.testing.assert_allclose(levels[-2], 0.1, rtol=1e-5)
    assert levels[-1] == 0 and (np.diff(levels) < 0).all()
    with pytest.raises(ValueError, match="largest > smallest"):
        polynomial_levels(0.1, 10.0, 5)
    for examples in (jnp.ones((1, 3)), jnp.ones((4, 3)), EXAMPLES):  # single, coinciding, usual
        found = levels_for(problem_with(MemorizedPrior(examples), data=examples[0]), 10)
        assert np.isfinite(found).all() and (np.diff(found) < 0).all()


def test_refuses_bad_settings():
    with pytest.raises(ValueError, match="num_samples >= 1"):
        dps(problem_with(DiffusionMixturePrior(EXAMPLES, 0.1)), jax.random.key(0), num_samples=0)
