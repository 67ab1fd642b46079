"""Which stored examples can matter to a query, found by one matrix product and a rigorous bound.

The product |x|^2 - 2 x.x_n + |x_n|^2 gives all squared distances at the speed of a matrix product,
but in floating point it loses the digits that decide as soon as the bandwidth is far below the
scale of the data. `screen` therefore trusts it only to *rule out* examples: it bounds the rounding
error of every distance, and lists the examples that the bound does not exclude. What is computed
from these, and how accurately, is left to `mixtures`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ppl_memprior._batches import items_that_fit
from ppl_memprior.distributions._mixture.examples import Examples, Table

#: Examples that are looked for at first, and where these are not enough.
FEWEST, FEW = 4, 16
# Examples in memory that are a batch at least, for any size of batches: with fewer of them a matrix
# product is slow.
_LEAST = 1024
# Examples that share one entry in the first stage of `_largest`; of that algorithm, no batch.
_GROUP = 16

_Best = tuple[jax.Array, jax.Array]


class Screen(NamedTuple):
    """What `screen` found for Q queries.

    Attributes:
        indices: the k examples with the largest logits by the product, (Q, k), best first.
        logits: these logits, (Q, k); minus infinity for an entry that stands for no example, or
            for one of weight zero.
        rest: N times its exponential bounds the sum of the exponentials of the true logits of all
            other examples, (Q,).
        error: bounds the error of every logit by the product, (Q,).
        all_logits: the logits of all examples by the product, (Q, N); None where the examples were
            screened in batches.
    """

    indices: jax.Array
    logits: jax.Array
    rest: jax.Array
    error: jax.Array
    all_logits: jax.Array | None = None

    @property
    def floor(self) -> jax.Array:
        """Lower bound of the largest logit, (Q,)."""
        return self.logits[:, 0] - self.error


def scaled_queries(
    queries: jax.Array, table: Table, alpha: jax.Array, sigma: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return (x - alpha centre) / unit, (Q, d), and unit^2 / (2 sigma^2), (Q,)."""
    scaled = (queries - alpha[:, None] * table.centre) / table.unit
    return scaled, 0.5 * (table.unit / sigma) ** 2


def product_logits(
    scaled: jax.Array,
    precision: jax.Array,
    centred: jax.Array,
    squares: jax.Array,
    log_weights: jax.Array,
    alpha: jax.Array,
) -> jax.Array:
    """Return log pi_n - |x - alpha x_n|^2 / (2 sigma^2) by the product form, (Q, N).

    Args:
        scaled: queries as by `scaled_queries`, (Q, d).
        precision: unit^2 / (2 sigma^2), (Q,).
        centred: examples, (N, d).
        squares: their squared norms, (N,).
        log_weights: (N,).
        alpha: (Q,).
    """
    cross = jnp.matmul(scaled, centred.T, precision=jax.lax.Precision.HIGHEST)
    own = jnp.sum(scaled * scaled, axis=-1)[:, None]
    scale = alpha[:, None]
    return log_weights - precision[:, None] * (own - scale * (2 * cross - scale * squares))


def screen(
    queries: jax.Array,
    examples: Examples,
    log_weights: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
    *,
    k: int,
) -> Screen:
    """Find the `k` examples of largest logits by the product, and bound those of all others.

    The bound holds for any order of summation: with unit roundoff u, a dot product of d terms
    errs by at most d u / (1 - d u) times the product of the norms (N. Higham, Accuracy and
    Stability of Numerical Algorithms, 2nd ed., section 3.1), and centring adds an error of at
    most u per entry. It is taken at the example farthest from the centre, for all of them.
    Nothing here is differentiated.

    Args:
        queries: (Q, d).
        examples: N of them, with their table.
        log_weights: (N,).
        alpha: (Q,).
        sigma: (Q,).
        k: how many examples to list, fewer than N; more where they are screened in batches, so that
            it need not be done again.
    """
    queries, examples, log_weights, alpha, sigma = jax.lax.stop_gradient(
        (queries, examples, log_weights, alpha, sigma)
    )
    table = examples.table
    assert table is not None
    scaled, precision = scaled_queries(queries, table, alpha, sigma)
    num, d = examples.num, examples.d
    shift = jnp.abs(alpha) * jnp.linalg.norm(table.centre / table.unit)
    extent = jnp.linalg.norm(scaled, axis=1) + jnp.abs(alpha) * jnp.max(table.norms)
    u = float(jnp.finfo(extent.dtype).eps) / 2
    of_weights = 8 * u * jnp.max(jnp.where(log_weights > -jnp.inf, jnp.abs(log_weights), 0))
    error = of_weights + precision * extent * _error_per_extent(d, extent, shift)

    def logits_of(centred: jax.Array, norms: jax.Array, weights: jax.Array) -> jax.Array:
        logits = product_logits(scaled, precision, centred, norms**2, weights, alpha)
        # Without the barrier XLA computes the logits again for each of their uses.
        return jax.lax.optimization_barrier(logits)

    size = min(num, max(k + 1, FEW + 1, examples_in_batch(examples, queries.shape[0])))
    if size == num and table.centred is not None:
        logits = logits_of(table.centred, table.norms, log_weights)
        top, indices = _largest(logits, k + 1)
        return Screen(indices[:, :k], top[:, :k], top[:, k] + error, error, logits)
    k = max(k, FEW)

    def step(best: _Best, start: jax.Array) -> tuple[_Best, None]:
        # The last batch starts earlier to be full, and ignores what the one before has seen.
        begin = jnp.minimum(start, num - size)
        norms, weights = (
            jax.lax.dynamic_slice_in_dim(field, begin, size) for field in (table.norms, log_weights)
        )
        logits = logits_of(examples.centred_batch(begin, size), norms, weights)
        fresh = begin + jnp.arange(size) >= start
        top, where = _largest(jnp.where(fresh, logits, -jnp.inf), k + 1)
        both = (
            jnp.concatenate(pair, axis=1) for pair in zip(best, (top, begin + where), strict=True)
        )
        all_top, all_indices = both
        top, where = jax.lax.top_k(all_top, k + 1)
        return (top, jnp.take_along_axis(all_indices, where, axis=1)), None

    shape = (queries.shape[0], k + 1)
    nothing = (jnp.full(shape, -jnp.inf, queries.dtype), jnp.zeros(shape, jnp.int32))
    (top, indices), _ = jax.lax.scan(step, nothing, jnp.arange(0, num, size, dtype=jnp.int32))
    return Screen(indices[:, :k], top[:, :k], top[:, k] + error, error)


def examples_in_batch(examples: Examples, num_queries: int) -> int:
    """Return how many examples are compared with `num_queries` queries at once."""
    size = max(_LEAST, items_that_fit(num_queries))
    if examples.table is not None and examples.table.centred is None:
        size = min(size, items_that_fit(examples.d))
    return min(examples.num, size)


def widen(found: Screen, k: int) -> Screen:
    """List more examples, and sum up the others, where that costs no product; else `found`."""
    logits = found.all_logits
    if logits is None:
        return found
    top, indices = _largest(logits, k + 1)
    others = jnp.where(logits <= top[:, k:], logits, -jnp.inf)
    rest = jax.nn.logsumexp(others, axis=1) - math.log(logits.shape[1]) + found.error
    return Screen(indices[:, :k], top[:, :k], rest, found.error, logits)


def _error_per_extent(d: int, extent: jax.Array, shift: jax.Array) -> jax.Array:
    """Bound the rounding error of a squared distance, divided by `extent` = |x| + alpha |x_n|.

    `shift` is the norm of what was subtracted from the query to centre it.
    """
    u = float(jnp.finfo(extent.dtype).eps) / 2
    terms = (d + 16) * u
    if terms >= 0.5:  # more than eight million dimensions in single precision: nothing is sure
        return jnp.full_like(extent, jnp.inf)
    return 1.05 * (terms / (1 - terms) * extent + 2 * u * (shift + extent))


def _largest(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Return the `k` largest of `values` (Q, N) and their indices, (Q, k), as `jax.lax.top_k`.

    In two stages, which takes a third of the time: the k largest lie in the k groups whose maxima
    are largest. Group j holds the entries j, j + M, j + 2 M...; up to 15 last ones are in no group.
    """
    num_queries, num = values.shape
    num_groups = num // _GROUP
    if num_groups < 2 * k:
        top, index = jax.lax.top_k(values, k)
        return top, index.astype(jnp.int32)
    grouped = num_groups * _GROUP
    maxima = jnp.max(values[:, :grouped].reshape(num_queries, _GROUP, num_groups), axis=1)
    _, chosen = jax.lax.top_k(maxima, k)
    members = chosen[:, :, None] + num_groups * jnp.arange(_GROUP)
    last = jnp.broadcast_to(jnp.arange(grouped, num), (num_queries, num - grouped))
    index = jnp.concatenate([members.reshape(num_queries, -1), last], axis=1)
    _, where = jax.lax.top_k(jnp.take_along_axis(values, index, axis=1), k)
    # Without the barriers XLA selects again for each use. They must not stand right behind a
    # selection: from sharded values XLA aborts there.
    index = jnp.take_along_axis(index, where, axis=1).astype(jnp.int32)
    index = jax.lax.optimization_barrier(index)
    return jax.lax.optimization_barrier(jnp.take_along_axis(values, index, axis=1)), index
