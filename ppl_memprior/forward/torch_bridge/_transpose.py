"""How JAX transposes the bridge's primitives. Transposition is the last step of reverse mode.

`tangents_p` and `cotangents_p` are each other's transpose. `push_p` is transposed in its tangents.
`value_p` can be transposed only if its function is linear. `_primitives` defines the primitives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.interpreters import ad

from ppl_memprior.forward.torch_bridge._functions import Layout
from ppl_memprior.forward.torch_bridge._primitives import (
    Carried,
    cotangents_p,
    differentiable,
    no_graph,
    push_p,
    tangents_p,
    unbatched_primals,
    value_p,
    with_token,
)


def _sum_over_batch(layout: Layout, value: Any, mapped: bool) -> Any:
    """Return an operand's cotangent, summed if all elements of the batch share the operand."""
    return value if layout.batch is None or mapped else jnp.sum(value, axis=0)


def _value_transpose(
    cotangents: Sequence[Any], *operands: Any, function: Carried, layout: Layout
) -> list[Any]:
    """Transpose a linear function, which is its own derivative at any point."""
    if not function.linear:
        raise NotImplementedError(
            f"{function.__name__}: only a linear function can be transposed. If the function is "
            "linear, say so with torch_function(..., linear=True). Otherwise transpose its "
            "derivative: jax.vjp(function, x)[1]."
        )
    wrt = tuple(i for i, operand in enumerate(operands) if ad.is_undefined_primal(operand))
    avals = [operand.aval if ad.is_undefined_primal(operand) else operand for operand in operands]
    outputs = function.outputs(unbatched_primals(layout, avals))
    point = [jnp.zeros(a.shape, a.dtype) if differentiable(a) else a for a in avals]
    inner = layout._replace(mapped=layout.mapped + tuple(layout.mapped[i] for i in wrt), wrt=wrt)
    pulled = iter(
        _tangents_transpose(
            [c for c, out in zip(cotangents, outputs, strict=True) if differentiable(out)],
            *point,
            no_graph(),
            *(operands[i] for i in wrt),
            function=function,
            layout=with_token(inner, mapped=False),
        )[len(operands) + 1 :]
    )
    return [next(pulled) if i in wrt else None for i in range(len(operands))]


def _tangents_transpose(
    cotangents: Sequence[Any], *operands: Any, function: Carried, layout: Layout
) -> list[Any]:
    count = layout.num_primals + 1
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
    count = layout.num_primals + 1
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


def _push_transpose(
    cotangents: Sequence[Any], *operands: Any, function: Carried, layout: Layout
) -> list[Any]:
    """Transpose in the tangents. The values do not depend on them, so their cotangents drop out."""
    count = layout.num_primals
    outputs = function.outputs(unbatched_primals(layout, operands[:count]))
    transposed = _tangents_transpose(
        cotangents[len(outputs) :],
        *operands[:count],
        no_graph(),
        *operands[count:],
        function=function,
        layout=with_token(layout, mapped=False),
    )
    return transposed[:count] + transposed[count + 1 :]


ad.primitive_transposes[value_p] = _value_transpose
ad.primitive_transposes[push_p] = _push_transpose
ad.primitive_transposes[tangents_p] = _tangents_transpose
ad.primitive_transposes[cotangents_p] = _cotangents_transpose
