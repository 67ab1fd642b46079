"""Statistics of the mixtures over stored examples, each query by the way that suits it.

A query takes the cheapest of three ways that is accurate for it. Where few examples can matter by
the bound of `_screening`, these are refined by plain differences x - alpha x_n, and nothing else
counts. Where many do, and the logits of the product form agree with the refined ones, the product
form serves: the bandwidth is then so large that nothing cancels. What remains (many examples
closer to each other than the product form can tell) goes through plain differences of all
examples. Each way is ordinary differentiable JAX, so derivatives of any order take the same way.
Which statistics there are is left to `_nearest`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppl_memprior.distributions._differences import (
    half_squared_norm,
    in_groups,
    map_queries,
    over_blocks,
    standardized,
    sum_over_blocks,
)
from ppl_memprior.distributions._examples import MAX_READ_ELEMENTS, Examples
from ppl_memprior.distributions._screening import (
    FEW,
    FEWEST,
    Screen,
    block_size,
    product_logits,
    scaled_queries,
    screen,
    widen,
)

#: Queries that are screened together.
CHUNK_QUERIES = 512

_SOME = 256  # examples that are refined where FEW are not enough
_ROWS = 32  # examples whose differences are formed at once, where all of them are
_ROW_ELEMENTS = 2**13  # and in few dimensions, more
TOGETHER = 8  # queries that go through all plain differences together

_HIGHEST = jax.lax.Precision.HIGHEST


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


def _by_refinement(
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


def _by_differences(
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


# --- all examples at once, or in blocks -----------------------------------------------------------


def _by_product(
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
                rows = examples.centred_block(start, size)
                return jnp.matmul(share, rows, precision=jax.lax.Precision.HIGHEST)

            if table.centred is not None and shared is not None:
                return jnp.matmul(r, table.centred, precision=jax.lax.Precision.HIGHEST)
            return sum_over_blocks(part, num, block_size(examples, len(queries)))

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
    together = max(1, MAX_READ_ELEMENTS // num)
    return in_groups(partial(one, None), together, offset, queries, alpha, sigma)


def _product_logits_again(arguments: Any) -> jax.Array:
    queries, examples, log_weights, alpha, sigma = arguments
    scaled, precision = scaled_queries(queries, examples.table, alpha, sigma)

    def part(start: jax.Array, size: int) -> jax.Array:
        weights = jax.lax.dynamic_slice_in_dim(log_weights, start, size)
        rows = examples.centred_block(start, size)
        return product_logits(scaled, precision, rows, jnp.sum(rows**2, axis=-1), weights, alpha)

    return over_blocks(part, examples.num, block_size(examples, len(queries)))


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


def _by_all_differences(
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
        return half_squared_norm(differences(examples.block(start, size)))

    logits = log_weights - over_blocks(distances, examples.num, rows_at_once(examples))

    def weighted(r: jax.Array, terms: Callable[[jax.Array], jax.Array]) -> jax.Array:
        def part(start: jax.Array, size: int) -> jax.Array:
            share = jax.lax.dynamic_slice_in_dim(r, start, size, axis=1)
            return jnp.sum(share[:, :, None] * terms(examples.block(start, size)), axis=1)

        return sum_over_blocks(part, examples.num, rows_at_once(examples))

    def average(r: jax.Array) -> jax.Array:
        centre = examples.take(jnp.argmax(logits, axis=1))
        return centre + weighted(r, lambda rows: rows - centre[:, None])

    return statistic(
        Mixture(logits, lambda r: weighted(r, differences), average, lambda r: r, sigma, examples.d)
    )


# --- the choice among these -----------------------------------------------------------------------


@jax.custom_batching.custom_vmap
def any_of(flags: jax.Array) -> jax.Array:
    """Return whether any flag is set, under `vmap` in any of the mapped calls.

    One answer for all calls keeps `lax.cond` a branch: it skips what no query needs.
    """
    return jnp.any(flags)


@any_of.def_vmap
def _any_of_all(axis_size: int, in_batched: list[bool], flags: jax.Array) -> tuple[jax.Array, bool]:
    return any_of(flags), False


def evaluate(
    statistic: Statistic,
    queries: jax.Array,
    examples: Examples,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> Any:
    """Return a statistic of the mixtures for all queries, each by the way that suits it."""
    if examples.table is None:
        return _by_differences(statistic, queries, examples, log_weights, alpha, sigma)

    def chunk(queries: jax.Array, alpha: jax.Array, sigma: jax.Array) -> Any:
        return _evaluate_chunk(statistic, queries, examples, log_weights, alpha, sigma)

    return in_groups(chunk, CHUNK_QUERIES, queries, alpha, sigma)


def _evaluate_chunk(statistic: Statistic, queries: jax.Array, *parameters: Any) -> Any:
    examples, log_weights, alpha, sigma = parameters
    num = examples.num
    found = screen(queries, *parameters, k=FEWEST)

    def otherwise() -> Any:
        more = widen(found, FEW)
        few = _is_enough(more, num)
        refined, exact = _by_refinement(
            lambda mixture: (statistic(mixture), mixture.logits), more, queries, *parameters
        )
        offset, agrees = _compare(
            more, *jax.lax.stop_gradient((exact, queries, examples, log_weights, alpha, sigma))
        )

        suits = agrees & ~few

        def product() -> Any:
            # Where its logits may overflow they are left out before, not only after: the
            # derivative of a choice between numbers multiplies what is not chosen by zero.
            table = examples.table
            x = jnp.where(suits[:, None], queries, alpha[:, None] * table.centre)
            s = jnp.where(suits, sigma, table.unit)
            logits = found.all_logits
            if logits is not None:
                logits = jnp.where(suits[:, None], logits, log_weights)
            shift = jnp.where(suits, offset, 0)
            return _by_product(statistic, logits, shift, x, examples, log_weights, alpha, s)

        by_product = jax.lax.cond(any_of(suits), product, lambda: refined)
        by_product = _choose(suits, by_product, refined)
        left = ~few & ~agrees

        def with_more() -> Any:
            def group(wanted: jax.Array, *arguments: jax.Array) -> Any:
                queries, alpha, sigma = arguments
                return _accurately(statistic, wanted, queries, examples, log_weights, alpha, sigma)

            exact = in_groups(group, TOGETHER, left, queries, alpha, sigma)
            return _choose(left, exact, by_product)

        return jax.lax.cond(any_of(left), with_more, lambda: by_product)

    return jax.lax.cond(
        any_of(~_is_enough(found, num)),
        otherwise,
        lambda: _by_refinement(statistic, found, queries, *parameters),
    )


def _accurately(
    statistic: Statistic, wanted: jax.Array, queries: jax.Array, *parameters: Any
) -> Any:
    """Return a statistic by refining some examples, or all; undefined where not `wanted`."""

    def some() -> Any:
        num = parameters[0].num
        found = screen(queries, *parameters, k=min(_SOME, num - 1))
        return jax.lax.cond(
            any_of(wanted & ~_is_enough(found, num)),
            lambda: _by_all_differences(statistic, queries, *parameters),
            lambda: _by_refinement(statistic, found, queries, *parameters),
        )

    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(some))
    return jax.lax.cond(any_of(wanted), some, lambda: nothing)


def _is_enough(found: Screen, num: int) -> jax.Array:
    """Whether the examples that were not found are negligible together, (Q,); false for NaN.

    Their share is below eps^1.3, which leaves room for the powers of the distance that multiply
    it in derivatives.
    """
    eps = float(jnp.finfo(found.floor.dtype).eps)
    return found.rest < found.floor + 1.3 * math.log(eps) - math.log(num)


def _compare(
    found: Screen,
    exact: jax.Array,
    queries: jax.Array,
    examples: Examples,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Compare the product form with plain differences on the examples that were found.

    Args:
        found: by screening, with logits (Q, k).
        exact: the same logits by plain differences, (Q, k).
        queries: (Q, d).
        examples: N of them, with their table.
        log_weights: (N,).
        alpha: (Q,).
        sigma: (Q,).

    Returns:
        The error that all logits of a query have in common, and whether the product form is good
        enough without it, (Q,) each.
    """
    assert examples.table is not None
    counts = found.logits > -jnp.inf
    error = jnp.where(counts, exact - found.logits, 0)
    offset = jnp.sum(error, axis=1) / jnp.maximum(1, jnp.sum(counts, axis=1))
    worst = jnp.max(jnp.where(counts, jnp.abs(error - offset[:, None]), 0), axis=1)
    farthest = jnp.max(jnp.where(counts, jnp.abs(exact), 0), axis=1)
    eps = float(jnp.finfo(worst.dtype).eps)
    # Coinciding examples agree in their errors as well, so that what is usual counts too: some eps
    # of |x|^2 and |x_n|^2. Plain differences have an error of some eps times the logit themselves.
    scaled, precision = scaled_queries(queries, examples.table, alpha, sigma)
    reach = jnp.linalg.norm(scaled, axis=1)
    extent = reach + jnp.abs(alpha) * jnp.max(examples.table.norms)
    usual = eps * precision * extent**2
    agrees = jnp.maximum(worst, usual) <= eps * (1000 + 4 * farthest)

    # x - alpha sum_n r_n x_n cancels where the examples that matter are much closer to x than x
    # is to their common centre: at a twentieth, the score loses about 80 eps.
    half_squares = jnp.where(counts, log_weights[found.indices] - exact, 0)
    typical = jnp.sum(jax.nn.softmax(jnp.where(counts, exact, -jnp.inf)) * half_squares, axis=1)
    return offset, agrees & (400 * typical >= precision * reach**2)


def _choose(flags: jax.Array, yes: Any, no: Any) -> Any:
    """Choose query by query between statistics."""
    return jax.tree.map(
        lambda a, b: jnp.where(flags.reshape(flags.shape + (1,) * (a.ndim - 1)), a, b), yes, no
    )
