"""Plain differences of queries and examples, in batches that bound the memory.

Distances are sums of squared differences: accurate at every bandwidth, and slow. Which differences
are worth forming is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ppl_memprior._batches import items_that_fit

#: Arrays as large as the differences that a batch counts for: the reverse pass holds a few of them.
COPIES = 4


def map_queries(fn: Callable[..., Any], elements_per_query: int, *arrays: jax.Array) -> Any:
    """Apply `fn` to each row of `arrays`, in batches; one row is always taken whole.

    The reverse pass of a batch recomputes its differences instead of storing those of all batches.

    Args:
        fn: maps one row of each of `arrays` to an array or a tuple of arrays.
        elements_per_query: number of elements of the largest intermediate of one call.
        *arrays: (Q, ...) each.

    Returns:
        What `fn` returns, stacked: (Q, ...).
    """
    size = items_that_fit(COPIES * max(1, elements_per_query))
    fn = jax.checkpoint(fn)
    if arrays[0].shape[0] <= size:
        return jax.vmap(fn)(*arrays)
    return jax.lax.map(lambda rows: fn(*rows), arrays, batch_size=size)


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
