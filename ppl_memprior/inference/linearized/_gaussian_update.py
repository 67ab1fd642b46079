"""The posterior of one linearized Gaussian component, from singular values.

In whitened coordinates the component is z ~ N(0, I) and the data are r = B z + e, e ~ N(0, I).
With B = U S V^T the posterior has the mean V S / (1 + S^2) U^T r and the covariance
I - V S^2 / (1 + S^2) V^T; the data covariance is I + B B^T. The products B^T B and B B^T, which
square the condition number, are never formed. Where B comes from is left to others.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Spectrum(NamedTuple):
    """B = U S V^T, and the data in the coordinates of U; JAX or NumPy arrays.

    Attributes:
        singular_values: S, shape (k,).
        directions: V^T, orthonormal rows, shape (k, d).
        coefficients: U^T r, shape (k,).
        unexplained: |r - U U^T r|^2, scalar.
    """

    singular_values: Any
    directions: Any
    coefficients: Any
    unexplained: Any


class GaussianUpdate(NamedTuple):
    """Posterior of a component in whitened coordinates; every field but the mean is a scalar.

    Attributes:
        mean: shape (d,).
        log_evidence: -1/2 r^T (I + B B^T)^-1 r - 1/2 log det (I + B B^T).
        misfit: |r - B mean|^2, what the linear model predicts.
        log_determinant: log det (I + B B^T).
        informed_directions: sum of s^2 / (1 + s^2).
    """

    mean: Any
    log_evidence: Any
    misfit: Any
    log_determinant: Any
    informed_directions: Any


def gaussian_update(spectrum: Spectrum) -> GaussianUpdate:
    """The posterior that belongs to a spectrum; of JAX arrays or of NumPy's, as given."""
    s, directions, coefficients, unexplained = spectrum
    xp = s.__array_namespace__()
    kept = 1 / (1 + s**2)
    log_determinant = xp.sum(xp.log1p(s**2))
    quadratic = unexplained + xp.sum(coefficients * (kept * coefficients))
    return GaussianUpdate(
        mean=(s * kept * coefficients) @ directions,
        log_evidence=-0.5 * (quadratic + log_determinant),
        misfit=unexplained + xp.sum((kept * coefficients) ** 2),
        log_determinant=log_determinant,
        informed_directions=xp.sum(s**2 * kept),
    )


def dense_spectrum(b: Any, r: Any) -> Spectrum:
    """The spectrum of a matrix (m, d) and data (m,); a QR factorization reduces the tall side.

    Of JAX arrays or of NumPy's, as given; all finite.
    """
    xp = b.__array_namespace__()
    if b.shape[0] <= b.shape[1]:
        q, triangle = xp.linalg.qr(b.T)
        v, s, ut = xp.linalg.svd(triangle, full_matrices=False)
        return Spectrum(s, (q @ v).T, ut @ r, xp.zeros((), dtype=r.dtype))
    q, triangle = xp.linalg.qr(b)
    u, s, vt = xp.linalg.svd(triangle, full_matrices=False)
    left = q @ u
    coefficients = r @ left
    rest = r - left @ coefficients
    # once more: what rounding left along U weighs 1 here, and 1 / (1 + s^2) where it belongs
    rest = rest - left @ (rest @ left)
    return Spectrum(s, vt, coefficients, xp.sum(rest**2))
