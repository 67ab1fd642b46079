"""How many of the stored examples repeat others?"""

from __future__ import annotations

from ppl_memprior.diagnostics.verdicts._reading import Reading
from ppl_memprior.diagnostics.verdicts._verdict import Verdict


def judge_repeated_examples(reading: Reading) -> list[Verdict]:
    """Count the examples and the distinct ones, once for each bandwidth."""
    counts: dict[tuple[int, int, float], list[str]] = {}
    for s in reading.summaries:
        if s.distinct_examples < s.num_examples:
            key = (s.num_examples, s.distinct_examples, s.bandwidth)
            counts.setdefault(key, []).append(s.method)
    return [
        Verdict(
            code="repeated-examples",
            severity="note",
            sentence=_count(*key),
            about=tuple(about),
        )
        for key, about in counts.items()
    ]


def _count(total: int, distinct: int, bandwidth: float) -> str:
    if not bandwidth > 0:
        return f"There are {total} examples, {distinct} of them distinct. Copies count as one."
    return (
        f"There are {total} examples, {distinct} of them distinct at the bandwidth "
        f"{bandwidth:.3g}. Examples that differ only by noise of that size count as one."
    )
