"""The PyTorch side of the bridge: values, tangents and cotangents of a function of tensors.

Three evaluators with one signature read input tensors and fill output tensors, for a single call or
for a batch. Nothing here may call JAX, which is waiting for the result; what the batch axes mean
to JAX is decided in `torch_call`. PyTorch is imported when it is first needed.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
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


class Functions(NamedTuple):
    """The user's PyTorch function, alone and batched, and how long a batch may be."""

    name: str
    single: Callable[..., Any]
    batched: Callable[..., Any] | None
    max_batch: int | None


class Layout(NamedTuple):
    """How the operands of one call are arranged; static, so part of a compiled call.

    Attributes:
        batch: length of the leading batch axis, None where there is none.
        mapped: for every operand, whether it has the batch axis (the others are shared).
        num_primals: how many of the operands are the function's own arguments; tangents or
            cotangents follow them.
        wrt: the arguments that tangents are given for or cotangents are asked for.
    """

    batch: int | None
    mapped: tuple[bool, ...]
    num_primals: int
    wrt: tuple[int, ...] = ()


def as_tuple(name: str, returned: Any) -> tuple[Any, ...]:
    """The tensors that a PyTorch function returned, as a tuple.

    Args:
        name: the function's name, for the error message.
        returned: a tensor, or a tuple or list of tensors.

    Raises:
        TypeError: something else was returned.
    """
    torch = require("torch")
    tensors = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
    for tensor in tensors:
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(
                f"{name}: expected a tensor or a tuple of tensors, got {type(tensor).__name__}."
            )
    return tensors


def evaluate_value(
    functions: Functions, layout: Layout, inputs: Sequence[Any], outputs: Sequence[Any]
) -> None:
    """Fill `outputs` with the values of the function."""
    torch = require("torch")
    with torch.no_grad():
        for fn, where, args in _slices(functions, layout, inputs):
            _store(functions, outputs, where, as_tuple(functions.name, fn(*args)))


def evaluate_tangents(
    functions: Functions, layout: Layout, inputs: Sequence[Any], outputs: Sequence[Any]
) -> None:
    """Fill `outputs` with the Jacobian times tangents, by forward-mode differentiation."""
    torch = require("torch")
    for fn, where, args in _slices(functions, layout, inputs):
        # Forward mode writes beside its operands, which repeated (expanded) memory does not allow.
        args = [arg.contiguous() for arg in args]
        primals, tangents = args[: layout.num_primals], args[layout.num_primals :]

        def of_active(*active: Any, fn: Any = fn, primals: Any = primals) -> tuple[Any, ...]:
            merged = list(primals)
            for i, value in zip(layout.wrt, active, strict=True):
                merged[i] = value
            return _floating(functions, fn(*merged))

        active = tuple(primals[i] for i in layout.wrt)
        _, derivatives = torch.func.jvp(of_active, active, tuple(tangents))
        _store(functions, outputs, where, derivatives)


def evaluate_cotangents(
    functions: Functions, layout: Layout, inputs: Sequence[Any], outputs: Sequence[Any]
) -> None:
    """Fill `outputs` with the transposed Jacobian times cotangents, by reverse-mode autograd."""
    mapped = layout.mapped[: layout.num_primals]
    if layout.batch is not None and not any(mapped):
        # Many cotangents at one point (a Jacobian by rows): one forward pass serves them all.
        leaves, values = _graph(functions, layout, functions.single, inputs[: layout.num_primals])
        flags = layout.mapped[layout.num_primals :]
        for i in range(layout.batch):
            cotangents = [
                c[i] if m else c for c, m in zip(inputs[layout.num_primals :], flags, strict=True)
            ]
            _store(functions, outputs, i, _pull(leaves, values, cotangents, keep=True))
        return
    for fn, where, args in _slices(functions, layout, inputs):
        leaves, values = _graph(functions, layout, fn, args[: layout.num_primals])
        gradients = _pull(leaves, values, args[layout.num_primals :], keep=False)
        _store(functions, outputs, where, gradients)


def _slices(
    functions: Functions, layout: Layout, tensors: Sequence[Any]
) -> Iterator[tuple[Callable[..., Any], Any, list[Any]]]:
    """The calls that make up one batch: (what to call, where its results go, its arguments)."""
    pairs = list(zip(tensors, layout.mapped, strict=True))
    if layout.batch is None:
        yield functions.single, (), list(tensors)
    elif functions.batched is None:
        for i in range(layout.batch):
            yield functions.single, i, [t[i] if m else t for t, m in pairs]
    else:
        step = functions.max_batch or max(layout.batch, 1)
        for start in range(0, layout.batch, step):
            stop = min(start + step, layout.batch)
            args = [t[start:stop] if m else t.expand(stop - start, *t.shape) for t, m in pairs]
            yield functions.batched, slice(start, stop), args


def _floating(functions: Functions, returned: Any) -> tuple[Any, ...]:
    return tuple(out for out in as_tuple(functions.name, returned) if out.is_floating_point())


def _graph(
    functions: Functions, layout: Layout, fn: Callable[..., Any], primals: Sequence[Any]
) -> tuple[list[Any], tuple[Any, ...]]:
    """Run the function forward, recording it; the leaves asked about and the values."""
    torch = require("torch")
    args = list(primals)
    for i in layout.wrt:
        args[i] = args[i].detach().requires_grad_()
    with torch.enable_grad():
        values = _floating(functions, fn(*args))
    return [args[i] for i in layout.wrt], values


def _pull(
    leaves: Sequence[Any], values: Sequence[Any], cotangents: Sequence[Any], *, keep: bool
) -> tuple[Any, ...]:
    """Gradients at the leaves; zeros where a value does not depend on a leaf."""
    torch = require("torch")
    pairs = [(v, c.to(v.dtype)) for v, c in zip(values, cotangents, strict=True) if v.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    return torch.autograd.grad(
        [value for value, _ in pairs],
        leaves,
        [cotangent for _, cotangent in pairs],
        retain_graph=keep,
        allow_unused=True,
        materialize_grads=True,
    )


def _store(functions: Functions, outputs: Sequence[Any], where: Any, values: Sequence[Any]) -> None:
    """Copy results to where JAX wants them, refusing to broadcast."""
    if len(values) != len(outputs):
        raise ValueError(
            f"{functions.name}: returned {len(values)} tensors where {len(outputs)} are expected."
        )
    for output, value in zip(outputs, values, strict=True):
        target = output[where]
        if value.shape != target.shape or value.is_complex():
            raise ValueError(
                f"{functions.name}: returned shape {tuple(value.shape)} ({value.dtype}) where "
                f"{tuple(target.shape)} ({target.dtype}) is expected; the shape of the result may "
                "depend on the shapes of the arguments only."
            )
        target.copy_(value.detach())
