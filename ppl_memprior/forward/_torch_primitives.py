"""The JAX side of the bridge: three primitives that carry a PyTorch function.

Its value, its Jacobian times tangents, and its transposed Jacobian times cotangents. The last two
are linear and each is the other's transpose, which is all that forward mode, reverse mode and
`linear_transpose` need. All three share one batching rule: nested `vmap`s are flattened into one
leading batch axis. What PyTorch does with the operands is left to `_torch_evaluate`; whose function
it is, to `torch_call`.
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

from . import _torch_evaluate as evaluate
from ._torch_evaluate import Layout, require

try:
    from jax.experimental.buffer_callback import buffer_callback
except ImportError:  # a JAX without it: the values travel through NumPy instead
    buffer_callback = None  # type: ignore[assignment]


class Carried(Protocol):
    """What the primitives ask of the function that they carry."""

    __name__: str

    def outputs(self, avals: Sequence[Any]) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the results for arguments of these shapes and dtypes."""

    def fill(self, evaluator: Callable[..., None], layout: Layout, ins: Any, outs: Any) -> None:
        """Run one evaluator on tensors."""

    def dispatch(self, primitive: Primitive, layout: Layout, operands: Sequence[Any]) -> Any:
        """Evaluate one primitive outside of `jit`."""


# --- shapes of results ----------------------------------------------------------------------------


def _differentiable(aval: Any) -> bool:
    return jnp.issubdtype(aval.dtype, jnp.floating)


def _unbatched_primals(layout: Layout, avals: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
    flags = layout.mapped[: layout.num_primals]
    return [
        jax.ShapeDtypeStruct(aval.shape[1:] if mapped else aval.shape, aval.dtype)
        for aval, mapped in zip(avals[: layout.num_primals], flags, strict=True)
    ]


def _batch(layout: Layout, structs: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
    lead = () if layout.batch is None else (layout.batch,)
    return [jax.ShapeDtypeStruct(lead + tuple(s.shape), s.dtype) for s in structs]


def _value_result(*avals: Any, function: Carried, layout: Layout) -> list[Any]:
    return _batch(layout, function.outputs(_unbatched_primals(layout, avals)))


def _tangents_result(*avals: Any, function: Carried, layout: Layout) -> list[Any]:
    outputs = function.outputs(_unbatched_primals(layout, avals))
    return _batch(layout, [out for out in outputs if _differentiable(out)])


def _cotangents_result(*avals: Any, function: Carried, layout: Layout) -> list[Any]:
    primals = _unbatched_primals(layout, avals)
    return _batch(layout, [primals[i] for i in layout.wrt])


# --- differentiation ------------------------------------------------------------------------------


def _value_jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, function: Carried, layout: Layout
) -> tuple[Any, Any]:
    values = value_p.bind(*primals, function=function, layout=layout)
    wrt = tuple(
        i
        for i, (primal, tangent) in enumerate(zip(primals, tangents, strict=True))
        if _differentiable(primal) and not isinstance(tangent, ad.Zero)
    )
    derivatives: Any = iter(())
    if wrt and any(_differentiable(value) for value in values):
        mapped = layout.mapped + tuple(layout.mapped[i] for i in wrt)
        active = [tangents[i] for i in wrt]
        inner = layout._replace(mapped=mapped, wrt=wrt)
        derivatives = iter(tangents_p.bind(*primals, *active, function=function, layout=inner))
    return values, [
        next(derivatives)
        if wrt and _differentiable(value)
        else ad.Zero(jax.typeof(value).to_tangent_aval())
        for value in values
    ]


def _linear_jvp(
    primitive: Primitive,
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    function: Carried,
    layout: Layout,
) -> tuple[Any, Any]:
    """Both derivative primitives are linear in what follows the function's own arguments."""
    if not all(isinstance(tangent, ad.Zero) for tangent in tangents[: layout.num_primals]):
        raise NotImplementedError(
            f"{function.__name__}: second derivatives of a PyTorch function are not available. "
            "Where a curvature is needed, use the Gauss-Newton product of its Jacobian."
        )
    linear = [ad.instantiate_zeros(tangent) for tangent in tangents[layout.num_primals :]]
    own = primals[: layout.num_primals]
    return (
        primitive.bind(*primals, function=function, layout=layout),
        primitive.bind(*own, *linear, function=function, layout=layout),
    )


def _sum_over_batch(layout: Layout, value: Any, mapped: bool) -> Any:
    """Cotangent of an operand that all elements of the batch share."""
    return value if layout.batch is None or mapped else jnp.sum(value, axis=0)


def _tangents_transpose(
    cotangents: Sequence[Any], *operands: Any, function: Carried, layout: Layout
) -> list[Any]:
    count = layout.num_primals
    unknown = [ad.is_undefined_primal(tangent) for tangent in operands[count:]]
    seeds = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
    inner = layout._replace(
        mapped=layout.mapped[:count] + (layout.batch is not None,) * len(seeds),
        wrt=tuple(i for i, asked in zip(layout.wrt, unknown, strict=True) if asked),
    )
    pulled = iter(cotangents_p.bind(*operands[:count], *seeds, function=function, layout=inner))
    flags = layout.mapped[count:]
    return [None] * count + [
        _sum_over_batch(layout, next(pulled), mapped) if asked else None
        for asked, mapped in zip(unknown, flags, strict=True)
    ]


def _cotangents_transpose(
    cotangents: Sequence[Any], *operands: Any, function: Carried, layout: Layout
) -> list[Any]:
    count = layout.num_primals
    seeds = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
    mapped = layout.mapped[:count] + (layout.batch is not None,) * len(seeds)
    inner = layout._replace(mapped=mapped)
    pushed = tangents_p.bind(*operands[:count], *seeds, function=function, layout=inner)
    return [None] * count + [
        _sum_over_batch(layout, value, flag) if ad.is_undefined_primal(operand) else None
        for value, flag, operand in zip(
            pushed, layout.mapped[count:], operands[count:], strict=True
        )
    ]


# --- batching -------------------------------------------------------------------------------------


def _batching_rule(
    primitive: Primitive,
    operands: Sequence[Any],
    dims: Sequence[int | None],
    *,
    function: Carried,
    layout: Layout,
) -> tuple[list[Any], list[int]]:
    """Fold one more batch axis into the leading one, sharing what no `vmap` has mapped."""
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
    outputs = primitive.bind(
        *folded, function=function, layout=layout._replace(batch=total, mapped=tuple(flags))
    )
    if inner is not None:
        outputs = [out.reshape((size, inner, *out.shape[1:])) for out in outputs]
    return outputs, [0] * len(outputs)


# --- compilation ----------------------------------------------------------------------------------


def _through_buffers(
    evaluator: Callable[..., None], result: Callable[..., Any], *args: Any, **params: Any
) -> Any:
    """PyTorch reads and writes JAX's own buffers."""
    function, layout = params["function"], params["layout"]

    def callback(_: Any, outs: Any, *ins: Any) -> None:
        from_dlpack = require("torch").from_dlpack
        function.fill(evaluator, layout, [from_dlpack(x) for x in ins], [*map(from_dlpack, outs)])

    return buffer_callback(callback, result(*args, **params))(*args)


def _through_numpy(
    evaluator: Callable[..., None], result: Callable[..., Any], *args: Any, **params: Any
) -> Any:
    """PyTorch works on host copies: any device, any JAX."""
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
        lower = functools.partial(_through_buffers, evaluator, result)
        mlir.register_lowering(primitive, mlir.lower_fun(lower), platform="cpu")
    return primitive


value_p = _primitive("torch_value", evaluate.evaluate_value, _value_result)
tangents_p = _primitive("torch_tangents", evaluate.evaluate_tangents, _tangents_result)
cotangents_p = _primitive("torch_cotangents", evaluate.evaluate_cotangents, _cotangents_result)

ad.primitive_jvps[value_p] = _value_jvp
ad.primitive_jvps[tangents_p] = functools.partial(_linear_jvp, tangents_p)
ad.primitive_jvps[cotangents_p] = functools.partial(_linear_jvp, cotangents_p)
ad.primitive_transposes[tangents_p] = _tangents_transpose
ad.primitive_transposes[cotangents_p] = _cotangents_transpose
