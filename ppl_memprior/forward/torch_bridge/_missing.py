"""Derivatives that PyTorch does not have, told from derivatives that are zero.

PyTorch takes a result without a graph (reverse mode) or without a tangent (forward mode) for a
constant. Some are: they depend on other arguments, or were declared constant. All others were
computed behind PyTorch's back, by `detach`, under `no_grad` or in NumPy, and a derivative of zero
would be wrong. How results are computed is left to `_evaluate`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ppl_memprior.forward.torch_bridge._functions import Functions, Layout

# What PyTorch says where a tensor that is being differentiated is handed to NumPy.
_TO_NUMPY = ("Tensor that requires grad", "Tensor that doesn't have storage")

_BEHIND = (
    "PyTorch could not follow the computation: it leaves differentiable PyTorch operations "
    "(detach, no_grad, item, data or NumPy). Stay within them, or write that part as a "
    "torch.autograd.Function with its own derivative"
)


def check(
    functions: Functions,
    layout: Layout,
    primals: Sequence[Any],
    values: Sequence[Any],
    missing: Sequence[int],
    of_all: Callable[[Sequence[int]], Sequence[bool]],
) -> None:
    """Refuse results that have no derivative and are not known to be constant.

    Args:
        functions: the function.
        layout: which arguments are differentiated, which results were declared constant.
        primals: the arguments.
        values: the results.
        missing: the results, of floating dtype, for which PyTorch has no derivative.
        of_all: says which results have a derivative where the arguments of these numbers are all
            differentiated. It runs the function again.

    Raises:
        ValueError: no result depends on an argument that is differentiated, or some result depends
            on no argument at all.
    """
    expected = [
        k
        for k, value in enumerate(values)
        if value.is_floating_point() and value.numel() and k not in layout.constant
    ]
    lost = [k for k in missing if k in expected]
    if not lost or (layout.wrt, *lost) in functions.independent:
        return
    floating = [i for i, primal in enumerate(primals) if primal.is_floating_point()]
    if len(lost) < len(expected) and len(layout.wrt) < len(floating):
        # A result may depend on some arguments alone.
        key, known = (layout.wrt, *lost), of_all(floating)
        lost = [k for k in lost if not known[k]]
        if not lost:
            functions.independent.add(key)
            return
    raise ValueError(_sentence(layout, lost, len(values), len(floating)))


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Say what can be done where a tensor that is differentiated is handed to NumPy."""
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error) for words in _TO_NUMPY):
            raise ValueError(f"there is no derivative. {_BEHIND}.") from error
        raise


def _sentence(layout: Layout, lost: Sequence[int], num_results: int, num_arguments: int) -> str:
    which = "the result has"
    if num_results > 1:
        which = f"of the {num_results} results, number {_counted(lost)} has"
    about, aside = "", "a constant result is declared with torch_function(..., constant=...)"
    if len(layout.wrt) < num_arguments:
        about = f" with respect to argument {_counted(layout.wrt)} of {num_arguments}"
        aside += ", an argument that does not matter with jax.lax.stop_gradient(argument)"
    return f"{which} no derivative{about}. {_BEHIND}; {aside}."


def _counted(numbers: Sequence[int]) -> str:
    return " and ".join(str(number + 1) for number in numbers)
