"""Lookup or inference? Whether the draws stay next to stored examples, and next to how many."""

from __future__ import annotations

import math

from ppl_memprior.diagnostics.summary import PosteriorSummary
from ppl_memprior.diagnostics.verdicts._reading import Reading
from ppl_memprior.diagnostics.verdicts._verdict import Severity, Verdict
from ppl_memprior.diagnostics.verdicts._wording import each, names
from ppl_memprior.diagnostics.verdicts.criteria import is_next_to_examples, is_one_example

# the answers in reading order, and how each is meant
_SEVERITIES: dict[str, Severity] = {
    "lookup-unclear": "note",
    "lookup": "warning",
    "one-example-dominates": "warning",
    "weighted-lookup": "note",
    "moves-between-examples": "note",
}


def judge_lookup(reading: Reading) -> list[Verdict]:
    """Say which posteriors look examples up, one sentence for each answer."""
    found = []
    for code, severity in _SEVERITIES.items():
        alike = [s for s in reading.summaries if _answer(s) == code]
        if alike:
            sentence = _sentence(code, alike)
            about = names(alike)
            found.append(Verdict(code=code, severity=severity, sentence=sentence, about=about))
    return found


def _answer(s: PosteriorSummary) -> str:
    if math.isnan(s.nearest_ratio):
        return "lookup-unclear"
    if is_next_to_examples(s):
        return "lookup" if is_one_example(s) else "weighted-lookup"
    return "one-example-dominates" if is_one_example(s) else "moves-between-examples"


def _sentence(code: str, alike: list[PosteriorSummary]) -> str:
    match code:
        case "lookup-unclear":
            return (
                "There are too few distinct examples to tell a lookup from inference "
                f"({', '.join(names(alike))}). The nearest-neighbour ratio needs at least three."
            )
        case "lookup":
            return (
                f"A lookup, not inference: {each(alike, _top)}. The draws stay next to one "
                "training example."
            )
        case "one-example-dominates":
            return (
                f"One example dominates: {each(alike, _top)}. But the draws keep a distance from "
                "it that the examples also have from one another."
            )
        case "weighted-lookup":
            return (
                f"A weighted lookup: {each(alike, _number)}. The draws stay closer to their "
                "nearest example than the examples are to one another."
            )
    return f"The draws move freely between the examples that they rest on: {each(alike, _number)}."


def _top(s: PosteriorSummary) -> str:
    share = "all" if s.top_share > 0.9995 else f"{100 * s.top_share:.3g} % of"
    return f"example {s.top_example} carries {share} the weight"


def _number(s: PosteriorSummary) -> str:
    return f"{s.effective_examples:.1f} examples"
