"""Checks that the report's objects share: texts that say something, objects of one type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def check_text(what: str, text: Any) -> None:
    """Raise for what is no text, or an empty one.

    Args:
        what: what the text is called in messages.
        text: the text.

    Raises:
        TypeError: no text.
        ValueError: nothing but spaces.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} must be text, got {type(text).__name__} {text!r}")
    if not text.strip():
        raise ValueError(f"{what} must be a text, got {text!r}; write what readers will see")


def added(argument: str, given: Any, kind: type[T], taken: Iterable[str]) -> tuple[T, ...]:
    """Check the objects that a user adds to the built-in ones.

    Args:
        argument: name of the argument that they are given by.
        given: the objects, in a list or a tuple.
        kind: the type that each of them must have, with an attribute `name`.
        taken: names that they may not have.

    Returns:
        The objects.

    Raises:
        TypeError: no list or tuple, or an object of another type.
        ValueError: a name that is taken.
    """
    name = kind.__name__
    if not isinstance(given, list | tuple):
        raise TypeError(
            f"{argument} must be a list of {name} objects, got {type(given).__name__}; write "
            f"{argument}=[{name}(...)]"
        )
    names = set(taken)
    for item in given:
        if not isinstance(item, kind):
            raise TypeError(
                f"{argument} must hold {name} objects, got {type(item).__name__} {item!r}; write "
                f"{argument}=[{name}(...)]"
            )
        own = str(item.name)  # type: ignore[attr-defined]
        if own in names:
            raise ValueError(
                f"{argument}: the name {own!r} is taken; give the {name} another name than "
                f"{sorted(names)}"
            )
        names.add(own)
    return tuple(given)
