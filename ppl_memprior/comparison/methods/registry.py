"""The methods by name, and lists of names and objects as methods."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ppl_memprior.comparison.methods.dps import Dps
from ppl_memprior.comparison.methods.gibbs import Gibbs
from ppl_memprior.comparison.methods.linearized import Linearized
from ppl_memprior.comparison.methods.lookup import Lookup
from ppl_memprior.comparison.methods.method import Method
from ppl_memprior.comparison.methods.mode_jump import ModeJump
from ppl_memprior.comparison.methods.nuts import Nuts
from ppl_memprior.comparison.methods.options import nearest, option_names, read_options
from ppl_memprior.comparison.methods.psis import Psis
from ppl_memprior.comparison.methods.smc import Smc
from ppl_memprior.inference._method_checks import methods_that_take
from ppl_memprior.problem.inverse_problem import InverseProblem

# in the order in which a report recommends them: the cheapest first
_CLASSES: tuple[type[Method], ...] = (*(Lookup, Linearized, Psis, ModeJump, Smc, Gibbs, Nuts, Dps),)

#: The methods by name, with the defaults of their options.
METHODS: Mapping[str, Method] = {kind.name: kind() for kind in _CLASSES}


def by_name(name: Any) -> Method:
    """The method of a name, with the defaults of its options.

    Raises:
        ValueError: an unknown name (with the nearest one).
    """
    if not isinstance(name, str) or name not in METHODS:
        known = ", ".join(METHODS)
        raise ValueError(f"unknown method {name!r}.{nearest(name, METHODS)} There are: {known}")
    return METHODS[name]


def resolved(methods: Any) -> tuple[Method, ...]:
    """Names and objects as objects, under labels that differ.

    Raises:
        TypeError: an object that is no method, and what it lacks.
        ValueError: no list, an unknown name, two methods of one label.
    """
    if not isinstance(methods, Sequence) or isinstance(methods, str) or not methods:
        raise ValueError(
            f"methods is a list of names out of {list(METHODS)} and of objects such as "
            f"methods.Dps(num_steps=1000), got {methods!r}"
        )
    found = tuple(m if _is_method(m) else by_name(m) for m in methods)
    labels = [label_of(method) for method in found]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(
                f"two methods have the label {label!r}; give one of them another, label='{label}-2'"
            )
        if "/" in label or label.strip(". ") == "":
            raise ValueError(
                f"a method's label must be text without '/' that is more than dots, got {label!r}"
            )
    return found


def configured(
    names: Sequence[str],
    own: Mapping[str, Mapping[str, Any]] | None = None,
    /,
    **common: Any,
) -> tuple[Method, ...]:
    """Methods by their names, with options.

    Args:
        names: of methods; `LABEL=NAME` gives the draws another name, "dps-50=dps" say.
        own: options by the method's label.
        **common: options for each method that has them.

    Returns:
        The methods as objects.

    Raises:
        TypeError: an unknown option, or a value of another type.
        ValueError: an unknown method, a value out of range, own options of a method that is not
            among the names.
    """
    pairs = [name.rpartition("=") if isinstance(name, str) else ("", "", name) for name in names]
    kinds = {label or name: type(by_name(name)) for label, _, name in pairs}
    own = own or {}
    for label in own:
        if label not in kinds:
            raise ValueError(
                f"options are given for {label!r}, which is not among the methods {list(kinds)}."
                f"{nearest(label, kinds)}"
            )
    return tuple(
        kind(
            label=label,
            **{n: v for n, v in common.items() if n in option_names(kind)}
            | dict(own.get(label, {})),
        )
        for label, kind in ((label or name, kinds[label or name]) for label, _, name in pairs)
    )


def overridden(
    methods: Sequence[Method], texts: Mapping[str, Mapping[str, str]]
) -> tuple[Method, ...]:
    """Methods with some of their options replaced by what a text says.

    Args:
        methods: the methods.
        texts: by the method's label the texts of options, {"dps": {"num_steps": "1000"}} say.

    Raises:
        TypeError: an unknown option, or one that is given in Python only.
        ValueError: a label that no method has, or text that is no value of the option.
    """
    labels = [label_of(method) for method in methods]
    for label in texts:
        if label not in labels:
            raise ValueError(
                f"options are given for {label!r}, which is not among the methods {labels}."
                f"{nearest(label, labels)}"
            )
    return tuple(
        dataclasses.replace(method, **read_options(type(method), texts.get(label_of(method), {})))
        for method in methods
    )


def label_of(method: Any) -> str:
    """The name of a method's draws in a run."""
    return str(getattr(method, "label", "") or method.name)


def _is_method(candidate: Any) -> bool:
    """Whether it is an object with the interface of `Method`; a name is none.

    Raises:
        TypeError: an object that is neither.
    """
    if isinstance(candidate, Method):
        return True
    if isinstance(candidate, str):
        return False
    if isinstance(candidate, type) and issubclass(candidate, Method):
        raise TypeError(
            f"{candidate.__name__} is a class; give an object, methods.{candidate.__name__}()"
        )
    lacking = [
        part
        for part, fits in (
            ("name", isinstance(getattr(candidate, "name", None), str)),
            ("check", callable(getattr(candidate, "check", None))),
            ("draw", callable(getattr(candidate, "draw", None))),
        )
        if not fits
    ]
    if lacking:
        raise TypeError(
            f"{candidate!r} is no method: it has no {', '.join(lacking)}. Give a name out of "
            f"{list(METHODS)}, or an object on ppl_memprior.methods.Method"
        )
    return True


def alternatives(problem: InverseProblem) -> str:
    """What a report may recommend for a problem, as JSON: methods by name, the cheapest first."""
    applicable = methods_that_take(problem)
    return json.dumps(
        {
            name: {"moves_between_modes": m.moves_between_modes, "diagnosed": m.diagnosed}
            for name, m in METHODS.items()
            if name in applicable
        }
    )
