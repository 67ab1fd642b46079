"""How JAX divides a bridge primitive into a part to evaluate now and a part to stage for later.

Reverse mode and `linearize` evaluate a derivative before its tangents are known. By default, JAX
would stage all of `push_p` for later, values included. The rules in this module evaluate the values
at once and record the graph for the backward pass (`record_p`). They stage only the linear part
(`tangents_p`). They also drop unused results. `_primitives` defines the primitives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import JaxprEqn, Var
from jax.interpreters import partial_eval as pe

from ppl_memprior.forward.torch_bridge._functions import Layout
from ppl_memprior.forward.torch_bridge._graphs import TOKEN_LENGTH
from ppl_memprior.forward.torch_bridge._primitives import (
    push_p,
    record_p,
    tangents_p,
    unbatched_primals,
    value_layout,
    value_p,
    with_token,
)


def _record_layout(layout: Layout) -> Layout:
    return value_layout(layout)._replace(wrt=layout.wrt)


def _divide_trace(trace: Any, *tracers: Any, function: Any, layout: Layout) -> Any:
    """Divide `push_p` while JAX traces, if all arguments are known and some tangents are not."""
    params = {"function": function, "layout": layout}
    primals, tangents = tracers[: layout.num_primals], tracers[layout.num_primals :]
    if not all(x.is_known() for x in primals) or all(x.is_known() for x in tangents):
        return trace.default_process_primitive(push_p, tracers, params)
    known = [x.pval.get_known() for x in primals]
    *values, token = record_p.bind(*known, function=function, layout=_record_layout(layout))
    inner = with_token(layout, mapped=not layout.one_point)
    linear = trace.default_process_primitive(
        tangents_p, (*primals, token, *tangents), {"function": function, "layout": inner}
    )
    return [*values, *linear]


def _divide_equation(
    saveable: Callable[..., Any],
    unknown: Sequence[bool],
    instantiated: Sequence[bool],
    eqn: JaxprEqn,
) -> tuple[Any, Any, list[bool], list[bool], list[Any]]:
    """Divide an equation of `push_p` under `jax.checkpoint`.

    The policy of `jax.checkpoint` says what may be saved for the backward pass.

    Returns:
        Five things: the equation to evaluate now, the equation to stage, for each result whether it
        is unknown, for each result whether the staged equation gives it, and the variables that
        must be handed to the staged equation.
    """
    layout = eqn.params["layout"]
    count, values = layout.num_primals, _num_values(eqn)
    derivatives = len(eqn.outvars) - values
    missing = [
        var
        for var, here in zip(eqn.invars, instantiated, strict=True)
        if isinstance(var, Var) and not here
    ]
    everywhere = [True] * len(eqn.outvars)
    if any(unknown[:count]):
        return None, eqn, everywhere, everywhere, missing
    policy = saveable(eqn.primitive, *[var.aval for var in eqn.invars], **eqn.params)
    save = policy is True or type(policy).__name__ == "SaveableType"
    if not any(unknown):
        nowhere = [False] * len(eqn.outvars)
        return (
            (eqn, None, nowhere, nowhere, []) if save else (eqn, eqn, nowhere, everywhere, missing)
        )
    unknown_out = [False] * values + [True] * derivatives
    if not save:
        return _values_only(eqn), eqn, unknown_out, everywhere, missing
    lead = () if layout.one_point else (layout.batch,)
    token = Var(jax.core.ShapedArray((*lead, TOKEN_LENGTH), np.dtype(np.int32)))
    now = eqn.replace(
        primitive=record_p,
        invars=eqn.invars[:count],
        outvars=[*eqn.outvars[:values], token],
        params={**eqn.params, "layout": _record_layout(layout)},
    )
    later = eqn.replace(
        primitive=tangents_p,
        invars=[*eqn.invars[:count], token, *eqn.invars[count:]],
        outvars=eqn.outvars[values:],
        params={**eqn.params, "layout": with_token(layout, mapped=not layout.one_point)},
    )
    return now, later, unknown_out, unknown_out, [token, *missing]


def _drop_unused(used: Sequence[bool], *rest: Any) -> tuple[list[bool], Any]:
    """Compute the values alone if neither tangents nor a graph are used."""
    eqn: JaxprEqn = rest[-1]  # newer versions of JAX pass another argument before it
    if not any(used):
        return [False] * len(eqn.invars), None
    if any(used[_num_values(eqn) :]):
        return [True] * len(eqn.invars), eqn
    count = eqn.params["layout"].num_primals
    return [k < count for k in range(len(eqn.invars))], _values_only(eqn)


def _num_values(eqn: JaxprEqn) -> int:
    if eqn.primitive is record_p:
        return len(eqn.outvars) - 1
    avals = [var.aval for var in eqn.invars]
    return len(eqn.params["function"].outputs(unbatched_primals(eqn.params["layout"], avals)))


def _values_only(eqn: JaxprEqn) -> JaxprEqn:
    layout = eqn.params["layout"]
    return eqn.replace(
        primitive=value_p,
        invars=eqn.invars[: layout.num_primals],
        outvars=eqn.outvars[: _num_values(eqn)],
        params={**eqn.params, "layout": value_layout(layout)},
    )


pe.custom_partial_eval_rules[push_p] = _divide_trace
pe.partial_eval_jaxpr_custom_rules[push_p] = _divide_equation
pe.dce_rules[push_p] = _drop_unused
pe.dce_rules[record_p] = _drop_unused
