"""Derivatives with respect to weights, those of zero included, against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions.batch_util import vmap_over
from scipy.special import ndtr

from ppl_memprior.distributions import DiffusionMixturePrior, MemorizedPrior

pytestmark = pytest.mark.arithmetic  # another Python computes the same

WEIGHTS = np.array([0.5, 0.0, 0.3, 0.0, 0.4])  # they need not add to one
ALPHA, SIGMA = 0.9, 0.7
STEP = 1e-5


class Reference:
    """What the distributions compute, in NumPy, at any weights of at least zero."""

    def __init__(self, examples, value):
        self.examples, self.value = examples, value

    def shares(self, w, value=None):
        value = self.value if value is None else value
        away = value - ALPHA * self.examples
        return w / w.sum() * np.exp(-np.sum(away**2, 1) / (2 * SIGMA**2))

    def log_prob(self, w, value=None):
        d = self.examples.shape[1]
        return np.log(self.shares(w, value).sum()) - d * np.log(SIGMA * np.sqrt(2 * np.pi))

    def responsibilities(self, w):
        return self.shares(w) / self.shares(w).sum()

    def score(self, w):
        return self.responsibilities(w) @ (ALPHA * self.examples - self.value) / SIGMA**2

    def denoise(self, w):
        """At the noise level (1, 0.5)."""
        total = np.hypot(SIGMA, 0.5)
        away = self.value - ALPHA * self.examples
        r = w * np.exp(-np.sum(away**2, 1) / (2 * total**2))
        mean = ALPHA * (r / r.sum()) @ self.examples
        return mean + (SIGMA / total) ** 2 * (self.value - mean)

    def mean(self, w):
        return ALPHA * (w / w.sum()) @ self.examples

    def variance(self, w):
        away = ALPHA * self.examples - self.mean(w)
        return (w / w.sum()) @ away**2 + SIGMA**2

    def upper_entropy(self, w):
        """Half the dimension minus the mean log-density at the components' means."""
        density = np.array([self.log_prob(w, ALPHA * row) for row in self.examples])
        return 0.5 * self.examples.shape[1] - (w / w.sum()) @ density


OURS = {
    "log_prob": lambda prior, x: prior.log_prob(x),
    "responsibilities": lambda prior, x: prior.responsibilities(x),
    "score": lambda prior, x: prior.score(x),
    "denoise": lambda prior, x: prior.denoise(x, 1.0, 0.5),
    "mean": lambda prior, x: prior.mean,
    "variance": lambda prior, x: prior.variance,
    "upper_entropy": lambda prior, x: prior.entropy_bounds()[1],
}


def table(num, d):
    rng = np.random.default_rng(0)
    weights = np.concatenate(
        [WEIGHTS, rng.uniform(size=num - 5) * (rng.uniform(size=num - 5) > 0.3)]
    )
    return rng.normal(size=(num, d)), rng.normal(size=d), weights


def forward_differences(function, w):
    """To second order, from the inside of where weights may be; (*out, N)."""
    rows = []
    for unit in np.eye(len(w)):
        plus, twice = (np.asarray(function(w + k * STEP * unit)) for k in (1, 2))
        rows.append((4 * plus - twice - 3 * np.asarray(function(w))) / (2 * STEP))
    return np.stack(rows, axis=-1)


@pytest.mark.parametrize("num", [5, pytest.param(160, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", OURS)
def test_derivatives_at_zero_weights(what, num):
    """160 examples of 16 numbers are screened, 5 are not."""
    examples, value, weights = table(num, 16 if num > 5 else 2)
    expected = forward_differences(getattr(Reference(examples, value), what), weights)
    with jax.enable_x64(True):

        def ours(w):
            prior = DiffusionMixturePrior(examples, SIGMA, alpha=ALPHA, weights=w)
            return OURS[what](prior, jnp.asarray(value))

        w = jnp.asarray(weights)
        modes = [jax.jit(jax.jacfwd(ours)), jax.jit(jax.jacrev(ours))]
        for jacobian in modes[: 1 if num > 5 else 2]:
            # differences: rounding 1e-16 / step, truncation step^2 times a third derivative
            scale = np.abs(expected).max()
            np.testing.assert_allclose(jacobian(w), expected, rtol=1e-6, atol=1e-8 * scale)


def test_second_derivatives_at_zero_weights():
    """In weights, and in weights and value, whichever comes first."""
    examples, value, weights = table(5, 2)
    reference = Reference(examples, value)
    with jax.enable_x64(True):

        def ours(w, x):
            return DiffusionMixturePrior(examples, SIGMA, alpha=ALPHA, weights=w).log_prob(x)

        arguments = (jnp.asarray(weights), jnp.asarray(value))
        gradient = jax.jit(jax.grad(ours))
        hessian = jax.jit(jax.hessian(ours))(*arguments)
        expected = forward_differences(lambda w: gradient(w, value), weights)
        np.testing.assert_allclose(hessian, expected, rtol=1e-6, atol=1e-6)
        expected = forward_differences(reference.score, weights)
        for inner, outer in ((jax.jacrev, jax.jacfwd), (jax.jacrev, jax.jacrev)):
            mixed = jax.jit(outer(inner(ours, argnums=1), argnums=0))(*arguments)
            np.testing.assert_allclose(mixed, expected, rtol=1e-6, atol=1e-8)
        mixed = jax.jit(jax.jacfwd(jax.jacrev(ours, argnums=0), argnums=1))(*arguments)
        np.testing.assert_allclose(mixed.T, expected, rtol=1e-6, atol=1e-8)


def test_other_gradients_are_not_touched_by_zero_weights():
    """Where an example of weight zero is where the value is, and all others are far away."""
    examples = np.array([[0.0, 0.0], [30.0, 0.0], [0.0, 40.0]])

    def log_prob(w, x, sigma, examples):
        return DiffusionMixturePrior(examples, sigma, weights=w).log_prob(x)

    arguments = [jnp.asarray(a) for a in ([0.0, 1.0, 1.0], [0.0, 0.0], 0.5, examples)]
    gradients = jax.grad(log_prob, argnums=(0, 1, 2, 3))(*arguments)
    known = DiffusionMixturePrior(examples, 0.5, weights=[0.0, 1.0, 1.0])
    np.testing.assert_allclose(gradients[1], known.score(jnp.zeros(2)), rtol=1e-6)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    assert gradients[0][0] > 1e18  # e^1800 in truth


def test_under_vmap_and_through_a_jitted_call():
    examples, value, weights = table(5, 2)
    several = jnp.stack([jnp.asarray(weights), jnp.asarray(np.roll(weights, 1))])

    @jax.jit
    def log_prob(prior, x):
        return prior.log_prob(x)

    def ours(w):
        prior = DiffusionMixturePrior(examples, SIGMA, alpha=ALPHA, weights=w)
        return log_prob(prior.diffuse(1.0, 1e-6).expand((1,)), jnp.asarray(value))[0]

    mapped = jax.vmap(jax.grad(ours))(several)
    for gradient, w in zip(mapped, np.asarray(several, np.float64), strict=True):
        expected = forward_differences(Reference(examples, value).log_prob, w)
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)  # single precision
    prior = DiffusionMixturePrior(examples, SIGMA, alpha=ALPHA, weights=weights)
    stacked = jax.vmap(
        lambda w: DiffusionMixturePrior(examples, SIGMA, alpha=ALPHA, weights=w),
        out_axes=vmap_over(prior, weights=0),
    )(several)
    found = jax.vmap(lambda p: p.log_prob(value), in_axes=(vmap_over(prior, weights=0),))(stacked)
    np.testing.assert_allclose(found, [ours(w) for w in several], rtol=1e-5)


def test_distribution_function_and_posterior():
    examples, weights = np.array([-1.0, 0.3, 2.0, 0.5, 1.0]), WEIGHTS
    factors = np.array([0.3, -1.0, 0.1, 2.0, -0.4])

    def cdf(w):
        w = w * np.exp(factors)
        return (w / w.sum()) @ ndtr((0.2 - examples) / SIGMA)

    with jax.enable_x64(True):

        def ours(w, f):
            prior = DiffusionMixturePrior(examples, SIGMA, weights=w)
            return prior.reweight(f).cdf(jnp.asarray(0.2))

        in_weights, in_factors = jax.jacrev(ours, argnums=(0, 1))(
            jnp.asarray(weights), jnp.asarray(factors)
        )
        np.testing.assert_allclose(in_weights, forward_differences(cdf, weights), rtol=1e-6)
        np.testing.assert_allclose(in_factors, in_weights * weights, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("what", ["log_prob", "responsibilities", "mean"])
def test_memorized_prior(what):
    """Coinciding examples, one of which has no weight, and one elsewhere that has none."""
    examples = np.array([[0.0, 1.0], [0.0, 1.0], [2.0, 0.0], [3.0, 3.0]])
    weights, value = np.array([0.5, 0.0, 1.5, 0.0]), np.array([0.0, 1.0])
    same = np.array([1.0, 1.0, 0.0, 0.0])
    expected = forward_differences(
        {
            "log_prob": lambda w: np.log(w @ same / w.sum()),
            "responsibilities": lambda w: w * same / (w @ same),
            "mean": lambda w: w @ examples / w.sum(),
        }[what],
        weights,
    )
    with jax.enable_x64(True):

        def ours(w):
            return OURS[what](MemorizedPrior(examples, w, validate_args=True), jnp.asarray(value))

        for jacobian in (jax.jacfwd(ours), jax.jacrev(ours)):
            np.testing.assert_allclose(jacobian(jnp.asarray(weights)), expected, 1e-6, atol=1e-8)


def test_known_weights_and_equal_ones_carry_no_more_than_before():
    for weights in (None, WEIGHTS):
        leaves = jax.tree.leaves(MemorizedPrior(np.zeros((5, 2)), weights))
        assert [leaf.shape for leaf in leaves if leaf.ndim == 1] == [(5,)]
