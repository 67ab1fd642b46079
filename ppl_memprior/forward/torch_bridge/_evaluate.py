"""The PyTorch side of the bridge: values and tangents of a function of tensors.

Each evaluator reads input tensors and fills output tensors, for a single call or for a batch. All
evaluators have the same signature. Nothing in this module may call JAX, because JAX is waiting for
the result. `_primitives` decides what the batch axes mean to JAX. `_graphs` keeps the graph of a
forward pass, and `_cotangents` differentiates it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ppl_memprior.forward.torch_bridge import _graphs as graphs
from ppl_memprior.forward.torch_bridge import _missing as missing_derivatives
from ppl_memprior.forward.torch_bridge._functions import Functions, Layout, Tensors, require
from ppl_memprior.forward.torch_bridge._graphs import NO_GRAPH, STORE, Graph, token

# PyTorch counts the levels of forward mode in a global variable, which two threads would share. So
# only one thread at a time may be in forward mode.
_FORWARD_MODE = threading.RLock()


def evaluate_value(functions: Functions, layout: Layout, inputs: Tensors, outputs: Tensors) -> None:
    """Fill `outputs` with the values of the function."""
    with private(inputs) as inputs, require("torch").no_grad():
        for fn, where, args in _slices(functions, layout, inputs):
            store(functions, outputs, where, fn(*args))


def evaluate_record(
    functions: Functions, layout: Layout, inputs: Tensors, outputs: Tensors
) -> None:
    """Fill `outputs` with the values of the function and with tokens of the graphs in the store."""
    torch = require("torch")
    *values_out, token_out = outputs
    kept, nbytes, largest = 0, 0, 0
    with private(inputs) as inputs:
        for fn, where, args in _slices(functions, layout, inputs):
            length = where.stop - where.start if isinstance(where, slice) else None
            if kept and (nbytes + largest > graphs.MAX_BYTES or kept == graphs.MAX_GRAPHS):
                # Another graph would push out the graphs that this batch has just stored.
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
    """Fill `outputs` with the values and the Jacobian times tangents.

    Both come from one pass of forward mode. A linear function is called twice instead.
    """
    torch = require("torch")
    with private(inputs) as inputs:
        for k, (fn, where, args) in enumerate(_slices(functions, layout, inputs)):
            primals, tangents = args[: layout.num_primals], args[layout.num_primals :]
            values: Tensors
            if functions.linear:
                with torch.no_grad():
                    values = fn(*primals)
                pushed = _along(layout, fn, primals, tangents)
            else:
                values, pushed = push(functions, layout, fn, primals, tangents)
            count = len(outputs) - len(pushed)
            store(functions, outputs[count:], where, pushed)
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
    with private(inputs) as inputs:
        for fn, where, args in _slices(functions, layout, inputs):
            primals, tangents = args[: layout.num_primals], args[layout.num_primals + 1 :]
            if functions.linear:
                pushed = _along(layout, fn, primals, tangents)
            else:
                _, pushed = push(functions, layout, fn, primals, tangents)
            store(functions, outputs, where, pushed)


# --- calls of the user's function -----------------------------------------------------------------


def _slices(
    functions: Functions, layout: Layout, tensors: Tensors
) -> Iterator[tuple[Callable[..., tuple[Any, ...]], Any, list[Any]]]:
    """Yield the calls that make up one batch: (function, place of its results, its operands)."""
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
    """Return some elements of a batch, without a copy if they are consecutive."""
    if not mapped:
        return tensor.expand(len(rows), *tensor.shape)
    if all(row == rows[0] + k for k, row in enumerate(rows)):
        return tensor[rows[0] : rows[-1] + 1]
    return tensor[list(rows)]


def push(
    functions: Functions,
    layout: Layout,
    fn: Callable[..., tuple[Any, ...]],
    operands: Tensors,
    tangents: Tensors,
) -> tuple[list[Any], tuple[Any, ...]]:
    """Return all values, and the tangents of the values of floating dtype."""
    # Forward mode writes a tangent into memory with the strides of its operand. Expanded memory,
    # whose elements share one address, does not allow that.
    primals = [primal.contiguous() for primal in operands]
    along = {i: tangent.contiguous() for i, tangent in zip(layout.wrt, tangents, strict=True)}
    values, pushed = _forward_mode(fn, primals, along)

    def of_all(floating: Sequence[int]) -> list[bool]:
        zeros = {i: primals[i].new_zeros(primals[i].shape) for i in floating}
        _, of_each = _forward_mode(fn, primals, zeros)
        return [tangent is not None for tangent in of_each]

    missing = [k for k, v in enumerate(values) if v.is_floating_point() and pushed[k] is None]
    missing_derivatives.check(functions, layout, primals, values, missing, of_all)
    torch = require("torch")
    derivatives = (
        torch.zeros_like(value) if tangent is None or k in layout.constant else tangent
        for k, (value, tangent) in enumerate(zip(values, pushed, strict=True))
        if value.is_floating_point()
    )
    return values, tuple(derivatives)


def _forward_mode(
    fn: Callable[..., tuple[Any, ...]], primals: Tensors, along: dict[int, Any]
) -> tuple[list[Any], list[Any]]:
    """Return all values and their tangents. A tangent is None where PyTorch found none."""
    torch = require("torch")
    floating: list[bool] = []
    found: list[bool] = []

    def of_active(*active: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        merged = list(primals)
        for i, value in zip(along, active, strict=True):
            merged[i] = value
        values = fn(*merged)
        floating[:] = [value.is_floating_point() for value in values]
        pairs = list(zip(values, floating, strict=True))
        smooth = tuple(v for v, f in pairs if f)
        unpack = torch.autograd.forward_ad.unpack_dual
        found[:] = [unpack(value).tangent is not None for value in smooth]
        return smooth, tuple(v for v, f in pairs if not f)

    with _FORWARD_MODE, missing_derivatives.explained():
        smooth, derivatives, others = torch.func.jvp(
            of_active, tuple(primals[i] for i in along), tuple(along.values()), has_aux=True
        )
    tangents = (d if there else None for d, there in zip(derivatives, found, strict=True))
    pairs = {
        True: iter(zip(smooth, tangents, strict=True)),
        False: iter([(other, None) for other in others]),
    }
    both = [next(pairs[is_floating]) for is_floating in floating]
    return [value for value, _ in both], [tangent for _, tangent in both]


def _along(
    layout: Layout, fn: Callable[..., tuple[Any, ...]], primals: Tensors, tangents: Tensors
) -> tuple[Any, ...]:
    """Return the tangents of a linear function's floating values: its values at the tangents."""
    torch = require("torch")
    args = [torch.zeros_like(p) if p.is_floating_point() else p for p in primals]
    for i, tangent in zip(layout.wrt, tangents, strict=True):
        args[i] = tangent
    with torch.no_grad():
        values = fn(*args)
    return tuple(
        torch.zeros_like(value) if k in layout.constant else value
        for k, value in enumerate(values)
        if value.is_floating_point()
    )


def record(
    functions: Functions, layout: Layout, operands: Tensors, length: int | None
) -> tuple[Graph, tuple[Any, ...]]:
    """Run the function forward and record it. Return the graph and all values."""
    fn = functions.single if length is None else functions.batched
    assert fn is not None
    primals = operands[: layout.num_primals]
    leaves, values = _reverse_mode(fn, primals, layout.wrt)

    def of_all(floating: Sequence[int]) -> list[bool]:
        every, again = _reverse_mode(fn, primals, floating)
        return [graphs.reaches(value, every.values()) for value in again]

    missing = [
        k
        for k, value in enumerate(values)
        if value.is_floating_point() and not graphs.reaches(value, leaves.values())
    ]
    missing_derivatives.check(functions, layout, primals, values, missing, of_all)
    values = tuple(v.detach() if k in layout.constant else v for k, v in enumerate(values))
    floating = tuple(value for value in values if value.is_floating_point())
    return Graph(functions.number, length, leaves, floating), values


def _reverse_mode(
    fn: Callable[..., tuple[Any, ...]], primals: Tensors, wrt: Sequence[int]
) -> tuple[dict[int, Any], tuple[Any, ...]]:
    """Make some arguments leaves and record the function. Return the leaves and the values."""
    args = list(primals)
    for i in wrt:
        args[i] = args[i].detach().requires_grad_()
    with require("torch").enable_grad(), missing_derivatives.explained():
        return {i: args[i] for i in wrt}, fn(*args)


def size(functions: Functions, graph: Graph) -> int:
    """Return the size of a graph, bytes, which depends on the shapes of the arguments.

    Of all graphs with the same shapes, the first, second, fourth, eighth and so on are measured.
    The largest measurement counts.
    """
    leaves = tuple((i, leaf.shape, leaf.dtype) for i, leaf in graph.leaves.items())
    count, nbytes = functions.sizes.get((graph.length, leaves), (0, 0))
    if count & (count + 1) == 0:
        nbytes = max(nbytes, graphs.measure(graph.values))
    functions.sizes[graph.length, leaves] = count + 1, nbytes
    return nbytes


# --- what crosses to and from JAX -----------------------------------------------------------------


@contextlib.contextmanager
def private(tensors: Tensors) -> Iterator[list[Any]]:
    """Give copies of JAX's buffers, and raise if one of the copies was changed.

    JAX's arrays must not change, and JAX uses its buffers again. PyTorch cannot make a tensor
    read-only. So the function gets copies and never a buffer of JAX.
    """
    copies = [tensor.clone() for tensor in tensors]
    yield copies
    if not all(map(_unchanged, copies, tensors)):
        raise ValueError(
            "an argument was changed in place. The caller's array is unharmed, but other calls of "
            "the function may get the same tensor. Clone the argument before changing it."
        )


def _unchanged(copy: Any, original: Any) -> bool:
    """Whether PyTorch counted no change of a copy and, on a CPU, all bits are the same."""
    if copy._version:
        return False
    if copy.device.type != "cpu":  # NumPy cannot write to it; a comparison would wait for it
        return True
    torch = require("torch")
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[copy.element_size()]
    return torch.equal(copy.view(bits), original.view(bits))  # as bits, NaN equals NaN


def store(functions: Functions, outputs: Tensors, where: Any, values: Tensors) -> None:
    """Copy results into JAX's buffers. Raise if a shape differs; never broadcast."""
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
