"""A problem as a pytree: its numbers are leaves, everything else is its structure.

The leaves are the prior's arrays, the data, and the numbers among the model's arguments and in what
its functions close over. Two problems have one structure where their models compute the same of
numbers of the same shapes; what a model computes is read off its trace, so that a global variable
of another value makes another structure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.primitives import Messenger

from ppl_memprior.distributions import LearnedPrior
from ppl_memprior.problem._gaussian_site import gaussian_site
from ppl_memprior.problem._model_run import trace_model
from ppl_memprior.problem._numbers_apart import Numbers, Rest, numbers_apart
from ppl_memprior.problem._signature import Signature


class Call(NamedTuple):
    """A model with its arguments."""

    model: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Leaves(NamedTuple):
    """The numbers of a problem.

    Attributes:
        numbers: of the model's call.
        prior: a distribution, itself a pytree.
        prepared: the prior's examples as the sums over them want them, or None.
        data: by observed site.
    """

    numbers: list[Any]
    prior: Any
    prepared: Any
    data: dict[str, Any]

    def ready_prior(self) -> Any:
        """The prior, with its examples prepared."""
        return self.prior.with_prepared_examples(self.prepared) if self.prepared else self.prior


class Form:
    """The structure of a problem; equal where the same programs serve.

    Attributes:
        rest: the model's call without its numbers.
        attributes: of the problem, all but those that hold numbers.
        data_places: by observed site, which of the numbers are its data.
        signature: of what the model computes.
    """

    def __init__(
        self,
        rest: Rest,
        attributes: Mapping[str, Any],
        data_places: Mapping[str, tuple[int, ...]],
        signature: Signature,
    ) -> None:
        self.rest = rest
        self.attributes = attributes
        self.data_places = data_places
        self.signature = signature

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Form) and self.signature == other.signature)

    def __hash__(self) -> int:
        return hash(self.signature)

    def call(self, leaves: Leaves) -> Call:
        """The model with these numbers in it."""
        return _call(self.rest, self.attributes, leaves)

    def with_data(self, leaves: Leaves, data: Mapping[str, Any]) -> Leaves:
        """The leaves with other data, also where they are arguments of the model."""
        numbers = list(leaves.numbers)
        for name, value in data.items():
            for place in self.data_places[name]:
                numbers[place] = value
        return leaves._replace(numbers=numbers, data={**leaves.data, **data})


def taken_apart(
    call: Call,
    prior: LearnedPrior,
    data: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
) -> tuple[Leaves, Form]:
    """Set the numbers of a problem apart from its structure.

    Args:
        call: the model with its arguments.
        prior: at the prior's site.
        data: by observed site.
        attributes: of the problem, all but those that hold numbers.

    Returns:
        Leaves and structure. Numbers that the model needs as they are, for a shape or a condition,
        stay in its structure: first Python's, then NumPy's and if that does not help JAX's too.
    """
    prepared = prior.prepared_examples() if attributes["fixed_prior"] else None
    as_arrays = {name: jnp.asarray(value) for name, value in data.items()}
    x = jax.eval_shape(prior.take, 0)
    for which in sorted(Numbers, reverse=True):
        numbers, rest = numbers_apart(tuple(call), which)
        leaves = Leaves(numbers, prior, prepared, as_arrays)

        def everything(
            leaves: Leaves, x: jax.Array, key: jax.Array, rest: Rest = rest
        ) -> tuple[dict[str, Any], dict[str, Any]]:
            model, args, kwargs = _call(rest, attributes, leaves)
            trace = trace_model(model, args, kwargs, {attributes["prior_name"]: x}, key)
            return _said(trace), model.given

        try:
            trace_it = jax.make_jaxpr(everything, return_shape=True)
            traced, outputs = trace_it(leaves, x, jax.random.key(0))
            places = _data_places(traced, outputs, leaves, attributes["fixed_data"])
            besides = (rest.structure, rest.rules(), places, tuple(attributes.items()))
            return leaves, Form(rest, attributes, places, Signature(traced, besides))
        except Exception:
            if which is Numbers.NONE:
                raise
    raise AssertionError("not reached")


def _data_places(
    traced: Any, outputs: Any, leaves: Leaves, sites: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    """The numbers that a model hands to its observed sites as they are, by site."""
    inputs = traced.jaxpr.invars[: len(jax.tree.leaves(leaves))]
    numbers = jax.tree.unflatten(jax.tree.structure(leaves), inputs).numbers
    _, given = jax.tree.unflatten(jax.tree.structure(outputs), traced.jaxpr.outvars)
    return {
        site: tuple(place for place, number in enumerate(numbers) if number is given.get(site))
        for site in sites
    }


def _call(rest: Rest, attributes: Mapping[str, Any], leaves: Leaves) -> Call:
    model, args, kwargs = rest.with_numbers(leaves.numbers)
    data = {name: leaves.data[name] for name in attributes["fixed_data"]}
    prior = leaves.ready_prior() if attributes["fixed_prior"] else None
    return Call(_Filled(model, attributes["prior_name"], prior, data), args, kwargs)


class _Filled(Messenger):
    """Run a model with this prior, unless it is None, and with these data at the observed sites.

    Attributes:
        given: what the model had at the observed sites instead.
    """

    def __init__(
        self, fn: Callable[..., Any], prior_name: str, prior: Any, data: Mapping[str, Any]
    ) -> None:
        super().__init__(fn)
        self.prior_name = prior_name
        self.prior = prior
        self.data = data
        self.given: dict[str, Any] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample":
            return
        if msg["is_observed"] and msg["name"] in self.data:
            self.given[msg["name"]] = jnp.asarray(msg["value"])
            msg["value"] = self.data[msg["name"]]
        if msg["name"] == self.prior_name and self.prior is not None:
            msg["fn"] = self.prior


def _said(trace: Mapping[str, Any]) -> dict[str, Any]:
    """All that the sites of a trace say, as arrays."""
    said: dict[str, Any] = {}
    for name, site in trace.items():
        if site["type"] == "deterministic":
            said[name] = site["value"]
        elif site["type"] == "sample":
            fn, gaussian = site["fn"], gaussian_site(site) if site["is_observed"] else None
            if isinstance(fn, LearnedPrior):
                said[name] = jax.tree.leaves(fn)  # of one in a file there may be no density
            else:
                said[name] = (fn.log_prob(site["value"]), site["scale"], site["value"])
            if gaussian is not None:
                said[f"{name}, Gaussian"] = gaussian.residual(), gaussian.log_normalizer()
    return said
