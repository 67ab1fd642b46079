"""An upper bound on a component's linearized log-evidence, for a few products instead of many.

Golub and Kahan's bidiagonalization of B^T from r gives an orthonormal basis U of a few data
directions with U^T B B^T U = L L^T. The Gauss quadrature that belongs to it bounds
r^T (I + B B^T)^-1 r from below (G. Golub and G. Meurant, "Matrices, Moments and Quadrature with
Applications", 2010, chapter 6), and interlacing bounds log det (I + B B^T) from below by
log det (I + L L^T). One step is the Cauchy-Schwarz bound |r|^4 / (|r|^2 + |B^T r|^2) and the
Rayleigh quotient.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ppl_memprior.inference._component_prior import ComponentPrior
from ppl_memprior.inference._whitened import WhitenedComponents

STEPS = 4


class Bound(NamedTuple):
    """What is known of a component from a few products; scalars.

    Attributes:
        log_evidence: upper bound on the linearized log-evidence, without the normalizer.
        misfit: squared norm of the whitened residual at the component's mean.
    """

    log_evidence: jax.Array
    misfit: jax.Array


FORWARD_EVALUATIONS = 1
GRADIENT_EVALUATIONS = 2 * STEPS - 1


def evidence_bound(components: WhitenedComponents, prior: ComponentPrior) -> Bound:
    """Bound one component; inside `jit` and `vmap`.

    Args:
        components: the problem's.
        prior: one component.
    """
    origin = jnp.zeros_like(prior.mean)
    r, pull = jax.vjp(lambda z: components.residual(prior, z), origin)

    def push(v: jax.Array) -> jax.Array:
        return -jax.jvp(lambda z: components.residual(prior, z), (origin,), (v,))[1]

    misfit = jnp.sum(r**2)
    u = [_unit(r)[0]]
    v: list[jax.Array] = []
    bidiagonal = jnp.zeros((STEPS, STEPS), r.dtype)
    for i in range(STEPS):
        if i:
            along, length = _unit(_outside(push(v[-1]), u))
            u.append(along)
            bidiagonal = bidiagonal.at[i, i - 1].set(length)
        along, length = _unit(_outside(-pull(u[-1])[0], v))
        v.append(along)
        bidiagonal = bidiagonal.at[i, i].set(length)
    left, s, _ = jnp.linalg.svd(bidiagonal)
    quadratic = misfit * jnp.sum(left[0] ** 2 / (1 + s**2))
    return Bound(-0.5 * (quadratic + jnp.sum(jnp.log1p(s**2))), misfit)


def _unit(vector: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A vector of length one (zero for zero) and the length that it had."""
    length = jnp.linalg.norm(vector)
    return vector / jnp.where(length > 0, length, 1), length


def _outside(vector: jax.Array, basis: list[jax.Array]) -> jax.Array:
    for _ in range(2):
        for known in basis:
            vector = vector - jnp.sum(known * vector) * known
    return vector
