"""Distinguish derivatives that PyTorch does not have from derivatives that are zero.

PyTorch takes a result without a graph (reverse mode) or without a tangent (forward mode) for a
constant. Some such results are constant: they depend on other arguments only, or the caller
declared them constant. The others were computed where PyTorch could not follow: after `detach`,
under `no_grad` or in NumPy. For these a derivative of zero would be wrong. `_evaluate` computes the
results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ppl_memprior.forward.torch_bridge._functions import Functions, Layout

# PyTorch's messages when NumPy gets a tensor that is being differentiated.
_TO_NUMPY = ("Tensor that requires grad", "Tensor that doesn't have storage")

_BEHIND = (
    "PyTorch could not follow the computation: it leaves differentiable PyTorch operations "
    "(detach, no_grad, item, data or NumPy). Use differentiable operations only, or write that "
    "part as a torch.autograd.Function with its own derivative."
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
        layout: which arguments are differentiated, and which results were declared constant.
        primals: the arguments.
        values: the results.
        missing: numbers of the results of floating dtype for which PyTorch has no derivative.
        of_all: function that takes numbers of arguments, runs the function again with all of them
            differentiated, and says for each result whether it has a derivative.

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
        # A result may depend on other arguments only.
        key, known = (layout.wrt, *lost), of_all(floating)
        lost = [k for k in lost if not known[k]]
        if not lost:
            functions.independent.add(key)
            return
    raise ValueError(_sentence(layout, lost, len(values), len(floating)))


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Say what to do when NumPy gets a tensor that is being differentiated."""
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error) for words in _TO_NUMPY):
            raise ValueError(f"there is no derivative. {_BEHIND}") from error
        raise


def _sentence(layout: Layout, lost: Sequence[int], num_results: int, num_arguments: int) -> str:
    which = "the result has"
    if num_results > 1:
        which = f"of the {num_results} results, number {_counted(lost)} has"
    about, aside = "", "If a result is constant, declare it: torch_function(..., constant=...)."
    if len(layout.wrt) < num_arguments:
        about = f" with respect to argument {_counted(layout.wrt)} of {num_arguments}"
        aside += " If an argument does not matter, pass jax.lax.stop_gradient(argument)."
    return f"{which} no derivative{about}. {_BEHIND} {aside}"


def _counted(numbers: Sequence[int]) -> str:
    return " and ".join(str(number + 1) for number in numbers)
