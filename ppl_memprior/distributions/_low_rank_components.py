"""The arithmetic of Gaussian components that are isotropic except in a few directions.

Each function takes flat queries and the parameters of all components; no d x d matrix is formed.
The checks of these parameters, and NumPyro's interface, are left to `LowRankGaussianMixture`.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from ppl_memprior.distributions._mixture.differences import half_squared_norm, map_queries


def _component_logits(
    query: jax.Array,
    locs: jax.Array,
    scale: jax.Array,
    directions: jax.Array,
    direction_scales: jax.Array,
    log_weights: jax.Array,
) -> jax.Array:
    """Return log pi_n + log N(x; m_n, C_n), without -d/2 log 2 pi, for one query (d,): (N,)."""
    num_rest = locs.shape[1] - directions.shape[1]
    delta = query - locs
    along = jnp.einsum("nkd,nd->nk", directions, delta, precision=jax.lax.Precision.HIGHEST)
    # The perpendicular part is formed before it is squared: |delta|^2 - |along|^2 would cancel.
    rest = delta - jnp.einsum("nkd,nk->nd", directions, along, precision=jax.lax.Precision.HIGHEST)
    distance = half_squared_norm(jnp.concatenate([rest / scale, along / direction_scales], axis=-1))
    log_det = num_rest * jnp.log(scale) + jnp.sum(jnp.log(direction_scales), axis=-1)
    return log_weights - distance - log_det


@jax.jit
def log_density(queries: jax.Array, *tables: jax.Array) -> jax.Array:
    """Return log p at queries (Q, d): (Q,). The tables are those of `_component_logits`."""
    locs = tables[0]

    def one(query: jax.Array) -> jax.Array:
        logits = _component_logits(query, *tables)
        return jax.nn.logsumexp(logits) - 0.5 * locs.shape[1] * math.log(2 * math.pi)

    return map_queries(one, _elements_per_query(*tables), queries)


@jax.jit
def responsibilities(queries: jax.Array, *tables: jax.Array) -> jax.Array:
    """Return the probability of each component at queries (Q, d): (Q, N)."""
    return map_queries(
        lambda query: jax.nn.softmax(_component_logits(query, *tables)),
        _elements_per_query(*tables),
        queries,
    )


def _elements_per_query(*tables: jax.Array) -> int:
    """Differences and coordinates of all components; the directions are shared by all queries."""
    locs, _, _, direction_scales, _ = tables
    return locs.size + direction_scales.size


@jax.jit
def draw(
    noise: jax.Array,
    locs: jax.Array,
    scale: jax.Array,
    directions: jax.Array,
    direction_scales: jax.Array,
    index: jax.Array,
) -> jax.Array:
    """Turn standard normal `noise` (Q, d) into draws from the components at `index` (Q,)."""
    dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def one(z: jax.Array, n: jax.Array) -> jax.Array:
        v = directions[n]
        along = dot(v, z)
        return locs[n] + scale * (z - dot(along, v)) + dot(direction_scales[n] * along, v)

    rank, d = directions.shape[1:]
    return map_queries(one, (1 + rank) * d, noise, index)
