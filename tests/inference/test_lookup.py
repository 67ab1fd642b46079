"""The exact posterior under a memorized prior."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import special, stats

from ppl_memprior import InverseProblem, MemorizedPrior, lookup
from ppl_memprior.forward import stylized


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_weights_and_evidence_against_scipy(cubic_problem, sigma):
    posterior = lookup(cubic_problem(0.4, sigma))
    images = np.asarray(stylized.EXAMPLES) + 0.3 * np.asarray(stylized.EXAMPLES) ** 3
    joint = np.log(1 / 5) + stats.norm(images, stylized.NOISE).logpdf(0.4)
    np.testing.assert_allclose(posterior.weights, special.softmax(joint), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(posterior.log_evidence, special.logsumexp(joint), rtol=1e-5)
    assert isinstance(posterior, MemorizedPrior)
    assert posterior.num_forward_evaluations == 5


def test_posterior_is_a_prior_for_the_next_data():
    """Two data one after the other give the weights of both at once."""
    examples = jnp.asarray(stylized.EXAMPLES)

    def model(prior, first=None, second=None):
        x = numpyro.sample("x", prior)
        for name, value in (("first", first), ("second", second)):
            if value is not None:
                numpyro.sample(name, dist.Normal(stylized.cubic(x), 0.5), obs=value)

    prior = MemorizedPrior(examples)
    together = lookup(InverseProblem(model, prior, first=0.2, second=0.6))
    one = lookup(InverseProblem(model, prior, first=0.2))
    two = lookup(InverseProblem(model, one, second=0.6))
    np.testing.assert_allclose(two.weights, together.weights, rtol=1e-5)
    np.testing.assert_allclose(
        one.log_evidence + two.log_evidence, together.log_evidence, rtol=1e-5
    )


def test_weights_far_below_the_others_can_come_back():
    """The second data overrule the first by more than the range of float32 probabilities."""

    def model(prior, scale, data=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, scale), obs=data)

    prior = MemorizedPrior(jnp.asarray([0.0, 1.0]))
    first = lookup(InverseProblem(model, prior, 0.05, data=0.0))  # 200 nats for example 0
    second = lookup(InverseProblem(model, first, 0.04, data=1.0))  # 312.5 nats for example 1
    assert second.weights[1] > 0.999
    np.testing.assert_allclose(second.log_weights[0], 200 - 312.5, rtol=1e-4)


def test_survives_a_round_trip_through_jit(cubic_problem):
    posterior = lookup(cubic_problem(0.4, 0.0))
    returned = jax.jit(lambda p: p)(posterior)
    np.testing.assert_array_equal(returned.weights, posterior.weights)
    np.testing.assert_array_equal(returned.log_evidence, posterior.log_evidence)


def test_data_that_no_example_can_explain():
    def model(data=None):
        x = numpyro.sample("x", MemorizedPrior(jnp.asarray([1.0, 2.0])))
        numpyro.factor("impossible", jnp.where(x > 0, -jnp.inf, 0.0))

    with pytest.raises(ValueError, match="zero at all 2 examples"):
        lookup(InverseProblem(model))


def test_evidence_and_mean_are_differentiable_where_a_weight_is_zero():
    """Against p_n / p - 1 and x_n p_n / p - m p_n / p, with p_n the likelihood at example n."""
    examples = jnp.asarray([-1.0, 0.2, 1.5])

    def posterior(weights):
        def model(data=None):
            x = numpyro.sample("x", MemorizedPrior(examples, weights=weights))
            numpyro.sample("y", dist.Normal(2 * x, 1.0), obs=data)

        return lookup(InverseProblem(model, data=0.5))

    weights = np.array([0.4, 0.0, 0.6])
    x = np.array([-1.0, 0.2, 1.5])
    likelihood = np.exp(-0.5 * (0.5 - 2 * x) ** 2)
    ratio = likelihood / (weights @ likelihood)
    mean = weights @ (ratio * x)
    w = jnp.asarray(weights, jnp.float32)
    slope = jax.grad(lambda w: posterior(w).log_evidence)(w)
    np.testing.assert_allclose(slope, ratio - 1, rtol=1e-5, atol=1e-5)
    slope = jax.grad(lambda w: posterior(w).mean)(w)
    np.testing.assert_allclose(slope, ratio * (x - mean), rtol=1e-5, atol=1e-5)
