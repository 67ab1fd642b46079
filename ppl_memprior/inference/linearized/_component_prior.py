"""The Gaussian components of a mixture prior, with their symmetric square roots.

A component of a `LearnedPrior` is isotropic except in a few directions, or in none. It is the
distribution of x = mean + L z with z standard normal. The closed-form posterior is computed in the
coordinates z, where every component looks alike.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ppl_memprior.distributions import LearnedPrior

_HIGHEST = jax.lax.Precision.HIGHEST


class ComponentPrior(NamedTuple):
    """N(mean, L^2) with L = s (I - V^T V) + V^T diag(t) V; all N with a leading axis, or one.

    Attributes:
        mean: shape (d,).
        scale: s, scalar.
        directions: V, orthonormal rows, shape (k, d); k = 0 for an isotropic component.
        direction_scales: t, shape (k,).
    """

    mean: jax.Array
    scale: jax.Array
    directions: jax.Array
    direction_scales: jax.Array

    def at(self, z: jax.Array) -> jax.Array:
        """The model mean + L z, shape (d,), of the whitened coordinates z, shape (d,)."""
        along = jnp.matmul(self.directions, z, precision=_HIGHEST)
        bent = (self.direction_scales - self.scale) * along
        return self.mean + (self.scale * z + jnp.matmul(bent, self.directions, precision=_HIGHEST))


def component_priors(prior: LearnedPrior, indices: NDArray[Any]) -> ComponentPrior:
    """Some components of a prior with a density, flattened, with a leading axis of length K.

    Args:
        prior: whose components they are; one whose means lie in a file reads no others.
        indices: of the components, shape (K,).
    """
    num, num_model = len(indices), math.prod(prior.event_shape)
    means = prior.take(indices).reshape(num, num_model)
    scales = prior.component_direction_scales[indices]
    directions = prior.component_directions[indices].reshape(num, scales.shape[1], num_model)
    scale = jnp.broadcast_to(prior.bandwidth, (num,))
    return ComponentPrior(means, *(a.astype(means.dtype) for a in (scale, directions, scales)))


def posterior_directions(
    prior: ComponentPrior, directions: NDArray[Any], singular_values: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Directions and scales of the posterior covariance L (I - W^T S^2 / (1 + S^2) W) L.

    On the complement of the span of the rows of V and W the covariance is s^2 I. On the span, of
    orthonormal basis Q, it is R R^T with the square root R = Q L (I - W^T (1 - (1 + S^2)^-1/2) W)
    Q^T, whose singular values are the new scales. The covariance itself, whose condition number is
    the square of the root's, is not formed.

    Args:
        prior: one component.
        directions: W, right singular vectors of the whitened Jacobian, orthonormal rows (k', d).
        singular_values: S, shape (k',).

    Returns:
        Orthonormal rows, shape (min(k + k', d), d), and their scales; in the prior's dtype.
    """
    dtype = directions.dtype
    w = np.asarray(directions, np.float64)
    shrink = 1 / np.hypot(1, np.asarray(singular_values, np.float64))
    v = np.asarray(prior.directions, np.float64)
    s, t = float(prior.scale), np.asarray(prior.direction_scales, np.float64)
    if not len(v):
        return directions, (s * shrink).astype(dtype)
    basis = np.linalg.qr(np.concatenate([v, w]).T)[0].T
    root = (basis - (basis @ w.T * (1 - shrink)) @ w) @ basis.T
    bent = s * np.eye(len(basis)) + (basis @ v.T * (t - s)) @ (v @ basis.T)
    left, scales, _ = np.linalg.svd(bent @ root)
    return (left.T @ basis).astype(dtype), scales.astype(dtype)
