"""The numbers of a model's call apart from all else: arrays and floats here, the rest there.

A compiled program may run a model again with other numbers of the same shapes. For that it takes
the numbers as its arguments: those that the call passes, and those that the model's functions
close over. What holds them is opened: functions with their closures and defaults, NumPyro's
handlers, partial functions, and plain containers. All else stays the object that it is: a pytree of
another kind may lose what its leaves do not name.
"""

from __future__ import annotations

import dis
import types
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.primitives import Messenger


class Numbers(IntEnum):
    """Which numbers are set apart; a model may need some of them as they are, for a shape say."""

    NONE = 0
    JAX_ARRAYS = 1
    ARRAYS = 2
    ALL = 3


class Rest:
    """What remains of a tree without its numbers.

    Attributes:
        structure: of the opened tree.
        fixed: its other leaves, and None in the places of the numbers.
        places: of the numbers among the leaves.
    """

    def __init__(self, structure: Any, fixed: list[Any], places: tuple[int, ...]) -> None:
        self.structure = structure
        self.fixed = fixed
        self.places = places

    def with_numbers(self, numbers: list[Any]) -> Any:
        """The tree with these numbers in it."""
        leaves = list(self.fixed)
        for place, number in zip(self.places, numbers, strict=True):
            leaves[place] = number
        opened = jax.tree.unflatten(self.structure, leaves)
        return jax.tree.map(_closed, opened, is_leaf=_is_opened)

    def with_fewer(self, numbers: list[Any], kept: list[int]) -> tuple[list[Any], Rest]:
        """Some of the numbers, by their positions among them, and the rest with the others."""
        fixed = list(self.fixed)
        for place, number in zip(self.places, numbers, strict=True):
            fixed[place] = number
        places = tuple(self.places[i] for i in kept)
        for place in places:
            fixed[place] = None
        return [numbers[i] for i in kept], Rest(self.structure, fixed, places)


def numbers_apart(tree: Any, which: Numbers) -> tuple[list[Any], Rest]:
    """Take the numbers out of a tree of arguments, functions and handlers.

    Args:
        tree: any pytree.
        which: the numbers that are taken out. Whole numbers, booleans and text never are.

    Returns:
        The numbers in the order of the tree's leaves, and the rest of the tree.
    """
    opened = jax.tree.map(partial(_opened, which=which, inside=()), tree, is_leaf=_is_whole)
    leaves, structure = jax.tree.flatten(opened)
    places = tuple(i for i, leaf in enumerate(leaves) if _is_number(leaf, which))
    taken = set(places)
    fixed = [None if i in taken else leaf for i, leaf in enumerate(leaves)]
    return [_held(leaves[i]) for i in places], Rest(structure, fixed, places)


def _is_number(leaf: Any, which: Numbers) -> bool:
    if which is Numbers.NONE:
        return False
    if isinstance(leaf, jax.Array):
        return True
    if which is Numbers.JAX_ARRAYS:
        return False
    if type(leaf) is np.ndarray or isinstance(leaf, np.generic):  # no memory map, no mask
        return leaf.dtype in (np.float16, np.float32, np.float64, np.complex64, np.complex128)
    return which is Numbers.ALL and type(leaf) in (float, complex)


def _held(number: Any) -> Any:
    """An array as JAX has it, so that it is not copied at each call; a Python number as it is."""
    return jnp.asarray(number) if isinstance(number, np.ndarray | np.generic) else number


class _Opened:
    """A function or a handler as a pytree: its parts, and how to put it together again."""

    def __init__(self, close: Callable[[Any], Any], parts: Any) -> None:
        self.close = close
        self.parts = parts


jax.tree_util.register_pytree_node(
    _Opened, lambda o: ((o.parts,), o.close), lambda close, parts: _Opened(close, parts[0])
)


def _is_opened(value: Any) -> bool:
    return isinstance(value, _Opened)


def _closed(value: Any) -> Any:
    if isinstance(value, _Kept):
        return value.value
    if not isinstance(value, _Opened):
        return value
    return value.close(jax.tree.map(_closed, value.parts, is_leaf=_is_opened))


def _opened(value: Any, which: Numbers, inside: tuple[Any, ...]) -> Any:
    """A leaf opened, if there are numbers in it; one without them stays the object that it is."""
    if inside and isinstance(value, list | dict):
        return _Kept(value)  # a model may write into it, and into a copy it would write in vain
    if type(value) is dict:  # an argument; JAX itself would sort its keys
        items = jax.tree.map(
            partial(_opened, which=which, inside=inside), _Named.of(value), is_leaf=_is_whole
        )
        return _Opened(dict, items) if _holds_numbers(items, which) else _Kept(value)
    if _is_whole(value) and not jax.tree_util.all_leaves([value]):
        return _Kept(value)  # a distribution, say, which may lose what its fields do not name
    if any(value is outer for outer in inside):
        return value  # a function that refers to itself
    kind = next((kind for kind in _KINDS if isinstance(value, kind)), None)
    taken = _KINDS[kind](value) if kind is not None else None
    if taken is None:
        return value
    close, parts = taken
    within = partial(_opened, which=which, inside=(*inside, value))
    try:
        parts = jax.tree.map(within, parts, is_leaf=_is_whole_inside)
    except (TypeError, ValueError):  # keys that have no order
        return value
    return _Opened(close, parts) if _holds_numbers(parts, which) else value


def _holds_numbers(parts: Any, which: Numbers) -> bool:
    found = jax.tree.leaves(parts, is_leaf=_is_opened)
    return any(_is_opened(part) or _is_number(part, which) for part in found)


def _is_whole(value: Any) -> bool:
    """Whether a tree ends at a value: only plain containers can be made again without loss."""
    return not isinstance(value, tuple | list | _Named | _Opened | None)


def _is_whole_inside(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, list | dict)


class _Kept:
    """Holds an object that is not opened."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _parts_of_function(function: types.FunctionType) -> tuple[Callable[[Any], Any], Any] | None:
    own = {name: value for name, value in vars(function).items() if name != "__wrapped__"}
    if own or _writes_outside(function.__code__):
        return None
    try:
        cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError:  # a cell that is empty yet
        return None
    by_name = _Named.of(function.__kwdefaults__ or {})
    close = _MakeFunction(function.__code__, function.__globals__, function.__name__)
    return close, (cells, function.__defaults__ or (), by_name)


def _writes_outside(code: types.CodeType) -> bool:
    """Whether a function, or one inside of it, sets a variable of a function around it."""
    return any(
        instruction.opname in ("STORE_DEREF", "DELETE_DEREF")
        and instruction.argval in code.co_freevars
        for instruction in dis.get_instructions(code)
    ) or any(
        _writes_outside(constant)
        for constant in code.co_consts
        if isinstance(constant, types.CodeType)
    )


class _Named(tuple[tuple[str, Any], ...]):
    """A dictionary whose values are opened, unlike those of one that a model may write into."""

    @classmethod
    def of(cls, values: dict[str, Any]) -> _Named:
        return cls(values.items())


jax.tree_util.register_pytree_node(
    _Named,
    lambda named: (tuple(value for _, value in named), tuple(name for name, _ in named)),
    lambda names, values: _Named(zip(names, values, strict=True)),
)


class _MakeFunction:
    """Makes a function of its code; two are equal that have the same code and globals."""

    def __init__(self, code: types.CodeType, its_globals: dict[str, Any], name: str) -> None:
        self.code = code
        self.globals = its_globals
        self.name = name

    def __call__(self, parts: Any) -> Any:
        cells, defaults, by_name = parts
        closure = tuple(types.CellType(content) for content in cells)
        made = types.FunctionType(
            self.code, self.globals, self.name, tuple(defaults) or None, closure or None
        )
        made.__kwdefaults__ = dict(by_name) or None
        return made

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _MakeFunction)
            and self.code == other.code
            and self.globals is other.globals
        )

    def __hash__(self) -> int:
        return hash(self.code)


def _parts_of_handler(handler: Messenger) -> tuple[Callable[[Any], Any], Any] | None:
    # without what NumPyro copies from the function inside: __wrapped__ is that function once more
    held = {name: value for name, value in vars(handler).items() if not name.startswith("__")}
    # what NumPyro's handlers are given by site, nobody writes into
    parts = {n: _Named.of(v) if isinstance(v, dict) else v for n, v in held.items()}
    return _MakeObject(type(handler)), _Named.of(parts)


class _MakeObject:
    """Makes an object of a type from its attributes."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def __call__(self, parts: Any) -> Any:
        made: Any = object.__new__(self.kind)
        values = dict(parts)
        vars(made).update({n: dict(v) if isinstance(v, _Named) else v for n, v in values.items()})
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _MakeObject) and self.kind is other.kind

    def __hash__(self) -> int:
        return hash(self.kind)


def _parts_of_partial(function: partial[Any]) -> tuple[Callable[[Any], Any], Any]:
    return _made_partial, (function.func, function.args, _Named.of(function.keywords))


def _made_partial(parts: Any) -> Any:
    function, args, keywords = parts
    return partial(function, *args, **dict(keywords))


_KINDS: dict[type, Callable[[Any], tuple[Callable[[Any], Any], Any] | None]] = {
    types.FunctionType: _parts_of_function,
    Messenger: _parts_of_handler,
    partial: _parts_of_partial,
}
