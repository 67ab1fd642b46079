"""Do the chains agree on how much weight each mode has?"""

from __future__ import annotations

import math

from ppl_memprior.diagnostics.summary import PosteriorSummary
from ppl_memprior.diagnostics.verdicts._reading import Reading
from ppl_memprior.diagnostics.verdicts._remedies import remedy
from ppl_memprior.diagnostics.verdicts._verdict import Verdict
from ppl_memprior.diagnostics.verdicts._wording import beside
from ppl_memprior.diagnostics.verdicts.criteria import ESS_PER_RUN, modes_disagree


def judge_mode_weights(reading: Reading) -> list[Verdict]:
    """Judge every posterior whose chains visit several examples, one sentence each."""
    return [_weights(s) for s in reading.summaries if not math.isnan(s.mode_rhat)]


def _weights(s: PosteriorSummary) -> Verdict:
    if modes_disagree(s):
        return Verdict(
            code="mode-weights-disagree",
            severity="warning",
            sentence=f"{s.method}: its chains disagree on how much weight each example has. They "
            f"differ from their mean by up to {s.between_chain_tv:.2f} in total variation "
            f"({_numbers(s)}).",
            advice=remedy(s),
            about=(s.method,),
        )
    if s.mode_ess < ESS_PER_RUN:
        ess, wanted = beside(s.mode_ess, ESS_PER_RUN, 0)
        return Verdict(
            code="mode-weights-uncertain",
            severity="warning",
            sentence=f"{s.method}: its chains move between examples too seldom for reliable "
            f"weights (mode ESS {ess}, want {wanted}; mode R-hat {s.mode_rhat:.3f}{_trips(s)}).",
            about=(s.method,),
        )
    return Verdict(
        code="mode-weights-agree",
        severity="good",
        sentence=f"{s.method}: its chains agree on the weights of the examples, within "
        f"{s.between_chain_tv:.2f} in total variation ({_numbers(s)}).",
        about=(s.method,),
    )


def _numbers(s: PosteriorSummary) -> str:
    return f"mode R-hat {s.mode_rhat:.3f}, mode ESS {s.mode_ess:.0f}{_trips(s)}"


def _trips(s: PosteriorSummary) -> str:
    return "" if math.isnan(s.round_trips) else f", {s.round_trips:.0f} round trips"
