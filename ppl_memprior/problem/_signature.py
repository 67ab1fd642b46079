"""What a traced program computes, told apart from what another one computes.

Two programs with equal signatures give equal results for equal arguments: the same operations in
the same order, with the same constants. So a compiled program of the one serves the other.
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

#: Functions that JAX makes anew at each trace, from rules that belong to the user's functions.
_MADE_BY_TRACING = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")


class Signature:
    """Of a traced program; equal where the programs are.

    Args:
        traced: the program.
        besides: what else must be equal.

    Raises:
        ValueError: a program that JAX traces, but cannot compile.
    """

    def __init__(self, traced: ClosedJaxpr, besides: Any) -> None:
        self._besides = besides
        self._objects: list[Any] = []
        self._text = hashlib.sha256()
        self._known: dict[int, str] = {}
        self._closed(traced)
        self._digest = self._text.hexdigest()
        del self._text, self._known

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Signature)
            and self._digest == other._digest
            and self._besides == other._besides
            and len(self._objects) == len(other._objects)
            and all(map(_same, self._objects, other._objects))
        )

    def __hash__(self) -> int:
        return hash(self._digest)

    def _write(self, *words: object) -> None:
        for word in words:
            self._text.update(f"{word} ".encode())

    def _closed(self, traced: ClosedJaxpr) -> None:
        for constant in traced.consts:
            self._value(constant)
        self._program(traced.jaxpr)

    def _program(self, program: Jaxpr) -> None:
        known = self._known.get(id(program))
        if known is not None:  # a function that is called several times
            self._write("again", known)
            return
        self._known[id(program)] = f"program {len(self._known)}"
        names: dict[Any, int] = {}
        for variable in (*program.constvars, *program.invars):
            names[variable] = len(names)
            self._write(variable.aval)
        for equation in program.eqns:
            if equation.primitive.name == "sort" and equation.params.get("is_stable") is None:
                raise ValueError("numpy.sort of a traced array makes a program that JAX cannot run")
            self._write("|", equation.primitive.name)
            self._operands(equation.invars, names)
            for name in sorted(equation.params):
                self._write(name)
                made = equation.primitive.name in _MADE_BY_TRACING
                self._parameter(equation.params[name], made)
            for variable in equation.outvars:
                names[variable] = len(names)
                self._write(variable.aval)
        self._operands(program.outvars, names)

    def _operands(self, operands: Any, names: dict[Any, int]) -> None:
        for operand in operands:
            if isinstance(operand, Literal):
                self._value(operand.val)
                self._write(operand.aval)
            else:
                self._write("v", names[operand])

    def _parameter(self, value: Any, made_by_tracing: bool) -> None:
        if isinstance(value, ClosedJaxpr):
            self._closed(value)
        elif isinstance(value, Jaxpr):
            self._program(value)
        elif isinstance(value, tuple | list):
            self._write("(", len(value))
            for item in value:
                self._parameter(item, made_by_tracing)
        elif isinstance(value, dict):
            for key, item in value.items():
                self._write(key)
                self._parameter(item, made_by_tracing)
        elif value is None or isinstance(value, str | bytes | int | float | complex | np.dtype):
            self._write(repr(value))
        elif isinstance(value, jax.Array | np.ndarray | np.generic):
            self._value(value)
        elif not made_by_tracing:
            self._objects.append(value)

    def _value(self, value: Any) -> None:
        if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        try:
            array = np.asarray(value)
        except (TypeError, ValueError):
            array = np.asarray(None)
        if array.dtype == object:
            self._objects.append(value)
            return
        self._write(array.dtype.str, array.shape)
        self._text.update(array.tobytes())


def _same(first: Any, second: Any) -> bool:
    if first is second:
        return True
    try:
        return type(first) is type(second) and bool(first == second)
    except (TypeError, ValueError):
        return False
