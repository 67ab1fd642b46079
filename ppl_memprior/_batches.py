"""How much is in memory at once: one number for the whole package, and the loops that keep to it.

A batch is what is worked on at once: examples, draws, particles or queries. `BATCH_ELEMENTS` bounds
the numbers that a batch holds beside its inputs and results. It also bounds what is read whole from
a file, and what a group of predictions keeps in a stored posterior. To change the bound, assign
`ppl_memprior._batches.BATCH_ELEMENTS` before the first computation: compiled programs keep theirs.
`WaveEquation(max_memory=...)` bounds the wavefields inside of one forward solve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

#: Most numbers in a batch: 64 MiB in float32. An item that needs more is a batch of its own.
BATCH_ELEMENTS = 2**24
#: Most items in a batch where more would not be faster, and a bar would stand still.
BATCH_ITEMS = 512


def fits(elements: int) -> bool:
    """Whether so many numbers may be in memory, or in a stored group, at once."""
    return elements <= BATCH_ELEMENTS


def items_that_fit(elements_per_item: int) -> int:
    """Return the largest number of items in a batch, at least one.

    Args:
        elements_per_item: numbers that one item needs while it is worked on.

    Returns:
        What `BATCH_ELEMENTS` allows.
    """
    return max(1, BATCH_ELEMENTS // max(1, elements_per_item))


def items_in_batch(count: int, elements_per_item: int, *, at_least: int = 1) -> int:
    """Return how many of `count` items one batch takes, so that all batches are about as large.

    Args:
        count: items in all.
        elements_per_item: numbers that one item needs while it is worked on.
        at_least: batches wanted, as far as there are items for them.

    Returns:
        At most `BATCH_ITEMS`, and what `BATCH_ELEMENTS` allows.
    """
    largest = min(BATCH_ITEMS, items_that_fit(elements_per_item))
    batches = max(-(-count // largest), min(count, at_least))
    return -(-count // batches)


# --- loops in Python ------------------------------------------------------------------------------


def batch_slices(count: int, size: int) -> Iterator[slice]:
    """Yield the slices of 0..count-1 that hold `size` items each, and the last one what is left."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def filled_batches(count: int, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield batches of one shape, for which a program is compiled once.

    Args:
        count: items in all.
        size: items in a batch.

    Yields:
        The items of a batch, and `size` indices: in the last batch, the last item repeated.
    """
    for items in batch_slices(count, size):
        yield items, np.minimum(np.arange(items.start, items.start + size), count - 1)


# --- loops in compiled programs -------------------------------------------------------------------


def in_batches(fn: Callable[..., Any], size: int, *arrays: jax.Array) -> Any:
    """Return `fn(*arrays)` for a function of many rows, called on `size` of them at a time.

    Args:
        fn: maps rows of `arrays` to an array or a tuple of arrays with as many rows.
        size: rows in a batch.
        *arrays: (Q, ...) each.

    Returns:
        What `fn` returns, (Q, ...).
    """
    num = arrays[0].shape[0]
    if num <= size:
        return fn(*arrays)
    whole = num - num % size
    batched = [a[:whole].reshape((-1, size) + a.shape[1:]) for a in arrays]
    out = jax.lax.map(lambda batch: fn(*batch), batched)
    out = jax.tree.map(lambda a: a.reshape((whole,) + a.shape[2:]), out)
    if whole == num:
        return out
    rest = fn(*(a[whole:] for a in arrays))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), out, rest)


def over_batches(fn: Callable[[jax.Array, int], jax.Array], num: int, size: int) -> jax.Array:
    """Return `fn(start, count)`, of shape (Q, count), for batches of 0..num-1, side by side.

    What a batch needs is computed again in the reverse pass.

    Args:
        fn: maps the first index of a batch, traced, and its length to an array.
        num: items in all.
        size: items in a batch.

    Returns:
        Shape (Q, num).
    """
    whole = num // size
    parts = []
    if whole:
        batches = jax.lax.map(
            jax.checkpoint(lambda start: fn(start, size)), size * jnp.arange(whole)
        )
        parts.append(jnp.moveaxis(batches, 0, 1).reshape(batches.shape[1], -1))
    if num % size:
        parts.append(fn(jnp.asarray(whole * size), num % size))
    return jnp.concatenate(parts, axis=1)


def sum_over_batches(fn: Callable[[jax.Array, int], jax.Array], num: int, size: int) -> jax.Array:
    """Return the sum of `fn(start, count)` over the batches of 0..num-1.

    Args:
        fn: as for `over_batches`; its arrays have one shape for all batches.
        num: items in all.
        size: items in a batch.

    Returns:
        An array of that shape.
    """
    whole = num // size
    total = jnp.asarray(0.0)
    if num % size:
        total = fn(jnp.asarray(whole * size), num % size)
    if whole:
        term = jax.checkpoint(lambda start: fn(start, size))
        shape = jax.eval_shape(term, jnp.asarray(0))
        zero = jnp.zeros(shape.shape, shape.dtype)
        total += jax.lax.scan(
            lambda sofar, start: (sofar + term(start), None), zero, size * jnp.arange(whole)
        )[0]
    return total
