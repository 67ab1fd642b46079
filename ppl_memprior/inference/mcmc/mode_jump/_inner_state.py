"""The inner kernel of a `ModeJump` and its state: copied, left in place, or moved elsewhere."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import potential_energy
from numpyro.util import identity

from ppl_memprior.inference.mcmc.mode_jump._checks import POSITION_FIELDS


def own_copy(kernel: MCMCKernel) -> MCMCKernel:
    """The kernel without what earlier use left in it.

    NumPyro's `HMC` keeps a sampling function that belongs to the `chain_method` it ran under.
    """
    if type(kernel).wrap_model is not MCMCKernel.wrap_model:
        return kernel.wrap_model(identity)
    return copy.copy(kernel)


def stay(inner: Any) -> Any:
    """The inner state of an iteration without a local move."""
    # a divergence was reported when it happened; the acceptance stays that of the last move
    none = [name for name in ("num_steps", "diverging") if hasattr(inner, name)]
    return inner._replace(**{name: jnp.zeros_like(getattr(inner, name)) for name in none})


def moved(
    kernel: MCMCKernel,
    state: Any,
    z: dict[str, jax.Array],
    model_args: tuple[Any, ...],
    model_kwargs: dict[str, Any],
) -> Any:
    """The inner kernel's state at another position, its kinetic energy kept."""
    if type(kernel).refresh is not MCMCKernel.refresh:
        there = kernel.refresh(state._replace(z=z), model_args, model_kwargs)
    else:
        potential = partial(potential_energy, kernel.model, model_args, model_kwargs)
        value, gradient = jax.value_and_grad(potential)(z)
        there = state._replace(z=z, z_grad=gradient, potential_energy=value)
    if hasattr(state, "energy"):
        kinetic = state.energy - state.potential_energy
        there = there._replace(energy=there.potential_energy + kinetic)
    return there


def selected(accept: jax.Array, there: Any, here: Any) -> Any:
    """`there` where accepted, else `here`, in the fields that depend on the position."""
    names = [name for name in (*POSITION_FIELDS, "energy") if hasattr(here, name)]
    pairs = {name: (getattr(there, name), getattr(here, name)) for name in names}
    choose = partial(jax.tree.map, partial(jnp.where, accept))
    return here._replace(**{name: choose(*pair) for name, pair in pairs.items()})


def failed_at(state: Any) -> jax.Array:
    """Whether the simulation failed there: its log-likelihood or its gradient, which is needed."""
    needed = (state.potential_energy, *jax.tree.leaves(state.z_grad))
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in needed]))
    # an energy of plus infinity is a likelihood of zero, and no failure
    return jnp.logical_not(finite) & (state.potential_energy != jnp.inf)
