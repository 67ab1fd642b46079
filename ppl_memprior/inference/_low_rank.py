"""The singular values of B that matter, from products with B and its transpose alone.

A block Krylov method in the model space with full orthogonalization (C. Musco and C. Musco,
"Randomized block Krylov methods for stronger and faster approximate singular value decomposition",
2015), whose blocks also hold the direction that the data still pull in, and which ends by an
estimate of what it has cost the component's log-evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from ppl_memprior.inference._gaussian_update import Spectrum

Array = NDArray[Any]


class Products(NamedTuple):
    """B, of m rows and d columns, by its products with several vectors at a time.

    Attributes:
        push: from v, shape (n, d), to B v, shape (n, m).
        pull: from u, shape (n, m), to B^T u, shape (n, d).
    """

    push: Callable[[Array], Array]
    pull: Callable[[Array], Array]


class LowRank(NamedTuple):
    """A truncated spectrum, and an estimate of what truncation did to the log-evidence (nats)."""

    spectrum: Spectrum
    truncation_error: float


def low_rank(
    products: Products,
    r: Array,
    num_model: int,
    *,
    key: jax.Array,
    block: int,
    accuracy: float,
    max_rank: int,
    start: Array | None = None,
) -> LowRank:
    """Factorize B until the component's log-evidence is known to `accuracy`.

    With Q the directions found so far, P = I - Q Q^T, S_Q = I + B Q Q^T B^T and E = B P, the data
    covariance is S_Q + E E^T. Leaving E out changes the log-evidence by at most

        1/2 tr(E^T S_Q^-1 E) + 1/2 |E^T S_Q^-1 r|^2,

    the first for the determinant, estimated by random probes (M. Hutchinson, 1990) and raised by
    two standard errors, the second for the quadratic form. Each round adds E^T S_Q^-1 r to Q, and
    E^T applied to the images of the directions that the round before has added; to random data in
    the first round, and where there are not enough of these. The probes, which are pushed through
    B once, play no part in that: they know nothing of what Q is like.

    Args:
        products: products with B.
        r: data, shape (m,).
        num_model: d.
        key: JAX key of the probes and of the random data.
        block: directions that a round adds, and probes.
        accuracy: nats at which to stop.
        max_rank: rank at which to stop in any case.
        start: directions to begin with, orthonormal rows, shape (k, d).

    Returns:
        The spectrum of B Q Q^T, and the estimate; zero where Q is complete.
    """
    found = _Factors(num_model, r)
    probe_key, data_key = jax.random.split(key)
    probes = np.asarray(jax.random.normal(probe_key, (block, num_model)), r.dtype)
    pushed = products.push(probes)
    if start is not None and len(start):
        found.append(start[:max_rank], products.push(start[:max_rank]))
    images = np.zeros((0, len(r)), r.dtype)
    rounds = 0
    while found.rank < num_model:
        outside = found.image_outside(probes, pushed)
        trace = np.einsum("im,im->i", outside, found.solve(outside), dtype=np.float64)
        pulling = found.solve(r[None])
        missing = max(0, block - 1 - len(images))
        random = jax.random.normal(jax.random.fold_in(data_key, rounds), (missing, len(r)))
        pulled = np.concatenate([pulling, images[: block - 1], np.asarray(random, r.dtype)])
        candidates = found.outside(products.pull(pulled))
        error = 0.5 * _upper_mean(trace)
        error += 0.5 * float(np.sum(candidates[0].astype(np.float64) ** 2))
        room = min(max_rank, num_model) - found.rank
        if error <= max(accuracy, found.rounding(pulling)) or room <= 0:
            return LowRank(found.spectrum(), error)
        new = found.orthonormal(candidates)[:room]
        if not len(new):
            return LowRank(found.spectrum(), error)
        images = found.append(new, products.push(new))
        rounds += 1
    return LowRank(found.spectrum(), 0.0)


def _upper_mean(values: Array) -> float:
    """The mean of random values, raised by two of its standard errors."""
    return float(np.mean(values) + 2 * np.std(values, ddof=len(values) > 1) / len(values) ** 0.5)


class _Factors:
    """Q, with B Q = U R kept up to date by block Gram-Schmidt; blocks, so that nothing is copied.

    U (of m rows) has the dtype of the products; Q and R, which are small, are float64.
    """

    def __init__(self, num_model: int, r: Array) -> None:
        self._r = r
        self._basis = np.zeros((0, num_model))
        self._left: list[Array] = []  # blocks of rows of U^T
        self._triangle = np.zeros((0, 0))
        self._small: tuple[Array, Array, Array] = (np.zeros((0, 0)), np.zeros(0), np.zeros((0, 0)))

    @property
    def rank(self) -> int:
        return len(self._basis)

    def outside(self, vectors: Array) -> Array:
        """The part of each row that is orthogonal to Q, in the dtype of the products."""
        rest = np.asarray(vectors, np.float64)
        for _ in range(2):
            rest = rest - (rest @ self._basis.T) @ self._basis
        return rest.astype(self._r.dtype)

    def orthonormal(self, candidates: Array) -> Array:
        """Orthonormal directions outside of Q that span the candidates, important ones first."""
        rows = np.asarray(candidates, np.float64)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0]
        if not len(rows):
            return rows
        q, triangle = np.linalg.qr(rows.T)
        independent = np.abs(np.diag(triangle)) > 32 * np.finfo(self._r.dtype).eps
        q = q.T[independent[: q.shape[1]]]
        q = q - (q @ self._basis.T) @ self._basis
        return np.linalg.qr(q.T)[0].T

    def image_outside(self, vectors: Array, pushed: Array) -> Array:
        """B P v for each row v, shape (n, m), from B v: no product is needed."""
        along = (self._triangle @ (self._basis @ vectors.T)).astype(self._r.dtype)
        return pushed - self._combined(along)

    def append(self, directions: Array, pushed: Array) -> Array:
        """Add orthonormal directions, shape (n, d), and their images, shape (n, m).

        Returns:
            The rows that this adds to U^T.
        """
        rest, first = self._orthogonalize(pushed)
        block, upper = np.linalg.qr(rest.T)
        # what is left of a dependent image is rounding, and not orthogonal to U: once more
        rest, second = self._orthogonalize(block.T)
        block, corner = np.linalg.qr(rest.T)
        self._triangle = np.block(
            [
                [self._triangle, first + second @ upper],
                [np.zeros((block.shape[1], self.rank)), corner @ upper],
            ]
        )
        self._left.append(np.ascontiguousarray(block.T))
        self._basis = np.concatenate([self._basis, np.asarray(directions, np.float64)])
        self._small = np.linalg.svd(self._triangle, full_matrices=False)
        return self._left[-1]

    def _combined(self, weights: Array) -> Array:
        """Rows of the weights' (k, n) combinations of the columns of U, shape (n, m)."""
        total, start = np.zeros((weights.shape[1], len(self._r)), self._r.dtype), 0
        for left in self._left:
            total += weights[start : start + len(left)].T @ left
            start += len(left)
        return total

    def _orthogonalize(self, rows: Array) -> tuple[Array, Array]:
        """Rows minus their parts along U, and these parts, shape (columns of U, n)."""
        rest, parts = rows, []
        for left in self._left:
            part = left @ rest.T
            rest = rest - part.T @ left
            parts.append(part)
        return rest, np.concatenate([np.zeros((0, len(rows))), *parts]).astype(np.float64)

    def _coordinates(self, rows: Array) -> tuple[Array, Array]:
        """Rows in the left singular vectors of B Q, shape (k, n), and what is outside of them."""
        rest, along = self._orthogonalize(rows)
        rest, more = self._orthogonalize(rest)
        return self._small[0].T @ (along + more), rest

    def solve(self, rows: Array) -> Array:
        """S_Q^-1 u for each row u, shape (n, m)."""
        coordinates, rest = self._coordinates(rows)
        u, s, _ = self._small
        weights = (u @ (coordinates / (1 + s[:, None] ** 2))).astype(rest.dtype)
        return rest + self._combined(weights)

    def rounding(self, pulling: Array) -> float:
        """What rounding of the products leaves of |E^T S_Q^-1 r|^2 / 2, in nats."""
        largest = self._small[1].max(initial=0.0)
        noise = 4 * np.finfo(self._r.dtype).eps * largest * np.linalg.norm(pulling)
        return 0.5 * float(noise) ** 2

    def spectrum(self) -> Spectrum:
        """B Q Q^T = U S V^T, and r in it."""
        coefficients, rest = self._coordinates(self._r[None])
        _, s, vt = self._small
        unexplained = float(np.sum(np.asarray(rest, np.float64) ** 2))
        return Spectrum(s, vt @ self._basis, coefficients[:, 0], unexplained)
