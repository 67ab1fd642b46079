"""Which outputs of a JAX function depend on its first argument; used to read models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

_CALLS = ("jit", "pjit")  # the name of `jax.jit` in a jaxpr, in newer and older JAX


def dependent_outputs(function: Callable[..., list[jax.Array]], x: Any, *rest: Any) -> list[bool]:
    """For each output of `function(x, *rest)` whether it can depend on x.

    The function is traced, not run. The answer errs on the side of yes: an equation with a
    function inside (`scan`, `cond`) passes dependence from any of its inputs to all its outputs,
    unless that is all it does (`jit`).
    """
    jaxpr = jax.make_jaxpr(function)(x, *rest).jaxpr
    count = len(jax.tree.leaves(x))
    return _dependent(jaxpr, [i < count for i in range(len(jaxpr.invars))])


def _dependent(jaxpr: Any, of_inputs: list[bool]) -> list[bool]:
    """Whether each output depends on an input of which `of_inputs` says so."""
    tainted = {var for var, is_one in zip(jaxpr.invars, of_inputs, strict=True) if is_one}

    def is_tainted(atom: Any) -> bool:
        return not hasattr(atom, "val") and atom in tainted  # literals carry a value

    for equation in jaxpr.eqns:
        inputs = [is_tainted(atom) for atom in equation.invars]
        outputs = [any(inputs)] * len(equation.outvars)
        if equation.primitive.name in _CALLS:
            outputs = _dependent(equation.params["jaxpr"].jaxpr, inputs)
        tainted.update(v for v, is_one in zip(equation.outvars, outputs, strict=True) if is_one)
    return [is_tainted(atom) for atom in jaxpr.outvars]
