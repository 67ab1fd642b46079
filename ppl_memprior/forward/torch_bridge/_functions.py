"""A PyTorch function as the bridge holds it, and how the operands of one call are arranged.

PyTorch is imported when it is first needed.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

_INSTALL = "pip install 'ppl_memprior[fwi]'"


def require(module: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: the name of the module.

    Returns:
        The module.

    Raises:
        ImportError: it cannot be imported; the message says how to install it.
    """
    if sys.modules.get(module) is not None:
        return sys.modules[module]
    # Threads that spin while they wait for work take the processor from JAX's threads: on two busy
    # cores a gradient took up to 80 times as long. Read once, when OpenMP is first loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"This needs the Python package {module!r}, which could not be imported ({error}). "
            f"Install it with: {_INSTALL}"
        ) from error


@dataclass(frozen=True, eq=False)
class Functions:
    """A PyTorch function from tensors to a tuple of tensors, alone and batched.

    Attributes:
        number: its own, by which its graphs are known.
        name: for error messages.
        single: the function.
        batched: the function with a leading axis on all arguments and results, or None.
        max_batch: how long that axis may be, or None.
        linear: whether it is linear in all its arguments of floating dtype together.
        sizes: how often a graph of each kind was recorded, and its size, bytes.
        independent: which results were found not to depend on which arguments, though on others.
    """

    number: int
    name: str
    single: Callable[..., tuple[Any, ...]]
    batched: Callable[..., tuple[Any, ...]] | None
    max_batch: int | None
    linear: bool = False
    sizes: dict[Any, tuple[int, int]] = field(default_factory=dict)
    independent: set[Any] = field(default_factory=set)


class Layout(NamedTuple):
    """How the operands of one call are arranged; static, so part of a compiled call.

    Attributes:
        batch: length of the leading batch axis, None where there is none.
        mapped: for every operand, whether it has the batch axis (the others are shared).
        num_primals: how many of the operands are the function's own arguments. What follows them
            is a token (where a graph may exist) and the tangents or cotangents.
        wrt: the arguments that tangents are given for or cotangents are asked for.
        constant: the results whose derivative the caller declared to be zero.
    """

    batch: int | None
    mapped: tuple[bool, ...]
    num_primals: int
    wrt: tuple[int, ...] = ()
    constant: tuple[int, ...] = ()

    @property
    def one_point(self) -> bool:
        """Whether all elements of the batch share the function's arguments."""
        return self.batch is None or not any(self.mapped[: self.num_primals])


Tensors = Sequence[Any]
