"""What a traced program computes, told apart from what another one computes.

Two programs with equal signatures give equal results for equal arguments: the same operations in
the same order, with the same constants. So a compiled program of the one serves the other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import numpyro
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from ppl_memprior.problem._folded import folded

#: Operations whose derivative is a rule. JAX makes functions of the rule anew at each trace.
_WITH_RULES = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin")
#: Whose rules depend on nothing but what the operation is given.
_OWN_FOLDERS = tuple(
    os.path.dirname(os.path.abspath(module.__file__ or "")) for module in (jax, numpyro)
) + (os.path.dirname(os.path.dirname(os.path.abspath(__file__))),)


class Signature:
    """Of a traced program; equal where the programs are.

    Args:
        traced: the program.
        values: of inputs. With them, what these and the constants decide is computed, and compared
            up to rounding.
        besides: what else must be equal.

    Attributes:
        foreign_rules: whether the program has derivative rules that are not those of JAX, NumPyro
            or this package. They do not show in it.
    """

    def __init__(
        self, traced: ClosedJaxpr, values: Mapping[Any, Any] | None = None, besides: Any = None
    ) -> None:
        self.foreign_rules = False
        self._besides = besides
        self._objects: list[Any] = []
        self._text = hashlib.sha256()
        self._known: dict[int, str] = {}
        self._folded: list[np.ndarray] | None = None if values is None else []
        if values is None:
            self._closed(traced)
        else:
            self._program(*folded(traced, values))
        self._digest = self._text.hexdigest()
        del self._text, self._known

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Signature)
            and self._digest == other._digest
            and _same(self._besides, other._besides)
            and len(self._objects) == len(other._objects)
            and all(map(_same, self._objects, other._objects))
            and all(map(_close, self._folded or (), other._folded or ()))
        )

    def has_text_of(self, other: Signature) -> bool:
        """Whether the operations and constants are the same; objects made at each trace differ."""
        return self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def _write(self, *words: object) -> None:
        for word in words:
            self._text.update(f"{word} ".encode())

    def _closed(self, traced: ClosedJaxpr) -> None:
        self._program(traced.jaxpr, dict(zip(traced.jaxpr.constvars, traced.consts, strict=True)))

    def _program(self, program: Jaxpr, values: dict[Any, Any]) -> None:
        known = self._known.get(id(program))
        if known is not None:  # a function that is called several times
            self._write("again", known)
            return
        self._known[id(program)] = f"program {len(self._known)}"
        names: dict[Any, int] = {}
        for variable in (*program.constvars, *program.invars):
            if variable not in values:
                names[variable] = len(names)
                self._write(variable.aval)
        for equation in program.eqns:
            name = equation.primitive.name
            self._write("|", name)
            self._operands(equation.invars, names, values)
            if name in _WITH_RULES and not _is_own(equation.params):
                self.foreign_rules = True
            for parameter in sorted(equation.params):
                self._write(parameter)
                self._parameter(equation.params[parameter], name in _WITH_RULES)
            for variable in equation.outvars:
                names[variable] = len(names)
                self._write(variable.aval)
        self._operands(program.outvars, names, values)

    def _operands(self, operands: Any, names: dict[Any, int], values: dict[Any, Any]) -> None:
        for operand in operands:
            if isinstance(operand, Literal):
                self._constant(operand.val, operand.aval)
            elif operand in values:
                self._constant(values[operand], operand.aval)
            else:
                self._write("v", names[operand])

    def _parameter(self, value: Any, has_rules: bool) -> None:
        if isinstance(value, ClosedJaxpr):
            self._closed(value)
        elif isinstance(value, Jaxpr):
            self._program(value, {})
        elif isinstance(value, tuple | list):
            self._write("(", len(value))
            for item in value:
                self._parameter(item, has_rules)
        elif isinstance(value, dict):
            for key, item in value.items():
                self._write(key)
                self._parameter(item, has_rules)
        elif value is None or isinstance(value, str | bytes | int | float | complex | np.dtype):
            self._write(repr(value))
        elif isinstance(value, jax.Array | np.ndarray | np.generic):
            self._constant(value, None)
        elif not has_rules:
            self._objects.append(value)

    def _constant(self, value: Any, aval: Any) -> None:
        if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            value, aval = jax.random.key_data(value), None
        dtype = getattr(aval, "dtype", None)
        try:
            array = np.asarray(value, dtype if isinstance(dtype, np.dtype) else None)
        except (TypeError, ValueError):
            array = np.asarray(None)
        if array.dtype == object:
            self._objects.append(value)
            return
        self._write("c", array.dtype.str, array.shape)
        if self._folded is not None and array.dtype.kind == "f":
            self._folded.append(array)
        else:
            self._text.update(array.tobytes())


def _is_own(parameters: Mapping[str, Any]) -> bool:
    """Whether an operation with a derivative rule is one of JAX, NumPyro or this package."""
    traced = parameters.get("call_jaxpr") or parameters.get("fun_jaxpr")
    program = getattr(traced, "jaxpr", traced)
    source = getattr(getattr(program, "debug_info", None), "func_filename", None)
    # jax.lax.custom_root and its like take rules of the user's
    return (
        isinstance(source, str) and source.startswith(_OWN_FOLDERS) and "control_flow" not in source
    )


def _close(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether arrays are equal up to rounding."""
    tolerance = 8 * float(np.finfo(first.dtype).eps)
    return bool(np.allclose(first, second, rtol=tolerance, atol=0, equal_nan=True))


def _same(first: Any, second: Any) -> bool:
    if first is second:
        return True
    try:
        return type(first) is type(second) and bool(first == second)
    except (TypeError, ValueError):
        return False
