"""A verdict: one statement about posteriors, for people to read and for programs to look at."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Severity = Literal["conflict", "warning", "good", "note"]
_KEBAB_CASE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One statement, how it is meant, and what to do about it.

    Attributes:
        code: what kind of statement it is, in kebab-case ("chains-disagree"). Codes stay the same
            when the words change.
        severity: "conflict" (the model contradicts the data), "warning", "good" or "note".
        sentence: the statement, with its numbers.
        advice: what to do, in sentences of its own; empty where there is nothing to do.
        about: names of the posteriors that it speaks of.

    Raises:
        TypeError: a field of another type.
        ValueError: a code that is not kebab-case, or another severity.

    >>> from ppl_memprior.diagnostics import Verdict
    >>> Verdict(
    ...     code="slow",
    ...     severity="note",
    ...     sentence="nuts: it took 5 hours.",
    ...     advice="Start fewer chains.",
    ...     about=("nuts",),
    ... ).text
    'nuts: it took 5 hours. Start fewer chains.'
    """

    code: str
    severity: Severity
    sentence: str
    advice: str = ""
    about: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("code", "sentence", "advice"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise TypeError(
                    f"{name} of a Verdict must be text, got {type(value).__name__} {value!r}"
                )
        if not _KEBAB_CASE.fullmatch(self.code):
            raise ValueError(
                "code of a Verdict must be lower-case words joined by hyphens, "
                f"'chains-disagree', got {self.code!r}"
            )
        if self.severity not in get_args(Severity):
            raise ValueError(
                f"severity of a Verdict must be one of {', '.join(get_args(Severity))}; got "
                f"{self.severity!r}"
            )
        if not isinstance(self.about, tuple) or not all(isinstance(n, str) for n in self.about):
            raise TypeError(
                "about of a Verdict must be a tuple of names, ('nuts',), got "
                f"{type(self.about).__name__} {self.about!r}"
            )

    @property
    def text(self) -> str:
        """The statement, followed by the advice."""
        return f"{self.sentence} {self.advice}".rstrip()

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as JSON can hold them."""
        return asdict(self) | {"about": list(self.about)}
