"""Sums over stored examples, by the four ways that `mixtures` chooses from.

Plain differences x - alpha x_n are accurate always: of the examples that screening has found, of
all where they fit in memory, or of all a few at a time. The product form costs two matrix products
for all queries together, and is accurate where nothing cancels. Each way is ordinary differentiable
JAX, so derivatives of any order take the same way. When to take which is left to `mixtures`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppl_memprior._batches import in_batches, items_that_fit, over_batches, sum_over_batches
from ppl_memprior.distributions._mixture.differences import (
    half_squared_norm,
    map_queries,
    standardized,
)
from ppl_memprior.distributions._mixture.examples import Examples
from ppl_memprior.distributions._mixture.screening import (
    Screen,
    examples_in_batch,
    product_logits,
    scaled_queries,
)

# Examples whose differences are formed at once, where all of them are; more in few dimensions. This
# is no bound on the memory, which many queries share: so many differences stay in the cache.
_ROWS = 32
_ROW_ELEMENTS = 2**13


class Mixture(NamedTuple):
    """The mixture as some queries see it: over all examples, or over those that matter to them.

    Attributes:
        logits: log pi_n - |x - alpha x_n|^2 / (2 sigma^2), (..., K).
        weigh: maps responsibilities (..., K) to sum_n r_n (x - alpha x_n) / sigma, (..., d).
        average: maps responsibilities (..., K) to sum_n r_n x_n, (..., d).
        spread: maps responsibilities (..., K) to those of all examples, (..., N).
        sigma: bandwidth, (...).
        d: number of dimensions.
    """

    logits: jax.Array
    weigh: Callable[[jax.Array], jax.Array]
    average: Callable[[jax.Array], jax.Array]
    spread: Callable[[jax.Array], jax.Array]
    sigma: jax.Array
    d: int


#: What is computed of a mixture: an array or a tuple of arrays.
Statistic = Callable[[Mixture], Any]


# --- one query at a time, by plain differences ----------------------------------------------------


def _mixture_of_rows(
    query: jax.Array,
    rows: jax.Array,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
    spread: Callable[[jax.Array], jax.Array] = lambda r: r,
) -> Mixture:
    """Return the mixture over `rows` (K, d) as one query (d,) sees it."""
    z = standardized(query, rows, alpha, sigma)
    logits = log_weights - half_squared_norm(z)

    def average(r: jax.Array) -> jax.Array:
        # About the most responsible example: the mean is that example, bit for bit, when no other
        # one counts, and its Jacobian does not cancel for data far from the origin.
        centre = rows[jnp.argmax(logits)]
        return centre + jnp.sum(r[:, None] * (rows - centre), axis=0)

    return Mixture(
        logits, lambda r: jnp.sum(r[:, None] * z, axis=0), average, spread, sigma, rows.shape[1]
    )


def by_refinement(
    statistic: Statistic,
    found: Screen,
    queries: jax.Array,
    examples: Examples,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> Any:
    """Return a statistic of the mixtures over the examples that screening has found."""
    num, d = examples.num, examples.d

    def one(
        query: jax.Array, where: jax.Array, counts: jax.Array, a: jax.Array, s: jax.Array
    ) -> Any:
        def spread(r: jax.Array) -> jax.Array:
            return jnp.zeros(num, r.dtype).at[where].add(r)

        weights = jnp.where(counts, log_weights[where], -jnp.inf)
        return statistic(_mixture_of_rows(query, examples.take(where), weights, a, s, spread))

    counts = found.logits > -jnp.inf
    return map_queries(
        one, found.indices.shape[1] * d, queries, found.indices, counts, alpha, sigma
    )


def by_differences(
    statistic: Statistic,
    queries: jax.Array,
    examples: Examples,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> Any:
    """Return a statistic of the mixtures over all examples, whose differences fit in memory."""

    def one(query: jax.Array, a: jax.Array, s: jax.Array) -> Any:
        return statistic(_mixture_of_rows(query, examples.rows, log_weights, a, s))

    return map_queries(one, examples.num * examples.d, queries, alpha, sigma)


# --- all examples at once, or in batches ----------------------------------------------------------


def by_product(
    statistic: Statistic,
    all_logits: jax.Array | None,
    offset: jax.Array,
    queries: jax.Array,
    examples: Examples,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> Any:
    """Return a statistic of the mixtures over all examples, by the product form.

    Args:
        statistic: what to compute.
        all_logits: the logits, (Q, N), where screening kept them.
        offset: added to the logits of each query, (Q,): an error that they have in common.
        queries: (Q, d).
        examples: N of them, with their table.
        log_weights: (N,).
        alpha: (Q,).
        sigma: (Q,).
    """
    table, num = examples.table, examples.num
    assert table is not None

    def one(shared: Any, shift: Any, *arguments: jax.Array) -> Any:
        queries, alpha, sigma = arguments
        logits = _product_logits(shared, (queries, examples, log_weights, alpha, sigma))
        scaled, _ = scaled_queries(queries, table, alpha, sigma)

        def mean(r: jax.Array) -> jax.Array:
            def part(start: jax.Array, size: int) -> jax.Array:
                share = jax.lax.dynamic_slice_in_dim(r, start, size, axis=1)
                rows = examples.centred_batch(start, size)
                return jnp.matmul(share, rows, precision=jax.lax.Precision.HIGHEST)

            if table.centred is not None and shared is not None:
                return jnp.matmul(r, table.centred, precision=jax.lax.Precision.HIGHEST)
            return sum_over_batches(part, num, examples_in_batch(examples, len(queries)))

        mixture = Mixture(
            logits + shift[:, None],
            lambda r: (scaled - alpha[:, None] * mean(r)) * (table.unit / sigma)[:, None],
            lambda r: table.centre + table.unit * mean(r),
            lambda r: r,
            sigma,
            examples.d,
        )
        return statistic(mixture)

    if all_logits is not None:
        return one(all_logits, offset, queries, alpha, sigma)
    return in_batches(partial(one, None), items_that_fit(num), offset, queries, alpha, sigma)


def _product_logits_again(arguments: Any) -> jax.Array:
    queries, examples, log_weights, alpha, sigma = arguments
    scaled, precision = scaled_queries(queries, examples.table, alpha, sigma)

    def part(start: jax.Array, size: int) -> jax.Array:
        weights = jax.lax.dynamic_slice_in_dim(log_weights, start, size)
        rows = examples.centred_batch(start, size)
        return product_logits(scaled, precision, rows, jnp.sum(rows**2, axis=-1), weights, alpha)

    return over_batches(part, examples.num, examples_in_batch(examples, len(queries)))


@jax.custom_jvp
def _product_logits(shared: jax.Array | None, arguments: Any) -> jax.Array:
    """Return the logits that screening has computed, (Q, N), with the derivative of computing them.

    Screening is not differentiated, and a product that no query may need must not be computed
    before that is known.
    """
    return _product_logits_again(arguments) if shared is None else shared


@_product_logits.defjvp
def _product_logits_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    shared, arguments = primals
    _, tangent = jax.jvp(_product_logits_again, (arguments,), (tangents[1],))
    return _product_logits(shared, arguments), tangent  # itself to be differentiated again


def rows_at_once(examples: Examples) -> int:
    """Return the number of examples whose differences are formed at once, where all of them are."""
    return min(examples.num, max(_ROWS, _ROW_ELEMENTS // examples.d))


def by_all_differences(
    statistic: Statistic,
    queries: jax.Array,
    examples: Examples,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> Any:
    """Return a statistic of the mixtures over all examples, some of them at a time."""

    def differences(rows: jax.Array) -> jax.Array:
        return jax.vmap(standardized, (0, None, 0, 0))(queries, rows, alpha, sigma)

    def distances(start: jax.Array, size: int) -> jax.Array:
        return half_squared_norm(differences(examples.batch(start, size)))

    logits = log_weights - over_batches(distances, examples.num, rows_at_once(examples))

    def weighted(r: jax.Array, terms: Callable[[jax.Array], jax.Array]) -> jax.Array:
        def part(start: jax.Array, size: int) -> jax.Array:
            share = jax.lax.dynamic_slice_in_dim(r, start, size, axis=1)
            return jnp.sum(share[:, :, None] * terms(examples.batch(start, size)), axis=1)

        return sum_over_batches(part, examples.num, rows_at_once(examples))

    def average(r: jax.Array) -> jax.Array:
        centre = examples.take(jnp.argmax(logits, axis=1))
        return centre + weighted(r, lambda rows: rows - centre[:, None])

    return statistic(
        Mixture(logits, lambda r: weighted(r, differences), average, lambda r: r, sigma, examples.d)
    )
