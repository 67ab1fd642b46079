"""Queries compared with all stored examples: which are equal, and which are the nearest ones.

These are the sums of a memorized prior, whose bandwidth is zero. Examples in a file are read batch
by batch. Arrays are flat, as in `nearest`, which has the `k` nearest examples of a query.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ppl_memprior._batches import in_batches, items_that_fit, over_batches
from ppl_memprior.distributions._mixture.differences import map_queries, norm
from ppl_memprior.distributions._mixture.examples import Examples, HostRows
from ppl_memprior.distributions._mixture.weights import Weights


@jax.jit
def matching_log_weight(queries: jax.Array, examples: Examples, weights: Weights) -> jax.Array:
    """Return the log of the summed weights of the examples equal to each query, shape (Q,).

    Minus infinity, with derivative zero, where no example of positive weight equals the query.
    """
    return _of_comparisons(_equal, _log_weight_of, queries, examples, weights)


def _equal(query: jax.Array, rows: jax.Array) -> jax.Array:
    return jnp.all(query == rows, axis=-1)


def _log_weight_of(equal: jax.Array, weights: Weights) -> jax.Array:
    """Return the log of the summed weights of the examples that are `equal`, (N,), to a query."""
    log_weights, zeros = weights
    matches = equal & (log_weights > -jnp.inf)
    any_match = jnp.any(matches)
    # Where nothing matches the sum is empty; a stand-in keeps its derivative from being NaN.
    chosen = jnp.where(matches | ~any_match, log_weights, -jnp.inf)
    total = jax.nn.logsumexp(chosen)
    if zeros is not None:
        total += jnp.log1p(jnp.sum(jnp.where(equal, zeros, 0)) * jnp.exp(-total))
    return jnp.where(any_match, total, -jnp.inf)


@jax.jit
def nearest_responsibilities(queries: jax.Array, examples: Examples, weights: Weights) -> jax.Array:
    """Return the limit of `responsibilities` for alpha = 1 and sigma -> 0, shape (Q, N).

    All the weight is on the nearest example of positive weight; examples at exactly the same
    distance share it in proportion to their weights.
    """
    return _of_comparisons(_distances, _shares_of_nearest, queries, examples, weights)


def _distances(query: jax.Array, rows: jax.Array) -> jax.Array:
    return norm(query - rows)


def _shares_of_nearest(distance: jax.Array, weights: Weights) -> jax.Array:
    """Return the weights of the examples at the least `distance`, (N,), normalised."""
    log_weights, zeros = weights
    nearest = distance == jnp.min(jnp.where(log_weights > -jnp.inf, distance, jnp.inf))
    logits = jnp.where(nearest, log_weights, -jnp.inf)
    shares = jax.nn.softmax(logits)
    if zeros is None:
        return shares
    more = jnp.where(nearest, zeros, 0) * jnp.exp(-jax.nn.logsumexp(logits))
    return (shares + more) / (1 + jnp.sum(more))


def _of_comparisons(
    compare: Callable[[jax.Array, jax.Array], jax.Array],
    statistic: Callable[[jax.Array, Weights], jax.Array],
    queries: jax.Array,
    examples: Examples,
    weights: Weights,
) -> jax.Array:
    """Return a statistic of each query's comparisons with all examples, (Q, ...).

    Args:
        compare: maps a query (d,) and rows (K, d) to a number for each row, (K,).
        statistic: maps the comparisons with all examples (N,), and their weights, to an array.
        queries: (Q, d).
        examples: N of them, read batch by batch where they lie in a file.
        weights: of the examples.
    """
    if not isinstance(examples.rows, HostRows):
        return map_queries(
            lambda query: statistic(compare(query, examples.rows), weights),
            examples.num * examples.d,
            queries,
        )
    of_all = jax.vmap(statistic, (0, None))
    return in_batches(
        lambda queries: of_all(_compared_in_file(compare, queries, examples), weights),
        items_that_fit(examples.num),
        queries,
    )


def _compared_in_file(
    compare: Callable[[jax.Array, jax.Array], jax.Array], queries: jax.Array, examples: Examples
) -> jax.Array:
    """Return the comparisons of queries (Q, d) with all examples, (Q, N)."""

    def part(start: jax.Array, size: int) -> jax.Array:
        rows = examples.batch(start, size)
        return jax.lax.map(lambda query: compare(query, rows), queries)

    return over_batches(part, examples.num, min(examples.num, items_that_fit(examples.d)))
