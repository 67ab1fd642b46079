"""On which latent sites the values of a traced model depend.

A latent site's value appears in the middle of a trace. `NamedLatents` marks the place, and
`dependencies` cuts the trace there: from then on the value counts as an input of the site's name.
NumPyro follows the inputs through the program.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from numpyro.ops.provenance import eval_provenance
from numpyro.primitives import Messenger

#: What a value depends on that depends on the model's random key other than by a latent site.
RANDOM_KEY = "random key"
_LATENT = "latent site "


class NamedLatents(Messenger):
    """Mark the values of the latent sites in the program that JAX traces.

    Enter it around `numpyro.handlers.trace`, whose record then has the marked values.
    """

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and not msg["is_observed"]:
            msg["value"] = checkpoint_name(msg["value"], _LATENT + msg["name"])


def dependencies(traced: ClosedJaxpr, outputs: Any) -> Any:
    """The latent sites that each output of a traced model can depend on.

    Nothing is computed. The answer errs on the side of more: a loop or a branch passes what any of
    its inputs depends on to all its outputs.

    Args:
        traced: a function of the model's random key, traced under `NamedLatents`.
        outputs: pytree of what the function returns.

    Returns:
        The same pytree with a frozen set of sites' names, and perhaps `RANDOM_KEY`, as each leaf.
    """
    jaxpr = traced.jaxpr
    places = [equation for equation in jaxpr.eqns if _is_latent(equation)]
    values = [place.outvars[0] for place in places]
    cut = jaxpr.replace(
        eqns=[equation for equation in jaxpr.eqns if not _is_latent(equation)],
        invars=[*jaxpr.invars, *values],
    )
    function = jaxpr_as_fun(ClosedJaxpr(cut, traced.consts))
    names = [RANDOM_KEY, *(place.params["name"] for place in places)]
    inputs = {
        name: jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)
        for name, variable in zip(names, cut.invars, strict=True)
    }
    found = eval_provenance(lambda **given: function(*(given[n] for n in names)), **inputs)
    sites = [frozenset(name.removeprefix(_LATENT) for name in sets) for sets in found]
    return jax.tree.unflatten(jax.tree.structure(outputs), sites)


def _is_latent(equation: Any) -> bool:
    """Whether the equation of a jaxpr is a place that `NamedLatents` has marked."""
    name = equation.params.get("name") if equation.primitive.name == "name" else None
    return isinstance(name, str) and name.startswith(_LATENT)
