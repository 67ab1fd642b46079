"""The JAX side of the bridge: five primitives that carry a PyTorch function.

- `value_p` gives the values of the function.
- `push_p`, its derivative, gives the values and the Jacobian times tangents.
- `record_p` and `tangents_p` replace `push_p` where JAX knows the arguments but not yet the
  tangents (`grad`, `vjp`, `linearize`). `record_p` gives the values, and tokens of the graphs that
  PyTorch recorded. `tangents_p` takes the tokens and gives the Jacobian times tangents.
- `cotangents_p`, the transpose of `tangents_p`, takes the tokens and gives the transposed Jacobian
  times cotangents.

`_partial` divides `push_p`, and `_transpose` transposes the primitives. All primitives share one
batching rule, which flattens nested `vmap`s into one leading batch axis. `_evaluate` and
`_cotangents` do the work in PyTorch. `_flat` holds the user's function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ppl_memprior.forward.torch_bridge import _evaluate as evaluate
from ppl_memprior.forward.torch_bridge._cotangents import evaluate_cotangents
from ppl_memprior.forward.torch_bridge._functions import Layout, require
from ppl_memprior.forward.torch_bridge._graphs import TOKEN_LENGTH

try:
    from jax.experimental.buffer_callback import buffer_callback
except ImportError:  # this version of JAX has none: values travel through NumPy
    buffer_callback = None  # type: ignore[assignment]


class Carried(Protocol):
    """What the primitives need from the function that they carry."""

    __name__: str
    linear: bool

    def outputs(self, avals: Sequence[Any]) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Return the results' shapes and dtypes for arguments of these shapes and dtypes."""

    def fill(self, evaluator: Callable[..., None], layout: Layout, ins: Any, outs: Any) -> None:
        """Run one evaluator on tensors."""

    def dispatch(self, primitive: Primitive, layout: Layout, operands: Sequence[Any]) -> Any:
        """Evaluate one primitive outside of `jit`."""


# --- shapes of results ----------------------------------------------------------------------------


def differentiable(aval: Any) -> bool:
    """Whether an array of this type has a derivative in JAX."""
    return jnp.issubdtype(aval.dtype, jnp.floating)


def unbatched_primals(layout: Layout, avals: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
    """Return the shapes and dtypes of the function's own arguments, for one batch element."""
    flags = layout.mapped[: layout.num_primals]
    return [
        jax.ShapeDtypeStruct(aval.shape[1:] if mapped else aval.shape, aval.dtype)
        for aval, mapped in zip(avals[: layout.num_primals], flags, strict=True)
    ]


def _batch(layout: Layout, structs: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
    lead = () if layout.batch is None else (layout.batch,)
    return [jax.ShapeDtypeStruct(lead + tuple(s.shape), s.dtype) for s in structs]


def _value_result(*avals: Any, function: Carried, layout: Layout) -> list[Any]:
    return _batch(layout, function.outputs(unbatched_primals(layout, avals)))


def _record_result(*avals: Any, function: Carried, layout: Layout) -> list[Any]:
    token = jax.ShapeDtypeStruct((TOKEN_LENGTH,), np.int32)
    return _batch(layout, [*function.outputs(unbatched_primals(layout, avals)), token])


def _push_result(*avals: Any, function: Carried, layout: Layout) -> list[Any]:
    outputs = function.outputs(unbatched_primals(layout, avals))
    values = list(outputs) if layout.one_point else _batch(layout, outputs)
    return values + _batch(layout, [out for out in outputs if differentiable(out)])


def _tangents_result(*avals: Any, function: Carried, layout: Layout) -> list[Any]:
    outputs = function.outputs(unbatched_primals(layout, avals))
    return _batch(layout, [out for out in outputs if differentiable(out)])


def _cotangents_result(*avals: Any, function: Carried, layout: Layout) -> list[Any]:
    primals = unbatched_primals(layout, avals)
    return _batch(layout, [primals[i] for i in layout.wrt])


# --- differentiation ------------------------------------------------------------------------------


def no_graph() -> jax.Array:
    """Return the token for "no graph", with which the forward pass runs again."""
    return jnp.zeros(TOKEN_LENGTH, np.int32)


def with_token(layout: Layout, mapped: bool) -> Layout:
    """Return the layout of `tangents_p` that belongs to a layout of `push_p`."""
    count = layout.num_primals
    return layout._replace(mapped=(*layout.mapped[:count], mapped, *layout.mapped[count:]))


def value_layout(layout: Layout) -> Layout:
    """Return the layout of `value_p` that belongs to a layout of `push_p` or `record_p`."""
    batch = None if layout.one_point else layout.batch
    return layout._replace(batch=batch, mapped=layout.mapped[: layout.num_primals], wrt=())


def _value_jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, function: Carried, layout: Layout
) -> tuple[Any, Any]:
    outputs = function.outputs(unbatched_primals(layout, primals))
    wrt = tuple(
        i
        for i, (primal, tangent) in enumerate(zip(primals, tangents, strict=True))
        if differentiable(primal) and not isinstance(tangent, ad.Zero)
    )
    varies = (k for k, out in enumerate(outputs) if differentiable(out))
    if not wrt or all(k in layout.constant for k in varies):
        values = value_p.bind(*primals, function=function, layout=layout)
        return values, [_no_tangent(value) for value in values]
    inner = layout._replace(mapped=layout.mapped + tuple(layout.mapped[i] for i in wrt), wrt=wrt)
    active = [tangents[i] for i in wrt]
    results = push_p.bind(*primals, *active, function=function, layout=inner)
    values, derivatives = results[: len(outputs)], iter(results[len(outputs) :])
    return values, [
        next(derivatives) if differentiable(value) else _no_tangent(value) for value in values
    ]


def _record_jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, function: Carried, layout: Layout
) -> tuple[Any, Any]:
    # Here a recorded value is itself differentiated. Unless the function is linear, `_linear_jvp`
    # then refuses second derivatives, so no backward pass will need the graph. If the function is
    # linear, a backward pass may need it, and runs the forward pass again.
    unrecorded = layout._replace(wrt=())
    values, out_tangents = _value_jvp(primals, tangents, function=function, layout=unrecorded)
    token = (
        no_graph() if layout.batch is None else jnp.zeros((layout.batch, TOKEN_LENGTH), np.int32)
    )
    return [*values, token], [*out_tangents, _no_tangent(token)]


def _push_jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, function: Carried, layout: Layout
) -> tuple[Any, Any]:
    count = layout.num_primals
    _refuse_second_derivative(function, tangents[:count])
    linear = [ad.instantiate_zeros(tangent) for tangent in tangents[count:]]
    results = push_p.bind(*primals, function=function, layout=layout)
    derivatives = tangents_p.bind(
        *primals[:count],
        no_graph(),
        *linear,
        function=function,
        layout=with_token(layout, mapped=False),
    )
    moved = [*map(_no_tangent, results[: len(results) - len(derivatives)])]
    if not all(isinstance(tangent, ad.Zero) for tangent in tangents[:count]):  # function is linear
        inner = value_layout(layout)
        _, moved = _value_jvp(primals[:count], tangents[:count], function=function, layout=inner)
    return results, [*moved, *derivatives]


def _no_tangent(value: Any) -> ad.Zero:
    return ad.Zero(jax.typeof(value).to_tangent_aval())


def _refuse_second_derivative(function: Carried, tangents: Sequence[Any]) -> None:
    if function.linear:  # a linear function has the same derivative everywhere
        return
    if not all(isinstance(tangent, ad.Zero) for tangent in tangents):
        raise NotImplementedError(
            f"{function.__name__}: second derivatives of a PyTorch function are not available. "
            "Where a curvature is needed, use the Gauss-Newton product of its Jacobian."
        )


def _linear_jvp(
    primitive: Primitive,
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    function: Carried,
    layout: Layout,
) -> tuple[Any, Any]:
    """Differentiate `tangents_p` or `cotangents_p`, which are linear in all but some operands.

    They are not linear in the function's arguments and the token, which come first.
    """
    count = layout.num_primals + 1
    _refuse_second_derivative(function, tangents[: layout.num_primals])
    linear = [ad.instantiate_zeros(tangent) for tangent in tangents[count:]]
    own = primals[:count]
    return (
        primitive.bind(*primals, function=function, layout=layout),
        primitive.bind(*own, *linear, function=function, layout=layout),
    )


# --- batching -------------------------------------------------------------------------------------


def _batching_rule(
    primitive: Primitive,
    operands: Sequence[Any],
    dims: Sequence[int | None],
    *,
    function: Carried,
    layout: Layout,
) -> tuple[list[Any], list[int | None]]:
    """Fold one more batch axis into the leading one. Operands that are not mapped stay shared."""
    size = next(x.shape[d] for x, d in zip(operands, dims, strict=True) if d is not None)
    inner = layout.batch
    folded, flags = [], []
    for operand, dim, mapped in zip(operands, dims, layout.mapped, strict=True):
        outer = dim is not None
        value = operand if dim is None else jnp.moveaxis(operand, dim, 0)
        if inner is not None and (outer or mapped):
            rest = value.shape[outer + mapped :]
            value = value.reshape((size if outer else 1, inner if mapped else 1, *rest))
            value = jnp.broadcast_to(value, (size, inner, *rest)).reshape((size * inner, *rest))
        folded.append(value)
        flags.append(outer or mapped)
    total = size if inner is None else size * inner
    after = layout._replace(batch=total, mapped=tuple(flags))
    outputs = primitive.bind(*folded, function=function, layout=after)
    # The values of `push_p` have no batch axis as long as all tangents are at one point.
    values = 0
    if primitive is push_p and layout.one_point:
        values = len(function.outputs(unbatched_primals(after, folded)))
    shared = values if after.one_point else 0
    if inner is not None:
        outputs = [
            out if k < shared else out.reshape((size, inner, *out.shape[1:]))
            for k, out in enumerate(outputs)
        ]
        outputs = [out[:, 0] if shared <= k < values else out for k, out in enumerate(outputs)]
    return outputs, [None] * shared + [0] * (len(outputs) - shared)


# --- compilation ----------------------------------------------------------------------------------


def _through_buffers(
    evaluator: Callable[..., None], result: Callable[..., Any], *args: Any, **params: Any
) -> Any:
    """Call PyTorch with JAX's own buffers, on a CPU."""
    function, layout = params["function"], params["layout"]

    def callback(_: Any, outs: Any, *ins: Any) -> None:
        from_dlpack = require("torch").from_dlpack
        function.fill(evaluator, layout, [from_dlpack(x) for x in ins], [*map(from_dlpack, outs)])

    return buffer_callback(callback, result(*args, **params))(*args)


def _through_cuda_buffers(
    evaluator: Callable[..., None], result: Callable[..., Any], *args: Any, **params: Any
) -> Any:
    """Call PyTorch with JAX's own buffers, on a CUDA device and on JAX's stream."""
    function, layout = params["function"], params["layout"]

    def callback(context: Any, outs: Any, *ins: Any) -> None:
        torch = require("torch")
        _, index = outs[0].__dlpack_device__()
        with torch.cuda.stream(torch.cuda.ExternalStream(context.stream, device=index)):
            read, write = ([torch.from_dlpack(x) for x in xs] for xs in (ins, outs))
            function.fill(evaluator, layout, read, write)

    return buffer_callback(callback, result(*args, **params))(*args)


def _through_numpy(
    evaluator: Callable[..., None], result: Callable[..., Any], *args: Any, **params: Any
) -> Any:
    """Call PyTorch with copies in host memory, for any device and any version of JAX."""
    function, layout, structs = params["function"], params["layout"], result(*args, **params)

    def callback(*ins: Any) -> list[np.ndarray]:
        from_numpy = require("torch").from_numpy
        outs = [np.empty(struct.shape, struct.dtype) for struct in structs]
        copies = [from_numpy(np.array(x)) for x in ins]
        function.fill(evaluator, layout, copies, [from_numpy(out) for out in outs])
        return outs

    return jax.pure_callback(callback, structs, *args)


def _abstract(result: Callable[..., Any], *avals: Any, **params: Any) -> list[Any]:
    return [jax.core.ShapedArray(s.shape, s.dtype) for s in result(*avals, **params)]


def _primitive(name: str, evaluator: Callable[..., None], result: Callable[..., Any]) -> Primitive:
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(
        lambda *operands, function, layout: function.dispatch(primitive, layout, operands)
    )
    primitive.def_abstract_eval(functools.partial(_abstract, result))
    batching.primitive_batchers[primitive] = functools.partial(_batching_rule, primitive)
    lower = functools.partial(_through_numpy, evaluator, result)
    mlir.register_lowering(primitive, mlir.lower_fun(lower))
    if buffer_callback is not None:
        for platform, through in (("cpu", _through_buffers), ("cuda", _through_cuda_buffers)):
            lower = functools.partial(through, evaluator, result)
            mlir.register_lowering(primitive, mlir.lower_fun(lower), platform=platform)
    return primitive


value_p = _primitive("torch_value", evaluate.evaluate_value, _value_result)
record_p = _primitive("torch_record", evaluate.evaluate_record, _record_result)
push_p = _primitive("torch_push", evaluate.evaluate_push, _push_result)
tangents_p = _primitive("torch_tangents", evaluate.evaluate_tangents, _tangents_result)
cotangents_p = _primitive("torch_cotangents", evaluate_cotangents, _cotangents_result)

ad.primitive_jvps[value_p] = _value_jvp
ad.primitive_jvps[record_p] = _record_jvp
ad.primitive_jvps[push_p] = _push_jvp
ad.primitive_jvps[tangents_p] = functools.partial(_linear_jvp, tangents_p)
ad.primitive_jvps[cotangents_p] = functools.partial(_linear_jvp, cotangents_p)
