"""Weights of examples as logarithms, and the derivatives that a logarithm cannot carry.

The sums over examples work with log-weights, of which that of a weight of zero is minus infinity
and has no derivative. The densities do: with K_n(x) the density of component n,
d log p(x) / d w_n = K_n(x) / p(x) - 1 at w_n = 0 as well. `Weights` therefore hold, beside the
logarithms, what the zeros are: an array of zeros that carries their derivatives, here through
ratios of sums as `ratio_terms`. It costs plain differences of queries and all examples, and only
where weights are differentiated (or the queries, with traced weights) and one of them is zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppl_memprior._batches import in_batches
from ppl_memprior.distributions._mixture.examples import Examples
from ppl_memprior.distributions._mixture.mixtures import COSTLY_ITEMS, any_of
from ppl_memprior.distributions._mixture.sums import Mixture, by_all_differences


class Weights(NamedTuple):
    """Normalised weights of N examples.

    Attributes:
        logarithms: shape (N,); minus infinity for a weight of zero.
        zeros: shape (N,); the weights of those that have none, which is zero, and their
            derivatives. None where nothing is differentiated with respect to them.
    """

    logarithms: jax.Array
    zeros: jax.Array | None = None

    @property
    def core_dims(self) -> tuple[int, ...]:
        """Number of axes of each leaf, without batch axes."""
        return (1,) if self.zeros is None else (1, 1)

    @property
    def linear(self) -> jax.Array:
        """The weights themselves, (..., N)."""
        weights = jnp.exp(self.logarithms)
        return weights if self.zeros is None else weights + self.zeros


@jax.jit
def normalize(log_weights: jax.Array) -> jax.Array:
    """Return `log_weights` (..., N) shifted so that the weights add to one."""
    # Taking off the largest one first keeps the digits of log-weights far from zero.
    largest = jax.lax.stop_gradient(jnp.max(log_weights, axis=-1, keepdims=True))
    shifted = log_weights - largest
    return shifted - jax.nn.logsumexp(shifted, axis=-1, keepdims=True)


@jax.jit
def weights_of(weights: jax.Array) -> Weights:
    """Return non-negative `weights` (N,), not all zero, normalised."""
    is_zero = weights == 0
    logarithms = normalize(jnp.where(is_zero, -jnp.inf, jnp.log(jnp.where(is_zero, 1, weights))))
    scaled = weights / jax.lax.stop_gradient(jnp.max(weights))
    others = jnp.sum(jnp.where(is_zero, 0, scaled))
    return _adding_to_one(logarithms, jnp.where(is_zero, scaled, 0) / others)


@jax.jit
def log_mean(weights: Weights, log_values: jax.Array) -> jax.Array:
    """Return log sum_n w_n exp(log_values_n), (...,), for `log_values` (N,)."""
    total = jax.nn.logsumexp(weights.logarithms + log_values, axis=-1)
    if weights.zeros is None:
        return total
    more = weights.zeros * _bounded_exp(log_values - total[..., None])
    return total + jnp.log1p(jnp.sum(more, axis=-1))


@jax.jit
def reweighted(weights: Weights, log_factors: jax.Array) -> Weights:
    """Return `weights` times the exponentials of `log_factors` (N,), normalised."""
    unnormalized = weights.logarithms + log_factors
    logarithms = normalize(unnormalized)
    if weights.zeros is None:
        return Weights(logarithms)
    total = jax.nn.logsumexp(unnormalized, axis=-1, keepdims=True)
    return _adding_to_one(logarithms, weights.zeros * _bounded_exp(log_factors - total))


def _adding_to_one(logarithms: jax.Array, zeros: jax.Array) -> Weights:
    """Share out what the zeros would add to a sum of one; that changes derivatives only."""
    excess = jnp.sum(zeros, axis=-1, keepdims=True)
    return Weights(logarithms - jnp.log1p(excess), zeros / (1 + excess))


def ratio_terms(
    terms: Callable[[Mixture, jax.Array], Any],
    log_density: Callable[..., jax.Array],
    zeros: jax.Array,
    queries: jax.Array,
    examples: Examples,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> Any:
    """Return what the examples of weight zero add to sums over all, divided by the density.

    It is zero, and has the derivatives of any order with respect to all arguments.

    Args:
        terms: of the mixture and t_n = w_n K_n(x) / p(x), (Q, N), the sums wanted, linear in t.
        log_density: log p without the examples of weight zero, of the following arguments.
        zeros: of `Weights`, (N,).
        queries: (Q, d).
        examples: N of them.
        log_weights: (N,).
        alpha: (Q,).
        sigma: (Q,).
    """
    arguments = (queries, examples, log_weights, alpha, sigma)
    return _no_terms(_Ratio(terms, log_density), zeros, arguments)


@dataclass(frozen=True)
class _Ratio:
    """What `ratio_terms` computes; its first two arguments."""

    terms: Callable[[Mixture, jax.Array], Any]
    log_density: Callable[..., jax.Array]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _no_terms(ratio: _Ratio, zeros: jax.Array, arguments: Any) -> Any:
    """Return zeros, which have the derivatives of `_all_terms`."""
    return _zeros_like(partial(_all_terms, ratio), zeros, arguments)


@_no_terms.defjvp
def _no_terms_jvp(ratio: _Ratio, primals: Any, tangents: Any) -> Any:
    return jax.jvp(partial(_all_terms, ratio), primals, tangents)


def _all_terms(ratio: _Ratio, zeros: jax.Array, arguments: Any) -> Any:
    """Return the terms of all queries; nothing is computed where no weight is zero."""
    log_weights = arguments[2]
    costly = partial(_costly_terms, ratio, zeros, *arguments)
    nothing = _zeros_like(costly)
    return jax.lax.cond(any_of(log_weights == -jnp.inf), costly, lambda: nothing)


def _costly_terms(
    ratio: _Ratio,
    zeros: jax.Array,
    queries: jax.Array,
    examples: Examples,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> Any:
    """Return the terms of all queries, by plain differences from all examples."""
    level = ratio.log_density(queries, examples, log_weights, alpha, sigma)

    def batch(level: jax.Array, queries: jax.Array, alpha: jax.Array, sigma: jax.Array) -> Any:
        statistic = partial(_terms_of_mixture, ratio.terms, zeros, level)
        equal = jnp.zeros_like(log_weights)
        return by_all_differences(statistic, queries, examples, equal, alpha, sigma)

    return in_batches(batch, COSTLY_ITEMS, level, queries, alpha, sigma)


def _terms_of_mixture(
    terms: Callable[[Mixture, jax.Array], Any],
    zeros: jax.Array,
    level: jax.Array,
    mixture: Mixture,
) -> Any:
    """Return the terms of a mixture of equal weights, whose log-density is `level`, (Q,)."""
    normalizer = -mixture.d * (jnp.log(mixture.sigma) + 0.5 * math.log(2 * math.pi))
    density = _bounded_exp(mixture.logits + (normalizer - level)[:, None])
    return terms(mixture, zeros * density)


def _zeros_like(fn: Callable[..., Any], *arguments: Any) -> Any:
    """Return zeros of the shapes that `fn` would return; nothing is computed."""
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(fn, *arguments))


def _bounded_exp(exponent: jax.Array) -> jax.Array:
    """Return exp(exponent), at most the square root of the largest finite number."""
    return jnp.exp(jnp.minimum(exponent, 0.5 * math.log(float(jnp.finfo(exponent.dtype).max))))
