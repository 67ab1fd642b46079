"""Distribution functions and quantiles of scalar events, against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm, rv_discrete

from ppl_memprior.distributions import (
    DiffusionMixturePrior,
    LowRankGaussianMixture,
    MemorizedPrior,
)

pytestmark = pytest.mark.arithmetic  # another Python computes the same

EXAMPLES = np.array([-3.0, 0.5, 40.0, -1.0])
WEIGHTS = np.array([0.2, 0.5, 0.3, 0.0])
LEVELS = np.array([1e-6, 0.1, 0.19, 0.35, 0.69, 0.71, 0.9999])

MIXTURES = {
    "examples": (
        lambda: DiffusionMixturePrior(EXAMPLES, 0.7, alpha=-0.5, weights=WEIGHTS),
        -0.5 * EXAMPLES,
        np.full(4, 0.7),
    ),
    "directions": (
        lambda: LowRankGaussianMixture(
            EXAMPLES, 0.7, np.ones((4, 1)), [[0.1], [0.3], [2.0], [0.7]], np.log(WEIGHTS)
        ),
        EXAMPLES,
        np.array([0.1, 0.3, 2.0, 0.7]),
    ),
    "no direction": (
        lambda: LowRankGaussianMixture(
            EXAMPLES, 0.7, np.ones((4, 0)), np.ones((4, 0)), np.log(WEIGHTS)
        ),
        EXAMPLES,
        np.full(4, 0.7),
    ),
}


def reference_cdf(x, locs, scales):
    return WEIGHTS @ norm.cdf(x, locs, scales)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_against_scipy(name):
    build, locs, scales = MIXTURES[name]
    with jax.enable_x64(True):
        d = build()
        expected = [
            brentq(lambda x, q=q: reference_cdf(x, locs, scales) - q, -60, 60, xtol=1e-13)
            for q in LEVELS
        ]
        found = d.icdf(LEVELS)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(d.cdf(found), LEVELS, rtol=1e-9)
        slopes = jax.vmap(jax.grad(d.icdf))(jnp.asarray(LEVELS))
        np.testing.assert_allclose(slopes, np.exp(-d.log_prob(found)), rtol=1e-8)
        # the slope's slope, by differences: truncation 1e-8, rounding 1e-16 / 1e-8
        curvature = jax.grad(jax.grad(d.icdf))(0.35)
        difference = (jax.grad(d.icdf)(0.35 + 1e-5) - jax.grad(d.icdf)(0.35 - 1e-5)) / 2e-5
        np.testing.assert_allclose(curvature, difference, rtol=1e-5)
        np.testing.assert_array_equal(d.icdf(np.array([0.0, 1.0])), [-np.inf, np.inf])
        assert np.isnan(d.icdf(np.array([-0.1, 1.1, np.nan]))).all()


def test_derivatives_of_a_quantile_in_the_parameters():
    parameters = {"examples": EXAMPLES, "sigma": 0.7, "alpha": -0.5, "weights": WEIGHTS + 0.1}
    with jax.enable_x64(True):
        parameters = {name: jnp.asarray(value) for name, value in parameters.items()}

        def quantile(parameters):
            return DiffusionMixturePrior(**parameters).icdf(0.4)

        gradient = jax.grad(quantile)(parameters)
        rng = np.random.default_rng(0)
        for name, value in parameters.items():
            step = 1e-6 * rng.normal(size=value.shape)
            plus, minus = (quantile({**parameters, name: value + sign * step}) for sign in (1, -1))
            np.testing.assert_allclose(2 * np.sum(gradient[name] * step), plus - minus, rtol=1e-6)


def test_in_single_precision_and_in_batches():
    sigma = np.array([0.5, 3.0])
    d = DiffusionMixturePrior(EXAMPLES, sigma, weights=WEIGHTS)
    levels = np.random.default_rng(0).uniform(size=(7, 2)).astype(np.float32)
    # the distribution function is rounded to 1e-7
    np.testing.assert_allclose(d.cdf(d.icdf(levels)), levels, atol=1e-6)
    assert d.icdf(0.5).shape == (2,)


def test_memorized_prior_against_scipy():
    examples, weights = np.array([3.0, -1.0, 7.0, 3.0, 0.0, 9.0]), [0.1, 0.25, 0.15, 0.5, 0.0, 0.0]
    prior = MemorizedPrior(examples, weights)
    table = rv_discrete(values=([-1, 3, 7], [0.25, 0.6, 0.15]))
    x = np.array([-2.0, -1.0, 0.0, 2.9, 3.0, 7.0, 10.0])
    np.testing.assert_allclose(prior.cdf(x), table.cdf(x), rtol=1e-6)
    # not on the steps, whose sums are rounded
    q = np.array([0.01, 0.24, 0.26, 0.84, 0.86, 1.0])
    np.testing.assert_array_equal(prior.icdf(q), table.ppf(q))
    np.testing.assert_array_equal(prior.icdf(0.0), -1.0)
    draws = prior.sample(jax.random.key(0), (50,))
    np.testing.assert_array_equal(prior.icdf(prior.cdf(draws)), draws)
    assert np.isnan(prior.icdf(np.array([-0.1, 1.1, np.nan]))).all()
    assert np.isnan(prior.cdf(np.nan))
    assert prior.expand((3,)).icdf(0.5).shape == prior.expand((3,)).cdf(0.5).shape == (3,)


@pytest.mark.parametrize("method", ["cdf", "icdf"])
@pytest.mark.parametrize("cls", [MemorizedPrior, lambda e: DiffusionMixturePrior(e, 1.0)])
def test_vectors_have_no_quantiles(method, cls):
    with pytest.raises(NotImplementedError, match=r"scalar events only.*\(2,\)"):
        getattr(cls(np.zeros((3, 2))), method)(np.zeros(2))
