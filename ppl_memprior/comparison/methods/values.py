"""What an option's value is, as text: the same in every process, another for another value.

Numbers and texts are themselves. Whatever else is seen through its type and its content: arrays,
containers, dataclasses, NumPyro distributions, PyTorch modules, and functions with what they close
over.
"""

from __future__ import annotations

import dataclasses
import inspect
import numbers
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpyro.distributions import Distribution

from ppl_memprior.problem._fingerprint import hash_of

_DEEPEST = 12  # levels of content; what contains itself has no end


def plain(name: str, value: Any) -> Any:
    """A value as JSON can hold it.

    Args:
        name: of the option, for messages.
        value: of the option.

    Returns:
        Numbers, texts and None as they are; otherwise the type and the beginning of a hash of the
        content.

    Raises:
        TypeError: a value without content that could be told apart, before any work.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return f"{type(value).__name__} {hash_of(*_parts(name, value, 0))[:16]}"


def _parts(name: str, value: Any, depth: int) -> list[Any]:
    """The content of a value, texts and arrays in an order that no process changes."""
    if depth > _DEEPEST:
        raise TypeError(
            f"the option {name} is nested more than {_DEEPEST} levels deep, so that draws cannot "
            "be told apart by it: give a dataclass or an array"
        )
    if value is None or isinstance(value, str | bytes | bool | complex | numbers.Real):
        return [f"{type(value).__name__} {value!r}"]
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return ["key", jax.random.key_data(value)]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        return ["array", array if array.dtype != object else repr(array.tolist())]
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    content = _content(value)
    if content is None:
        raise TypeError(
            f"the option {name} holds a {type(value).__name__}, by which draws cannot be told "
            "apart: give a number, an array, a function, a dataclass or a NumPyro distribution"
        )
    parts: list[Any] = [kind, str(len(content))]
    for key, item in content.items():
        parts += [str(key), *_parts(name, item, depth + 1)]
    return parts


def _content(value: Any) -> dict[Any, Any] | None:
    """What a value is made of, by name; None for what shows nothing of itself."""
    if isinstance(value, Mapping):
        return {repr(key): value[key] for key in sorted(value, key=repr)}
    if isinstance(value, set | frozenset):
        return {str(i): item for i, item in enumerate(sorted(value, key=repr))}
    if isinstance(value, list | tuple):
        return {str(i): item for i, item in enumerate(value)}
    if isinstance(value, types.FunctionType):
        closure = inspect.getclosurevars(value).nonlocals
        code = value.__code__
        names = {
            "name": value.__qualname__,
            "code": code.co_code.hex(),
            "constants": _plain_of(code),
        }
        return {**names, "defaults": value.__defaults__, "closure": closure}
    if isinstance(value, types.BuiltinFunctionType | types.ModuleType | type | np.ufunc):
        return {"name": getattr(value, "__qualname__", value.__name__)}
    if isinstance(value, Distribution):
        fields = (*value.gather_pytree_data_fields(), *value.gather_pytree_aux_fields())
        shapes = {"batch": tuple(value.batch_shape), "event": tuple(value.event_shape)}
        return {**{n: getattr(value, n, None) for n in sorted(fields) if n[0] != "_"}, **shapes}
    if callable(getattr(value, "state_dict", None)):  # a PyTorch module
        return {key: _as_array(item) for key, item in sorted(value.state_dict().items())}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if hasattr(value, "__dict__"):
        return {key: vars(value)[key] for key in sorted(vars(value))}
    return None


def _plain_of(code: types.CodeType) -> str:
    """The constants of a function's code; nested functions by their own code."""
    return repr(
        [
            _plain_of(c) + c.co_code.hex() if isinstance(c, types.CodeType) else c
            for c in code.co_consts
        ]
    )


def _as_array(value: Any) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value
