"""The prior that a memorizing diffusion model converges to, at one noise level.

`DiffusionMixturePrior` puts an isotropic Gaussian on every training example. This module gives it
NumPyro's interface and the operations of a diffusion model in closed form (score, denoiser,
forward noising). `_mixture` has the sums over examples, `MemorizedPrior` the zero-bandwidth limit.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from ppl_memprior.distributions import _checks, _quantiles
from ppl_memprior.distributions._batching import checked_value, draw_normal, over_queries
from ppl_memprior.distributions._mixture import nearest as _nearest
from ppl_memprior.distributions._weighted_examples import (
    EXAMPLES_CONSTRAINT,
    WEIGHT_FIELDS,
    WeightedExamples,
)


class DiffusionMixturePrior(WeightedExamples):
    r"""Mixture of equal isotropic Gaussians centred on scaled training examples.

    .. math:: p(x) = \sum_n \pi_n \, \mathcal{N}(x;\, \alpha x_n,\, \sigma^2 I)

    This is the distribution of :math:`\alpha x_n + \sigma\epsilon`, where the example has
    probability :math:`\pi_n` and :math:`\epsilon` is standard normal. A diffusion model that has
    memorized its training set learns this distribution at the noise level :math:`(\alpha, \sigma)`
    (A. Siahkoohi and D. Sabeddu, arXiv:2603.19629).

    `sample` reparametrizes `examples`, `sigma` and `alpha`, but not the weights. So `has_rsample`
    is false.

    Args:
        examples: shape (N, *event), finite. Shape (N,) means scalar events. Integers are promoted
            to floating point, half precision to single. A memory-mapped, Zarr or HDF5 array of more
            than 64 MiB (in float32) stays in its file and is read batch by batch.
        sigma: bandwidth, positive, in the unit of the examples. The batch shape is the common shape
            of `sigma` and `alpha`.
        alpha: finite scale of the examples, dimensionless; broadcasts with `sigma`.
        weights: shape (N,), non-negative and not all zero; normalised here. Equal by default.
        validate_args: NumPyro's switch for checking sampled values as well.

    Raises:
        TypeError: if an argument is not an array of real numbers.
        ValueError: if a shape does not fit, or a value is out of range. Traced values are not
            checked, under `jit` or when `sigma` is itself a random variable.

    Example::

        prior = mp.DiffusionMixturePrior(jnp.asarray([-1.5, 0.4, 2.5]), sigma=0.3)
        x = numpyro.sample("x", prior)  # inside a model
    """

    arg_constraints = {
        "examples": EXAMPLES_CONSTRAINT,
        "sigma": constraints.positive,
        "alpha": constraints.real,
        "weights": constraints.independent(constraints.nonnegative, 1),
    }
    reparametrized_params = ["examples", "sigma", "alpha"]
    has_denoiser = True
    pytree_data_fields: tuple[str, ...] = ("examples", "sigma", "alpha", *WEIGHT_FIELDS)

    sigma: jax.Array
    alpha: jax.Array

    def __init__(
        self,
        examples: ArrayLike,
        sigma: ArrayLike,
        *,
        alpha: ArrayLike = 1.0,
        weights: ArrayLike | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._hold(examples)
        self._weigh(weights)
        alpha, sigma = noise_level(alpha, sigma)
        batch_shape = _checks.broadcast_shapes(sigma=sigma.shape, alpha=alpha.shape)
        self.sigma = jnp.broadcast_to(sigma, batch_shape)
        self.alpha = jnp.broadcast_to(alpha, batch_shape)
        super().__init__(batch_shape, self.examples.shape[1:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """All real arrays of the event shape."""
        return constraints.independent(constraints.real, self.event_dim)

    @property
    def component_means(self) -> jax.Array:
        """Means alpha x_n of the components, shape (*batch, N, *event).

        All examples are read where they are outside of memory.
        """
        return self._per_event(self.alpha, 1) * jnp.asarray(self.examples)

    def take(self, indices: ArrayLike) -> jax.Array:
        """Means alpha x_n of some components; see `LearnedPrior.take`."""
        rows = super().take(indices)
        return self._per_event(self.alpha, rows.ndim - self.event_dim) * rows

    @property
    def bandwidth(self) -> jax.Array:
        """The bandwidth sigma, of the batch shape."""
        return self.sigma

    @property
    def mean(self) -> jax.Array:
        """Mean alpha sum_n pi_n x_n, shape (*batch, *event)."""
        mean, _ = self._weighted_moments()
        return jnp.broadcast_to(self._per_event(self.alpha) * mean, self.shape())

    @property
    def variance(self) -> jax.Array:
        """Variance of each entry, shape (*batch, *event)."""
        _, variance = self._weighted_moments()
        alpha, sigma = self._per_event(self.alpha), self._per_event(self.sigma)
        return jnp.broadcast_to(alpha**2 * variance + sigma**2, self.shape())

    def sample_with_intermediates(
        self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, list[Any]]:
        """Draw values and the indices of their examples.

        Returns:
            Values of shape (*sample, *batch, *event), and a list with the integer indices of their
            examples, shape (*sample, *batch).
        """
        assert key is not None, "a random key is needed to draw samples"
        key_index, key_noise = jax.random.split(key)
        shape = tuple(sample_shape) + self.batch_shape
        example, index = self._draw_examples(key_index, shape)
        noise = draw_normal(key_noise, example.shape, example.dtype)
        value = self._per_event(self.alpha) * example + self._per_event(self.sigma) * noise
        return value, [index]

    @validate_sample
    def log_prob(self, value: ArrayLike, intermediates: list[Any] | None = None) -> jax.Array:
        """Return log p(value). Its gradient is `score`.

        Args:
            value: shape (*sample, *batch, *event).
            intermediates: not used; NumPyro passes it.

        Returns:
            Shape (*sample, *batch).

        Raises:
            ValueError: if `value` is not of shape (*sample, *batch, *event).
        """
        return self._over_queries(_nearest.log_density, value, self.alpha, self.sigma)

    def score(self, value: ArrayLike) -> jax.Array:
        r"""Return :math:`\nabla \log p(x) = (\alpha \sum_n r_n(x) x_n - x) / \sigma^2`.

        Args:
            value: x, shape (*sample, *batch, *event).

        Returns:
            Shape (*sample, *batch, *event), in one over the unit of the examples.

        Raises:
            ValueError: if `value` does not have that shape.
        """
        flat = self._over_queries(_nearest.score, value, self.alpha, self.sigma)
        return flat.reshape(flat.shape[:-1] + self.event_shape)

    def responsibilities(self, value: ArrayLike) -> jax.Array:
        r"""Return the probability that each example produced `value`.

        .. math:: r_n(x) = \mathrm{softmax}_n(\log\pi_n - |x - \alpha x_n|^2 / (2\sigma^2))

        Args:
            value: x, shape (*sample, *batch, *event).

        Returns:
            Shape (*sample, *batch, N), each row adding to one.

        Raises:
            ValueError: if `value` does not have that shape.
        """
        return self._over_queries(_nearest.responsibilities, value, self.alpha, self.sigma)

    def denoise(self, value: ArrayLike, alpha: ArrayLike, sigma: ArrayLike) -> jax.Array:
        """Return E[x0 | alpha x0 + sigma eps = value], x0 from this mixture, eps standard normal.

        Given its example, x0 is Gaussian, and the Kalman gain gives its mean. The responsibilities
        of the noised mixture average the examples.

        Args:
            value: the noised value, shape (*sample, *batch, *event).
            alpha: scale of the noise level; broadcasts with (*sample, *batch).
            sigma: positive standard deviation of the noise; broadcasts likewise.

        Returns:
            Shape (*sample, *batch, *event).

        Raises:
            ValueError: if a shape does not fit or `sigma` is not positive.
        """
        value = checked_value(value, self.batch_shape, self.event_shape)
        alpha, sigma = noise_level(alpha, sigma)
        _checks.broadcast_shapes(
            value=value.shape[: value.ndim - self.event_dim],
            alpha=alpha.shape,
            sigma=sigma.shape,
            batch_shape=self.batch_shape,
        )
        total = jnp.hypot(alpha * self.sigma, sigma)
        example = self._over_queries(_nearest.posterior_mean, value, alpha * self.alpha, total)
        example = example.reshape(example.shape[:-1] + self.event_shape)
        prior_mean = self._per_event(self.alpha) * example
        gain = self._per_event(alpha * (self.sigma / total) ** 2)
        return prior_mean + gain * (value - self._per_event(alpha) * prior_mean)

    def diffuse(self, alpha: ArrayLike, sigma: ArrayLike) -> DiffusionMixturePrior:
        """Return the distribution of alpha x + sigma eps, x from this mixture, eps standard normal.

        Args:
            alpha: finite scale; broadcasts with the batch shape.
            sigma: positive standard deviation of the added noise; broadcasts likewise.

        Returns:
            The mixture over the same examples with scale alpha * self.alpha and variance
            alpha^2 self.sigma^2 + sigma^2.

        Raises:
            ValueError: if the shapes do not broadcast or `sigma` is not positive.
        """
        alpha, sigma = noise_level(alpha, sigma)
        batch_shape = _checks.broadcast_shapes(
            alpha=alpha.shape, sigma=sigma.shape, batch_shape=self.batch_shape
        )
        diffused = copy.copy(self)
        diffused.alpha = jnp.broadcast_to(alpha * self.alpha, batch_shape)
        diffused.sigma = jnp.broadcast_to(jnp.hypot(alpha * self.sigma, sigma), batch_shape)
        diffused._batch_shape = batch_shape
        return diffused

    def cdf(self, value: ArrayLike) -> jax.Array:
        """Return the probability of at most `value`, for scalar events.

        Args:
            value: shape (*sample, *batch).

        Returns:
            Shape (*sample, *batch).

        Raises:
            NotImplementedError: if the event is not a scalar.
            ValueError: if `value` does not fit the batch shape.
        """
        _checks.require_scalar_event("cdf", self.event_shape)
        self._in_memory("cdf")
        return self._over_queries(_quantiles.cdf_of_examples, value, self.alpha, self.sigma)

    def icdf(self, q: ArrayLike) -> jax.Array:
        """Return the quantiles at the levels `q`, for scalar events.

        Bisection finds them to the last digit. The derivatives are those of the exact quantile.

        Args:
            q: levels from 0 to 1, shape (*sample, *batch).

        Returns:
            Shape (*sample, *batch), in the unit of the examples.

        Raises:
            NotImplementedError: if the event is not a scalar.
            ValueError: if `q` does not fit the batch shape.
        """
        _checks.require_scalar_event("icdf", self.event_shape)
        self._in_memory("icdf")
        return self._over_queries(_quantiles.icdf_of_examples, q, self.alpha, self.sigma)

    def entropy_bounds(self) -> tuple[jax.Array, jax.Array]:
        r"""Return a lower and an upper bound of the entropy :math:`-E[\log p(x)]`, in nats.

        The bounds use the pairwise Bhattacharyya and Kullback-Leibler divergences of the components
        (A. Kolchinsky and B. Tracey, Entropy 19, 361, 2017). They meet where the components are far
        apart in units of the bandwidth, and where all components are the same. The work is that of
        `log_prob` at N values, twice.

        Returns:
            Two arrays of the batch shape.

        Raises:
            NotImplementedError: if the examples stay in a file.
        """
        half_d = 0.5 * math.prod(self.event_shape)
        upper = half_d - self._mean_log_density_at_components(self, self.sigma)
        wider = self._mean_log_density_at_components(self, 2 * self.sigma)
        return half_d * (1 - 2 * math.log(2)) - wider, upper

    def kl_bounds(self, other: DiffusionMixturePrior) -> tuple[jax.Array, jax.Array]:
        r"""Return a lower and an upper bound of the divergence :math:`KL(p \| q)` to `other`, q.

        `entropy_bounds` bounds the entropy of p. Jensen's inequality bounds the cross-entropy,
        component by component (J. Durrieu, J. Thiran and F. Kelly, ICASSP 2012). The expected
        density bounds it from below, the expected log-densities from above.

        Args:
            other: a mixture over events of the same shape. Its batch shape broadcasts with that of
                this mixture.

        Returns:
            Two arrays of the common batch shape, in nats. The lower bound is at least zero.

        Raises:
            TypeError: if `other` is no `DiffusionMixturePrior`.
            ValueError: if the shapes do not fit.
            NotImplementedError: if the examples of this mixture stay in a file.
        """
        if not isinstance(other, DiffusionMixturePrior):
            raise TypeError(
                f"other must be a DiffusionMixturePrior, got {type(other).__name__}; estimate the "
                "divergence to it by averaging log_prob differences over samples."
            )
        if other.event_shape != self.event_shape:
            raise ValueError(
                f"other has event shape {other.event_shape}, expected {self.event_shape}."
            )
        _checks.broadcast_shapes(batch_shape=self.batch_shape, other=other.batch_shape)
        half_d = 0.5 * math.prod(self.event_shape)
        least, most = self.entropy_bounds()
        blurred = jnp.hypot(self.sigma, other.sigma)
        cross_least = -self._mean_log_density_at_components(other, blurred)
        spread = half_d * (self.sigma / other.sigma) ** 2
        cross_most = spread - self._mean_log_density_at_components(other, other.sigma)
        return jnp.maximum(cross_least - most, 0), cross_most - least

    def _means_in_memory(self) -> jax.Array:
        return self._per_event(self.alpha, 1) * self._in_memory("component_means")

    def _mean_log_density_at_components(
        self, other: DiffusionMixturePrior, sigma: jax.Array
    ) -> jax.Array:
        """Return sum_n pi_n log q(alpha x_n); q has the means of `other` and bandwidth `sigma`."""
        means = jnp.moveaxis(self._means_in_memory(), -1 - self.event_dim, 0)
        batch_shape = jnp.broadcast_shapes(self.batch_shape, other.batch_shape)
        means = jnp.broadcast_to(
            means.reshape(
                means.shape[:1]
                + (1,) * (len(batch_shape) + 1 + self.event_dim - means.ndim)
                + means.shape[1:]
            ),
            means.shape[:1] + batch_shape + self.event_shape,
        )
        density = other._over_queries(_nearest.log_density, means, other.alpha, sigma)
        weights = jnp.moveaxis(self.weights, -1, 0)
        weights = weights.reshape(
            weights.shape[:1] + (1,) * (density.ndim - weights.ndim) + weights.shape[1:]
        )
        return jnp.sum(weights * density, axis=0)

    @classmethod
    def infer_shapes(
        cls,
        examples: tuple[int, ...],
        sigma: tuple[int, ...],
        alpha: tuple[int, ...] = (),
        weights: tuple[int, ...] | None = None,
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the batch and event shapes that arguments of these shapes would give."""
        return _checks.broadcast_shapes(sigma=sigma, alpha=alpha), tuple(examples[1:])

    def _per_event(self, scalar: jax.Array, extra: int = 0) -> jax.Array:
        return scalar.reshape(scalar.shape + (1,) * (extra + self.event_dim))

    def _over_queries(
        self, kernel: Any, value: ArrayLike, alpha: jax.Array, sigma: jax.Array
    ) -> jax.Array:
        value = checked_value(value, self.batch_shape, self.event_shape)
        return over_queries(kernel, value, self.event_dim, self._tables(), [alpha, sigma])


def noise_level(alpha: ArrayLike, sigma: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return a scale and a standard deviation as checked floating-point arrays."""
    alpha_array = _checks.float_array("alpha", alpha)
    sigma_array = _checks.float_array("sigma", sigma)
    _checks.require_finite("alpha", alpha_array)
    _checks.require_positive("sigma", sigma_array)
    return alpha_array, sigma_array
