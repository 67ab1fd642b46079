"""Which outputs of a JAX function depend on its first argument; used to read models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def dependent_outputs(function: Callable[..., list[jax.Array]], x: Any, *rest: Any) -> list[bool]:
    """For each output of `function(x, *rest)` whether it can depend on x.

    The function is traced, not run. The answer errs on the side of yes: an equation with a
    function inside (`jit`, `scan`) passes dependence from any of its inputs to all its outputs.
    """
    jaxpr = jax.make_jaxpr(function)(x, *rest).jaxpr
    tainted = set(jaxpr.invars[: len(jax.tree.leaves(x))])

    def is_tainted(atom: Any) -> bool:
        return not hasattr(atom, "val") and atom in tainted  # literals carry a value

    for equation in jaxpr.eqns:
        if any(is_tainted(atom) for atom in equation.invars):
            tainted.update(equation.outvars)
    return [is_tainted(atom) for atom in jaxpr.outvars]
