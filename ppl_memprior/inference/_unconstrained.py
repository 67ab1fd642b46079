"""All latent sites of a problem as one flat vector without constraints.

Samplers that are not NumPyro's own move such vectors. The prior's density there has the Jacobian
of the constraining map in it; the likelihood is the problem's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

from ppl_memprior.problem.inverse_problem import InverseProblem


class Unconstrained(NamedTuple):
    """Functions of one flat vector z of all latents, shape (num_latents,), unless said otherwise.

    Attributes:
        num_latents: length of z.
        draw_prior: of a JAX key; a z whose latents are drawn from the prior.
        log_prior: log density of the latents' prior at z, with respect to z (scalar).
        log_likelihood: log p(data | z) (scalar).
        latents: the values of the latent sites by name, in their own supports.
    """

    num_latents: int
    draw_prior: Callable[[jax.Array], jax.Array]
    log_prior: Callable[[jax.Array], jax.Array]
    log_likelihood: Callable[[jax.Array], jax.Array]
    latents: Callable[[jax.Array], dict[str, jax.Array]]


def unconstrained(problem: InverseProblem) -> Unconstrained:
    """Flatten the latents of a problem whose latent sites are all continuous."""
    model, args, kwargs = problem.model, problem.args, problem.kwargs
    seeded = handlers.seed(model, rng_seed=0)
    # the data of a hidden site are not in the density, and its forward solve is dead code
    prior_model = handlers.seed(handlers.block(model, hide=list(problem.observed)), rng_seed=0)
    names = (problem.prior_name, *problem.extra_latents)

    def draw_sites(key: jax.Array) -> dict[str, jax.Array]:
        trace = handlers.trace(handlers.seed(model, key)).get_trace(*args, **kwargs)
        return unconstrain_fn(seeded, args, kwargs, {name: trace[name]["value"] for name in names})

    template = jax.eval_shape(draw_sites, jax.random.key(0))
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), template))

    def latents(z: jax.Array) -> dict[str, jax.Array]:
        return constrain_fn(seeded, args, kwargs, unravel(z))

    def log_likelihood(z: jax.Array) -> jax.Array:
        values = latents(z)
        return problem.log_likelihood(values.pop(problem.prior_name), **values)

    return Unconstrained(
        num_latents=flat.size,
        draw_prior=lambda key: ravel_pytree(draw_sites(key))[0],
        log_prior=lambda z: -potential_energy(prior_model, args, kwargs, unravel(z)),
        log_likelihood=log_likelihood,
        latents=latents,
    )
