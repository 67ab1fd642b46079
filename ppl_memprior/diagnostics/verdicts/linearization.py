"""Is the forward operator linear enough over a bandwidth for a linearized posterior?"""

from __future__ import annotations

from ppl_memprior.diagnostics.summary import PosteriorSummary
from ppl_memprior.diagnostics.verdicts._reading import Reading
from ppl_memprior.diagnostics.verdicts._verdict import Verdict
from ppl_memprior.diagnostics.verdicts._wording import nats
from ppl_memprior.diagnostics.verdicts.criteria import LINEARIZATION_NATS, is_linearized


def judge_linearization(reading: Reading) -> list[Verdict]:
    """Judge every posterior that rests on a linearization, one sentence each."""
    return [_linearized(s) for s in reading.summaries if is_linearized(s)]


def _linearized(s: PosteriorSummary) -> Verdict:
    if s.linearization_error > LINEARIZATION_NATS:
        return Verdict(
            code="linearization-fails",
            severity="warning",
            sentence=f"{s.method}: the forward operator is not linear over a bandwidth. At the "
            f"components' means the log-likelihood is off by {nats(s)}, so the weights and "
            "widths are approximate.",
            about=(s.method,),
        )
    return Verdict(
        code="linearization-holds",
        severity="good",
        sentence=f"{s.method}: the linearization holds at the components' means (log-likelihood "
        f"off by {nats(s)}).",
        about=(s.method,),
    )
