"""A problem as a pytree: its numbers are leaves, everything else is its structure.

The leaves are the prior's arrays, the data, and the numbers among the model's arguments and in what
its functions close over. Two problems have one structure where their models compute the same of
numbers of the same shapes; what a model computes is read off its trace, so that a global variable
of another value makes another structure.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.extend.core import ClosedJaxpr
from jax.interpreters.partial_eval import dce_jaxpr
from numpyro.primitives import Messenger

from ppl_memprior.distributions import LearnedPrior
from ppl_memprior.problem._model_run import RUNNING_A_MODEL, trace_model
from ppl_memprior.problem._numbers_apart import Numbers, Rest, numbers_apart
from ppl_memprior.problem._said import said, types
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
        prior = self.plain_prior()
        return prior.with_prepared_examples(self.prepared) if self.prepared else prior

    def plain_prior(self) -> Any:
        """The prior."""
        return self.prior.value if isinstance(self.prior, Whole) else self.prior


class Whole:
    """Something that is no pytree of numbers, for programs of its own."""

    def __init__(self, value: Any) -> None:
        self.value = value


jax.tree_util.register_pytree_node(Whole, lambda held: ((), held), lambda held, _: held)


class Form:
    """The structure of a problem; equal where the same programs serve.

    A compiled program keeps it for ever. So it holds the model weakly: the problem holds that.

    Attributes:
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
        self._rest = weakref.ref(rest)
        self.attributes = attributes
        self.data_places = data_places
        self.signature = signature

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Form) and self.signature == other.signature)

    def __hash__(self) -> int:
        return hash(self.signature)

    def call(self, leaves: Leaves) -> Call:
        """The model with these numbers in it.

        Raises:
            RuntimeError: the problem is gone that the leaves were taken of, or its model computes
                something else now.
        """
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(leaves)):
            self._require_unchanged(leaves)
        return _call(self.rest, self.attributes, leaves)

    @property
    def rest(self) -> Rest:
        """The model's call without its numbers."""
        rest = self._rest()
        if rest is None:
            raise RuntimeError(
                "a problem is put together again after the problem it was taken from is gone: keep "
                "the InverseProblem while its leaves are in use"
            )
        return rest

    def _require_unchanged(self, leaves: Leaves) -> None:
        """Trace again what a program is about to be made of; its form is what it was once."""
        shapes = jax.tree.map(_shape, leaves)
        again = _traced_rest(self.rest, shapes, self.attributes)
        now = again.signature(self.attributes, self.data_places)
        if not now.has_text_of(self.signature):
            raise RuntimeError(
                "the model computes something else than when this InverseProblem was first used: "
                "a global variable, or an attribute of an object, has another value. Make the "
                "InverseProblem anew"
            )

    def with_data(self, leaves: Leaves, data: Mapping[str, Any]) -> tuple[Leaves, Form]:
        """Leaves with other data, also where they are arguments of the model; and their form."""
        numbers, form = list(leaves.numbers), self
        for name, value in data.items():
            for place in self.data_places[name]:
                is_float = isinstance(numbers[place], float)
                numbers[place] = float(value) if is_float and _is_known(value) else value
        new = leaves._replace(numbers=numbers, data={**leaves.data, **data})
        if jax.tree.map(_shape, new.numbers) != jax.tree.map(_shape, leaves.numbers):
            # a traced array in the place of a Python float, which leaves the type to the others
            traced = _traced_rest(self.rest, jax.tree.map(_shape, new), self.attributes)
            signature = traced.signature(self.attributes, self.data_places)
            form = Form(self.rest, self.attributes, self.data_places, signature)
        return new, form


class Apart(NamedTuple):
    """A problem taken apart.

    Attributes:
        leaves: its numbers.
        form: its structure.
        rest: the model's call without its numbers, which lives as long as this does.
    """

    leaves: Leaves
    form: Form
    rest: Rest


def taken_apart(
    call: Call,
    prior: LearnedPrior,
    data: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
) -> Apart:
    """Set the numbers of a problem apart from its structure.

    A number is set apart only if that changes nothing but the last bits: if the model's program
    with the number as an input is, equation for equation, the program with the number in it, once
    all that constants decide is computed in both. A shape, an `if`, and what needs double precision
    of Python's stay in the structure.

    Args:
        call: the model with its arguments.
        prior: at the prior's site.
        data: by observed site.
        attributes: of the problem, all but those that hold numbers.
    """
    fixed = attributes["fixed_prior"]
    prepared = prior.prepared_examples() if fixed else None
    as_arrays = {name: jnp.asarray(value) for name, value in data.items()}
    held = prior if _is_its_fields(prior) else Whole(prior)
    inputs = Leaves([], held, prepared, as_arrays)
    plain = _traced(call, Numbers.NONE, inputs, attributes)
    for which in (Numbers.ALL, Numbers.ARRAYS, Numbers.JAX_ARRAYS):
        try:
            tried = _traced(call, which, inputs, attributes)
            used = tried.used_numbers()
            if len(used) < len(tried.leaves.numbers):
                tried = _traced(call, which, inputs, attributes, used)
            if tried.with_values() == plain.with_values():
                return tried.apart(attributes)
        except Exception:
            continue  # what the model does with such numbers cannot be traced
    return plain.apart(attributes)


class _Traced(NamedTuple):
    """A model's program, with some numbers as its inputs.

    Attributes:
        rest: the model's call without these numbers.
        leaves: the numbers.
        program: traced.
        outputs: shapes of what it returns.
        static: what the sites say that is no array.
    """

    rest: Rest
    leaves: Leaves
    program: Any
    outputs: Any
    static: list[Any]

    def used_numbers(self) -> list[int]:
        """The positions of the numbers that the program uses."""
        jaxpr = self.program.jaxpr
        operands = [*jaxpr.outvars, *(v for e in jaxpr.eqns for v in e.invars)]
        used = {id(operand) for operand in operands}
        return [i for i, number in enumerate(self._inputs().numbers) if id(number) in used]

    def with_values(self) -> Signature:
        """The signature with the numbers as constants."""
        numbers = zip(self._inputs().numbers, self.leaves.numbers, strict=True)
        besides = (self.static, jax.tree.structure(self.outputs))
        return Signature(self.program, dict(numbers), besides)

    def apart(self, attributes: Mapping[str, Any]) -> Apart:
        """The problem taken apart in this way."""
        places = self._data_places(attributes["fixed_data"])
        signature = self.signature(attributes, places)
        return Apart(self.leaves, Form(self.rest, attributes, places, signature), self.rest)

    def signature(self, attributes: Mapping[str, Any], places: Any) -> Signature:
        """What the model computes, derivatives by foreign rules included."""
        besides: list[Any] = [self.static, places, tuple(attributes.items())]
        besides.append(jax.tree.structure(self.outputs))
        found = Signature(self.program, besides=besides)
        if not found.foreign_rules:
            return found
        try:
            slopes = _slopes(self.rest, attributes, self.leaves)
            return Signature(slopes, besides=[*besides, found])
        except Exception:  # no derivative: a problem equal to itself alone
            return Signature(self.program, besides=[*besides, object()])

    def _inputs(self) -> Leaves:
        """The program's inputs, in the places of the leaves."""
        structure = jax.tree.structure(self.leaves)
        given = self.program.jaxpr.invars[: len(jax.tree.leaves(self.leaves))]
        found: Leaves = jax.tree.unflatten(structure, given)
        return found

    def _data_places(self, sites: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        """The numbers that a model hands to its observed sites as they are, by site."""
        outputs = jax.tree.unflatten(jax.tree.structure(self.outputs), self.program.jaxpr.outvars)
        given, numbers = outputs[1], self._inputs().numbers
        return {
            site: tuple(place for place, number in enumerate(numbers) if number is given.get(site))
            for site in sites
        }


def _traced(
    call: Call,
    which: Numbers,
    inputs: Leaves,
    attributes: Mapping[str, Any],
    kept: list[int] | None = None,
) -> _Traced:
    """Trace a model with its numbers, or those in the positions `kept`, as inputs."""
    numbers, rest = numbers_apart(tuple(call), which)
    if kept is not None:
        numbers, rest = rest.with_fewer(numbers, kept)
    return _traced_rest(rest, inputs._replace(numbers=numbers), attributes)


def _traced_rest(rest: Rest, leaves: Leaves, attributes: Mapping[str, Any]) -> _Traced:
    static: list[Any] = []

    def everything(leaves: Leaves, x: jax.Array, key: jax.Array) -> tuple[Any, Any]:
        trace, given = _run(rest, attributes, leaves, x, key)
        static[:] = types(trace)
        return said(trace), given

    shapes = _some_x(leaves), jax.random.key(0)
    # the form is the same with NumPyro's validation and without; all threads share the switch
    with RUNNING_A_MODEL, numpyro.validation_enabled(False):
        program, outputs = jax.make_jaxpr(everything, return_shape=True)(leaves, *shapes)
    # without what nothing needs, such as the checks that NumPyro makes with validation alone
    needed, _ = dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars), instantiate=True)
    return _Traced(rest, leaves, ClosedJaxpr(needed, program.consts), outputs, static)


def _slopes(rest: Rest, attributes: Mapping[str, Any], leaves: Leaves) -> Any:
    """The program of the gradient of all that is said, traced."""

    def total(x: jax.Array, leaves: Leaves, key: jax.Array) -> jax.Array:
        parts = jax.tree.leaves(said(_run(rest, attributes, leaves, x, key)[0]))
        real = [part for part in parts if jnp.issubdtype(part.dtype, jnp.floating)]
        return jnp.sum(jnp.stack([jnp.sum(part) for part in real]))

    return jax.make_jaxpr(jax.grad(total))(_some_x(leaves), leaves, jax.random.key(0))


def _is_known(value: Any) -> bool:
    return not isinstance(value, jax.core.Tracer)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    aval: Any = jax.typeof(leaf)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


def _some_x(leaves: Leaves) -> Any:
    # a traced index, so that nothing is read of a file
    return jax.eval_shape(lambda leaves, index: leaves.plain_prior().take(index), leaves, 0)


def _run(
    rest: Rest, attributes: Mapping[str, Any], leaves: Leaves, x: jax.Array, key: jax.Array
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The trace at x, and what the model has itself at the observed sites."""
    model, args, kwargs = _call(rest, attributes, leaves)
    return trace_model(model, args, kwargs, {attributes["prior_name"]: x}, key), model.given


def _is_its_fields(prior: LearnedPrior) -> bool:
    """Whether nothing of a prior is lost in a pytree: a subclass may have fields of its own."""
    leaves, structure = jax.tree.flatten(prior)
    again = jax.tree.unflatten(structure, leaves)
    return not {name for name in vars(prior) if name not in vars(again)} - {"_prepared"}


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
