"""Gauss-Newton steps with a backtracking line search, from a component's mean to its mode.

In whitened coordinates the negative log-density of a component's posterior is, but for a constant,
phi(z) = |r(z)|^2 / 2 + |z|^2 / 2. A step goes to the mean of the posterior that is linearized at
z; it is halved until phi falls by enough. Twice the same iteration: compiled, for Jacobians that
are formed, and in Python, for work whose shapes are found on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ppl_memprior.inference._gaussian_update import GaussianUpdate

# Squared length of a step that is not worth taking, in the metric of the posterior's precision:
# a hundredth of a posterior standard deviation. It is never shorter than in prior units.
TOLERANCE = 1e-4
ROUNDING = 8  # units of rounding of phi below which a decrease cannot be seen
SUFFICIENT = 1e-4  # share of the predicted decrease that a step must bring (Armijo)
SHORTEST = 2.0**-10


class Linearized(Protocol):
    """A component linearized at a point z, with what a step needs."""

    @property
    def objective(self) -> Any:
        """phi(z)."""

    @property
    def update(self) -> GaussianUpdate:
        """The posterior of the component linearized there."""

    @property
    def decrement(self) -> Any:
        """Squared length of the step to the update's mean: |step|^2 + |B step|^2."""


class Mode(NamedTuple):
    """Where the iteration ended.

    Attributes:
        z: the point, shape (d,).
        linearized: the component linearized there.
        iterations: steps taken.
        converged: whether the next step would not be worth taking.
        forward_evaluations: forward solves of the line searches.
        first_objective: phi where the iteration began.
    """

    z: Any
    linearized: Any
    iterations: Any
    converged: Any
    forward_evaluations: Any
    first_objective: Any


def negligible_decrement(objective: Any, dtype: Any) -> Any:
    """The squared length of a step that is not worth taking, or that rounding drowns."""
    return TOLERANCE + ROUNDING * float(jnp.finfo(dtype).eps) * objective


def _target(objective: Any, length: Any, decrement: Any, dtype: Any) -> Any:
    rounding = ROUNDING * float(jnp.finfo(dtype).eps) * objective
    return objective - SUFFICIENT * length * decrement + rounding


def compiled_mode(
    linearize_at: Callable[[jax.Array], Any],
    objective: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    iterations: int,
) -> Mode:
    """Iterate inside `jit`; under `vmap` components that have finished wait for the others.

    Args:
        linearize_at: from z to a pytree with the attributes of `Linearized`.
        objective: phi.
        start: first z, shape (d,).
        iterations: steps at most.
    """
    dtype = start.dtype

    def worth_a_step(mode: Mode) -> jax.Array:
        return mode.linearized.decrement > negligible_decrement(mode.linearized.objective, dtype)

    def step(state: tuple[Mode, jax.Array]) -> tuple[Mode, jax.Array]:
        mode, _ = state
        here = mode.linearized
        direction = here.update.mean - mode.z

        def too_long(trial: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            length, value, _ = trial
            # written so that a value that is not a number counts as too long
            falls = value <= _target(here.objective, length, here.decrement, dtype)
            return ~falls & (length > SHORTEST)

        def halve(
            trial: tuple[jax.Array, jax.Array, jax.Array],
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            length, _, count = trial
            return length / 2, objective(mode.z + length / 2 * direction), count + 1

        whole = jnp.ones((), dtype)
        first = (whole, objective(mode.z + direction), mode.forward_evaluations + 1)
        length, value, count = jax.lax.while_loop(too_long, halve, first)
        falls = value <= _target(here.objective, length, here.decrement, dtype)
        z = jnp.where(falls, mode.z + length * direction, mode.z)
        moved = mode._replace(
            z=z,
            linearized=linearize_at(z),
            iterations=mode.iterations + 1,
            forward_evaluations=count,
        )
        return moved, ~falls

    def goes_on(state: tuple[Mode, jax.Array]) -> jax.Array:
        mode, stuck = state
        return (mode.iterations < iterations) & ~stuck & worth_a_step(mode)

    none = jnp.zeros((), jnp.int32)
    first = linearize_at(start)
    mode = Mode(start, first, none, jnp.zeros((), bool), none, first.objective)
    if iterations:
        mode, _ = jax.lax.while_loop(goes_on, step, (mode, jnp.zeros((), bool)))
    return mode._replace(converged=~worth_a_step(mode))


def stepwise_mode(
    linearize_at: Callable[[Any, Any], Any],
    objective: Callable[[Any], float],
    start: Any,
    iterations: int,
) -> Mode:
    """Iterate in Python.

    Args:
        linearize_at: from z and the linearization before (or None) to a `Linearized`.
        objective: phi.
        start: first z, shape (d,), NumPy.
        iterations: steps at most.
    """
    first = linearize_at(start, None)
    z, here, count, trials = start, first, 0, 0
    dtype = start.dtype
    while here.decrement > negligible_decrement(here.objective, dtype) and count < iterations:
        direction = here.update.mean - z
        length, falls = 1.0, False
        while not falls and length >= SHORTEST:
            value = objective((z + length * direction).astype(dtype))
            trials += 1
            falls = value <= _target(here.objective, length, here.decrement, dtype)
            length = length if falls else length / 2
        if not falls:
            break
        z = np.asarray(z + length * direction, dtype)
        here, count = linearize_at(z, here), count + 1
    converged = here.decrement <= negligible_decrement(here.objective, dtype)
    return Mode(z, here, count, converged, trials, first.objective)
