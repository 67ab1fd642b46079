"""The options of methods: declared once, checked when a method is made, read from text.

A method's dataclass declares each option by one of these functions in place of a default.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ppl_memprior.comparison.methods.values import plain

_KEY = "option"


@dataclass(frozen=True)
class Option:
    """What values an option takes.

    Attributes:
        expected: in words, such as "a whole number of at least 4".
        is_type: whether a value has the right type.
        is_allowed: whether a value of the right type is in range.
        read: a value from its text; None if the option can be given in Python only.
        optional: whether the option may be None.
    """

    expected: str
    is_type: Callable[[Any], bool]
    is_allowed: Callable[[Any], bool] = lambda _: True
    read: Callable[[str], Any] | None = None
    optional: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raise a `TypeError` or a `ValueError` for a value that the option does not take."""
        if value is None and self.optional:
            return
        expected = f"{self.expected}{' or None' if self.optional else ''}"
        if not self.is_type(value):
            raise TypeError(f"{name} must be {expected}, got {type(value).__name__} {value!r}")
        if not self.is_allowed(value):
            raise ValueError(f"{name} must be {expected}, got {value}")


def whole(default: int | None, *, at_least: int = 1) -> Any:
    """A whole number."""
    option = Option(
        f"a whole number of at least {at_least}",
        lambda value: isinstance(value, numbers.Integral) and not isinstance(value, bool),
        lambda value: value >= at_least,
        int,
        default is None,
    )
    return dataclasses.field(default=default, metadata={_KEY: option})


def real(
    default: float | None,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
) -> Any:
    """A finite real number, within limits."""
    limits = {"above": above, "of at least": at_least, "below": below}
    said = " and ".join(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None)

    def is_allowed(value: float) -> bool:
        return (
            math.isfinite(value)
            and (above is None or value > above)
            and (at_least is None or value >= at_least)
            and (below is None or value < below)
        )

    option = Option(
        f"a number {said}".rstrip(),
        lambda value: isinstance(value, numbers.Real) and not isinstance(value, bool),
        is_allowed,
        float,
        default is None,
    )
    return dataclasses.field(default=default, metadata={_KEY: option})


def instance(kind: type, expected: str) -> Any:
    """An object of a class, or None: an option that is given in Python only."""
    option = Option(expected, lambda value: isinstance(value, kind), optional=True)
    return dataclasses.field(default=None, metadata={_KEY: option})


def check_options(method: Any) -> None:
    """Raise for an option whose value does not fit its declaration; see `Option.check`."""
    for field in dataclasses.fields(method):
        if _KEY in field.metadata:
            name = f"{type(method).__name__}'s option {field.name}"
            field.metadata[_KEY].check(name, getattr(method, field.name))


def require_known(kind: type, names: Any) -> None:
    """Raise a `TypeError` for an option that a method does not have, with the nearest name."""
    known = option_names(kind)
    for name in names:
        if name not in (*known, "label"):
            raise TypeError(
                f"{kind.__name__} has no option {name!r}.{nearest(name, known)} Its options are "
                f"{', '.join((*known, 'label'))}"
            )


def option_names(kind: Any) -> tuple[str, ...]:
    """Names of a method's options: fields of a dataclass, or attributes of another object."""
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    else:
        names = [name for name in getattr(kind, "__dict__", {}) if not name.startswith("_")]
    return tuple(name for name in names if name not in ("name", "label"))


def read_options(kind: type, texts: Mapping[str, str]) -> dict[str, Any]:
    """Values of options from their texts.

    Args:
        kind: the method's class.
        texts: by the option's name, such as {"num_steps": "1000"}.

    Raises:
        TypeError: an unknown option (with the nearest name), or one that is given in Python only.
        ValueError: text that is no value of the option.
    """
    if "label" in texts:
        raise ValueError("a label is given with the methods, --methods LABEL=NAME")
    require_known(kind, texts)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for name, text in texts.items():
        option = fields[name].metadata.get(_KEY)
        if option is None or option.read is None:
            raise TypeError(f"{kind.__name__}'s option {name} can be given in Python only")
        if option.optional and text == "None":
            values[name] = None
            continue
        try:
            values[name] = option.read(text)
        except ValueError:
            raise ValueError(
                f"{kind.__name__}'s option {name} must be {option.expected}, got {text!r}"
            ) from None
    return values


def options_of(method: Any) -> dict[str, Any]:
    """A method's options as texts and numbers, of which draws can be told apart.

    Returns:
        By the option's name its value, as `values.plain` gives it.

    Raises:
        TypeError: an option by whose value draws cannot be told apart.
    """
    return {name: plain(name, getattr(method, name)) for name in option_names(method)}


def default_options(method: Any) -> dict[str, Any]:
    """The defaults of a method's options, in the form of `options_of`."""
    if not dataclasses.is_dataclass(method):
        return {}
    found = {}
    for field in dataclasses.fields(method):
        if field.name == "label":
            continue
        if field.default is not dataclasses.MISSING:
            found[field.name] = plain(field.name, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = plain(field.name, field.default_factory())
    return found


def nearest(name: Any, known: Any) -> str:
    """` Did you mean 'x'?`, or nothing where no known name is near."""
    found = difflib.get_close_matches(str(name), list(known), 1)
    return f" Did you mean {found[0]!r}?" if found else ""
