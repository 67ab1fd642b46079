"""Maps from a latent vector with a standard normal prior to a field on a grid.

`KarhunenLoeve` takes its basis from the covariance of a Gaussian random field,
`PrincipalComponents` from examples. Both are plain JAX functions of the latent. So a prior over a
few dozen numbers can serve a forward model that takes a whole velocity model. The forward model
says what the field means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_memprior._arrays import real_array

Correlation = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def squared_exponential(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the correlation exp(-r^2 / 2) at distance r. The fields are infinitely smooth.

    Args:
        distance: distance r in correlation lengths, any shape.

    Returns:
        Correlations of the same shape.
    """
    return np.exp(-0.5 * distance**2)


def matern32(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Matern correlation of order 3/2 at a distance. The fields are once differentiable.

    Args:
        distance: distance in correlation lengths, any shape.

    Returns:
        Correlations of the same shape.
    """
    scaled = np.sqrt(3.0) * distance
    return (1.0 + scaled) * np.exp(-scaled)


@dataclass(frozen=True, eq=False)
class KarhunenLoeve:
    """Truncated Karhunen-Loeve expansion of a Gaussian random field on a grid.

    The covariance std^2 c(dz / lz) c(dx / lx) is separable, so its eigenpairs are products of the
    eigenpairs of two small matrices. The `num_terms` largest eigenvalues lambda_k are kept. A
    latent z gives the field

        u = mean + std sum_k sqrt(lambda_k) phi_k z_k.

    The field is Gaussian for z ~ N(0, I). With `bounds` = (lo, hi) the field is
    m + h tanh((u - m) / h), where m is the middle of the interval and h half its width. The field
    then stays inside the bounds, and near the middle it equals u to second order. The sign of every
    phi_k is fixed, so a latent gives the same field on every machine.

    Args:
        shape: cells (nz, nx).
        grid_spacing: size of a cell, m.
        correlation_length: in m, one number or (depth, distance).
        num_terms: number of terms that are kept, at most nz nx.
        mean: mean of u, in the field's unit: a number or an array of shape (nz, nx).
        std: standard deviation of u before truncation, in the field's unit.
        bounds: limits (lo, hi) that the field never leaves, or None.
        correlation: function of a distance in correlation lengths, 1 at 0 and positive definite on
            a line, such as `squared_exponential` or `matern32`.

    Raises:
        ValueError: a number out of range; a mean of another shape; or a mean outside the bounds.

    Source:
        R. Ghanem and P. Spanos, "Stochastic Finite Elements: A Spectral Approach", 1991, chapter 2.
    """

    shape: tuple[int, int]
    grid_spacing: float
    correlation_length: float | tuple[float, float] = field(kw_only=True)
    num_terms: int = field(kw_only=True)
    mean: ArrayLike = field(kw_only=True)
    std: float = field(kw_only=True)
    bounds: tuple[float, float] | None = field(default=None, kw_only=True)
    correlation: Correlation = field(default=squared_exponential, kw_only=True)
    basis: NDArray[np.float64] = field(init=False, repr=False)
    explained_variance: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        size = int(np.prod(self.shape))
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise ValueError(f"shape must be two positive numbers (nz, nx), got {self.shape}.")
        if not 1 <= self.num_terms <= size:
            raise ValueError(
                f"num_terms must be between 1 and nz * nx = {size}, got {self.num_terms}."
            )
        given = real_array("correlation_length", self.correlation_length)
        lengths = np.broadcast_to(np.asarray(given, dtype=float), (2,))
        for name, value in (
            ("grid_spacing", self.grid_spacing),
            ("correlation_length", lengths),
            ("std", self.std),
        ):
            if not np.all(np.isfinite(value) & (np.asarray(value) > 0)):
                raise ValueError(f"{name} must be positive and finite, got {value}.")
        mean = np.asarray(real_array("mean", self.mean), dtype=np.float64)
        if mean.shape not in ((), tuple(self.shape)) or not np.all(np.isfinite(mean)):
            raise ValueError(
                f"mean must be finite, a number or of shape {tuple(self.shape)}, got shape "
                f"{mean.shape}."
            )
        self._check_bounds(mean)
        basis, explained = self._expand(lengths)
        object.__setattr__(self, "mean", _read_only(mean))
        object.__setattr__(self, "basis", _read_only(basis))
        object.__setattr__(self, "explained_variance", explained)

    def __call__(self, z: jax.typing.ArrayLike) -> jax.Array:
        """Return the field of a latent vector.

        Args:
            z: latent, shape (num_terms,).

        Returns:
            Field of shape (nz, nx), in the unit of `mean`.

        Raises:
            ValueError: a latent of another shape.
        """
        latent = _latent(z, self.num_terms)
        u = jnp.asarray(self.mean, latent.dtype) + jnp.tensordot(
            latent, jnp.asarray(self.basis, latent.dtype), 1
        )
        if self.bounds is None:
            return u
        lo, hi = self.bounds
        middle, half = (lo + hi) / 2, (hi - lo) / 2
        # The clip only undoes rounding, by which the sum may end just outside.
        return jnp.clip(middle + half * jnp.tanh((u - middle) / half), lo, hi)

    def project(self, values: jax.typing.ArrayLike) -> jax.Array:
        """Return the latent whose field is closest to a given field, in least squares.

        With bounds the least squares compare the unbounded fields u, so a field that touches a
        bound has no latent.

        Args:
            values: field of shape (nz, nx), inside the bounds.

        Returns:
            Latent of shape (num_terms,); infinite or NaN where the field is at or outside a bound.

        Raises:
            ValueError: a field of another shape.
        """
        u = _field(values, tuple(self.shape))
        if self.bounds is not None:
            lo, hi = self.bounds
            middle, half = (lo + hi) / 2, (hi - lo) / 2
            u = middle + half * jnp.arctanh((u - middle) / half)
        # The basis is orthogonal, so the least-squares solution is a projection.
        weights = self.basis / np.sum(self.basis**2, axis=(1, 2), keepdims=True)
        return jnp.tensordot(jnp.asarray(weights, u.dtype), u - jnp.asarray(self.mean, u.dtype), 2)

    def _check_bounds(self, mean: NDArray[np.float64]) -> None:
        if self.bounds is None:
            return
        lo, hi = self.bounds
        if not (np.isfinite(lo) and np.isfinite(hi) and lo < hi):
            raise ValueError(f"bounds must be two finite numbers lo < hi, got {self.bounds}.")
        if mean.min() <= lo or mean.max() >= hi:
            raise ValueError(
                f"mean reaches from {mean.min():g} to {mean.max():g}, which is not inside the "
                f"bounds {self.bounds}."
            )

    def _expand(self, lengths: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """Scaled basis std sqrt(lambda_k) phi_k, and the share of the variance that it keeps."""
        values, vectors = [], []
        for cells, length in zip(self.shape, lengths, strict=True):
            distance = np.abs(np.subtract.outer(np.arange(cells), np.arange(cells)))
            covariance = self.correlation(distance * (self.grid_spacing / length))
            eigenvalues, eigenvectors = np.linalg.eigh(covariance)
            values.append(np.maximum(eigenvalues, 0.0))
            vectors.append(_fix_signs(eigenvectors.T))
        products = np.multiply.outer(values[0], values[1])
        kept = np.argsort(-products, axis=None, kind="stable")[: self.num_terms]
        rows, columns = np.unravel_index(kept, products.shape)
        largest = products[rows, columns]
        if largest[-1] <= 1e-14 * largest[0]:
            raise ValueError(
                f"num_terms = {self.num_terms} asks for terms whose variance is rounding error; "
                f"only {np.count_nonzero(products > 1e-14 * largest[0])} are larger. Lower it."
            )
        basis = vectors[0][rows][:, :, None] * vectors[1][columns][:, None, :]
        scale = self.std * np.sqrt(largest)
        return basis * scale[:, None, None], float(largest.sum() / products.sum())


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Fields as a mean plus principal components of examples; made by `fit`.

    A latent z gives the field mean + sum_k s_k z_k phi_k, where s_k is the standard deviation of
    the examples along phi_k. So the examples' own latents have mean zero and unit variance. Fields
    have no bounds: a component can carry them outside the range of the examples.

    Args:
        mean: mean of the examples, of the event's shape.
        basis: s_k phi_k, shape (num_components, *event shape).
        explained_variance_ratio: share of the examples' variance along each component, shape
            (num_components,).
    """

    mean: NDArray[np.float64]
    basis: NDArray[np.float64]
    explained_variance_ratio: NDArray[np.float64]

    @classmethod
    def fit(cls, examples: ArrayLike, num_components: int) -> PrincipalComponents:
        """Find the principal components of examples, by a singular value decomposition in float64.

        Args:
            examples: shape (n, *event shape), for velocity models (n, nz, nx).
            num_components: number of components that are kept, at most n - 1 and at most the number
                of directions in which the examples differ.

        Returns:
            The map from latents of shape (num_components,) to fields.

        Raises:
            ValueError: fewer than two examples, values that are not finite, or more components
                than the examples have.
        """
        given = np.asarray(real_array("examples", examples), dtype=np.float64)
        if given.ndim < 2 or len(given) < 2:
            raise ValueError(
                f"examples must have shape (n, *event shape) with n >= 2, got {given.shape}."
            )
        if not np.all(np.isfinite(given)):
            raise ValueError(
                f"the examples have {np.count_nonzero(~np.isfinite(given))} non-finite values."
            )
        mean = given.mean(axis=0)
        flat = (given - mean).reshape(len(given), -1)
        _, singular, components = np.linalg.svd(flat, full_matrices=False)
        rank = int(np.count_nonzero(singular > 1e-10 * singular[0]))
        if not 1 <= num_components <= rank:
            raise ValueError(
                f"num_components must be between 1 and {rank}, the number of directions in which "
                f"the {len(given)} examples differ; got {num_components}."
            )
        kept = slice(num_components)
        scale = singular[kept] / np.sqrt(len(given) - 1)
        basis = scale[:, None] * _fix_signs(components[kept])
        return cls(
            _read_only(mean),
            _read_only(basis.reshape(num_components, *mean.shape)),
            _read_only(singular[kept] ** 2 / np.sum(singular**2)),
        )

    @property
    def num_components(self) -> int:
        """Length of the latent."""
        return len(self.basis)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a field."""
        return self.mean.shape

    def __call__(self, z: jax.typing.ArrayLike) -> jax.Array:
        """Return the field of a latent vector.

        Args:
            z: latent (whitened scores), shape (num_components,).

        Returns:
            Field of the examples' event shape and unit.

        Raises:
            ValueError: a latent of another shape.
        """
        latent = _latent(z, self.num_components)
        basis = jnp.asarray(self.basis, latent.dtype)
        return jnp.asarray(self.mean, latent.dtype) + jnp.tensordot(latent, basis, 1)

    def encode(self, values: jax.typing.ArrayLike) -> jax.Array:
        """Return the latent whose field is closest to a given field, in least squares.

        Args:
            values: field of the examples' event shape.

        Returns:
            Latent (whitened scores) of shape (num_components,).

        Raises:
            ValueError: a field of another shape.
        """
        u = _field(values, self.shape)
        axes = tuple(range(1, self.basis.ndim))
        weights = self.basis / np.sum(self.basis**2, axis=axes, keepdims=True)
        return jnp.tensordot(
            jnp.asarray(weights, u.dtype), u - jnp.asarray(self.mean, u.dtype), u.ndim
        )


def _latent(z: jax.typing.ArrayLike, length: int) -> jax.Array:
    latent = jnp.asarray(real_array("latent", z))
    if latent.shape != (length,):
        raise ValueError(
            f"a latent of shape ({length},) is expected, got {latent.shape}. Use jax.vmap for many."
        )
    return latent.astype(jnp.result_type(latent, float))


def _field(values: jax.typing.ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    array = jnp.asarray(real_array("field", values))
    if array.shape != shape:
        raise ValueError(
            f"a field of shape {shape} is expected, got {array.shape}. Use jax.vmap for many."
        )
    return array.astype(jnp.result_type(array, float))


def _fix_signs(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make the first entry of every row that is not small positive."""
    sizes = np.abs(vectors)
    first = np.argmax(sizes > 0.1 * sizes.max(axis=1, keepdims=True), axis=1)
    return vectors * np.sign(vectors[np.arange(len(vectors)), first])[:, None]


def _read_only(array: NDArray[np.float64]) -> NDArray[np.float64]:
    array = np.array(array)
    array.setflags(write=False)
    return array
