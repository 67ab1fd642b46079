"""Checks of what users hand to the constructors and methods of this package's distributions.

Shapes are checked always, values wherever they are known: a traced value (under `jit`, `grad`
or `vmap`) passes unseen. Every message says what was given, what was expected and what to do.
What the numbers mean is left to the distributions.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def _is_traced(values: object) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def float_array(name: str, values: ArrayLike) -> jax.Array:
    """Return `values` as a floating-point array; integers and half precision are promoted.

    Raises:
        TypeError: if `values` is not an array of real numbers.
    """
    try:
        if _is_traced(values):
            array = _as_floating(jnp.asarray(values))
        else:
            # A known array stays known even while something else is being traced.
            with jax.ensure_compile_time_eval():
                array = _as_floating(jnp.asarray(values))
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} must be an array of real numbers, got {type(values).__name__}; pass an array "
            "(or nested lists of equal lengths) that numpy.asarray turns into numbers."
        ) from None
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be real, got dtype {array.dtype}; pass its real part.")
    return array


def _as_floating(array: jax.Array) -> jax.Array:
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return array
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(jnp.promote_types(array.dtype, jnp.float32))
    return array.astype(jnp.result_type(float))


def require_finite(name: str, array: jax.Array) -> None:
    """Raise ValueError if a known `array` holds a NaN or an infinity, saying where the first is."""
    if _is_traced(array):
        return
    with jax.ensure_compile_time_eval():  # where the array lies: it may be on several devices
        if jnp.isfinite(array).all():
            return
    finite = np.isfinite(np.asarray(array))
    bad = int(np.sum(~finite))
    first = tuple(int(i) for i in np.unravel_index(np.argmin(finite), array.shape))
    raise ValueError(
        f"{name} of shape {array.shape} (as {array.dtype}) must be finite, but {bad} of its "
        f"{array.size} values are NaN or infinite, the first at index {first}; remove or repair "
        "them."
    )


def require_positive(name: str, array: jax.Array) -> None:
    """Raise ValueError if a known `array` holds anything but finite numbers above zero."""
    if _is_traced(array):
        return
    known = np.asarray(array)
    if not np.all((known > 0) & np.isfinite(known)):
        shown = f"{known}" if known.size <= 8 else f"shape {known.shape}, least {known.min()}"
        raise ValueError(f"{name} must be positive and finite, got {shown}; pass {name} > 0.")


def require_shape(name: str, array: jax.Array, expected: tuple[int, ...], meaning: str) -> None:
    """Raise ValueError unless `array` has the `expected` shape, whose `meaning` is said."""
    if array.shape != expected:
        raise ValueError(f"{name} has shape {array.shape}, expected {expected}: {meaning}.")


def broadcast_shapes(**shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the common shape of named `shapes`, or raise a ValueError that lists them."""
    try:
        return jnp.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"These shapes do not broadcast together: {listed}; insert axes of length one, or "
            "repeat the shorter one."
        ) from None


def example_array(name: str, values: ArrayLike) -> jax.Array:
    """Return a stack of N >= 1 finite examples, shape (N, *event), as floating point.

    Raises:
        TypeError: if `values` is not an array of real numbers.
        ValueError: if there is no example axis, no example, or a NaN or infinite value.
    """
    array = float_array(name, values)
    require_examples(name, array)
    require_finite(name, array)
    return array


def require_examples(name: str, array: Any) -> None:
    """Raise unless `array` has the shape (N, *event) of examples, and real numbers.

    Raises:
        TypeError: if its numbers are not real.
        ValueError: if there is no example axis, or no example.
    """
    if array.ndim == 0:
        raise ValueError(
            f"{name} is a scalar, expected shape (N, *event) with one example per row; pass "
            f"{name}[None] for a single example."
        )
    if array.size == 0:
        raise ValueError(
            f"{name} has shape {array.shape}, expected (N, *event) with at least one example and "
            "no empty axis; there is nothing to build a distribution from."
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be real, got dtype {array.dtype}; pass its real part.")


def uniform_log_weights(num: int, like: Any) -> jax.Array:
    """Return `num` equal log-weights, shape (num,), with the dtype of `like`."""
    return jnp.full((num,), -math.log(num), dtype=like.dtype)


@jax.jit
def normalize(log_weights: jax.Array) -> jax.Array:
    """Return `log_weights` (..., N) shifted so that the weights add to one."""
    # Taking off the largest one first keeps the digits of log-weights far from zero.
    largest = jax.lax.stop_gradient(jnp.max(log_weights, axis=-1, keepdims=True))
    shifted = log_weights - largest
    return shifted - jax.nn.logsumexp(shifted, axis=-1, keepdims=True)


def log_weights_of(weights: ArrayLike | None, examples: Any) -> jax.Array:
    """Return the normalised logarithms, shape (N,), of non-negative `weights` (N,) or of None.

    A weight of zero has the logarithm minus infinity and, by convention, the derivative zero.

    Raises:
        ValueError: if the shape is not (N,), or a weight is negative, NaN or infinite, or if all
            are zero.
    """
    num = examples.shape[0]
    if weights is None:
        return uniform_log_weights(num, examples)
    array = float_array("weights", weights)
    require_shape("weights", array, (num,), "one weight for each of the examples")
    require_finite("weights", array)
    if not _is_traced(array):
        known = np.asarray(array)
        least, largest = float(known.min()), float(known.max())
        if least < 0:
            raise ValueError(
                f"weights must not be negative, but the least of the {num} is {least}; if these "
                "are log-weights, pass their exponentials."
            )
        if largest == 0:
            raise ValueError(
                f"all {num} weights are zero; at least one example needs a positive weight."
            )
    return _normalized_logarithms(array)


@jax.jit
def _normalized_logarithms(weights: jax.Array) -> jax.Array:
    is_zero = weights == 0
    return normalize(jnp.where(is_zero, -jnp.inf, jnp.log(jnp.where(is_zero, 1.0, weights))))


def unnormalized_log_weights(name: str, values: ArrayLike, num: int) -> jax.Array:
    """Return `values`, shape (num,), as log-weights: minus infinity allowed, but not everywhere.

    Raises:
        ValueError: if the shape is not (num,), or a value is NaN or plus infinity, or if all are
            minus infinity.
    """
    array = float_array(name, values)
    require_shape(name, array, (num,), "one logarithm of a weight for each component")
    if not _is_traced(array):
        known = np.asarray(array)
        broken = int(np.sum(np.isnan(known) | (known == np.inf)))
        largest = float(known.max())
        if broken:
            raise ValueError(
                f"{name} of shape {array.shape} holds {broken} values that are NaN or plus "
                "infinity; only finite numbers and minus infinity (weight zero) are allowed."
            )
        if largest == -jnp.inf:
            raise ValueError(
                f"all {num} {name} are minus infinity; at least one weight must be positive."
            )
    return array
