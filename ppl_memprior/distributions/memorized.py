"""The prior of a generative model that has memorized its training set: weighted examples.

`MemorizedPrior` is a discrete distribution whose values are the training examples themselves. Its
posterior under any likelihood is again a `MemorizedPrior`. `DiffusionMixturePrior` is its noised
version, and has everything with a bandwidth.
"""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from ppl_memprior.distributions import _checks, _quantiles
from ppl_memprior.distributions._batching import (
    checked_value,
    flat_events,
    over_queries,
    take,
)
from ppl_memprior.distributions._enumeration import refuse_indices
from ppl_memprior.distributions._mixture import comparisons as _comparisons
from ppl_memprior.distributions._mixture import nearest as _nearest
from ppl_memprior.distributions._mixture.examples import Examples, HostRows
from ppl_memprior.distributions._mixture.weights import Weights
from ppl_memprior.distributions._weighted_examples import (
    EXAMPLES_CONSTRAINT,
    WEIGHT_FIELDS,
    WeightedExamples,
)
from ppl_memprior.distributions.diffusion_mixture import DiffusionMixturePrior, noise_level


class _AmongExamples(constraints.Constraint):
    """The discrete constraint of being one of the examples that have positive weight."""

    is_discrete = True

    def __init__(
        self, examples: jax.Array | HostRows, log_weights: jax.Array, event_dim: int
    ) -> None:
        self.examples = examples
        self.log_weights = log_weights
        self.event_dim = event_dim

    def __call__(self, x: ArrayLike) -> jax.Array:
        weights = Weights(self.log_weights)
        return _matching_log_weight(x, self.examples, weights, self.event_dim) > -jnp.inf

    def feasible_like(self, prototype: ArrayLike) -> jax.Array:
        index = jnp.argmax(self.log_weights, axis=-1)
        if isinstance(self.examples, HostRows):
            heaviest = self.examples.take(index).reshape(self.examples.shape[1:])
        else:
            heaviest = take(self.examples, index, self.event_dim)
        return jnp.broadcast_to(heaviest, jnp.shape(prototype))

    def tree_flatten(self) -> tuple[Any, Any]:
        names = ("examples", "log_weights")
        return (self.examples, self.log_weights), (names, {"event_dim": self.event_dim})

    def eq(self, other: object, static: bool = False) -> bool:
        return (
            isinstance(other, _AmongExamples)
            and self.examples is other.examples
            and self.log_weights is other.log_weights
        )


class MemorizedPrior(WeightedExamples):
    r"""Discrete distribution over training examples.

    .. math:: p(x) = \sum_n \pi_n \, \delta(x - x_n)

    A diffusion model that has memorized its training set samples from this distribution
    (A. Siahkoohi and D. Sabeddu, arXiv:2603.19629). `log_prob` is the logarithm of a probability,
    not of a density: a value equals an example exactly or not at all.

    As in NumPyro's other discrete distributions, `support.is_discrete` and `has_enumerate_support`
    are true, and `enumerate_support` lists the examples. NumPyro's own enumeration and its samplers
    of discrete sites do not read the list. They put the *index* 0..N-1 in the place of the value,
    so they are refused. Use `ppl_memprior.inference.ExampleGibbs`. Or sample the index from a
    `Categorical` of `log_weights` and take `examples[index]`.

    Args:
        examples: shape (N, *event), finite. Shape (N,) means scalar events. Integers are promoted
            to floating point, half precision to single. A memory-mapped, Zarr or HDF5 array of more
            than 64 MiB (in float32) stays in its file and is read batch by batch: whole for each
            `log_prob`, a few examples for a sample.
        weights: shape (N,), non-negative and not all zero; normalised here. Equal by default.
        validate_args: NumPyro's switch for checking sampled values as well.

    Raises:
        TypeError: if an argument is not an array of real numbers.
        ValueError: if a shape does not fit or a value is out of range. Traced values are not
            checked.

    Example::

        prior = mp.MemorizedPrior(jnp.asarray([-1.5, 0.4, 2.5]), jnp.asarray([1.0, 2.0, 1.0]))
        prior.log_prob(0.4)  # log 0.5
    """

    arg_constraints = {
        "examples": EXAMPLES_CONSTRAINT,
        "weights": constraints.independent(constraints.nonnegative, 1),
    }
    pytree_data_fields: tuple[str, ...] = ("examples", *WEIGHT_FIELDS)
    has_density = False
    has_denoiser = True

    def __init__(
        self,
        examples: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self._hold(examples)
        self._weigh(weights)
        super().__init__((), self.examples.shape[1:], validate_args=validate_args)

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """True. NumPyro's samplers are refused here, because they would enumerate indices."""
        refuse_indices()
        return True

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """The examples of positive weight: a discrete constraint."""
        return _AmongExamples(self.examples, self.log_weights, self.event_dim)

    @property
    def component_means(self) -> jax.Array:
        """The examples, shape (N, *event). Examples in a file are all read into memory."""
        return jnp.asarray(self.examples)

    @property
    def bandwidth(self) -> jax.Array:
        """Zero, of the batch shape."""
        return jnp.zeros(self.batch_shape, self.log_weights.dtype)

    @property
    def mean(self) -> jax.Array:
        """Mean sum_n pi_n x_n, shape (*batch, *event)."""
        mean, _ = self._weighted_moments()
        return jnp.broadcast_to(mean, self.shape())

    @property
    def variance(self) -> jax.Array:
        """Variance of each entry, shape (*batch, *event)."""
        _, variance = self._weighted_moments()
        return jnp.broadcast_to(variance, self.shape())

    def sample_with_intermediates(
        self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, list[Any]]:
        """Draw examples and their indices.

        Returns:
            Values of shape (*sample, *batch, *event), and a list with the integer indices of the
            examples, shape (*sample, *batch).
        """
        assert key is not None, "a random key is needed to draw samples"
        value, index = self._draw_examples(key, tuple(sample_shape) + self.batch_shape)
        return value, [index]

    @validate_sample
    def log_prob(self, value: ArrayLike, intermediates: list[Any] | None = None) -> jax.Array:
        """Return the log of the total weight of the examples that equal `value` exactly.

        Args:
            value: shape (*sample, *batch, *event).
            intermediates: not used; NumPyro passes it.

        Returns:
            Shape (*sample, *batch); minus infinity where no example of positive weight matches.

        Raises:
            ValueError: if `value` does not have that shape.
        """
        value = checked_value(value, self.batch_shape, self.event_shape)
        weights = self._held_weights()
        log_prob = _matching_log_weight(value, self.examples, weights, self.event_dim)
        lead = value.shape[: value.ndim - self.event_dim]
        return jnp.broadcast_to(log_prob, jnp.broadcast_shapes(lead, self.batch_shape))

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
        return self._on_a_line(_quantiles.cdf_among_examples, "cdf", value)

    def icdf(self, q: ArrayLike) -> jax.Array:
        """Return the least example whose `cdf` reaches the level `q`, for scalar events.

        Args:
            q: levels from 0 to 1, shape (*sample, *batch).

        Returns:
            Examples of positive weight, shape (*sample, *batch).

        Raises:
            NotImplementedError: if the event is not a scalar.
            ValueError: if `q` does not fit the batch shape.
        """
        return self._on_a_line(_quantiles.icdf_among_examples, "icdf", q)

    def _on_a_line(self, kernel: Any, purpose: str, value: ArrayLike) -> jax.Array:
        _checks.require_scalar_event(purpose, self.event_shape)
        value = checked_value(value, self.batch_shape, self.event_shape)
        tables = [(self._in_memory(purpose), 1), (self.weights, 1)]
        out = over_queries(kernel, value, 0, tables)
        return jnp.broadcast_to(out, jnp.broadcast_shapes(out.shape, self.batch_shape))

    def enumerate_support(self, expand: bool = True) -> jax.Array:
        """Return all examples.

        Equal examples are listed as often as they are stored.

        Args:
            expand: whether to repeat the examples along the batch axes.

        Returns:
            Shape (N, *batch, *event). Without `expand` the batch axes have length one.

        Raises:
            NotImplementedError: if NumPyro's inference calls it: it would take the indices instead.
        """
        refuse_indices()
        batch_dim = len(self.batch_shape)
        # Examples that NumPyro stacked have batch axes of their own in front of N.
        rows = jnp.moveaxis(self._in_memory("enumerate_support"), -1 - self.event_dim, 0)
        missing = 1 + batch_dim + self.event_dim - rows.ndim
        rows = rows.reshape(rows.shape[:1] + (1,) * missing + rows.shape[1:])
        if expand:
            rows = jnp.broadcast_to(rows, rows.shape[:1] + self.batch_shape + self.event_shape)
        return rows

    def responsibilities(self, value: ArrayLike) -> jax.Array:
        """Return the probability that each example produced `value`.

        The matching example has probability one. Where no example matches, the nearest example of
        positive weight has it: the limit of `DiffusionMixturePrior.responsibilities` for a
        vanishing bandwidth. Examples at the same distance share it in proportion to their weights.

        Args:
            value: shape (*sample, *batch, *event).

        Returns:
            Shape (*sample, *batch, N), each row adding to one.

        Raises:
            ValueError: if `value` does not have that shape.
        """
        value = checked_value(value, self.batch_shape, self.event_shape)
        out = over_queries(
            _comparisons.nearest_responsibilities, value, self.event_dim, self._tables()
        )
        lead = jnp.broadcast_shapes(out.shape[:-1], self.batch_shape)
        return jnp.broadcast_to(out, lead + out.shape[-1:])

    def denoise(self, value: ArrayLike, alpha: ArrayLike, sigma: ArrayLike) -> jax.Array:
        r"""Return :math:`E[x_0 | \alpha x_0 + \sigma\epsilon = x] = \sum_n r_n(x) x_n`.

        Args:
            value: x, the noised value, shape (*sample, *batch, *event).
            alpha: scale of the noise level; broadcasts with (*sample, *batch).
            sigma: positive standard deviation of the noise; broadcasts likewise.

        Returns:
            Shape (*sample, *batch, *event).

        Raises:
            ValueError: if a shape does not fit or `sigma` is not positive.
        """
        value = checked_value(value, self.batch_shape, self.event_shape)
        alpha, sigma = noise_level(alpha, sigma)
        lead = _checks.broadcast_shapes(
            value=value.shape[: value.ndim - self.event_dim],
            alpha=alpha.shape,
            sigma=sigma.shape,
            batch_shape=self.batch_shape,
        )
        flat = over_queries(
            _nearest.posterior_mean, value, self.event_dim, self._tables(), [alpha, sigma]
        )
        return jnp.broadcast_to(
            flat.reshape(flat.shape[:-1] + self.event_shape), lead + self.event_shape
        )

    def diffuse(self, alpha: ArrayLike, sigma: ArrayLike) -> DiffusionMixturePrior:
        """Return the distribution of alpha x + sigma eps, x from this prior, eps standard normal.

        Args:
            alpha: finite scale; broadcasts with `sigma` and the batch shape.
            sigma: positive standard deviation of the noise.

        Returns:
            The mixture over the same examples with scale `alpha` and bandwidth `sigma`.

        Raises:
            ValueError: if the shapes do not broadcast or `sigma` is not positive.
        """
        alpha, sigma = noise_level(alpha, sigma)
        batch_shape = _checks.broadcast_shapes(
            alpha=alpha.shape, sigma=sigma.shape, batch_shape=self.batch_shape
        )
        # The examples have been checked already; filling in the fields does not repeat that.
        diffused = DiffusionMixturePrior.__new__(DiffusionMixturePrior)
        diffused.examples = self.examples
        self._tables()
        diffused._prepared = self._prepared
        diffused.log_weights, diffused._zero_weights = self._held_weights()
        diffused.alpha = jnp.broadcast_to(alpha, batch_shape)
        diffused.sigma = jnp.broadcast_to(sigma, batch_shape)
        Distribution.__init__(
            diffused, batch_shape, self.event_shape, validate_args=self._validate_args
        )
        return diffused

    def expand(self, batch_shape: tuple[int, ...]) -> MemorizedPrior:
        """Return independent copies of this prior in a larger batch shape, over the same examples.

        Unlike NumPyro's `ExpandedDistribution` the result can enumerate events with axes.

        Args:
            batch_shape: the new batch shape; the present one broadcasts to it.

        Returns:
            A `MemorizedPrior` of that batch shape.

        Raises:
            ValueError: if the batch shape does not extend the present one.
        """
        batch_shape = tuple(batch_shape)
        common = _checks.broadcast_shapes(present=self.batch_shape, requested=batch_shape)
        if common != batch_shape:
            raise ValueError(
                f"cannot expand batch shape {self.batch_shape} to {batch_shape}; axes can be added "
                "on the left or grow from length one."
            )
        expanded = copy.copy(self)
        expanded._batch_shape = batch_shape
        return expanded

    @classmethod
    def infer_shapes(
        cls, examples: tuple[int, ...], weights: tuple[int, ...] | None = None
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the batch and event shapes that arguments of these shapes would give."""
        return (), tuple(examples[1:])


def _matching_log_weight(
    value: ArrayLike, examples: jax.Array | HostRows, weights: Weights, event_dim: int
) -> jax.Array:
    """Return the log-weight of the examples equal to each event of `value`, shape (*lead,)."""
    rows = examples if isinstance(examples, HostRows) else flat_events(examples, event_dim)
    flat = Examples(rows)
    tables = [(flat, flat.core_dims), (weights, weights.core_dims)]
    return over_queries(
        _comparisons.matching_log_weight, _checks.float_array("value", value), event_dim, tables
    )
