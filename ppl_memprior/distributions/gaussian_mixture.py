"""A Gaussian mixture whose components are isotropic except in a few directions.

The linearized posterior under a `DiffusionMixturePrior` has this form: each component keeps the
prior's bandwidth except in the directions that the data see. Inference computes the directions.
This module samples the mixture and computes its density, and never forms a d x d matrix.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.distributions.util import validate_sample

from ppl_memprior.distributions import _checks, _quantiles
from ppl_memprior.distributions import _low_rank_components as _components
from ppl_memprior.distributions._batching import (
    checked_value,
    draw_indices,
    draw_normal,
    flat_events,
    lift,
    over_queries,
)
from ppl_memprior.distributions._mixture.weights import normalize
from ppl_memprior.distributions._weighted_examples import (
    EXAMPLES_CONSTRAINT,
    described,
    weighted_moments,
)
from ppl_memprior.distributions.learned_prior import LearnedPrior

# Directions from a float32 factorisation are orthonormal to about 1e-6; unscaled or merely
# independent directions miss by far more than this.
_ORTHONORMAL_TOLERANCE = 1e-3


class LowRankGaussianMixture(LearnedPrior):
    r"""Mixture of Gaussians that differ from an isotropic one in k directions each.

    .. math::
        p(x) = \sum_n \pi_n \, \mathcal{N}(x;\, m_n,\, C_n), \qquad
        C_n = s^2 (I - V_n^\top V_n) + V_n^\top \mathrm{diag}(t_n^2) V_n

    with the orthonormal rows of :math:`V_n` as directions and :math:`t_n` as the standard
    deviations along them. The linearized posterior of a Gaussian mixture prior has this form. Its
    :math:`V_n` are the right singular vectors of the whitened Jacobian.

    `sample` reparametrizes `locs`, `scale`, `directions` and `direction_scales`, but not the
    weights. So `has_rsample` is false.

    Args:
        locs: means m_n, shape (N, *event), finite. Shape (N,) means scalar events.
        scale: standard deviation s, a positive scalar, in the unit of the means.
        directions: rows of V_n, orthonormal, shape (N, k, *event); k is at most the size of an
            event. A component with fewer directions has rows of zeros, with the scale s.
        direction_scales: standard deviations t_n, shape (N, k), positive, in the unit of the means.
        log_weights: shape (N,), normalised here; minus infinity for a weight of zero. Equal by
            default.
        validate_args: NumPyro's switch for checking sampled values as well.

    Raises:
        TypeError: if an argument is not an array of real numbers.
        ValueError: if a shape does not fit or a value is out of range. Also if the directions are
            not orthonormal, or a direction of zeros has another scale than s. Traced values are not
            checked.
    """

    arg_constraints = {
        "locs": EXAMPLES_CONSTRAINT,
        "scale": constraints.positive,
        "directions": constraints.dependent(is_discrete=False, event_dim=2),
        "direction_scales": constraints.independent(constraints.positive, 2),
        "log_weights": constraints.dependent(is_discrete=False, event_dim=1),
    }
    reparametrized_params = ["locs", "scale", "directions", "direction_scales"]
    pytree_data_fields: tuple[str, ...] = (
        "locs",
        "scale",
        "directions",
        "direction_scales",
        "log_weights",
    )

    locs: jax.Array
    scale: jax.Array
    directions: jax.Array
    direction_scales: jax.Array

    def __init__(
        self,
        locs: ArrayLike,
        scale: ArrayLike,
        directions: ArrayLike,
        direction_scales: ArrayLike,
        log_weights: ArrayLike | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.locs = _checks.example_array("locs", locs)
        num, event_shape = self.locs.shape[0], self.locs.shape[1:]
        self.scale = _checks.float_array("scale", scale)
        _checks.require_shape("scale", self.scale, (), "one scale for all components")
        _checks.require_positive("scale", self.scale)
        self.directions = _checked_directions(directions, num, event_shape)
        self.direction_scales = _checks.float_array("direction_scales", direction_scales)
        rank = self.directions.shape[1]
        _checks.require_shape(
            "direction_scales", self.direction_scales, (num, rank), "one scale per direction"
        )
        _checks.require_positive("direction_scales", self.direction_scales)
        _check_unused(self.directions, self.direction_scales, self.scale)
        if log_weights is None:
            self.log_weights = _checks.uniform_log_weights(num, self.locs)
        else:
            self.log_weights = normalize(
                _checks.unnormalized_log_weights("log_weights", log_weights, num)
            )
        super().__init__((), event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """All real arrays of the event shape."""
        return constraints.independent(constraints.real, self.event_dim)

    @property
    def component_means(self) -> jax.Array:
        """Means m_n of the components, shape (N, *event)."""
        return self.locs

    @property
    def bandwidth(self) -> jax.Array:
        """The common scale s, scalar."""
        return self.scale

    @property
    def component_directions(self) -> jax.Array:
        """The directions V_n, shape (N, k, *event)."""
        return self.directions

    @property
    def component_direction_scales(self) -> jax.Array:
        """The standard deviations t_n along the directions, shape (N, k)."""
        return self.direction_scales

    @property
    def component_variances(self) -> jax.Array:
        """Diagonals of the component covariances, shape (N, *event)."""
        squares = self.directions**2
        rank_axis = -1 - self.event_dim
        outside = 1.0 - jnp.sum(squares, axis=rank_axis)
        # rounding of that difference, times the common variance, may exceed all that is left
        rounding = (self.directions.shape[1] + 4) * jnp.finfo(squares.dtype).eps
        outside = jnp.where(outside > rounding, outside, 0.0)
        scales = _with_event_axes(self.direction_scales, self.event_dim)
        along = jnp.sum(scales**2 * squares, axis=rank_axis)
        return _with_event_axes(self.scale, 1 + self.event_dim) ** 2 * outside + along

    @property
    def component_stddevs(self) -> jax.Array:
        """Marginal standard deviations of the components, shape (N, *event)."""
        return jnp.sqrt(self.component_variances)

    @property
    def mean(self) -> jax.Array:
        """Mean of the mixture, shape (*event)."""
        mean, _ = weighted_moments(jnp.exp(self.log_weights), self.locs, self.event_dim)
        return jnp.broadcast_to(mean, self.shape())

    @property
    def variance(self) -> jax.Array:
        """Variance of each entry under the mixture, shape (*event)."""
        _, between = weighted_moments(jnp.exp(self.log_weights), self.locs, self.event_dim)
        within, _ = weighted_moments(
            jnp.exp(self.log_weights), self.component_variances, self.event_dim
        )
        return jnp.broadcast_to(within + between, self.shape())

    @property
    def stddev(self) -> jax.Array:
        """Standard deviation of each entry under the mixture, shape (*event)."""
        return jnp.sqrt(self.variance)

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draw values.

        Args:
            key: JAX random key.
            sample_shape: shape of the sample axes.

        Returns:
            Shape (*sample, *event).
        """
        return self.sample_with_intermediates(key, sample_shape)[0]

    def sample_with_intermediates(
        self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, list[Any]]:
        """Draw values and the indices of their components.

        Returns:
            Values of shape (*sample, *event), and a list with the integer indices of their
            components, shape (*sample).
        """
        assert key is not None, "a random key is needed to draw samples"
        key_index, key_noise = jax.random.split(key)
        shape = tuple(sample_shape) + self.batch_shape
        index = draw_indices(key_index, self.log_weights, shape)
        noise = draw_normal(key_noise, shape + self.event_shape, self.locs.dtype)
        tables = self._tables()
        value = over_queries(_components.draw, noise, self.event_dim, tables[:-1], [index])
        return value.reshape(shape + self.event_shape), [index]

    @validate_sample
    def log_prob(self, value: ArrayLike, intermediates: list[Any] | None = None) -> jax.Array:
        """Return log p(value).

        Args:
            value: shape (*sample, *event).
            intermediates: not used; NumPyro passes it.

        Returns:
            Shape (*sample).

        Raises:
            ValueError: if `value` is not of shape (*sample, *event).
        """
        value = checked_value(value, self.batch_shape, self.event_shape)
        return over_queries(_components.log_density, value, self.event_dim, self._tables())

    def responsibilities(self, value: ArrayLike) -> jax.Array:
        """Return the probability that each component produced `value`.

        Args:
            value: shape (*sample, *event).

        Returns:
            Shape (*sample, N), each row adding to one.

        Raises:
            ValueError: if `value` is not of shape (*sample, *event).
        """
        value = checked_value(value, self.batch_shape, self.event_shape)
        return over_queries(_components.responsibilities, value, self.event_dim, self._tables())

    def reweight(self, log_factors: ArrayLike) -> LowRankGaussianMixture:
        """Return the same components with weights pi_n exp(log_factors_n), normalised.

        Args:
            log_factors: shape (N,); minus infinity removes a component.

        Returns:
            The mixture with the new weights.

        Raises:
            ValueError: if the shape is not (N,), or a value is NaN or plus infinity.
        """
        factors = _checks.unnormalized_log_weights("log_factors", log_factors, self.num_components)
        return LowRankGaussianMixture(
            self.locs,
            self.scale,
            self.directions,
            self.direction_scales,
            self.log_weights + factors,
        )

    def cdf(self, value: ArrayLike) -> jax.Array:
        """Return the probability of at most `value`, for scalar events.

        Args:
            value: shape (*sample).

        Returns:
            Shape (*sample).

        Raises:
            NotImplementedError: if the event is not a scalar.
        """
        value = checked_value(value, self.batch_shape, self.event_shape)
        return over_queries(_quantiles.cdf_of_components, value, 0, self._scalar_tables("cdf"))

    def icdf(self, q: ArrayLike) -> jax.Array:
        """Return the quantiles at the levels `q`, for scalar events.

        Args:
            q: levels from 0 to 1, shape (*sample).

        Returns:
            Shape (*sample), in the unit of the means.

        Raises:
            NotImplementedError: if the event is not a scalar.
        """
        q = checked_value(q, self.batch_shape, self.event_shape)
        return over_queries(_quantiles.icdf_of_components, q, 0, self._scalar_tables("icdf"))

    @classmethod
    def infer_shapes(
        cls,
        locs: tuple[int, ...],
        scale: tuple[int, ...],
        directions: tuple[int, ...],
        direction_scales: tuple[int, ...],
        log_weights: tuple[int, ...] | None = None,
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the batch and event shapes that arguments of these shapes would give."""
        return (), tuple(locs[1:])

    def __repr__(self) -> str:
        return described(self, self.locs, "components", scale=self.scale)

    def _validate_sample(self, value: Any) -> Any:
        return super()._validate_sample(_checks.float_array("value", value))

    def _scalar_tables(self, purpose: str) -> list[tuple[jax.Array, int]]:
        _checks.require_scalar_event(purpose, self.event_shape)
        return [(self.locs, 1), (self.component_stddevs, 1), (jnp.exp(self.log_weights), 1)]

    def _tables(self) -> list[tuple[jax.Array, int]]:
        return [
            (flat_events(self.locs, self.event_dim), 2),
            (self.scale, 0),
            (flat_events(self.directions, self.event_dim), 3),
            (self.direction_scales, 2),
            (self.log_weights, 1),
        ]


def _checked_directions(directions: ArrayLike, num: int, event_shape: tuple[int, ...]) -> jax.Array:
    array = _checks.float_array("directions", directions)
    rank = array.shape[1] if array.ndim > 1 else 0
    expected = f"(N, k, *event) = ({num}, k, *{event_shape})"
    if array.ndim < 2 or array.shape[0] != num or array.shape[2:] != event_shape:
        raise ValueError(f"directions has shape {array.shape}, expected {expected}.")
    if rank > math.prod(event_shape):
        raise ValueError(
            f"directions has shape {array.shape}, {rank} directions for each component, but an "
            f"event of shape {event_shape} has room for {math.prod(event_shape)} orthonormal ones."
        )
    _checks.require_finite("directions", array)
    if not isinstance(array, jax.core.Tracer):
        rows = np.asarray(array).reshape(num, rank, math.prod(event_shape))
        rows = rows[np.any(rows != 0, axis=(1, 2))]  # most may have lost their weight
        used = np.any(rows != 0, axis=2)
        gram = rows @ rows.swapaxes(1, 2)
        error = float(np.max(np.abs(gram - used[:, None] * np.eye(rank)), initial=0.0))
        if error > _ORTHONORMAL_TOLERANCE:
            raise ValueError(
                f"the {rank} directions of a component must be orthonormal, but an inner product "
                f"misses 0 or 1 by {error:.2g}; orthonormalise them, by a QR factorisation of "
                "directions[n] flattened to (k, d), say."
            )
    return array


def _check_unused(directions: jax.Array, direction_scales: jax.Array, scale: jax.Array) -> None:
    if any(isinstance(a, jax.core.Tracer) for a in (directions, direction_scales, scale)):
        return
    rows = np.asarray(directions)
    unused = ~np.any(rows != 0, axis=tuple(range(2, rows.ndim)))
    if np.any(np.asarray(direction_scales)[unused] != np.asarray(scale)):
        raise ValueError(
            "a direction of zeros stands for one that a component does not have; give it the "
            f"direction scale {np.asarray(scale)}, which is that of all components."
        )


def _with_event_axes(array: jax.Array, event_dim: int) -> jax.Array:
    return array.reshape(array.shape + (1,) * event_dim)


@promote_batch_shape.register(LowRankGaussianMixture)
def _promote_batch_shape(mixture: LowRankGaussianMixture) -> LowRankGaussianMixture:
    """Read the batch shape again after NumPyro stacked parameters on the left."""
    batch_dim = len(mixture.batch_shape)
    core_dims = {
        "locs": 1 + mixture.event_dim,
        "scale": 0,
        "directions": 2 + mixture.event_dim,
        "direction_scales": 2,
        "log_weights": 1,
    }
    promoted = copy.copy(mixture)
    leads = [mixture.batch_shape]
    for name, core_dim in core_dims.items():
        lifted = lift(getattr(mixture, name), core_dim, batch_dim)
        setattr(promoted, name, lifted)
        leads.append(lifted.shape[: lifted.ndim - core_dim])
    promoted._batch_shape = jnp.broadcast_shapes(*leads)
    return promoted
