"""Distribution functions and quantiles on the line, of scalar events.

A mixture's quantile lies between the least and the largest of its components' quantiles, and is
found there by bisection; it is differentiated as the solution of cdf(x) = q. The functions take
queries of shape (Q, 1), as all that `over_queries` calls.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from ppl_memprior.distributions._mixture.differences import map_queries
from ppl_memprior.distributions._mixture.examples import Examples
from ppl_memprior.distributions._mixture.weights import Weights

# --- mixtures of Gaussians ------------------------------------------------------------------------


def _cdf(x: jax.Array, locs: jax.Array, scales: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.sum(weights * ndtr((x - locs) / scales))


def _density(x: jax.Array, locs: jax.Array, scales: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.sum(weights * jax.scipy.stats.norm.pdf(x, locs, scales))


@jax.custom_jvp
def _icdf(q: jax.Array, locs: jax.Array, scales: jax.Array, weights: jax.Array) -> jax.Array:
    """Return x with `_cdf(x)` = q, for one q; NaN where q is not from 0 to 1."""
    bounds = locs + scales * ndtri(q)
    lower = jnp.min(jnp.where(weights > 0, bounds, jnp.inf))
    upper = jnp.max(jnp.where(weights > 0, bounds, -jnp.inf))

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        lower, upper = ends
        middle = 0.5 * (lower + upper)
        below = _cdf(middle, locs, scales, weights) < q
        return jnp.where(below, middle, lower), jnp.where(below, upper, middle)

    # from components that are thousands of bandwidths apart down to the last digit
    steps = jnp.finfo(q.dtype).nmant + 16
    lower, upper = jax.lax.fori_loop(0, steps, halve, (lower, upper))
    return jnp.where((q >= 0) & (q <= 1), 0.5 * (lower + upper), jnp.nan)


@_icdf.defjvp
def _icdf_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    q, *mixture = primals
    x = _icdf(q, *mixture)
    _, moved = jax.jvp(lambda *m: _cdf(x, *m), tuple(mixture), tuple(tangents[1:]))
    return x, (tangents[0] - moved) / _density(x, *mixture)


@jax.jit
def cdf_of_components(
    queries: jax.Array, locs: jax.Array, scales: jax.Array, weights: jax.Array
) -> jax.Array:
    """Return the distribution function of a mixture of N Gaussians, shape (Q,)."""
    return map_queries(lambda x: _cdf(x[0], locs, scales, weights), locs.size, queries)


@jax.jit
def icdf_of_components(
    queries: jax.Array, locs: jax.Array, scales: jax.Array, weights: jax.Array
) -> jax.Array:
    """Return the quantiles of a mixture of N Gaussians at the levels `queries`, shape (Q,)."""
    return map_queries(lambda q: _icdf(q[0], locs, scales, weights), locs.size, queries)


@jax.jit
def cdf_of_examples(
    queries: jax.Array, examples: Examples, weights: Weights, alpha: jax.Array, sigma: jax.Array
) -> jax.Array:
    """Return the distribution function of the mixtures N(alpha x_n, sigma^2), shape (Q,)."""

    def one(x: jax.Array, a: jax.Array, s: jax.Array) -> jax.Array:
        return _cdf(x[0], a * examples.rows[:, 0], s, weights.linear)

    return map_queries(one, examples.num, queries, alpha, sigma)


@jax.jit
def icdf_of_examples(
    queries: jax.Array, examples: Examples, weights: Weights, alpha: jax.Array, sigma: jax.Array
) -> jax.Array:
    """Return the quantiles of the mixtures N(alpha x_n, sigma^2), shape (Q,)."""

    def one(q: jax.Array, a: jax.Array, s: jax.Array) -> jax.Array:
        return _icdf(q[0], a * examples.rows[:, 0], s, weights.linear)

    return map_queries(one, examples.num, queries, alpha, sigma)


# --- discrete distributions -----------------------------------------------------------------------


def _steps(examples: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the examples in ascending order, their weights and the sums of these so far."""
    order = jnp.argsort(examples)
    weights = weights[order]
    total = jnp.cumsum(weights)
    return examples[order], weights, total / total[-1]


@jax.jit
def cdf_among_examples(queries: jax.Array, examples: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the summed weights of the examples (N,) up to each query, shape (Q,)."""
    places, _, total = _steps(examples, weights)
    count = jnp.searchsorted(places, queries[:, 0], side="right")
    return jnp.where(count > 0, total[count - 1], 0) + 0 * queries[:, 0]  # NaN for NaN


@jax.jit
def icdf_among_examples(queries: jax.Array, examples: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the least example whose summed weight reaches each query, shape (Q,)."""
    places, weights, total = _steps(examples, weights)
    q = queries[:, 0]
    first = jnp.argmax(weights > 0)
    last = len(places) - 1 - jnp.argmax(weights[::-1] > 0)
    index = jnp.clip(jnp.searchsorted(total, q, side="left"), first, last)
    return jnp.where((q >= 0) & (q <= 1), places[index], jnp.nan)
