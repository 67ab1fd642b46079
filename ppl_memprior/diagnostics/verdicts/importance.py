"""Can importance weights be believed, and what do they say of the linearized posteriors?"""

from __future__ import annotations

from ppl_memprior.diagnostics.summary import PosteriorSummary
from ppl_memprior.diagnostics.verdicts._reading import Reading
from ppl_memprior.diagnostics.verdicts._verdict import Verdict
from ppl_memprior.diagnostics.verdicts._wording import beside, nats
from ppl_memprior.diagnostics.verdicts.criteria import (
    IMPORTANCE_ESS,
    LINEARIZATION_NATS,
    correction_fails,
    evidence_differs,
    is_linearized,
    khat_limit,
)


def judge_importance(reading: Reading) -> list[Verdict]:
    """Judge every importance correction, and each linearized posterior by the reliable ones."""
    linearized = [s for s in reading.summaries if is_linearized(s)]
    found = []
    for s in reading.summaries:
        if s.importance_draws:
            found.append(_weights(s))
            if not correction_fails(s) and not _are_few(s):
                found += [_linearization(base, s) for base in linearized]
    return found


def _are_few(s: PosteriorSummary) -> bool:
    return s.importance_ess < IMPORTANCE_ESS


def _weights(s: PosteriorSummary) -> Verdict:
    ess, wanted = beside(s.importance_ess, IMPORTANCE_ESS, 0)
    effective = f"{ess} effective of {s.importance_draws:,} weighted draws"
    highest = khat_limit(s.importance_draws)
    khat, limit = beside(s.khat, highest, 2)
    if correction_fails(s):
        relation = "above" if s.khat > highest else "not below"  # equal to it, or NaN
        return Verdict(
            code="khat-too-high",
            severity="warning",
            sentence=f"{s.method}: k-hat {khat} is {relation} {limit}, so a few draws carry the "
            f"importance weights ({effective}). Its draws and its evidence are not to be trusted. "
            "It does not vouch for the linearized posterior.",
            about=(s.method,),
        )
    if _are_few(s):
        return Verdict(
            code="few-effective-weights",
            severity="warning",
            sentence=f"{s.method}: k-hat {khat} is below {limit}, but {effective} are few "
            f"(want {wanted}).",
            advice="Take more weighted draws.",
            about=(s.method,),
        )
    return Verdict(
        code="importance-weights-hold",
        severity="good",
        sentence=f"{s.method}: the importance weights can be believed (k-hat {khat}, below "
        f"{limit}; {effective}).",
        about=(s.method,),
    )


def _linearization(base: PosteriorSummary, corrected: PosteriorSummary) -> Verdict:
    """What a reliable correction says of a linearized posterior."""
    difference = base.log_evidence - corrected.log_evidence
    evidence = (
        f"The log evidence of {base.method} is off by {difference:+.2f} (standard error "
        f"{corrected.log_evidence_error:.3f})."
    )
    means = f"The log-likelihood at its components' means is off by {nats(base)}."
    reasons = []
    if evidence_differs(base, corrected):
        reasons.append(evidence)
    if base.linearization_error > LINEARIZATION_NATS:
        reasons.append(means)
    about = (corrected.method, base.method)
    if reasons:
        return Verdict(
            code="corrects-linearization",
            severity="note",
            sentence=f"{corrected.method} corrects {base.method}. {' '.join(reasons)}",
            about=about,
        )
    return Verdict(
        code="vouches-for-linearization",
        severity="good",
        sentence=f"{corrected.method} vouches for {base.method}. {evidence} {means}",
        about=about,
    )
