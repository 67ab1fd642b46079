"""The PyTorch side of the bridge: values and tangents of a function of tensors.

Evaluators with one signature read input tensors and fill output tensors, for a single call or for a
batch. Nothing here may call JAX, which is waiting for the result; what the batch axes mean to JAX
is decided in `_torch_primitives`. The graph that a forward pass leaves is kept by `_torch_graphs`
and differentiated by `_torch_cotangents`. PyTorch is imported when it is first needed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

from . import _torch_graphs as graphs
from ._torch_graphs import NO_GRAPH, STORE, Graph, token

_INSTALL = "pip install 'ppl_memprior[fwi]'"
# PyTorch counts the levels of forward mode in a global variable: two threads in it would share one.
_FORWARD_MODE = threading.RLock()


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
        sizes: how often a graph of each kind was recorded, and its size, bytes.
    """

    number: int
    name: str
    single: Callable[..., tuple[Any, ...]]
    batched: Callable[..., tuple[Any, ...]] | None
    max_batch: int | None
    sizes: dict[Any, tuple[int, int]] = field(default_factory=dict)


class Layout(NamedTuple):
    """How the operands of one call are arranged; static, so part of a compiled call.

    Attributes:
        batch: length of the leading batch axis, None where there is none.
        mapped: for every operand, whether it has the batch axis (the others are shared).
        num_primals: how many of the operands are the function's own arguments. What follows them
            is a token (where a graph may exist) and the tangents or cotangents.
        wrt: the arguments that tangents are given for or cotangents are asked for.
    """

    batch: int | None
    mapped: tuple[bool, ...]
    num_primals: int
    wrt: tuple[int, ...] = ()

    @property
    def one_point(self) -> bool:
        """Whether all elements of the batch share the function's arguments."""
        return self.batch is None or not any(self.mapped[: self.num_primals])


Tensors = Sequence[Any]


def evaluate_value(functions: Functions, layout: Layout, inputs: Tensors, outputs: Tensors) -> None:
    """Fill `outputs` with the values of the function."""
    with unchanged(functions, inputs), require("torch").no_grad():
        for fn, where, args in _slices(functions, layout, inputs):
            store(functions, outputs, where, fn(*args))


def evaluate_record(
    functions: Functions, layout: Layout, inputs: Tensors, outputs: Tensors
) -> None:
    """Fill `outputs` with the values of the function and the tokens of the graphs that are kept."""
    torch = require("torch")
    inputs = own(inputs)
    *values_out, token_out = outputs
    kept, nbytes, largest = 0, 0, 0
    with unchanged(functions, inputs):
        for fn, where, args in _slices(functions, layout, inputs):
            length = where.stop - where.start if isinstance(where, slice) else None
            if kept and (nbytes + largest > graphs.MAX_BYTES or kept == graphs.MAX_GRAPHS):
                # One more would push out those that this batch has kept already.
                number = NO_GRAPH
                with torch.no_grad():
                    values = fn(*args)
            else:
                graph, values = record(functions, layout, args, length)
                graph.nbytes = size(functions, graph)
                number = STORE.keep(graph)
                kept, nbytes = kept + 1, nbytes + graph.nbytes
                largest = max(largest, graph.nbytes)
            store(functions, values_out, where, values)
            words = token(number) if length is None else [token(number, i) for i in range(length)]
            token_out[where].copy_(torch.tensor(words, dtype=token_out.dtype))


def evaluate_push(functions: Functions, layout: Layout, inputs: Tensors, outputs: Tensors) -> None:
    """Fill `outputs` with the values and the Jacobian times tangents, from one pass."""
    with unchanged(functions, inputs):
        for k, (fn, where, args) in enumerate(_slices(functions, layout, inputs)):
            values, tangents = _push(layout, fn, args, args[layout.num_primals :])
            count = len(outputs) - len(tangents)
            store(functions, outputs[count:], where, tangents)
            if layout.batch is None or not layout.one_point:
                store(functions, outputs[:count], where, values)
            elif k == 0:
                first = [v[0] for v in values] if isinstance(where, slice) else values
                store(functions, outputs[:count], (), first)
        if layout.batch == 0 and layout.one_point:
            only = functions.single(*inputs[: layout.num_primals])
            store(functions, outputs[: len(only)], (), only)


def evaluate_tangents(
    functions: Functions, layout: Layout, inputs: Tensors, outputs: Tensors
) -> None:
    """Fill `outputs` with the Jacobian times tangents, by forward-mode differentiation."""
    with unchanged(functions, inputs):
        for fn, where, args in _slices(functions, layout, inputs):
            _, tangents = _push(layout, fn, args, args[layout.num_primals + 1 :])
            store(functions, outputs, where, tangents)


# --- calls of the user's function -----------------------------------------------------------------


def _slices(
    functions: Functions, layout: Layout, tensors: Tensors
) -> Iterator[tuple[Callable[..., tuple[Any, ...]], Any, list[Any]]]:
    """The calls that make up one batch: (what to call, where its results go, its operands)."""
    pairs = list(zip(tensors, layout.mapped, strict=True))
    if layout.batch is None:
        yield functions.single, (), list(tensors)
    elif functions.batched is None:
        for i in range(layout.batch):
            yield functions.single, i, [t[i] if m else t for t, m in pairs]
    else:
        step = functions.max_batch or max(layout.batch, 1)
        for start in range(0, layout.batch, step):
            rows = range(start, min(start + step, layout.batch))
            yield functions.batched, slice(start, rows.stop), [gather(t, m, rows) for t, m in pairs]


def gather(tensor: Any, mapped: bool, rows: Sequence[int]) -> Any:
    """Some elements of a batch, without a copy where they follow each other."""
    if not mapped:
        return tensor.expand(len(rows), *tensor.shape)
    if all(row == rows[0] + k for k, row in enumerate(rows)):
        return tensor[rows[0] : rows[-1] + 1]
    return tensor[list(rows)]


def _push(
    layout: Layout, fn: Callable[..., tuple[Any, ...]], operands: Tensors, tangents: Tensors
) -> tuple[list[Any], tuple[Any, ...]]:
    """All values, and the tangents of those of floating dtype."""
    torch = require("torch")
    # Forward mode writes beside its operands, which repeated (expanded) memory does not allow.
    primals = [primal.contiguous() for primal in operands[: layout.num_primals]]
    floating: list[bool] = []

    def of_active(*active: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        merged = list(primals)
        for i, value in zip(layout.wrt, active, strict=True):
            merged[i] = value
        values = fn(*merged)
        floating[:] = [value.is_floating_point() for value in values]
        pairs = list(zip(values, floating, strict=True))
        return tuple(v for v, f in pairs if f), tuple(v for v, f in pairs if not f)

    with _FORWARD_MODE:
        smooth, derivatives, others = torch.func.jvp(
            of_active,
            tuple(primals[i] for i in layout.wrt),
            tuple(tangent.contiguous() for tangent in tangents),
            has_aux=True,
        )
    values = {True: iter(smooth), False: iter(others)}
    return [next(values[is_floating]) for is_floating in floating], derivatives


def record(
    functions: Functions, layout: Layout, operands: Tensors, length: int | None
) -> tuple[Graph, tuple[Any, ...]]:
    """Run the function forward, recording it; the graph and all values."""
    args = list(operands[: layout.num_primals])
    for i in layout.wrt:
        args[i] = args[i].detach().requires_grad_()
    fn = functions.single if length is None else functions.batched
    assert fn is not None
    with require("torch").enable_grad():
        values = fn(*args)
    floating = tuple(value for value in values if value.is_floating_point())
    return Graph(functions.number, length, {i: args[i] for i in layout.wrt}, floating), values


def size(functions: Functions, graph: Graph) -> int:
    """Bytes of a graph, measured now and then: it depends on the arguments' shapes."""
    leaves = tuple((i, leaf.shape, leaf.dtype) for i, leaf in graph.leaves.items())
    count, nbytes = functions.sizes.get((graph.length, leaves), (0, 0))
    if count & (count + 1) == 0:
        nbytes = max(nbytes, graphs.measure(graph.values))
    functions.sizes[graph.length, leaves] = count + 1, nbytes
    return nbytes


# --- what crosses to and from JAX -----------------------------------------------------------------


def own(tensors: Tensors) -> list[Any]:
    """Copies of JAX's buffers, for a graph that outlives this call: JAX will use them again."""
    return [tensor.clone() for tensor in tensors]


@contextlib.contextmanager
def unchanged(functions: Functions, tensors: Tensors) -> Iterator[None]:
    """Notice a function that changes its arguments."""
    versions = [tensor._version for tensor in tensors]
    yield
    if versions != [tensor._version for tensor in tensors]:
        raise ValueError(
            f"{functions.name}: changed an argument in place; the tensors are JAX's own arrays and "
            "must not be written to. Clone before changing."
        )


def store(functions: Functions, outputs: Tensors, where: Any, values: Tensors) -> None:
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
        if isinstance(where, list):
            output[where] = value.detach().to(output.dtype)
        else:
            target.copy_(value.detach())
