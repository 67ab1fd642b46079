"""Which posterior to believe, or what to do before believing any: the last word of a report."""

from __future__ import annotations

from ppl_memprior.diagnostics.summary import PosteriorSummary
from ppl_memprior.diagnostics.verdicts._reading import Reading
from ppl_memprior.diagnostics.verdicts._remedies import preferred_mover
from ppl_memprior.diagnostics.verdicts._verdict import Verdict
from ppl_memprior.diagnostics.verdicts._wording import beside, names, nats
from ppl_memprior.diagnostics.verdicts.criteria import (
    IMPORTANCE_ESS,
    LINEARIZATION_NATS,
    MISFIT_Z,
    RHAT,
    chains_disagree,
    correction_fails,
    evidence_differs,
    has_rhat,
    is_converged,
    is_corrected,
    is_linearized,
    is_next_to_examples,
    is_one_example,
    knows_misfit,
)

# a sound posterior, and why it is sound
_Sound = tuple[PosteriorSummary, str]


def advise(reading: Reading) -> list[Verdict]:
    """Say which posterior to believe, in one verdict."""
    summaries = reading.summaries
    sound = _sound(summaries)
    chosen = next(((s, why) for s, why in sound if _may_fit(s)), None)
    if chosen is not None:
        return [_believe(*chosen)]
    if sound:
        return [_believe_none(sound[0][0])]
    return [_believe_none_yet(summaries)]


def _may_fit(s: PosteriorSummary) -> bool:
    return not abs(s.misfit_z) > MISFIT_Z


def _sound(summaries: tuple[PosteriorSummary, ...]) -> list[_Sound]:
    """The posteriors that were computed correctly, the best founded ones first."""
    corrected = [s for s in summaries if is_corrected(s)]
    # what a linearization says of itself counts only while no correction of it has failed, or says
    # otherwise
    failed = any(correction_fails(s) for s in summaries)
    linear = [
        s
        for s in summaries
        if s.linearization_error <= LINEARIZATION_NATS
        and not failed
        and not any(evidence_differs(s, c) for c in corrected)
    ]
    return [
        *((s, "its chains agree") for s in summaries if is_converged(s)),
        *(
            (s, "its importance weights can be believed")
            for s in corrected
            if s.importance_ess >= IMPORTANCE_ESS
        ),
        *((s, "its linearization holds") for s in linear),
    ]


def _believe(s: PosteriorSummary, why: str) -> Verdict:
    """Advise a posterior, and say what its prior makes of it."""
    if knows_misfit(s):
        why = f"it explains the data within the noise and {why}"
    else:
        why = f"{why}, but no chi-square says whether it explains the data"
    if not is_next_to_examples(s):
        return Verdict(
            code="believe",
            severity="good",
            sentence=f"Believe {s.method}: {why}.",
            about=(s.method,),
        )
    single = is_one_example(s)
    rests = f"example {s.top_example}" if single else f"its {s.effective_examples:.1f} examples"
    return Verdict(
        code="believe-lookup",
        severity="note",
        sentence=f"Believe {s.method} as the right posterior under this prior: {why}. But this "
        f"prior makes it a {'' if single else 'weighted '}lookup: it stays next to {rests}. Its "
        "spread says nothing about models that differ from the training examples.",
        about=(s.method,),
    )


def _believe_none(sound: PosteriorSummary) -> Verdict:
    return Verdict(
        code="believe-none",
        severity="warning",
        sentence=f"Believe none of them as an answer. {sound.method} is computed correctly, so the "
        "fault lies in the model.",
        advice="Look at the prior (more or other training examples, a wider bandwidth), the noise "
        "level and the forward operator.",
        about=(sound.method,),
    )


def _believe_none_yet(summaries: tuple[PosteriorSummary, ...]) -> Verdict:
    fits = [s for s in summaries if _may_fit(s)]
    chains = [s for s in fits if has_rhat(s)]
    linearized = [s for s in fits if is_linearized(s)]
    weighted = [s for s in fits if s.importance_draws]
    hints = [
        f"Run {s.method} longer (R-hat {beside(s.rhat, RHAT, 2)[0]}, {s.ess:.0f} effective draws)."
        for s in chains
    ]
    hints += _movers(chains, summaries)
    hints += [f"Take {s.method} as a guide only (off by {nats(s)})." for s in linearized]
    hints += [
        f"Give {s.method} more draws or a better proposal (k-hat {s.khat:.2f}, "
        f"{s.importance_ess:.0f} effective)."
        for s in weighted
    ]
    named = {id(s) for s in (*chains, *linearized, *weighted)}
    return Verdict(
        code="believe-none-yet",
        severity="warning",
        sentence="Believe none of them yet: no method here both explains the data and has a "
        "diagnostic that vouches for it.",
        advice=" ".join(hints or [_diagnosed(summaries)]),
        about=names(s for s in summaries if id(s) in named),
    )


def _movers(chains: list[PosteriorSummary], summaries: tuple[PosteriorSummary, ...]) -> list[str]:
    """Hints at absent methods that move between modes, where the chains of others do not."""
    stuck = (preferred_mover(s) for s in chains if chains_disagree(s))
    absent = _absent(summaries)
    movers = {m.name: m.moves_between_modes for m in stuck if m is not None and m.name in absent}
    return [f"Add {name}, {moves}." for name, moves in movers.items()]


def _diagnosed(summaries: tuple[PosteriorSummary, ...]) -> str:
    """A hint at absent methods whose draws have a diagnostic."""
    absent = _absent(summaries)
    diagnosed = [a.name for a in summaries[0].alternatives if a.diagnosed and a.name in absent]
    if diagnosed:
        return f"Add a method that has a diagnostic: {' or '.join(diagnosed[:2])}."
    return "Add a method that has a diagnostic, such as several chains of a sampler."


def _absent(summaries: tuple[PosteriorSummary, ...]) -> set[str]:
    """Methods that every posterior's problem allows, and that made none of the posteriors."""
    allowed = [{a.name for a in s.alternatives} for s in summaries]
    return set.intersection(*allowed) - {s.kind for s in summaries}
