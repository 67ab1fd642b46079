"""Did transitions diverge, or simulations fail?"""

from __future__ import annotations

from ppl_memprior.diagnostics.summary import PosteriorSummary
from ppl_memprior.diagnostics.verdicts._reading import Reading
from ppl_memprior.diagnostics.verdicts._verdict import Verdict


def judge_failures(reading: Reading) -> list[Verdict]:
    """Count divergent transitions and failed simulations of each posterior."""
    return [verdict for s in reading.summaries for verdict in (*_divergences(s), *_failed(s))]


def _divergences(s: PosteriorSummary) -> list[Verdict]:
    if not s.divergences:
        return []
    return [
        Verdict(
            code="divergences",
            severity="warning",
            sentence=f"{s.method}: {s.divergences} of its transitions diverged, so its chains may "
            "have missed narrow parts of the posterior.",
            about=(s.method,),
        )
    ]


def _failed(s: PosteriorSummary) -> list[Verdict]:
    if not s.num_failed:
        return []
    return [
        Verdict(
            code="failed-simulations",
            severity="note",
            sentence=f"{s.method}: {s.num_failed:,} of its simulations failed. They count as "
            "models that cannot explain the data.",
            advice="If these models are possible, check the forward operator's limits.",
            about=(s.method,),
        )
    ]
