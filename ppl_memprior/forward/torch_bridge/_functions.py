"""How the bridge holds a PyTorch function, and how it arranges the operands of one call.

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
    # Threads that spin while they wait for work take the processor from JAX's threads. On two busy
    # cores a gradient took up to 80 times as long. OpenMP reads this when it is first loaded.
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
        number: number of this object, which its graphs carry.
        name: for error messages.
        single: the function.
        batched: the function with a leading axis on all arguments and results, or None.
        max_batch: longest leading axis that `batched` may get, or None.
        linear: whether it is linear in all its arguments of floating dtype together.
        sizes: for each shape of the arguments, the number of graphs recorded so far and the size of
            one graph, bytes.
        independent: what was found: a tuple (arguments, result, ...) of numbers says that these
            results depend on other arguments, but not on these arguments.
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
    """How the operands of one call are arranged. It is static: a compiled call has one layout.

    Attributes:
        batch: length of the leading batch axis, or None if there is none.
        mapped: for each operand, whether it has the batch axis. All elements share the others.
        num_primals: number of operands that are the function's own arguments. They come first. A
            token follows if a graph may exist, and then the tangents or cotangents.
        wrt: numbers of the arguments that have a tangent, or whose cotangent is asked for.
        constant: numbers of the results whose derivative the caller declared to be zero.
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
