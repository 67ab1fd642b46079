"""Plain differences of queries and examples, in chunks that bound the memory.

Distances are sums of squared differences: accurate at every bandwidth, and slow. Which differences
are worth forming is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

#: Most elements of a (queries, examples, d) block of differences; one query is always taken whole.
CHUNK_ELEMENTS = 2**22


def map_queries(fn: Callable[..., Any], elements_per_query: int, *arrays: jax.Array) -> Any:
    """Apply `fn` to each row of `arrays`, in chunks of at most `CHUNK_ELEMENTS` elements.

    The reverse pass of a chunk recomputes its differences instead of storing those of all chunks.

    Args:
        fn: maps one row of each of `arrays` to an array or a tuple of arrays.
        elements_per_query: number of elements of the largest intermediate of one call.
        *arrays: (Q, ...) each.

    Returns:
        What `fn` returns, stacked: (Q, ...).
    """
    chunk = max(1, CHUNK_ELEMENTS // max(1, elements_per_query))
    fn = jax.checkpoint(fn)
    if arrays[0].shape[0] <= chunk:
        return jax.vmap(fn)(*arrays)
    return jax.lax.map(lambda rows: fn(*rows), arrays, batch_size=chunk)


def standardized(
    query: jax.Array, examples: jax.Array, alpha: jax.Array, sigma: jax.Array
) -> jax.Array:
    """Return (x - alpha x_n) / sigma for one query (d,), shape (N, d).

    Dividing before anything is squared keeps units of any size (permeability in m^2, say) from
    under- or overflowing.
    """
    return (query - alpha * examples) / sigma


def half_squared_norm(vectors: jax.Array) -> jax.Array:
    """Return |v|^2 / 2 over the last axis, at most a quarter of the largest finite number.

    The cap lets a point that is absurdly far from every example keep a finite log-density and
    responsibilities that add to one.
    """
    largest = jnp.finfo(vectors.dtype).max / 4
    return jnp.minimum(0.5 * jnp.sum(vectors * vectors, axis=-1), largest)


def norm(vectors: jax.Array) -> jax.Array:
    """Return |v| over the last axis, for vectors in a unit of any size."""
    largest = jnp.max(jnp.abs(vectors), axis=-1, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1)
    # The norm of zero has no derivative; another vector's in its place keeps NaN away.
    lengths = jnp.linalg.norm(jnp.where(largest > 0, vectors / scale, 1), axis=-1)
    return jnp.where(largest[..., 0] > 0, scale[..., 0] * lengths, 0)


def in_groups(fn: Callable[..., Any], size: int, *arrays: jax.Array) -> Any:
    """Return `fn(*arrays)` for a function of many rows, called on `size` of them at a time."""
    num = arrays[0].shape[0]
    if num <= size:
        return fn(*arrays)
    whole = num - num % size
    grouped = [a[:whole].reshape((-1, size) + a.shape[1:]) for a in arrays]
    out = jax.lax.map(lambda group: fn(*group), grouped)
    out = jax.tree.map(lambda a: a.reshape((whole,) + a.shape[2:]), out)
    if whole == num:
        return out
    rest = fn(*(a[whole:] for a in arrays))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), out, rest)


def over_blocks(fn: Callable[[jax.Array, int], jax.Array], num: int, size: int) -> jax.Array:
    """Return `fn(start, count)`, of shape (Q, count), for all of 0..num-1, side by side.

    `size` at a time; what one block needs is computed again in the reverse pass.
    """
    whole = num // size
    parts = []
    if whole:
        blocks = jax.lax.map(
            jax.checkpoint(lambda start: fn(start, size)), size * jnp.arange(whole)
        )
        parts.append(jnp.moveaxis(blocks, 0, 1).reshape(blocks.shape[1], -1))
    if num % size:
        parts.append(fn(jnp.asarray(whole * size), num % size))
    return jnp.concatenate(parts, axis=1)


def sum_over_blocks(fn: Callable[[jax.Array, int], jax.Array], num: int, size: int) -> jax.Array:
    """Return the sum of `fn(start, count)` over blocks of `size` that make up 0..num-1."""
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
