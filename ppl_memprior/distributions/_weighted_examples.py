"""What the distributions over stored examples have in common: the examples and their weights.

`WeightedExamples` holds the examples and prepares them once for the sums in `_mixture`. It draws
examples and finds the nearest. The distributions define the density or the probability.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.batch_util import promote_batch_shape, vmap_over

from ppl_memprior._batches import fits, items_that_fit, sum_over_batches
from ppl_memprior.distributions import _checks
from ppl_memprior.distributions._batching import (
    checked_value,
    draw_indices,
    flat_events,
    lift,
    over_queries,
    partitioned_by_compiler,
    take,
)
from ppl_memprior.distributions._mixture import nearest as _nearest
from ppl_memprior.distributions._mixture.examples import (
    Examples,
    HostRows,
    is_screened,
    on_host,
    prepare,
    prepare_host,
)
from ppl_memprior.distributions._mixture.weights import Weights, reweighted, weights_of
from ppl_memprior.distributions.learned_prior import LearnedPrior

#: Finite arrays (N, *event). The static number of axes is that of scalar events: the axis that
#: counts the examples; how many axes an event has is known from the array only.
EXAMPLES_CONSTRAINT = constraints.dependent(is_discrete=False, event_dim=1)


#: The fields of a distribution's pytree that hold its weights.
WEIGHT_FIELDS = ("log_weights", "_zero_weights")


class WeightedExamples(LearnedPrior):
    """Examples x_n with weights pi_n; base of the distributions over them.

    A subclass fills in `examples` and `log_weights` and is responsible for the rest.
    """

    #: Shape (N, *event), or (*batch, N, *event) where NumPyro has stacked distributions.
    examples: jax.Array | HostRows
    #: Zeros that carry derivatives with respect to weights of zero; see `weights.Weights`.
    _zero_weights: jax.Array | None = None
    #: The examples as the sums want them; made when first needed, no part of the pytree.
    _prepared: Examples | None = None

    def _hold(self, examples: ArrayLike | Any) -> None:
        """Take checked examples: read into memory, or left where they are if they are many."""
        if isinstance(examples, HostRows):  # of another prior, whose file has been read
            self._prepared = prepare_host(examples)
            self.examples = examples
            return
        if on_host(examples):
            rows = HostRows(examples)
            _checks.require_examples("examples", rows)
            if not fits(rows.size) and is_screened(*rows.flat_shape):
                self._prepared = prepare_host(rows)
                self.examples = rows
                return
            examples = np.asarray(rows)
        self.examples = partitioned_by_compiler(_checks.example_array("examples", examples))

    def _weigh(self, weights: ArrayLike | None) -> None:
        """Take the weights of the examples, equal ones for None."""
        array = _checks.example_weights(weights, self.examples)
        if array is None:
            num = self.examples.shape[0]
            self.log_weights = _checks.uniform_log_weights(num, self.examples)
            return
        held = weights_of(array)
        self.log_weights = held.logarithms
        if isinstance(array, jax.core.Tracer):  # what is known is not differentiated
            self._zero_weights = held.zeros

    @property
    def weights(self) -> jax.Array:
        """Normalised weights, shape (N,)."""
        return self._held_weights().linear

    def _held_weights(self) -> Weights:
        return Weights(self.log_weights, self._zero_weights)

    @property
    def num_examples(self) -> int:
        """The number N of examples."""
        return self.examples.shape[-1 - self.event_dim]

    def take(self, indices: ArrayLike) -> jax.Array:
        """Means of some components; see `LearnedPrior.take`."""
        where = _checks.example_indices(indices, self.num_examples)
        if isinstance(self.examples, HostRows):
            return self.examples.take(where).reshape(where.shape + self.event_shape)
        return jnp.take(self.examples, where, axis=-1 - self.event_dim, mode="clip")

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draw values.

        Args:
            key: JAX random key.
            sample_shape: shape of the sample axes.

        Returns:
            Shape (*sample, *batch, *event).
        """
        return self.sample_with_intermediates(key, sample_shape)[0]

    def reweight(self, log_factors: ArrayLike) -> Self:
        """Return the same distribution with weights pi_n exp(log_factors_n), normalised.

        Let the factors be the log-likelihoods of the examples. Then a `MemorizedPrior` becomes its
        exact posterior, for any forward operator and any noise. A `DiffusionMixturePrior` becomes
        the mixture whose score is the exact conditional score of that posterior
        (arXiv:2603.19629).

        Args:
            log_factors: shape (N,); minus infinity removes an example.

        Returns:
            The distribution with the new weights, over the same examples.

        Raises:
            ValueError: if the shape is not (N,), or a value is NaN or plus infinity.
        """
        factors = _checks.unnormalized_log_weights("log_factors", log_factors, self.num_examples)
        posterior = copy.copy(self)
        posterior.log_weights, posterior._zero_weights = reweighted(self._held_weights(), factors)
        return posterior

    def nearest(self, value: ArrayLike, k: int = 1) -> tuple[jax.Array, jax.Array]:
        """Return the `k` examples nearest to `value`, whatever their weights.

        Args:
            value: shape (*sample, *batch, *event).
            k: number of examples, from 1 to N.

        Returns:
            Euclidean distances in ascending order, in the unit of the examples, and the integer
            indices of the examples. Both have shape (*sample, *batch, k). Examples at the same
            distance come in the order in which they are stored.

        Raises:
            TypeError: if `k` is not an integer.
            ValueError: if `value` does not have that shape, or `k` is not from 1 to N.
        """
        if not isinstance(k, (int, np.integer)):
            raise TypeError(f"k must be an integer that is known, got {type(k).__name__}.")
        if not 1 <= k <= self.num_examples:
            raise ValueError(
                f"k is {k}, expected 1 to {self.num_examples}, the number of examples."
            )
        value = checked_value(value, self.batch_shape, self.event_shape)
        return over_queries(_find_nearest(int(k)), value, self.event_dim, self._tables()[:1])

    def _validate_sample(self, value: Any) -> Any:
        return super()._validate_sample(_checks.float_array("value", value))

    def _draw_examples(self, key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Draw examples, (*shape, *event), and their indices, `shape` = (*sample, *batch)."""
        index = draw_indices(key, self.log_weights, shape)
        if isinstance(self.examples, HostRows):
            return self.examples.take(index).reshape(shape + self.event_shape), index
        return take(self.examples, index, self.event_dim), index

    def _weighted_moments(self) -> tuple[jax.Array, jax.Array]:
        """Return mean and variance of the examples under the weights, (*batch, *event) each."""
        if isinstance(self.examples, HostRows):
            moments = host_moments(self.examples, self.weights)
            return moments[0].reshape(self.event_shape), moments[1].reshape(self.event_shape)
        return weighted_moments(self.weights, self.examples, self.event_dim)

    def _in_memory(self, purpose: str) -> jax.Array:
        """Return the examples as an array.

        Raises:
            NotImplementedError: if they stay outside of memory.
        """
        if isinstance(self.examples, HostRows):
            raise NotImplementedError(
                f"{purpose} needs all examples in memory at once, but these, of shape "
                f"{self.examples.shape}, are read from a {type(self.examples.array).__name__} "
                "batch by batch; build the distribution from numpy.array(examples) if they fit."
            )
        return self.examples

    def _tables(self) -> list[tuple[Any, Any]]:
        """Return examples and weights with the numbers of their axes, for `over_queries`."""
        examples, rows = self._prepared, self.examples
        if examples is not None:
            pass
        elif isinstance(rows, HostRows):
            examples = self._prepared = prepare_host(rows)
        elif isinstance(rows, jax.core.Tracer):
            examples = _prepare(rows, self.event_dim)
        else:
            # Once, even if what needs it first is being traced.
            with jax.ensure_compile_time_eval():
                examples = self._prepared = _prepare(rows, self.event_dim)
        weights = self._held_weights()
        return [(examples, examples.core_dims), (weights, weights.core_dims)]

    def prepared_examples(self) -> Examples | None:
        """The screened examples in memory; see `LearnedPrior.prepared_examples`."""
        if isinstance(self.examples, HostRows) or self.batch_shape:
            return None
        prepared: Examples = self._tables()[0][0]
        return prepared if prepared.table is not None else None

    def with_prepared_examples(self, prepared: Examples) -> Self:
        """Return a copy that does not prepare them again."""
        duplicate = self.__copy__()
        duplicate._prepared = prepared
        return duplicate

    def __repr__(self) -> str:
        scalars = {
            name: self.__dict__[name] for name in ("sigma", "alpha") if name in self.__dict__
        }
        return described(self, self.examples, "examples", **scalars)

    def __copy__(self) -> Self:
        duplicate = object.__new__(type(self))
        duplicate.__dict__.update(self.__dict__)
        return duplicate

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without what can be made again; a copy in memory keeps it."""
        return {name: value for name, value in self.__dict__.items() if name != "_prepared"}


def stored_examples(prior: LearnedPrior) -> Any:
    """Return the means of a prior's components, for another prior over the same examples.

    Args:
        prior: any prior without batch axes.

    Returns:
        Examples in a file as rows that are read from there, times the scale of the mixture where it
        has one. Otherwise the means, shape (N, *event); a traced scale needs all of them.
    """
    rows = getattr(prior, "examples", None)
    alpha = getattr(prior, "alpha", 1.0)
    if not isinstance(rows, HostRows) or isinstance(alpha, jax.core.Tracer):
        return prior.component_means
    return rows.scaled(float(alpha))


def described(distribution: Distribution, rows: Any, name: str, **scalars: Any) -> str:
    """Return one line about a mixture over `rows`, for `repr`: sizes and scalars, no arrays.

    Inside of a pytree `rows` and `scalars` may be anything.
    """
    parts = []
    if hasattr(rows, "shape"):
        parts.append(f"{rows.shape[-1 - distribution.event_dim]} {name}")
    for scalar, value in scalars.items():
        if isinstance(value, jax.core.Tracer) or not hasattr(value, "shape"):
            parts.append(f"{scalar}={type(value).__name__}")
        elif value.shape == ():
            parts.append(f"{scalar}={float(value):.6g}")
        else:
            parts.append(f"{scalar} of shape {value.shape}")
    parts.append(f"batch shape {distribution.batch_shape}")
    parts.append(f"event shape {distribution.event_shape}")
    return f"<{type(distribution).__name__}: {', '.join(parts)}>"


@partial(jax.jit, static_argnames="event_dim")
def weighted_moments(
    weights: jax.Array, rows: jax.Array, event_dim: int
) -> tuple[jax.Array, jax.Array]:
    """Return mean and variance of `rows` (*batch, N, *event), each of shape (*batch, *event)."""
    axis = -1 - event_dim
    weights = weights.reshape(weights.shape + (1,) * event_dim)
    mean = jnp.sum(weights * rows, axis=axis, keepdims=True)
    variance = jnp.sum(weights * (rows - mean) ** 2, axis=axis)
    return jnp.squeeze(mean, axis), variance


@jax.jit
def host_moments(rows: HostRows, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and variance of rows on the host, (d,) each, read twice."""
    num, d = rows.flat_shape
    size = min(num, items_that_fit(d))

    def weighted_sum(of: Callable[[jax.Array], jax.Array]) -> jax.Array:
        def part(start: jax.Array, count: int) -> jax.Array:
            share = jax.lax.dynamic_slice_in_dim(weights, start, count)
            return jnp.sum(share[:, None] * of(rows.read(start, count)), axis=0)

        return sum_over_batches(part, num, size)

    mean = weighted_sum(lambda batch: batch)
    return mean, weighted_sum(lambda batch: (batch - mean) ** 2)


def _prepare(rows: jax.Array, event_dim: int) -> Examples:
    """Prepare `rows` (*batch, N, *event); batch axes come from NumPyro stacking distributions."""
    flat = flat_events(rows, event_dim)
    if flat.ndim == 2:
        return prepare(flat)
    lead = flat.shape[:-2]
    stacked = jax.vmap(prepare)(flat.reshape((-1, *flat.shape[-2:])))
    return jax.tree.map(lambda a: a.reshape(lead + a.shape[1:]), stacked)


@cache
def _find_nearest(k: int) -> Any:
    """Return one function object for each `k`, so that it is compiled once."""
    return partial(_nearest.nearest, k=k)


@vmap_over.register(WeightedExamples)
def _vmap_over(prior: WeightedExamples, **axes: Any) -> WeightedExamples:
    """Read an axis of `weights` (or of `log_weights`) as one of all that holds the weights."""
    along = axes.pop("weights", axes.get("log_weights"))
    mapped = copy.copy(prior)
    for name in type(prior).gather_pytree_data_fields():
        setattr(mapped, name, along if name in WEIGHT_FIELDS else axes.get(name))
    return mapped


@promote_batch_shape.register(WeightedExamples)
def _promote_batch_shape(prior: WeightedExamples) -> WeightedExamples:
    """Read the batch shape again after NumPyro stacked parameters on the left."""
    batch_dim = len(prior.batch_shape)
    promoted = copy.copy(prior)
    promoted._prepared = None
    if isinstance(prior.examples, HostRows):
        rows_batch: tuple[int, ...] = ()
    else:
        promoted.examples = lift(prior.examples, 1 + prior.event_dim, batch_dim)
        rows_batch = promoted.examples.shape[: promoted.examples.ndim - 1 - prior.event_dim]
    promoted.log_weights = lift(prior.log_weights, 1, batch_dim)
    if prior._zero_weights is not None:
        promoted._zero_weights = lift(prior._zero_weights, 1, batch_dim)
    scalars = (getattr(prior, name) for name in ("sigma", "alpha") if hasattr(prior, name))
    promoted._batch_shape = jnp.broadcast_shapes(
        prior.batch_shape,
        rows_batch,
        promoted.log_weights.shape[:-1],
        *(scalar.shape for scalar in scalars),
    )
    return promoted
