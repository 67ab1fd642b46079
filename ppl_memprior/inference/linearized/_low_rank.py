"""The singular values of B that matter, from products with B and its transpose alone.

Golub and Kahan's bidiagonalization in blocks, from the data and random vectors beside them
(C. Musco and C. Musco, "Randomized block Krylov methods for stronger and faster approximate
singular value decomposition", 2015), that ends by an estimate of what it has cost the component's
log-evidence. Only the model's side is kept and orthogonalized in full. On the data's side, which
may be far longer, there are never more than a few blocks; the singular values then are those of a
matrix that differs from B by rounding of the products, eps |B| (J. Barlow, "Reorthogonalization
for the Golub-Kahan-Lanczos bidiagonal reduction", 2013). B^T B, which squares the condition, is
not formed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from ppl_memprior.inference.linearized._gaussian_update import Spectrum

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
    enough: Callable[[int, float, float], bool] = lambda rank, error, bound: False,
) -> LowRank:
    """Factorize B until the component's log-evidence is known to `accuracy`.

    With Q the directions found so far, P = I - Q Q^T, S_Q = I + B Q Q^T B^T and E = B P, the data
    covariance is S_Q + E E^T. Leaving E out changes the log-evidence by at most

        1/2 tr(E^T S_Q^-1 E) + 1/2 |E^T S_Q^-1 r|^2,

    the first for the determinant, estimated by random probes (M. Hutchinson, 1990) and raised by
    two standard errors, the second for the quadratic form. Each round adds to Q what B^T makes of
    the data directions that the round before has added, and of random data where these have
    nothing new to say. The probes, which are pushed through B once, play no part in that: they
    know nothing of what Q is like.

    Args:
        products: products with B.
        r: data, shape (m,).
        num_model: d.
        key: JAX key of the probes and of the random data.
        block: directions that a round adds, and probes.
        accuracy: nats at which to stop.
        max_rank: rank at which to stop in any case.
        enough: asked after each round, with the rank, the estimate of the error, and an upper
            bound on the component's log-evidence; whether to stop there.

    Returns:
        The spectrum of B Q Q^T, and the estimate; zero where Q is complete.
    """
    probe_key, data_key = jax.random.split(key)
    probes = np.asarray(jax.random.normal(probe_key, (block, num_model)), r.dtype)
    outside = np.array(products.push(probes))  # B P v for each probe v

    def random_data(count: int, rounds: int) -> Array:
        random = jax.random.normal(jax.random.fold_in(data_key, rounds), (count, len(r)))
        return np.asarray(random, r.dtype)

    found = _Bidiagonal(r, random_data(block - 1, 0), num_model)
    rounds = 0
    while found.rank < num_model:
        pulled = found.outside(products.pull(found.tail))
        pull = found.pull_of_data(pulled)
        error = 0.5 * _upper_mean(found.weighed(outside)) + 0.5 * pull
        room = min(max_rank, num_model) - found.rank
        close = error <= max(accuracy, found.rounding())
        stop = rounds > 0 and enough(found.rank, error, found.evidence_bound(pull))
        if close or room <= 0 or stop:
            return LowRank(found.spectrum(), error)
        new = found.independent(pulled)
        missing = min(block, num_model - found.rank) - len(new)
        if missing:
            more = products.pull(random_data(missing, rounds + 1))
            new = found.independent(np.concatenate([new, found.outside(more)]), len(new))
        if not len(new):
            return LowRank(found.spectrum(), error)
        images = products.push(new[:room])
        outside -= (probes @ new[:room].T.astype(r.dtype)) @ images
        found.append(new[:room], images, last=len(new) > room)
        rounds += 1
    return LowRank(found.spectrum(), 0.0)


def _upper_mean(values: Array) -> float:
    """The mean of random values, raised by two of its standard errors."""
    return float(np.mean(values) + 2 * np.std(values, ddof=len(values) > 1) / len(values) ** 0.5)


class _Bidiagonal:
    """B Q = U L with U^T U = I and r = U e_1 |r|: orthonormal Q, block-bidiagonal L, tail of U.

    Rows of U whose products with B^T lie in Q do not matter any more and are dropped. For the
    others, the `tail`, it is known what S_Q^-1 = (I + U L L^T U^T)^-1 is there, and S_Q^-1 r.

    Attributes:
        tail: shape (t, m), in the dtype of the products; Q and L, which are small, are float64.
    """

    def __init__(self, r: Array, beside: Array, num_model: int) -> None:
        norm = float(np.linalg.norm(r.astype(np.float64)))
        first = r / norm if norm > 0 else np.zeros_like(r)
        rest = _orthogonal(beside, first[None])
        self.tail = np.concatenate([first[None], _rows_of_length_one(rest)[0]])
        self._basis = np.zeros((0, num_model))
        self._norm, self._largest = norm, 0.0
        self._blocks: list[tuple[int, int, Array]] = []  # of L: first row, first column
        self._first_row = 0
        self._inverse = np.eye(len(self.tail))  # S_Q^-1 along the tail
        self._solved = norm * np.eye(len(self.tail))[0]  # S_Q^-1 r along the tail
        self._quadratic = norm**2  # r^T S_Q^-1 r
        self._log_determinant = 0.0  # log det S_Q

    @property
    def rank(self) -> int:
        return len(self._basis)

    def outside(self, vectors: Array) -> Array:
        """The part of each row that is orthogonal to Q."""
        return _orthogonal(np.asarray(vectors, np.float64), self._basis)

    def weighed(self, rows: Array) -> Array:
        """u^T S_Q^-1 u for rows u of B P, shape (n,)."""
        along = _float64_product(rows, self.tail)
        lengths = np.einsum("im,im->i", rows, rows, dtype=np.float64)
        lost = along @ (np.eye(len(self.tail)) - self._inverse)
        return np.maximum(lengths - np.sum(lost * along, axis=1), 0.0)

    def pull_of_data(self, pulled: Array) -> float:
        """|P B^T S_Q^-1 r|^2 from P B^T of the tail."""
        return float(np.sum((self._solved @ pulled) ** 2))

    def evidence_bound(self, pull: float) -> float:
        """An upper bound on -1/2 r^T S^-1 r - 1/2 log det S of the whole S = S_Q + E E^T.

        S^-1 is at least S_Q^-1 - S_Q^-1 E E^T S_Q^-1, and log det S at least log det S_Q. What
        rounding may have done to |r|^2 is allowed for.

        Args:
            pull: |E^T S_Q^-1 r|^2.
        """
        rounding = 8 * float(np.finfo(self.tail.dtype).eps) * self._norm**2
        least = max(self._quadratic - pull - rounding, 0.0)
        return -0.5 * (least + self._log_determinant)

    def rounding(self) -> float:
        """What rounding of the products leaves of |E^T S_Q^-1 r|^2 / 2, in nats."""
        noise = 4 * np.finfo(self.tail.dtype).eps * self._largest
        return 0.5 * float(noise) ** 2 * max(self._quadratic, 0.0)

    def independent(self, candidates: Array, known: int = 0) -> Array:
        """Orthonormal directions outside of Q that span the candidates.

        Args:
            candidates: shape (n, d); more than `rounding` of the products long where they say
                anything.
            known: so many are orthonormal already.
        """
        rows = np.asarray(candidates, np.float64)
        if not len(rows):
            return rows
        smallest = 32 * np.finfo(self.tail.dtype).eps * self._largest
        before, rest = rows[:known], _orthogonal(rows[known:], rows[:known])
        _, lengths, directions = np.linalg.svd(rest, full_matrices=False)
        new = directions[lengths > max(smallest, np.finfo(np.float64).tiny)]
        new = _orthogonal(new, np.concatenate([self._basis, before]))
        return np.concatenate([before, np.linalg.qr(new.T)[0].T])

    def append(self, directions: Array, images: Array, *, last: bool) -> None:
        """Add orthonormal directions, shape (n, d), and their images, shape (n, m).

        Args:
            directions: outside of Q.
            images: B applied to them.
            last: nothing is added after them, and they leave out a part of the tail's pull.
        """
        along = _float64_product(self.tail, images)
        rest = images - along.T.astype(images.dtype) @ self.tail
        more = _float64_product(self.tail, rest)
        rest = rest - more.T.astype(images.dtype) @ self.tail
        new, corner = _rows_of_length_one(rest)
        old, size = len(self.tail), len(new)
        columns = np.concatenate([along + more, corner])
        self._blocks.append((self._first_row, self.rank, columns))
        self._basis = np.concatenate([self._basis, directions])
        self._largest = max(self._largest, float(np.linalg.norm(columns, 2)))

        # Woodbury: S_Q grows by the outer product of the columns
        inverse = np.eye(old + size)
        inverse[:old, :old] = self._inverse
        solved = np.concatenate([self._solved, np.zeros(size)])
        weighed = inverse @ columns
        pivot = np.eye(columns.shape[1]) + columns.T @ weighed
        self._log_determinant += float(np.linalg.slogdet(pivot)[1])
        step = np.linalg.solve(pivot, columns.T @ solved)
        self._quadratic -= float((columns.T @ solved) @ step)
        solved = solved - weighed @ step
        inverse = inverse - weighed @ np.linalg.solve(pivot, weighed.T)
        kept = slice(0 if last else old, None)
        self.tail = np.concatenate([self.tail, new])[kept]
        self._inverse, self._solved = inverse[kept, kept], solved[kept]
        self._first_row += old

    def spectrum(self) -> Spectrum:
        """B Q Q^T = U S V^T, and r in it."""
        if not self.rank:
            nothing = np.zeros(0)
            return Spectrum(nothing, self._basis, nothing, self._norm**2)
        last_row, _, last = self._blocks[-1]
        band = np.zeros((max(last_row + len(last), self.rank), self.rank))
        for row, column, entries in self._blocks:
            band[row : row + len(entries), column : column + entries.shape[1]] = entries
        left, s, vt = np.linalg.svd(band)
        data = self._norm * left[0]
        return Spectrum(
            s, vt @ self._basis, data[: self.rank], float(np.sum(data[self.rank :] ** 2))
        )


def _orthogonal(vectors: Array, basis: Array) -> Array:
    """Rows minus their parts along orthonormal rows; twice is enough."""
    for _ in range(2):
        vectors = vectors - (vectors @ basis.T) @ basis
    return vectors


def _rows_of_length_one(rows: Array) -> tuple[Array, Array]:
    """Orthonormal rows and the triangle R with rows = R^T orthonormal."""
    q, triangle = np.linalg.qr(rows.T)
    return np.ascontiguousarray(q.T), triangle.astype(np.float64)


def _float64_product(left: Array, right: Array) -> Array:
    return (left @ right.T).astype(np.float64)
