"""Log-density, score, responsibilities, posterior mean and nearest ones of stored examples.

Everything here is about one density, the mixture sum_n pi_n N(x; alpha x_n, sigma^2 I) over
examples x_n; see Siahkoohi & Sabeddu, arXiv:2603.19629. Arrays are flat: queries (Q, d), alpha and
sigma (Q,), and weights as log-weights (N,), or as `Weights` where those of zero may be
differentiated. How the sums over examples are made fast and accurate is left to `mixtures`; the
limit sigma -> 0 to `comparisons`; event and batch shapes, names and checks to the distributions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl_memprior._batches import BATCH_ITEMS, in_batches, items_that_fit, over_batches
from ppl_memprior.distributions._mixture.differences import COPIES, map_queries, norm
from ppl_memprior.distributions._mixture.examples import Examples
from ppl_memprior.distributions._mixture.mixtures import (
    COSTLY_ITEMS,
    any_of,
    evaluate,
)
from ppl_memprior.distributions._mixture.screening import FEW, screen
from ppl_memprior.distributions._mixture.sums import Mixture, rows_at_once
from ppl_memprior.distributions._mixture.weights import Weights, ratio_terms


def _normalized(mixture: Mixture) -> tuple[jax.Array, jax.Array]:
    """Return log sum_n exp(logit_n), (...), and the responsibilities, (..., K)."""
    largest = jax.lax.stop_gradient(jnp.max(mixture.logits, axis=-1, keepdims=True))
    shares = jnp.exp(mixture.logits - largest)
    total = jnp.sum(shares, axis=-1, keepdims=True)
    return jnp.squeeze(largest + jnp.log(total), -1), shares / total


def _log_density_of(mixture: Mixture) -> jax.Array:
    normalizer = -mixture.d * (jnp.log(mixture.sigma) + 0.5 * math.log(2 * math.pi))
    return _normalized(mixture)[0] + normalizer


def _score_of(mixture: Mixture) -> jax.Array:
    return -mixture.weigh(_normalized(mixture)[1]) / mixture.sigma[..., None]


def _log_density_and_score_of(mixture: Mixture) -> tuple[jax.Array, jax.Array]:
    return _log_density_of(mixture), _score_of(mixture)


def _mean_of(mixture: Mixture) -> jax.Array:
    return mixture.average(_normalized(mixture)[1])


def _responsibilities_of(mixture: Mixture) -> jax.Array:
    return mixture.spread(_normalized(mixture)[1])


@jax.jit
def score(
    queries: jax.Array,
    examples: Examples,
    weights: jax.Array | Weights,
    alpha: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    """Return the gradient of the log-density with respect to the queries, shape (Q, d).

    The score is sum_n r_n (alpha x_n - x) / sigma^2, summed over differences: the equal expression
    (alpha sum_n r_n x_n - x) / sigma^2 cancels when the examples lie far from the origin.
    """
    zeros, *arguments = _arguments(queries, examples, weights, alpha, sigma)
    value = evaluate(_score_of, *arguments)
    if zeros is None:
        return value
    total, more = ratio_terms(_score_terms, _log_density, zeros, *arguments)
    return (value + more) / (1 + total)[:, None]


def _score_terms(mixture: Mixture, share: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _total(mixture, share), -mixture.weigh(share) / mixture.sigma[..., None]


def _total(_: Mixture, share: jax.Array) -> jax.Array:
    return jnp.sum(share, axis=-1)


def _shares(_: Mixture, share: jax.Array) -> jax.Array:
    return share


@jax.custom_jvp
def _log_density(
    queries: jax.Array,
    examples: Examples,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    return evaluate(_log_density_of, queries, examples, log_weights, alpha, sigma)


@partial(_log_density.defjvp, symbolic_zeros=True)
def _log_density_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """Derive by the score with respect to queries, by ordinary rules for the rest."""
    queries, *parameters = primals
    query_tangent, *parameter_tangents = tangents
    value, value_score = evaluate(_log_density_and_score_of, *primals)
    tangent = jnp.zeros_like(value)
    if not _is_zero(query_tangent):
        tangent += jnp.sum(value_score * query_tangent, axis=-1)

    leaves, structure = jax.tree.flatten(parameters)
    leaf_tangents = jax.tree.leaves(parameter_tangents)
    moving = [i for i, t in enumerate(leaf_tangents) if not _is_zero(t)]
    if moving:
        _, parameter_tangent = jax.jvp(
            partial(_log_density_with, queries, structure, leaves, moving),
            tuple(leaves[i] for i in moving),
            tuple(leaf_tangents[i] for i in moving),
        )
        tangent += parameter_tangent
    return value, tangent


def _log_density_with(
    queries: jax.Array,
    structure: Any,
    leaves: Sequence[jax.Array],
    moving: Sequence[int],
    *moved: jax.Array,
) -> jax.Array:
    """Return the log-density with the parameters `leaves`, of which some are replaced.

    Args:
        queries: (Q, d).
        structure: puts the parameters together.
        leaves: the parameters.
        moving: which of them are replaced.
        *moved: by what.
    """
    arguments = list(leaves)
    for i, argument in zip(moving, moved, strict=True):
        arguments[i] = argument
    return evaluate(_log_density_of, queries, *jax.tree.unflatten(structure, arguments))


def _is_zero(tangent: object) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


@jax.jit
def log_density(
    queries: jax.Array,
    examples: Examples,
    weights: jax.Array | Weights,
    alpha: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    """Return log sum_n pi_n N(x; alpha x_n, sigma^2 I), shape (Q,).

    Its derivative with respect to the queries is `score`, not the derivative of the log-sum-exp.
    Derivatives of every order, with respect to every argument, are finite wherever the density is
    positive in floating point.
    """
    zeros, *arguments = _arguments(queries, examples, weights, alpha, sigma)
    value = _log_density(*arguments)
    if zeros is None:
        return value
    return value + jnp.log1p(ratio_terms(_total, _log_density, zeros, *arguments))


def _arguments(
    queries: jax.Array,
    examples: Examples,
    weights: jax.Array | Weights,
    alpha: jax.Array,
    sigma: jax.Array,
) -> Any:
    """Return the weights' zeros, then the arguments with log-weights, all in one precision."""
    held = weights if isinstance(weights, Weights) else Weights(weights)
    queries, examples, held, alpha, sigma = _promote(queries, examples, held, alpha, sigma)
    return held.zeros, queries, examples, held.logarithms, alpha, sigma


def _promote(*arguments: Any) -> Any:
    dtype = jnp.result_type(*jax.tree.leaves(arguments))
    return jax.tree.map(lambda a: a.astype(dtype), arguments)


@jax.jit
def responsibilities(
    queries: jax.Array,
    examples: Examples,
    weights: jax.Array | Weights,
    alpha: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    """Return r_n(x) = softmax_n(log pi_n - |x - alpha x_n|^2 / (2 sigma^2)), shape (Q, N)."""
    zeros, *arguments = _arguments(queries, examples, weights, alpha, sigma)
    value = evaluate(_responsibilities_of, *arguments)
    if zeros is None:
        return value
    share = ratio_terms(_shares, _log_density, zeros, *arguments)
    return (value + share) / (1 + jnp.sum(share, axis=-1, keepdims=True))


@jax.jit
def posterior_mean(
    queries: jax.Array,
    examples: Examples,
    weights: jax.Array | Weights,
    alpha: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    """Return sum_n r_n(x) x_n, shape (Q, d).

    It is the most responsible example, bit for bit, when no other one counts.
    """
    zeros, *arguments = _arguments(queries, examples, weights, alpha, sigma)
    value = evaluate(_mean_of, *arguments)
    if zeros is None:
        return value
    total, more = ratio_terms(_mean_terms, _log_density, zeros, *arguments)
    return (value + more) / (1 + total)[:, None]


def _mean_terms(mixture: Mixture, share: jax.Array) -> tuple[jax.Array, jax.Array]:
    total = _total(mixture, share)
    # averages are taken about a centre, as if responsibilities added to one
    centre = mixture.average(jnp.zeros_like(share))
    return total, mixture.average(share) - (1 - total)[:, None] * centre


@partial(jax.jit, static_argnames="k")
def nearest(queries: jax.Array, examples: Examples, k: int) -> tuple[jax.Array, jax.Array]:
    """Return the distances |x - x_n| of the `k` nearest examples and their indices, (Q, k) each.

    In ascending order; of examples at the same distance, the one stored first comes first.
    """
    queries, examples = _promote(queries, examples)
    if examples.table is None or k + FEW >= examples.num:
        size = items_that_fit(COPIES * rows_at_once(examples) * examples.d)
        return in_batches(partial(_nearest_of_all, examples, k), size, queries)
    return in_batches(partial(_nearest_of_found, examples, k), BATCH_ITEMS, queries)


def _nearest_of_all(examples: Examples, k: int, queries: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return what `nearest` does, by plain differences from all examples."""

    def part(start: jax.Array, size: int) -> jax.Array:
        return norm(queries[:, None] - examples.batch(start, size))

    distance = over_batches(part, examples.num, rows_at_once(examples))
    order = jnp.argsort(distance, axis=1, stable=True)[:, :k]
    return jnp.take_along_axis(distance, order, axis=1), order.astype(jnp.int32)


def _nearest_of_found(
    examples: Examples, k: int, queries: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return what `nearest` does, by plain differences from examples that screening finds.

    Queries for which screening may have missed one are compared with all examples.
    """
    table = examples.table
    assert table is not None
    ones = jnp.ones(len(queries), queries.dtype)
    unit = table.unit * ones
    weights = jnp.zeros(examples.num, queries.dtype)
    found = screen(queries, examples, weights, ones, unit, k=k + FEW)
    distance = map_queries(
        lambda query, where: norm(query - examples.take(where)),
        found.indices.shape[1] * examples.d,
        queries,
        found.indices,
    )
    distance, index = (
        field[:, :k] for field in jax.lax.sort((distance, found.indices), num_keys=2)
    )
    bound = table.unit * jnp.sqrt(jnp.maximum(0, -2 * found.rest))
    # A distance by plain differences is off by less than a thousandth of what screening allows.
    missed = ~(distance[:, -1] < 0.999 * bound)
    replace = partial(_nearest_where_missed, examples, k)
    return jax.lax.cond(
        any_of(missed),
        lambda: in_batches(replace, COSTLY_ITEMS, missed, queries, distance, index),
        lambda: (distance, index),
    )


def _nearest_where_missed(
    examples: Examples,
    k: int,
    missed: jax.Array,
    queries: jax.Array,
    distance: jax.Array,
    index: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return `distance` and `index`, or those among all examples where some query missed one."""
    return jax.lax.cond(
        any_of(missed),
        lambda: _nearest_of_all(examples, k, queries),
        lambda: (distance, index),
    )
