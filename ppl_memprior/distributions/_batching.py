"""Reshaping between NumPyro's (*sample, *batch, *event) arrays and flat lists of queries.

The arithmetic modules see queries of shape (Q, d), one scalar parameter per query, and tables
shared by all queries. A distribution that NumPyro stacked (its `scan`, or `vmap` returning
distributions) has tables with batch axes of their own; these are mapped over here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.typing import ArrayLike

from ppl_memprior.distributions._checks import broadcast_shapes, float_array


def checked_value(
    value: ArrayLike, batch_shape: tuple[int, ...], event_shape: tuple[int, ...]
) -> jax.Array:
    """Return `value` as floating point if it fits (*sample, *batch, *event).

    Raises:
        ValueError: if its last axes are not `event_shape`, or the axes before these do not
            broadcast with `batch_shape`.
    """
    array = float_array("value", value)
    lead = array.ndim - len(event_shape)
    if lead < 0 or array.shape[lead:] != event_shape:
        raise ValueError(
            f"value has shape {array.shape}, expected (*sample, *batch, *event) whose last axes "
            f"are the event shape {event_shape}; reshape the value, or build the distribution "
            "from examples of the value's shape."
        )
    broadcast_shapes(value=array.shape[:lead], batch_shape=batch_shape)
    return partitioned_by_compiler(array)


def partitioned_by_compiler(array: jax.Array) -> jax.Array:
    """Return `array` on the same devices, with sharding left to the compiler where it is explicit.

    A mesh with explicit axes asks every operation how its result is to be sharded; here that is
    nobody's concern.
    """
    sharding = None if isinstance(array, jax.core.Tracer) else array.sharding
    if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh):
        return array
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return array
    mesh = Mesh(sharding.mesh.devices, sharding.mesh.axis_names)
    return jax.device_put(array, NamedSharding(mesh, sharding.spec))


def flat_events(array: jax.Array, event_dim: int) -> jax.Array:
    """Return `array` (..., *event) as (..., d), with d = 1 for scalar events."""
    lead = array.ndim - event_dim
    return array.reshape(array.shape[:lead] + (math.prod(array.shape[lead:]),))


def over_queries(
    kernel: Callable[..., Any],
    value: jax.Array,
    event_dim: int,
    tables: Sequence[tuple[Any, int | tuple[int, ...]]],
    scalars: Sequence[jax.Array] = (),
) -> Any:
    """Apply `kernel(queries, *tables, *scalars)` to every event of `value`.

    Args:
        kernel: takes queries (Q, d), tables, scalars (Q,); returns (Q, ...).
        value: (*lead, *event).
        event_dim: number of event axes of `value`.
        tables: pairs of an array and the number of axes that the kernel expects of it, or of a
            pytree of arrays and these numbers for its leaves; axes in front of these are batch
            axes, and broadcast with the lead of `value`.
        scalars: parameters that broadcast with the lead of `value`.

    Returns:
        (*lead, ...), where lead is the common shape of all the leads; a pytree of these where the
        kernel returns one.
    """
    arrays, dims = zip(*tables, strict=True)
    core_dims = sum(((dim,) if isinstance(dim, int) else dim for dim in dims), ())
    return _over_queries(kernel, event_dim, core_dims, value, arrays, tuple(scalars))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _over_queries(
    kernel: Callable[..., Any],
    event_dim: int,
    core_dims: tuple[int, ...],
    value: jax.Array,
    tables: tuple[Any, ...],
    scalars: tuple[jax.Array, ...],
) -> Any:
    event_lead = value.ndim - event_dim
    leaves, structure = jax.tree.flatten(tables)
    table_batch = jnp.broadcast_shapes(
        *(t.shape[: t.ndim - n] for t, n in zip(leaves, core_dims, strict=True))
    )
    lead = jnp.broadcast_shapes(
        value.shape[:event_lead], table_batch, *(jnp.shape(s) for s in scalars)
    )
    d = math.prod(value.shape[event_lead:])
    queries = jnp.broadcast_to(flat_events(value, event_dim), lead + (d,))
    per_query = [jnp.broadcast_to(s, lead) for s in scalars]
    if not table_batch:
        num = math.prod(lead)
        if num == 0:
            one = [jax.ShapeDtypeStruct((1, *a.shape[len(lead) :]), a.dtype) for a in per_query]
            struct = jax.ShapeDtypeStruct((1, d), queries.dtype)
            out = jax.eval_shape(kernel, struct, *tables, *one)
            return jax.tree.map(lambda a: jnp.zeros(lead + a.shape[1:], a.dtype), out)
        out = kernel(queries.reshape(num, d), *tables, *(s.reshape(num) for s in per_query))
        return jax.tree.map(lambda a: a.reshape(lead + a.shape[1:]), out)

    split = len(lead) - len(table_batch)
    batch, sample = lead[split:], math.prod(lead[:split])
    num_batches = math.prod(batch)
    stacked = [
        jnp.broadcast_to(t, batch + t.shape[t.ndim - n :]).reshape(
            (num_batches,) + t.shape[t.ndim - n :]
        )
        for t, n in zip(leaves, core_dims, strict=True)
    ]
    axes = (1, 0) + (1,) * len(per_query)
    out = jax.vmap(
        lambda queries, leaves, *scalars: kernel(
            queries, *jax.tree.unflatten(structure, leaves), *scalars
        ),
        in_axes=axes,
        out_axes=1,
    )(
        queries.reshape(sample, num_batches, d),
        stacked,
        *(s.reshape(sample, num_batches) for s in per_query),
    )
    return jax.tree.map(lambda a: a.reshape(lead + a.shape[2:]), out)


@partial(jax.jit, static_argnames="row_dim")
def take(table: jax.Array, index: jax.Array, row_dim: int) -> jax.Array:
    """Return the rows of `table` (*batch, N, *row) at `index` (*sample, *batch).

    `row_dim` is the number of axes of a row; the result has shape (*sample, *batch, *row).
    """
    batch_dim = table.ndim - 1 - row_dim
    if batch_dim == 0:
        return table[index]
    sample_dim = index.ndim - batch_dim
    batch = jnp.broadcast_shapes(table.shape[:batch_dim], index.shape[sample_dim:])
    rows = jnp.broadcast_to(table, batch + table.shape[batch_dim:])
    rows = rows.reshape((1,) * sample_dim + rows.shape)
    where = index.reshape(index.shape + (1,) * (1 + row_dim))
    return jnp.take_along_axis(rows, where, axis=index.ndim).squeeze(index.ndim)


def lift(array: jax.Array, core_dim: int, batch_dim: int) -> jax.Array:
    """Insert unit axes behind the leading axes that stacking gave `array`.

    Stacking (`vmap`, `scan`) adds axes on the left; a table without batch axes would then no
    longer be aligned with a batch shape of `batch_dim` axes on its right.
    """
    stacked = array.ndim - core_dim
    if stacked <= 0:
        return array
    return array.reshape(array.shape[:stacked] + (1,) * batch_dim + array.shape[stacked:])


@partial(jax.jit, static_argnames="shape")
def draw_indices(key: jax.Array, log_weights: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw indices of an array of log-weights (*batch, N), in `shape` = (*sample, *batch).

    By inversion of the cumulative weights, which needs no (*shape, N) array; an index of weight
    zero is never drawn.
    """
    u = _flat_draw(jax.random.uniform, key, shape, log_weights.dtype)
    return over_queries(_invert, u, 0, [(log_weights, 1)])


@jax.jit
def _invert(u: jax.Array, log_weights: jax.Array) -> jax.Array:
    cumulative = jnp.cumsum(jnp.exp(log_weights))
    last = log_weights.shape[0] - 1 - jnp.argmax(log_weights[::-1] > -jnp.inf)
    index = jnp.searchsorted(cumulative, u[:, 0] * cumulative[-1], side="right")
    return jnp.minimum(index, last)  # rounding can bring u to the very end


@partial(jax.jit, static_argnames=("shape", "dtype"))
def draw_normal(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Draw standard normal numbers."""
    return _flat_draw(jax.random.normal, key, shape, dtype)


def _flat_draw(
    draw: Callable[..., jax.Array], key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype
) -> jax.Array:
    # XLA compiles random numbers of one axis several times faster than those of four.
    return draw(key, (math.prod(shape),), dtype).reshape(shape)
