"""Distances, log-sum-exp, responsibilities and scores over stored examples.

Everything here is about one density, the mixture sum_n pi_n N(x; alpha x_n, sigma^2 I) over
examples x_n, and its limit sigma -> 0; see Siahkoohi & Sabeddu, arXiv:2603.19629. Arrays are flat:
queries (Q, d), examples (N, d), log_weights (N,), alpha and sigma (Q,). Event and batch shapes,
names and checks are left to the distributions.

Distances are sums of squared differences, never |x|^2 - 2 x.x_n + |x_n|^2: with a bandwidth far
below the scale of the data, or with data far from the origin, the product form cancels away the
very digits that decide. Work goes in chunks of queries, so that memory for the differences of
queries and examples is bounded by `CHUNK_ELEMENTS` however many queries there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

#: Most elements of a (queries, N, d) block of differences; one query is always taken whole.
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


def _logits(
    query: jax.Array,
    examples: jax.Array,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    return log_weights - half_squared_norm(standardized(query, examples, alpha, sigma))


def _log_normalizer(d: int, sigma: jax.Array) -> jax.Array:
    return -d * (jnp.log(sigma) + 0.5 * math.log(2 * math.pi))


def _log_density_by_differences(
    queries: jax.Array,
    examples: jax.Array,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    def one(query: jax.Array, a: jax.Array, s: jax.Array) -> jax.Array:
        logits = _logits(query, examples, log_weights, a, s)
        return jax.nn.logsumexp(logits) + _log_normalizer(examples.shape[1], s)

    return map_queries(one, examples.size, queries, alpha, sigma)


def _log_density_and_score(
    queries: jax.Array,
    examples: jax.Array,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    def one(query: jax.Array, a: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = standardized(query, examples, a, s)
        logits = log_weights - half_squared_norm(z)
        log_density = jax.nn.logsumexp(logits) + _log_normalizer(examples.shape[1], s)
        return log_density, -jnp.sum(jax.nn.softmax(logits)[:, None] * z, axis=0) / s

    return map_queries(one, examples.size, queries, alpha, sigma)


@jax.jit
def score(
    queries: jax.Array,
    examples: jax.Array,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    """Return the gradient of the log-density with respect to the queries, shape (Q, d).

    The score is sum_n r_n (alpha x_n - x) / sigma^2, summed over differences: the equal expression
    (alpha sum_n r_n x_n - x) / sigma^2 cancels when the examples lie far from the origin.
    """
    return _log_density_and_score(queries, examples, log_weights, alpha, sigma)[1]


@jax.custom_jvp
def _log_density(
    queries: jax.Array,
    examples: jax.Array,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    return _log_density_by_differences(queries, examples, log_weights, alpha, sigma)


@partial(_log_density.defjvp, symbolic_zeros=True)
def _log_density_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    """Derive by the score with respect to queries, by ordinary rules for the rest."""
    queries, *parameters = primals
    query_tangent, *parameter_tangents = tangents
    value, value_score = _log_density_and_score(*primals)
    tangent = jnp.zeros_like(value)
    if not _is_zero(query_tangent):
        tangent += jnp.sum(value_score * query_tangent, axis=-1)

    moving = [i for i, t in enumerate(parameter_tangents) if not _is_zero(t)]
    if moving:

        def of_moving(*moved: jax.Array) -> jax.Array:
            arguments = list(parameters)
            for i, argument in zip(moving, moved, strict=True):
                arguments[i] = argument
            return _log_density_by_differences(queries, *arguments)

        _, parameter_tangent = jax.jvp(
            of_moving,
            tuple(parameters[i] for i in moving),
            tuple(parameter_tangents[i] for i in moving),
        )
        tangent += parameter_tangent
    return value, tangent


def _is_zero(tangent: object) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


@jax.jit
def log_density(
    queries: jax.Array,
    examples: jax.Array,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    """Return log sum_n pi_n N(x; alpha x_n, sigma^2 I), shape (Q,).

    Its derivative with respect to the queries is `score`, not the derivative of the log-sum-exp.
    Derivatives of every order, with respect to every argument, are finite wherever the density is
    positive in floating point; a weight of zero contributes nothing to them.
    """
    queries, examples, log_weights, alpha, sigma = _promote(
        queries, examples, log_weights, alpha, sigma
    )
    return _log_density(queries, examples, log_weights, alpha, sigma)


def _promote(*arrays: jax.Array) -> list[jax.Array]:
    dtype = jnp.result_type(*arrays)
    return [a.astype(dtype) for a in arrays]


@jax.jit
def responsibilities(
    queries: jax.Array,
    examples: jax.Array,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    """Return r_n(x) = softmax_n(log pi_n - |x - alpha x_n|^2 / (2 sigma^2)), shape (Q, N)."""

    def one(query: jax.Array, a: jax.Array, s: jax.Array) -> jax.Array:
        return jax.nn.softmax(_logits(query, examples, log_weights, a, s))

    return map_queries(one, examples.size, queries, alpha, sigma)


@jax.jit
def posterior_mean(
    queries: jax.Array,
    examples: jax.Array,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    """Return sum_n r_n(x) x_n, shape (Q, d).

    The sum is taken about the most responsible example, so that it is that example, bit for bit,
    when no other one counts, and its Jacobian does not cancel for data far from the origin.
    """

    def one(query: jax.Array, a: jax.Array, s: jax.Array) -> jax.Array:
        logits = _logits(query, examples, log_weights, a, s)
        centre = examples[jnp.argmax(logits)]
        r = jax.nn.softmax(logits)
        return centre + jnp.sum(r[:, None] * (examples - centre), axis=0)

    return map_queries(one, examples.size, queries, alpha, sigma)


@jax.jit
def matching_log_weight(
    queries: jax.Array, examples: jax.Array, log_weights: jax.Array
) -> jax.Array:
    """Return the log of the summed weights of the examples equal to each query, shape (Q,).

    Minus infinity, with derivative zero, where no example of positive weight equals the query.
    """

    def one(query: jax.Array) -> jax.Array:
        matches = jnp.all(query == examples, axis=-1) & (log_weights > -jnp.inf)
        any_match = jnp.any(matches)
        # Where nothing matches the sum is empty; a stand-in keeps its derivative from being NaN.
        chosen = jnp.where(matches | ~any_match, log_weights, -jnp.inf)
        return jnp.where(any_match, jax.nn.logsumexp(chosen), -jnp.inf)

    return map_queries(one, examples.size, queries)


@jax.jit
def nearest_responsibilities(
    queries: jax.Array, examples: jax.Array, log_weights: jax.Array
) -> jax.Array:
    """Return the limit of `responsibilities` for alpha = 1 and sigma -> 0, shape (Q, N).

    All the weight is on the nearest example of positive weight; examples at exactly the same
    distance share it in proportion to their weights.
    """

    def one(query: jax.Array) -> jax.Array:
        distance = jnp.sum((query - examples) ** 2, axis=-1)
        distance = jnp.where(log_weights > -jnp.inf, distance, jnp.inf)
        nearest = distance == jnp.min(distance)
        return jax.nn.softmax(jnp.where(nearest, log_weights, -jnp.inf))

    return map_queries(one, examples.size, queries)


@jax.jit
def cumulative(
    queries: jax.Array,
    examples: jax.Array,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    """Return the distribution function of the mixture for d = 1, shape (Q,)."""

    def one(query: jax.Array, a: jax.Array, s: jax.Array) -> jax.Array:
        z = standardized(query, examples, a, s)[:, 0]
        return jnp.sum(jnp.exp(log_weights) * jax.scipy.special.ndtr(z))

    return map_queries(one, examples.size, queries, alpha, sigma)
