"""From the summaries of several posteriors to sentences: which one to believe, and why.

The order is fixed: does anything explain the data at all (prior-data conflict), is it inference
or a lookup, did the sampler tell the truth (the sentences of `trust`), and then the advice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ppl_memprior._numbers import written
from ppl_memprior.diagnostics._wording import beside
from ppl_memprior.diagnostics.summary import PosteriorSummary
from ppl_memprior.diagnostics.trust import (
    ESS_PER_RUN,
    IMPORTANCE_ESS,
    LINEARIZATION_NATS,
    RHAT,
    Verdict,
    applicable,
    evidence_differs,
    has_failed,
    importance,
    is_corrected,
    mode_weights,
    modes_disagree,
    sampler_honesty,
)

MISFIT_Z = 3.0  # standard deviations of the noise that a misfit may lie from its expectation
ONE_EXAMPLE = 1.5  # effective number of examples below which a posterior is one example
MEMORIZED_SHARE = 0.05  # share of the null below which a nearest-neighbour ratio is a copy's
FEW_DRAWS = 50  # nearly independent draws with which only large differences can be seen
# methods whose draws have a diagnostic, the cheapest first, for advice
_DIAGNOSED = ("psis", "mode-jump", "smc", "gibbs", "nuts")


def verdicts(summaries: Sequence[PosteriorSummary], reference: str | None = None) -> list[Verdict]:
    """Say which posterior to believe and why.

    Args:
        summaries: one for each posterior.
        reference: name of the one that the others were compared with, if any.

    Returns:
        Sentences, the most important first; the last is the advice.
    """
    found = data_fit(summaries)
    found += lookup_or_inference(summaries)
    found += repeated_examples(summaries)
    found += [verdict for s in summaries for verdict in (*sampler_honesty(s), *mode_weights(s))]
    found += importance(summaries)
    if reference is not None:
        base = next(s for s in summaries if s.method == reference)
        others = [s for s in summaries if s is not base]
        if others and (base.rhat > RHAT or has_failed(base) or modes_disagree(base)):
            distances = _each(others, lambda s: f"{s.distance:.3f}")
            found.append(
                Verdict(
                    "note",
                    f"The reference {base.method} is not to be trusted itself, so the energy "
                    f"distances to it do not rank the others: {distances}.",
                )
            )
        else:
            found += [agreement(s, base) for s in others]
    return [*found, advice(summaries)]


def data_fit(summaries: Sequence[PosteriorSummary]) -> list[Verdict]:
    """Prior-data conflict: whose draws misfit the data by more than the noise allows."""
    known = [s for s in summaries if s.misfit_z == s.misfit_z]
    bad = [s for s in known if s.misfit_z > MISFIT_Z]
    good = [s for s in known if s.misfit_z <= MISFIT_Z]
    over = [s for s in known if s.misfit_z < -MISFIT_Z]
    found = []
    if not known:
        found.append(
            Verdict(
                "note",
                "The noise is not Gaussian, so no chi-square says whether the posteriors explain "
                "the data.",
            )
        )
    elif not good:
        best = min(bad, key=lambda s: s.misfit_z)
        found.append(
            Verdict(
                "conflict",
                f"Prior-data conflict: no posterior explains the data. The closest, {best.method}, "
                f"has a reduced chi-square of {best.reduced_chi_square:.3g}, "
                f"{written(best.misfit_z, '.1f')} "
                "standard deviations above what the noise alone gives. Nothing that these methods "
                "reached contains the truth. The weights of the examples only say which wrong "
                "answer is least wrong.",
            )
        )
    elif bad:
        found.append(
            Verdict(
                "conflict",
                f"Prior-data conflict: the noise cannot explain the misfit of {_misfits(bad)}. "
                f"The data are explained by {_misfits(good)}.",
            )
        )
    else:
        found.append(
            Verdict(
                "good",
                "No prior-data conflict: the noise explains the misfit of every posterior: "
                f"{_misfits(known)}.",
            )
        )
    if over:
        found.append(
            Verdict(
                "warning",
                f"Fits better than the noise allows: {_misfits(over)}. Either the method overfits "
                "or the model overstates the noise level.",
            )
        )
    return found


def lookup_or_inference(summaries: Sequence[PosteriorSummary]) -> list[Verdict]:
    """Whether the draws are (next to) stored examples, and how many: one sentence a kind."""
    unclear = [s for s in summaries if s.nearest_ratio != s.nearest_ratio]
    summaries = [s for s in summaries if s not in unclear]
    single = [s for s in summaries if s.effective_examples < ONE_EXAMPLE and _copies(s)]
    leaning = [s for s in summaries if s.effective_examples < ONE_EXAMPLE and not _copies(s)]
    weighted = [s for s in summaries if s.effective_examples >= ONE_EXAMPLE and _copies(s)]
    free = [s for s in summaries if s.effective_examples >= ONE_EXAMPLE and not _copies(s)]
    found: list[Verdict] = []
    if unclear:
        listed = ", ".join(s.method for s in unclear)
        found.append(
            Verdict(
                "note",
                f"Too few distinct examples to tell a lookup from inference ({listed}): the "
                "nearest-neighbour ratio needs at least three.",
            )
        )
    if single:
        listed = _each(single, _top)
        found.append(
            Verdict(
                "warning",
                f"A lookup, not inference: {listed}. The draws stay next to one training example.",
            )
        )
    if leaning:
        listed = _each(leaning, _top)
        found.append(
            Verdict(
                "warning",
                f"One example dominates: {listed}. But the draws keep a distance from it that the "
                "examples also have from one another.",
            )
        )
    if weighted:
        listed = _each(weighted, lambda s: f"{s.effective_examples:.1f} examples")
        found.append(
            Verdict(
                "note",
                f"A weighted lookup: {listed}. The draws stay closer to their nearest example "
                "than the examples are to one another.",
            )
        )
    if free:
        listed = _each(free, lambda s: f"{s.effective_examples:.1f} examples")
        found.append(
            Verdict(
                "note", f"The draws move freely between the examples that they rest on: {listed}."
            )
        )
    return found


def repeated_examples(summaries: Sequence[PosteriorSummary]) -> list[Verdict]:
    """How many of the stored examples repeat others."""
    counts = {
        (s.num_examples, s.distinct_examples, s.bandwidth): s
        for s in summaries
        if s.distinct_examples < s.num_examples
    }
    return [
        Verdict(
            "note",
            f"{total} examples, {distinct} of them distinct at the bandwidth {bandwidth:.3g}: "
            "examples that noise of that size could have made of one another count as one."
            if bandwidth > 0
            else f"{total} examples, {distinct} of them distinct: copies count as one.",
        )
        for total, distinct, bandwidth in counts
    ]


def _copies(s: PosteriorSummary) -> bool:
    return s.nearest_ratio <= 0 or s.null_share < MEMORIZED_SHARE


def _top(s: PosteriorSummary) -> str:
    return f"example {s.top_example} carries {_percent(s.top_share)}"


def _each(summaries: Sequence[PosteriorSummary], say: Callable[[PosteriorSummary], str]) -> str:
    return "; ".join(f"{s.method} ({say(s)})" for s in summaries)


def agreement(s: PosteriorSummary, base: PosteriorSummary) -> Verdict:
    """Whether a posterior is told apart from the reference."""
    weights = f"weights over the examples differ by {s.weights_distance:.2f} in total variation"
    distance, noise = beside(s.distance, s.distance_noise, 3)
    draws = f"{s.thinned_draws} and {base.thinned_draws} nearly independent draws"
    if s.distance > s.distance_noise:
        return Verdict(
            "note",
            f"{s.method} differs from {base.method}: energy distance {distance} between {draws}, "
            f"above the {noise} of sampling noise; {weights}.",
        )
    if min(s.thinned_draws, base.thinned_draws) < FEW_DRAWS:
        return Verdict(
            "note",
            f"{s.method} cannot be told from {base.method}, with {draws} only: energy distance "
            f"{distance}, within the {noise} of sampling noise; {weights}.",
        )
    return Verdict(
        "good",
        f"{s.method} agrees with {base.method}: energy distance {distance} between {draws}, "
        f"within the {noise} of sampling noise; {weights}.",
    )


def advice(summaries: Sequence[PosteriorSummary]) -> Verdict:
    """Which posterior to believe."""
    fits = [s for s in summaries if not abs(s.misfit_z) > MISFIT_Z]
    converged = [
        s
        for s in summaries
        if s.rhat <= RHAT and s.ess >= ESS_PER_RUN and not s.divergences and not modes_disagree(s)
    ]
    corrected = [s for s in summaries if is_corrected(s) and s.importance_ess >= IMPORTANCE_ESS]
    failed = any(has_failed(s) for s in summaries)
    # what a linearization says of itself counts only while no correction of it has failed, or says
    # otherwise
    weighted = [s for s in summaries if is_corrected(s)]
    linear = [
        s
        for s in summaries
        if s.linearization_error <= LINEARIZATION_NATS
        and not failed
        and not any(evidence_differs(s, c) for c in weighted)
    ]
    chosen = next((s for s in (*converged, *corrected, *linear) if s in fits), None)
    if chosen is not None:
        why = (
            "its chains agree"
            if chosen in converged
            else "its importance weights can be believed"
            if chosen in corrected
            else "its linearization holds"
        )
        if chosen.misfit_z != chosen.misfit_z:
            why = f"{why}, but no chi-square says whether it explains the data"
        else:
            why = f"it explains the data within the noise and {why}"
        return _believe(chosen, why)
    sound = next(iter((*converged, *corrected, *linear)), None)
    if sound is not None:
        return Verdict(
            "warning",
            f"Believe none of them as an answer. {sound.method} is computed correctly, so the "
            "fault lies in the model: look at the prior (more or other training examples, a wider "
            "bandwidth), the noise level and the forward operator.",
        )
    chains = [s for s in fits if s.rhat == s.rhat]
    linearized = [s for s in fits if s.linearization_error == s.linearization_error]
    hints = [
        f"run {s.method} longer (R-hat {beside(s.rhat, RHAT, 2)[0]}, {s.ess:.0f} effective draws)"
        for s in chains
    ]
    present = [s.method for s in summaries]
    others = [
        name
        for name in _DIAGNOSED
        if name not in present and all(name in applicable(s) for s in summaries)
    ]
    if "mode-jump" in others and any(
        s.method == "nuts" and (s.rhat > RHAT or modes_disagree(s)) for s in chains
    ):
        hints.append("add mode-jump, whose chains move between modes")
    hints += [
        f"take {s.method} as a guide only (off by {s.linearization_error:.2g} nats)"
        for s in linearized
    ]
    hints += [
        f"give {s.method} more draws or a better proposal (k-hat {s.khat:.2f}, "
        f"{s.importance_ess:.0f} effective)"
        for s in fits
        if s.importance_draws
    ]
    if not hints:
        hints.append(
            f"add a method that has one: {' or '.join(others[:2])}"
            if others
            else "add a method that has one, such as several chains of a sampler"
        )
    return Verdict(
        "warning",
        "Believe none of them yet: no method here both explains the data and has a diagnostic "
        f"that vouches for it. What helps: {'; '.join(hints)}.",
    )


def _believe(s: PosteriorSummary, why: str) -> Verdict:
    """Advise a posterior, and say what its prior makes of it."""
    if not _copies(s):
        return Verdict("good", f"Believe {s.method}: {why}.")
    single = s.effective_examples < ONE_EXAMPLE
    rests = f"example {s.top_example}" if single else f"its {s.effective_examples:.1f} examples"
    return Verdict(
        "note",
        f"Believe {s.method} as the right posterior under this prior: {why}. But this prior makes "
        f"it a {'' if single else 'weighted '}lookup: it stays next to {rests}, and its spread "
        "says nothing about models that differ from the training examples.",
    )


def _misfits(summaries: Sequence[PosteriorSummary]) -> str:
    return _each(
        summaries,
        lambda s: f"chi2/m {s.reduced_chi_square:.3g}, z = {written(s.misfit_z, '+.1f')}",
    )


def _percent(share: float) -> str:
    return "all the weight" if share > 0.9995 else f"{100 * share:.3g} % of the weight"
