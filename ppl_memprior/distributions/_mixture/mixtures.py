"""Statistics of the mixtures over stored examples, each query by the way that suits it.

A query takes the cheapest of three ways that is accurate for it. Where few examples can matter by
the bound of `screening`, these are refined by plain differences x - alpha x_n, and nothing else
counts. Where many do, and the logits of the product form agree with the refined ones, the product
form serves: the bandwidth is then so large that nothing cancels. What remains (many examples
closer to each other than the product form can tell) goes through plain differences of all
examples. The sums themselves are in `sums`; which statistics there are is left to `nearest`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl_memprior._batches import BATCH_ITEMS, in_batches
from ppl_memprior.distributions._mixture.examples import Examples
from ppl_memprior.distributions._mixture.screening import (
    FEW,
    FEWEST,
    Screen,
    scaled_queries,
    screen,
    widen,
)
from ppl_memprior.distributions._mixture.sums import (
    Mixture,
    Statistic,
    by_all_differences,
    by_differences,
    by_product,
    by_refinement,
)

#: Queries in a batch that goes through all plain differences. Where one query needs these, all of
#: the batch get them, so a small batch wastes little. This is no bound on the memory.
COSTLY_ITEMS = 8

_SOME = 256  # examples that are refined where FEW are not enough


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
    """Return a statistic of the mixtures for all queries, each by the way that suits it.

    Args:
        statistic: what to compute.
        queries: (Q, d).
        examples: N of them.
        log_weights: (N,).
        alpha: (Q,).
        sigma: (Q,).

    Returns:
        What `statistic` returns for Q queries.
    """
    if examples.table is None:
        return by_differences(statistic, queries, examples, log_weights, alpha, sigma)

    def batch(queries: jax.Array, alpha: jax.Array, sigma: jax.Array) -> Any:
        return _evaluate_batch(statistic, queries, examples, log_weights, alpha, sigma)

    return in_batches(batch, BATCH_ITEMS, queries, alpha, sigma)


def _evaluate_batch(statistic: Statistic, queries: jax.Array, *parameters: Any) -> Any:
    """Return a statistic from the few examples that matter, where they are few for all queries."""
    found = screen(queries, *parameters, k=FEWEST)
    return jax.lax.cond(
        any_of(~_is_enough(found, parameters[0].num)),
        partial(_look_further, statistic, found, queries, *parameters),
        partial(by_refinement, statistic, found, queries, *parameters),
    )


def _look_further(statistic: Statistic, found: Screen, queries: jax.Array, *parameters: Any) -> Any:
    """Return a statistic where the examples found are not enough for some query.

    More examples are listed first. A query for which they are not enough either takes the product
    form, if it agrees with them, and the costly ways otherwise.
    """
    more = widen(found, FEW)
    few = _is_enough(more, parameters[0].num)
    refined, exact = by_refinement(partial(_with_logits, statistic), more, queries, *parameters)
    offset, agrees = _compare(more, *jax.lax.stop_gradient((exact, queries, *parameters)))
    suits = agrees & ~few
    values = jax.lax.cond(
        any_of(suits),
        partial(_by_product, statistic, suits, offset, found.all_logits, queries, *parameters),
        lambda: refined,
    )
    values = _choose(suits, values, refined)
    left = ~few & ~agrees
    return jax.lax.cond(
        any_of(left),
        partial(_replace_accurately, statistic, left, values, queries, *parameters),
        lambda: values,
    )


def _with_logits(statistic: Statistic, mixture: Mixture) -> tuple[Any, jax.Array]:
    return statistic(mixture), mixture.logits


def _by_product(
    statistic: Statistic,
    suits: jax.Array,
    offset: jax.Array,
    all_logits: jax.Array | None,
    queries: jax.Array,
    examples: Examples,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> Any:
    """Return a statistic by the product form; undefined for queries that it does not suit.

    Where its logits may overflow they are left out before, not only after: the derivative of a
    choice between numbers multiplies what is not chosen by zero.
    """
    table = examples.table
    assert table is not None
    queries = jnp.where(suits[:, None], queries, alpha[:, None] * table.centre)
    sigma = jnp.where(suits, sigma, table.unit)
    if all_logits is not None:
        all_logits = jnp.where(suits[:, None], all_logits, log_weights)
    offset = jnp.where(suits, offset, 0)
    return by_product(statistic, all_logits, offset, queries, examples, log_weights, alpha, sigma)


def _replace_accurately(
    statistic: Statistic,
    wanted: jax.Array,
    values: Any,
    queries: jax.Array,
    examples: Examples,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> Any:
    """Return `values` with those of the queries that are `wanted` replaced, by the costly ways."""

    def batch(wanted: jax.Array, queries: jax.Array, alpha: jax.Array, sigma: jax.Array) -> Any:
        return _accurately(statistic, wanted, queries, examples, log_weights, alpha, sigma)

    exact = in_batches(batch, COSTLY_ITEMS, wanted, queries, alpha, sigma)
    return _choose(wanted, exact, values)


def _accurately(
    statistic: Statistic, wanted: jax.Array, queries: jax.Array, *parameters: Any
) -> Any:
    """Return a statistic by refining some examples, or all; undefined where not `wanted`."""
    costly = partial(_refine_some_or_all, statistic, wanted, queries, *parameters)
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(costly))
    return jax.lax.cond(any_of(wanted), costly, lambda: nothing)


def _refine_some_or_all(
    statistic: Statistic, wanted: jax.Array, queries: jax.Array, *parameters: Any
) -> Any:
    num = parameters[0].num
    found = screen(queries, *parameters, k=min(_SOME, num - 1))
    return jax.lax.cond(
        any_of(wanted & ~_is_enough(found, num)),
        partial(by_all_differences, statistic, queries, *parameters),
        partial(by_refinement, statistic, found, queries, *parameters),
    )


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
