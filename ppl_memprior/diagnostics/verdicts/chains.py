"""Do the chains agree, and are they long enough?"""

from __future__ import annotations

from ppl_memprior.diagnostics.summary import PosteriorSummary
from ppl_memprior.diagnostics.verdicts._reading import Reading
from ppl_memprior.diagnostics.verdicts._remedies import remedy
from ppl_memprior.diagnostics.verdicts._verdict import Verdict
from ppl_memprior.diagnostics.verdicts._wording import beside
from ppl_memprior.diagnostics.verdicts.criteria import ESS_PER_RUN, RHAT, has_rhat


def judge_chains(reading: Reading) -> list[Verdict]:
    """Judge every posterior that was made by chains, one sentence each."""
    return [
        _of_chains(s) if has_rhat(s) else _of_one_chain(s)
        for s in reading.summaries
        if has_rhat(s) or not s.independent
    ]


def _of_chains(s: PosteriorSummary) -> Verdict:
    if s.rhat > RHAT:
        rhat, limit = beside(s.rhat, RHAT, 2)
        return Verdict(
            code="chains-disagree",
            severity="warning",
            sentence=f"{s.method}: split R-hat {rhat} is above {limit}, so its chains disagree. "
            "Their shares of the modes, if there are several, are not to be trusted.",
            advice=remedy(s),
            about=(s.method,),
        )
    if s.ess < ESS_PER_RUN:
        ess, wanted = beside(s.ess, ESS_PER_RUN, 0)
        return Verdict(
            code="few-effective-draws",
            severity="warning",
            sentence=f"{s.method}: {ess} effective draws are few (want {wanted}).",
            advice=f"Run {s.method} longer before you read its tails.",
            about=(s.method,),
        )
    return Verdict(
        code="chains-agree",
        severity="good",
        sentence=f"{s.method}: its chains agree (R-hat {s.rhat:.3f}, ESS {s.ess:.0f}).",
        about=(s.method,),
    )


def _of_one_chain(s: PosteriorSummary) -> Verdict:
    return Verdict(
        code="single-chain",
        severity="warning",
        sentence=f"{s.method}: a single chain has no R-hat, so nothing says whether it found all "
        "modes.",
        advice="Run at least four chains.",
        about=(s.method,),
    )
