"""Sums over stored examples, by the four ways that `mixtures` chooses from.

Plain differences x - alpha x_n are accurate always: of the examples that screening has found, of
all where they fit in memory, or of all a few at a time. The product form costs two matrix products
for all queries together, and is accurate where nothing cancels. Each way is ordinary differentiable
JAX, so derivatives of any order take the same way. When to take which is left to `mixtures`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl_memprior._batches import in_batches, items_that_fit, over_batches, sum_over_batches
from ppl_memprior.distributions._mixture.differences import (
    half_squared_norm,
    map_queries,
    standardized,
)
from ppl_memprior.distributions._mixture.examples import Examples, Table
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


class Mixture(ABC):
    """The mixture as some queries see it: over all examples, or over those that matter to them.

    Attributes:
        logits: log pi_n - |x - alpha x_n|^2 / (2 sigma^2), (..., K).
        sigma: bandwidth, (...).
    """

    logits: jax.Array
    sigma: jax.Array

    @property
    @abstractmethod
    def d(self) -> int:
        """The number of dimensions."""

    @abstractmethod
    def weigh(self, r: jax.Array) -> jax.Array:
        """Return sum_n r_n (x - alpha x_n) / sigma, (..., d), for responsibilities (..., K)."""

    @abstractmethod
    def average(self, r: jax.Array) -> jax.Array:
        """Return sum_n r_n x_n, (..., d), for responsibilities (..., K)."""

    def spread(self, r: jax.Array) -> jax.Array:
        """Return the responsibilities of all examples, (..., N), for those of K examples."""
        return r


#: What is computed of a mixture: an array or a tuple of arrays.
Statistic = Callable[[Mixture], Any]


# --- one query at a time, by plain differences ----------------------------------------------------


@dataclass(frozen=True)
class _MixtureOfRows(Mixture):
    """The mixture over some examples as one query sees it, by plain differences.

    Attributes:
        rows: the examples, (K, d).
        z: (x - alpha x_n) / sigma, (K, d).
        logits: (K,).
        sigma: ().
    """

    rows: jax.Array
    z: jax.Array
    logits: jax.Array
    sigma: jax.Array

    @property
    def d(self) -> int:
        return self.rows.shape[1]

    def weigh(self, r: jax.Array) -> jax.Array:
        return jnp.sum(r[:, None] * self.z, axis=0)

    def average(self, r: jax.Array) -> jax.Array:
        # About the most responsible example: the mean is that example, bit for bit, when no other
        # one counts, and its Jacobian does not cancel for data far from the origin.
        centre = self.rows[jnp.argmax(self.logits)]
        return centre + jnp.sum(r[:, None] * (self.rows - centre), axis=0)


@dataclass(frozen=True)
class _MixtureOfFound(_MixtureOfRows):
    """The mixture over examples that screening has found.

    Attributes:
        where: indices of the rows among all examples, (K,).
        num: number of all examples.
    """

    where: jax.Array
    num: int

    def spread(self, r: jax.Array) -> jax.Array:
        return jnp.zeros(self.num, r.dtype).at[self.where].add(r)


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

    def one(
        query: jax.Array, where: jax.Array, counts: jax.Array, a: jax.Array, s: jax.Array
    ) -> Any:
        weights = jnp.where(counts, log_weights[where], -jnp.inf)
        rows = examples.take(where)
        z = standardized(query, rows, a, s)
        logits = weights - half_squared_norm(z)
        return statistic(_MixtureOfFound(rows, z, logits, s, where, examples.num))

    counts = found.logits > -jnp.inf
    return map_queries(
        one, found.indices.shape[1] * examples.d, queries, found.indices, counts, alpha, sigma
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
        z = standardized(query, examples.rows, a, s)
        logits = log_weights - half_squared_norm(z)
        return statistic(_MixtureOfRows(examples.rows, z, logits, s))

    return map_queries(one, examples.num * examples.d, queries, alpha, sigma)


# --- all examples at once, or in batches ----------------------------------------------------------


@dataclass(frozen=True)
class _MixtureByProduct(Mixture):
    """The mixture over all examples as Q queries see it, by the product form.

    Attributes:
        examples: N of them, with their table.
        scaled: the queries in the unit of the table, about alpha times its centre, (Q, d).
        alpha: (Q,).
        logits: (Q, N).
        sigma: (Q,).
        at_once: whether a product with all examples is made at once, if they are in memory.
    """

    examples: Examples
    scaled: jax.Array
    alpha: jax.Array
    logits: jax.Array
    sigma: jax.Array
    at_once: bool

    @property
    def d(self) -> int:
        return self.examples.d

    @property
    def _table(self) -> Table:
        assert self.examples.table is not None
        return self.examples.table

    def weigh(self, r: jax.Array) -> jax.Array:
        difference = self.scaled - self.alpha[:, None] * self._centred_mean(r)
        return difference * (self._table.unit / self.sigma)[:, None]

    def average(self, r: jax.Array) -> jax.Array:
        return self._table.centre + self._table.unit * self._centred_mean(r)

    def _centred_mean(self, r: jax.Array) -> jax.Array:
        """Return sum_n r_n (x_n - centre) / unit, (Q, d)."""
        if self._table.centred is not None and self.at_once:
            return jnp.matmul(r, self._table.centred, precision=jax.lax.Precision.HIGHEST)

        def part(start: jax.Array, size: int) -> jax.Array:
            share = jax.lax.dynamic_slice_in_dim(r, start, size, axis=1)
            rows = self.examples.centred_batch(start, size)
            return jnp.matmul(share, rows, precision=jax.lax.Precision.HIGHEST)

        size = examples_in_batch(self.examples, len(self.scaled))
        return sum_over_batches(part, self.examples.num, size)


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
    batch = partial(_batch_by_product, statistic, examples, log_weights)
    if all_logits is not None:
        return batch(all_logits, offset, queries, alpha, sigma)
    size = items_that_fit(examples.num)
    return in_batches(partial(batch, None), size, offset, queries, alpha, sigma)


def _batch_by_product(
    statistic: Statistic,
    examples: Examples,
    log_weights: jax.Array,
    all_logits: jax.Array | None,
    offset: jax.Array,
    queries: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> Any:
    """Return what `by_product` does, for queries whose logits fit in memory."""
    assert examples.table is not None
    logits = _product_logits(all_logits, (queries, examples, log_weights, alpha, sigma))
    scaled, _ = scaled_queries(queries, examples.table, alpha, sigma)
    shifted = logits + offset[:, None]
    at_once = all_logits is not None
    return statistic(_MixtureByProduct(examples, scaled, alpha, shifted, sigma, at_once))


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


@dataclass(frozen=True)
class _MixtureByDifferences(Mixture):
    """The mixture over all examples as Q queries see it, by plain differences, some at a time.

    Attributes:
        queries: (Q, d).
        examples: N of them.
        alpha: (Q,).
        logits: (Q, N).
        sigma: (Q,).
    """

    queries: jax.Array
    examples: Examples
    alpha: jax.Array
    logits: jax.Array
    sigma: jax.Array

    @property
    def d(self) -> int:
        return self.examples.d

    def weigh(self, r: jax.Array) -> jax.Array:
        return self._weighted(
            r, lambda rows: _differences(self.queries, rows, self.alpha, self.sigma)
        )

    def average(self, r: jax.Array) -> jax.Array:
        centre = self.examples.take(jnp.argmax(self.logits, axis=1))
        return centre + self._weighted(r, lambda rows: rows - centre[:, None])

    def _weighted(self, r: jax.Array, terms: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """Return the sum of r_n times the terms of example n, (Q, d)."""

        def part(start: jax.Array, size: int) -> jax.Array:
            share = jax.lax.dynamic_slice_in_dim(r, start, size, axis=1)
            return jnp.sum(share[:, :, None] * terms(self.examples.batch(start, size)), axis=1)

        return sum_over_batches(part, self.examples.num, rows_at_once(self.examples))


def by_all_differences(
    statistic: Statistic,
    queries: jax.Array,
    examples: Examples,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
) -> Any:
    """Return a statistic of the mixtures over all examples, some of them at a time."""

    def distances(start: jax.Array, size: int) -> jax.Array:
        rows = examples.batch(start, size)
        return half_squared_norm(_differences(queries, rows, alpha, sigma))

    logits = log_weights - over_batches(distances, examples.num, rows_at_once(examples))
    return statistic(_MixtureByDifferences(queries, examples, alpha, logits, sigma))


def _differences(
    queries: jax.Array, rows: jax.Array, alpha: jax.Array, sigma: jax.Array
) -> jax.Array:
    """Return (x - alpha x_n) / sigma of each query and each of K rows, (Q, K, d)."""
    return jax.vmap(standardized, (0, None, 0, 0))(queries, rows, alpha, sigma)
