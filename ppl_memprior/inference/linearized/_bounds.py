"""An upper bound on a component's linearized log-evidence, for a few products instead of many.

Golub and Kahan's bidiagonalization of B^T from r gives an orthonormal basis U of a few data
directions with U^T B B^T U = L L^T. The Gauss quadrature that belongs to it bounds
r^T (I + B B^T)^-1 r from below (G. Golub and G. Meurant, "Matrices, Moments and Quadrature with
Applications", 2010, chapter 6), and interlacing bounds log det (I + B B^T) from below by
log det (I + L L^T). One step is the Cauchy-Schwarz bound |r|^4 / (|r|^2 + |B^T r|^2) and the
Rayleigh quotient.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ppl_memprior.inference.linearized._component_prior import ComponentPrior
from ppl_memprior.inference.linearized._whitened import whitened_residual
from ppl_memprior.problem.inverse_problem import InverseProblem

FORWARD_EVALUATIONS = 1


def gradient_evaluations(steps: int) -> int:
    """Products with the Jacobian that so many steps of a first look take."""
    return 2 * steps - 1


class FirstLook(NamedTuple):
    """What a few products say of a component.

    Attributes:
        bidiagonal: L, shape (steps, steps).
        misfit: squared norm of the whitened residual r at the component's mean.
    """

    bidiagonal: jax.Array
    misfit: jax.Array


@partial(jax.jit, static_argnames="steps")
def first_looks(problem: InverseProblem, priors: ComponentPrior, steps: int) -> FirstLook:
    """Bidiagonalize several components; see `first_look`."""
    return jax.vmap(lambda prior: first_look(problem, prior, steps))(priors)


def first_look(problem: InverseProblem, prior: ComponentPrior, steps: int) -> FirstLook:
    """Bidiagonalize one component; inside `jit` and `vmap`.

    Args:
        problem: whose component it is.
        prior: one component.
        steps: of the bidiagonalization; more of them bound more closely.
    """
    origin = jnp.zeros_like(prior.mean)
    residual = partial(whitened_residual, problem, prior)
    r, pull = jax.vjp(residual, origin)

    def push(v: jax.Array) -> jax.Array:
        return -jax.jvp(residual, (origin,), (v,))[1]

    u = [_unit(r)[0]]
    v: list[jax.Array] = []
    bidiagonal = jnp.zeros((steps, steps), r.dtype)
    for i in range(steps):
        if i:
            along, length = _unit(_outside(push(v[-1]), u))
            u.append(along)
            bidiagonal = bidiagonal.at[i, i - 1].set(length)
        along, length = _unit(_outside(-pull(u[-1])[0], v))
        v.append(along)
        bidiagonal = bidiagonal.at[i, i].set(length)
    return FirstLook(bidiagonal, jnp.sum(r**2))


def evidence_bounds(found: FirstLook) -> NDArray[Any]:
    """Upper bounds on the log-evidences, without the normalizer; NaN for what is not finite.

    Args:
        found: of several components, with a leading axis of length B.

    Returns:
        Shape (B,), in float64.
    """
    misfit, bidiagonal = np.asarray(found.misfit), np.asarray(found.bidiagonal, np.float64)
    finite = np.isfinite(misfit) & np.isfinite(bidiagonal).all(axis=(1, 2))
    left, s, _ = np.linalg.svd(np.where(finite[:, None, None], bidiagonal, 0.0))
    quadratic = misfit * np.sum(left[:, 0] ** 2 / (1 + s**2), axis=1)
    bounds = -0.5 * (quadratic + np.sum(np.log1p(s**2), axis=1))
    return np.where(finite, bounds, np.nan)


def _unit(vector: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A vector of length one (zero for zero) and the length that it had."""
    length = jnp.linalg.norm(vector)
    return vector / jnp.where(length > 0, length, 1), length


def _outside(vector: jax.Array, basis: list[jax.Array]) -> jax.Array:
    for _ in range(2):
        for known in basis:
            vector = vector - jnp.sum(known * vector) * known
    return vector
