"""Words that several rules share: lists of posteriors, and numbers that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ppl_memprior.diagnostics.summary import PosteriorSummary


def names(summaries: Iterable[PosteriorSummary]) -> tuple[str, ...]:
    """The posteriors' names."""
    return tuple(s.method for s in summaries)


def each(summaries: Iterable[PosteriorSummary], say: Callable[[PosteriorSummary], str]) -> str:
    """The posteriors' names with something about each in parentheses."""
    return "; ".join(f"{s.method} ({say(s)})" for s in summaries)


def nats(s: PosteriorSummary) -> str:
    """How far a linearization is off."""
    return f"{s.linearization_error:.2g} nats"


def beside(value: float, limit: float, decimals: int) -> tuple[str, str]:
    """Write a value and what it is compared with so that the written numbers compare alike.

    Args:
        value: the number.
        limit: what it is above, below or equal to.
        decimals: how many the two have at least; more where the comparison needs them.

    Returns:
        Both as text.
    """
    for digits in range(decimals, 17):
        texts = f"{value:,.{digits}f}", f"{limit:,.{digits}f}"
        if _order(*(float(text.replace(",", "")) for text in texts)) == _order(value, limit):
            break
    # a limit of few digits, 1.01 say, does not need as many as the value beside it
    short = texts[1]
    while len(short.partition(".")[2]) > decimals and short.endswith("0"):
        short = short[:-1]
    return texts[0], short.removesuffix(".")


def _order(a: float, b: float) -> tuple[bool, bool]:
    return a < b, a > b
