"""One- and two-dimensional nonlinear maps on which every posterior can be checked by quadrature.

The maps, examples and noise come from A. Siahkoohi and D. Sabeddu, "On the role of memorization in
learned priors for geophysical inverse problems", arXiv:2603.19629, figure 1, and from its published
code. Models and posteriors are left to the packages that use the maps.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

NOISE = 0.3
"""Standard deviation of the observation noise, the same in one and two dimensions."""

BANDWIDTHS = (0.5, 0.3, 0.05)
"""Bandwidths of the mixture at which the paper shows the posterior collapse."""

EXAMPLES = (-1.5, -0.4, 0.4, 1.2, 2.5)
"""Training examples in one dimension; -0.4 and 0.4 explain the observation equally well."""

OBSERVATION = 0.0
"""The observation in one dimension."""

EXAMPLES_2D = (
    (0.6060426, 0.2318569),
    (0.4220322, 0.4145994),
    (-2.0211415, -0.3353909),
    (3.9747625, -1.1483946),
    (0.8309830, 0.4812316),
)
"""Training examples in two dimensions: five normal draws of standard deviation 1.8,
by PyTorch's generator with seed 42."""

OBSERVATION_2D = (0.0, 0.0)
"""The observation in two dimensions: the image of the origin."""


def cubic(x: jax.typing.ArrayLike) -> jax.Array:
    """Return the one-dimensional map F(x) = x + 0.3 x^3.

    Args:
        x: any shape; the map acts on every entry.

    Returns:
        F(x), of the same shape.
    """
    value = jnp.asarray(x)
    return value + 0.3 * value**3


def quadratic(x: jax.typing.ArrayLike) -> jax.Array:
    """Return the two-dimensional map F(x) = (x_1 + 0.3 x_1 x_2, x_2 + 0.2 x_1^2).

    Args:
        x: shape (..., 2).

    Returns:
        F(x), shape (..., 2).

    Raises:
        ValueError: the last axis does not have length two.
    """
    value = jnp.asarray(x)
    if value.ndim < 1 or value.shape[-1] != 2:
        raise ValueError(f"points of shape (..., 2) are expected, got {value.shape}.")
    first, second = value[..., 0], value[..., 1]
    return jnp.stack([first + 0.3 * first * second, second + 0.2 * first**2], axis=-1)
