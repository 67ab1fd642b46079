"""A traced program in which all that constants decide is computed.

A number in a model may be an input of its program or a constant in it. With the inputs' values the
two programs are the same after folding, unless Python or NumPy compute with the number on its way:
then they may differ, by double precision say, or by another path of the model's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

_LARGEST = 2**16  # numbers of a result that is worth computing here
_CALLS = ("jit", "pjit", "closed_call")
# What a number may meet on its way, and is cheap: no solver, no callback to the host, no loop.
_CHEAP = frozenset(
    "abs add and broadcast_in_dim concatenate convert_element_type copy copy_p cos div dot_general "
    "eq exp expand_dims expm1 floor ge gt integer_pow iota is_finite le log log1p lt max min mul "
    "ne neg not or pad pow reduce_and reduce_max reduce_min reduce_or reduce_sum reshape rev "
    "rsqrt select_n sign sin slice sqrt square squeeze stop_gradient sub tanh transpose".split()
)


def folded(traced: ClosedJaxpr, values: Mapping[Any, Any]) -> tuple[Jaxpr, dict[Any, Any]]:
    """Fold a program.

    Args:
        traced: the program.
        values: of some of its inputs.

    Returns:
        The program of what is left, and the values of all variables that are known in it.
    """
    program = traced.jaxpr
    known = {**values, **dict(zip(program.constvars, traced.consts, strict=True))}
    left = [equation for equation in program.eqns if not _fold(equation, known)]
    return program.replace(eqns=left), known


def _fold(equation: Any, known: dict[Any, Any]) -> bool:
    """Compute an operation, if its operands are known; whether that could be done."""
    operands = [v.val if isinstance(v, Literal) else known.get(v) for v in equation.invars]
    if any(operand is None for operand in operands) or equation.effects:
        return False
    size = sum(int(np.prod(variable.aval.shape)) for variable in equation.outvars)
    name = equation.primitive.name
    if size > _LARGEST:
        return False
    if name in _CALLS:
        return _fold_call(equation, operands, known)
    if name not in _CHEAP:
        return False
    casts = [
        np.asarray(operand, variable.aval.dtype)
        if isinstance(variable.aval.dtype, np.dtype)
        else operand
        for operand, variable in zip(operands, equation.invars, strict=True)
    ]
    with jax.ensure_compile_time_eval():
        results = equation.primitive.bind(*casts, **equation.params)
    results = results if equation.primitive.multiple_results else [results]
    known.update(zip(equation.outvars, results, strict=True))
    return True


def _fold_call(equation: Any, operands: list[Any], known: dict[Any, Any]) -> bool:
    inside: ClosedJaxpr = equation.params.get("jaxpr") or equation.params["call_jaxpr"]
    names = dict(zip(inside.jaxpr.constvars, inside.consts, strict=True))
    names |= dict(zip(inside.jaxpr.invars, operands, strict=True))
    if not all(_fold(each, names) for each in inside.jaxpr.eqns):
        return False
    results = [v.val if isinstance(v, Literal) else names[v] for v in inside.jaxpr.outvars]
    known.update(zip(equation.outvars, results, strict=True))
    return True
