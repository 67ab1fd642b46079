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

from ppl_memprior._arrays import real_array


def _is_traced(values: object) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def float_array(name: str, values: Any) -> jax.Array:
    """Return `values` as a floating-point array; integers and half precision are promoted.

    Raises:
        TypeError, ValueError: if `values` are not real numbers, as `real_array` says.
    """
    if not isinstance(values, int | float):  # Python's own adapt to the precision of the others
        values = real_array(name, values)
    if _is_traced(values):
        return _as_floating(values)
    # A known array stays known even while something else is being traced.
    with jax.ensure_compile_time_eval():
        return _as_floating(values)


def _as_floating(values: Any) -> jax.Array:
    if isinstance(values, np.ndarray) and not jnp.issubdtype(values.dtype, jnp.floating):
        values = values.astype(jnp.result_type(float))  # as JAX's integers it might not fit
    array = jnp.asarray(values)
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


def require_scalar_event(purpose: str, event_shape: tuple[int, ...]) -> None:
    """Raise NotImplementedError unless events are scalars."""
    if event_shape:
        raise NotImplementedError(
            f"{purpose} is defined for scalar events only, this event has shape {event_shape}."
        )


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
    """Raise unless `array` has the shape (N, *event) of examples.

    Raises:
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


def uniform_log_weights(num: int, like: Any) -> jax.Array:
    """Return `num` equal log-weights, shape (num,), with the dtype of `like`."""
    return jnp.full((num,), -math.log(num), dtype=like.dtype)


def example_weights(weights: ArrayLike | None, examples: Any) -> jax.Array | None:
    """Return `weights` (N,) of the examples as floating point, or None for equal ones.

    Raises:
        ValueError: if the shape is not (N,), or a weight is negative, NaN or infinite, or if all
            are zero.
    """
    if weights is None:
        return None
    num = examples.shape[0]
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
    return array


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


def example_indices(indices: Any, num: int) -> Any:
    """Return indices of `num` examples, none of them negative; traced ones as they are.

    Raises:
        TypeError: if they are not whole numbers.
        IndexError: if one is out of range.
    """
    array = indices if _is_traced(indices) else np.asarray(indices)
    if not array.size:
        return np.zeros(array.shape, np.int32)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(
            f"indices must be whole numbers, got an array of {array.dtype}; for a mask pass "
            "numpy.flatnonzero(mask)."
        )
    if _is_traced(array):
        return array
    bad = array[(array < -num) | (array >= num)]
    if bad.size:
        raise IndexError(
            f"index {bad.flat[0]} is out of range: there are {num} examples, 0 to {num - 1}."
        )
    return np.where(array < 0, array + num, array)
