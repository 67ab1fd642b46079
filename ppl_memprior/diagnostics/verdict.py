"""From the summaries of several posteriors to sentences: which one to believe, and why.

The order is fixed: does anything explain the data at all (prior-data conflict), is it inference
or a lookup, did the sampler tell the truth, and then the advice. Every threshold stands here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from ppl_memprior.diagnostics.summary import PosteriorSummary

MISFIT_Z = 3.0  # standard deviations of the noise that a misfit may lie from its expectation
RHAT = 1.01  # Vehtari et al. (2021)
ESS_PER_RUN = 400.0  # Vehtari et al. (2021): 100 for each of four chains
ONE_EXAMPLE = 1.5  # effective number of examples below which a posterior is one example
MEMORIZED_SHARE = 0.05  # share of the null below which a nearest-neighbour ratio is a copy's
# total variation of a chain's occupancy of the examples: weights that differ by less leave a
# posterior's conclusions as they are, and a few hundred effective draws scatter by as much
MODE_TV = 0.05
LINEARIZATION_NATS = 0.5  # log-likelihood error that a linearized posterior may have
KHAT = 0.7  # Vehtari et al. (2024): least reliable shape of importance weights, many draws
IMPORTANCE_ESS = 100.0  # weighted draws whose mean is known to a tenth of a standard deviation
EVIDENCE_NATS = 0.1  # difference of log evidences that matters
EVIDENCE_ERRORS = 3.0  # standard errors that make a difference of log evidences one
PROPOSAL_SHARE = 0.5  # effective share of the weighted draws that a good proposal leaves


class Verdict(NamedTuple):
    """One sentence, and how it is meant.

    Attributes:
        level: "conflict" (first of all), "warning", "good" or "note".
        text: the sentence.
    """

    level: Literal["conflict", "warning", "good", "note"]
    text: str


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
    found += [verdict for s in summaries for verdict in (*sampler_honesty(s), *mode_weights(s))]
    found += importance(summaries)
    if reference is not None:
        base = next(s for s in summaries if s.method == reference)
        others = [s for s in summaries if s is not base]
        if others and (base.rhat > RHAT or _failed(base)):
            distances = _each(others, lambda s: f"{s.distance:.3f}")
            found.append(
                Verdict(
                    "note",
                    f"The reference {base.method} is not to be trusted itself; energy distances "
                    f"to it, {distances}, do not rank the others.",
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
                f"has a reduced chi-square of {best.reduced_chi_square:.3g}, {best.misfit_z:.1f} "
                "standard deviations above what the noise allows. Nothing that these methods "
                "reached contains the truth; the weights only say which wrong answer is least "
                "wrong.",
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
                "No prior-data conflict: no posterior misfits the data by more than the noise: "
                f"{_misfits(known)}.",
            )
        )
    if over:
        found.append(
            Verdict(
                "warning",
                f"Fits better than the noise allows: {_misfits(over)}; either the method overfits "
                "or the noise level is overstated.",
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
                f"Too few distinct examples to tell a lookup from inference ({listed}).",
            )
        )
    if single:
        listed = _each(single, _top)
        found.append(
            Verdict(
                "warning",
                f"A lookup, not inference: {listed}; the draws stay next to one training example.",
            )
        )
    if leaning:
        listed = _each(leaning, _top)
        found.append(
            Verdict(
                "warning",
                f"One example dominates: {listed}; but the draws keep a distance from it that "
                "examples also have from one another.",
            )
        )
    if weighted:
        listed = _each(weighted, lambda s: f"{s.effective_examples:.1f} examples")
        found.append(
            Verdict(
                "note",
                f"A weighted lookup: {listed}; the draws stay closer to their nearest example "
                "than the examples are to one another.",
            )
        )
    if free:
        listed = _each(free, lambda s: f"{s.effective_examples:.1f} examples")
        found.append(
            Verdict("note", f"Draws that move freely between the examples they rest on: {listed}.")
        )
    return found


def _copies(s: PosteriorSummary) -> bool:
    return s.nearest_ratio <= 0 or s.null_share < MEMORIZED_SHARE


def _top(s: PosteriorSummary) -> str:
    return f"example {s.top_example} carries {_percent(s.top_share)}"


def _each(summaries: Sequence[PosteriorSummary], say: Callable[[PosteriorSummary], str]) -> str:
    return "; ".join(f"{s.method} ({say(s)})" for s in summaries)


def sampler_honesty(s: PosteriorSummary) -> list[Verdict]:
    """Whether chains agree, and whether a linearization holds."""
    found = []
    if s.rhat > RHAT:
        found.append(
            Verdict(
                "warning",
                f"{s.method}: split R-hat {s.rhat:.3g} is above {RHAT}: its chains disagree, so "
                "on a target with several modes the weights between them are not to be trusted.",
            )
        )
    elif s.rhat != s.rhat and not s.independent:
        found.append(
            Verdict(
                "warning",
                f"{s.method}: a single chain has no R-hat, so nothing says whether it found all "
                "modes; run at least four.",
            )
        )
    elif s.rhat == s.rhat and s.ess < ESS_PER_RUN:
        found.append(
            Verdict(
                "warning",
                f"{s.method}: {s.ess:.0f} effective draws are few (want {ESS_PER_RUN:.0f}); run "
                "longer before reading tails.",
            )
        )
    elif s.rhat == s.rhat:
        found.append(
            Verdict("good", f"{s.method}: chains agree (R-hat {s.rhat:.3f}, ESS {s.ess:.0f}).")
        )
    if s.divergences:
        found.append(Verdict("warning", f"{s.method}: {s.divergences} divergent transitions."))
    if s.linearization_error > LINEARIZATION_NATS:
        found.append(
            Verdict(
                "warning",
                f"{s.method}: the forward operator bends over a bandwidth; at the components' "
                f"means the log-likelihood is off by {s.linearization_error:.2g} nats, so its "
                "weights and widths are approximate.",
            )
        )
    elif s.linearization_error == s.linearization_error:
        found.append(
            Verdict(
                "good",
                f"{s.method}: the linearization holds at the components' means (log-likelihood "
                f"off by {s.linearization_error:.2g} nats).",
            )
        )
    return found


def khat_limit(num_draws: int) -> float:
    """The k-hat below which `num_draws` weighted draws can be believed (Vehtari et al., 2024)."""
    return min(1 - 1 / math.log10(num_draws), KHAT)


def _corrected(s: PosteriorSummary) -> bool:
    """Whether a posterior is a reliable importance correction."""
    return s.importance_draws > 0 and s.khat < khat_limit(s.importance_draws)


def _failed(s: PosteriorSummary) -> bool:
    """Whether a posterior is an importance correction that cannot be believed."""
    return s.importance_draws > 0 and not _corrected(s)


def importance(summaries: Sequence[PosteriorSummary]) -> list[Verdict]:
    """Whether importance weights can be believed, and what they say of the linearization."""
    found = []
    linearized = [s for s in summaries if s.linearization_error == s.linearization_error]
    for s in (s for s in summaries if s.importance_draws):
        effective = f"{s.importance_ess:,.0f} effective of {s.importance_draws:,} weighted draws"
        limit = khat_limit(s.importance_draws)
        if _failed(s):
            found.append(
                Verdict(
                    "warning",
                    f"{s.method}: k-hat {s.khat:.2f} is above {limit:.2f}: a few draws carry the "
                    "importance weights, so the correction does not vouch for the linearized "
                    f"posterior, and its evidence is not to be trusted ({effective}).",
                )
            )
            continue
        if s.importance_ess < IMPORTANCE_ESS:
            found.append(
                Verdict(
                    "warning",
                    f"{s.method}: k-hat {s.khat:.2f} is below {limit:.2f}, but {effective} are few "
                    f"(want {IMPORTANCE_ESS:.0f}); take more of them.",
                )
            )
        else:
            found.append(
                Verdict(
                    "good",
                    f"{s.method}: the importance weights can be believed (k-hat {s.khat:.2f}, "
                    f"below {limit:.2f}; {effective}).",
                )
            )
        found += [_proposal(base, s) for base in linearized]
    return found


def _proposal(base: PosteriorSummary, corrected: PosteriorSummary) -> Verdict:
    """What a reliable correction says of the linearized posterior it started from."""
    difference = base.log_evidence - corrected.log_evidence
    error = EVIDENCE_ERRORS * corrected.log_evidence_error
    share = corrected.importance_ess / corrected.importance_draws
    reasons = []
    if abs(difference) > max(error, EVIDENCE_NATS):
        reasons.append(
            f"its log evidence is off by {difference:+.2f} (standard error "
            f"{corrected.log_evidence_error:.3f})"
        )
    if share < PROPOSAL_SHARE:
        reasons.append(f"weighting leaves {100 * share:.0f} % of its draws effective")
    if reasons:
        return Verdict(
            "note",
            f"{corrected.method} corrects {base.method}: {' and '.join(reasons)}.",
        )
    return Verdict(
        "good",
        f"{corrected.method} vouches for {base.method}: its log evidence is off by "
        f"{difference:+.2f} (standard error {corrected.log_evidence_error:.3f}), and weighting "
        f"leaves {100 * share:.0f} % of its draws effective.",
    )


def mode_weights(s: PosteriorSummary) -> list[Verdict]:
    """Whether the chains agree on the weights between the modes."""
    if s.mode_rhat != s.mode_rhat:
        return []
    trips = "" if s.round_trips != s.round_trips else f", {s.round_trips:.0f} round trips"
    numbers = f"mode R-hat {s.mode_rhat:.3f}, mode ESS {s.mode_ess:.0f}{trips}"
    if _modes_disagree(s):
        return [
            Verdict(
                "warning",
                f"{s.method}: its chains disagree on how much weight each example has, by up to "
                f"{s.between_chain_tv:.2f} in total variation from their mean ({numbers}); run it "
                "longer, or a method that moves between modes (smc, mode-jump), or compare with a "
                "closed form.",
            )
        ]
    if s.mode_ess < ESS_PER_RUN:
        return [
            Verdict(
                "warning",
                f"{s.method}: its chains change between examples too seldom for weights that can "
                f"be relied on ({numbers}; want an ESS of {ESS_PER_RUN:.0f}).",
            )
        ]
    return [
        Verdict(
            "good",
            f"{s.method}: its chains agree on the weights of the examples, within "
            f"{s.between_chain_tv:.2f} in total variation ({numbers}).",
        )
    ]


def _modes_disagree(s: PosteriorSummary) -> bool:
    return s.mode_rhat > RHAT and s.between_chain_tv > MODE_TV


def agreement(s: PosteriorSummary, base: PosteriorSummary) -> Verdict:
    """Whether a posterior is told apart from the reference."""
    weights = f"weights over the examples differ by {s.weights_distance:.2f} in total variation"
    if s.distance <= s.distance_noise:
        return Verdict(
            "good",
            f"{s.method} agrees with {base.method}: energy distance {s.distance:.3f}, within the "
            f"{s.distance_noise:.3f} of sampling noise; {weights}.",
        )
    return Verdict(
        "note",
        f"{s.method} differs from {base.method}: energy distance {s.distance:.3f} against "
        f"{s.distance_noise:.3f} of sampling noise; {weights}.",
    )


def advice(summaries: Sequence[PosteriorSummary]) -> Verdict:
    """Which posterior to believe."""
    fits = [s for s in summaries if not abs(s.misfit_z) > MISFIT_Z]
    converged = [
        s
        for s in summaries
        if s.rhat <= RHAT and s.ess >= ESS_PER_RUN and not s.divergences and not _modes_disagree(s)
    ]
    corrected = [s for s in summaries if _corrected(s) and s.importance_ess >= IMPORTANCE_ESS]
    failed = any(_failed(s) for s in summaries)
    # what a linearization says of itself counts only while no correction of it has failed
    linear = [s for s in summaries if s.linearization_error <= LINEARIZATION_NATS and not failed]
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
            return Verdict(
                "good",
                f"Believe {chosen.method} as far as it goes: {why}, but no chi-square says "
                "whether it explains the data.",
            )
        return Verdict(
            "good", f"Believe {chosen.method}: it explains the data within the noise and {why}."
        )
    sound = next(iter((*converged, *corrected, *linear)), None)
    if sound is not None:
        return Verdict(
            "warning",
            f"Believe none of them as an answer. {sound.method} is sound as a computation: look "
            "at the prior (more or other training examples, a wider bandwidth), the noise level "
            "and the forward operator.",
        )
    chains = [s for s in fits if s.rhat == s.rhat]
    linearized = [s for s in fits if s.linearization_error == s.linearization_error]
    hints = [
        f"run {s.method} longer (R-hat {s.rhat:.3g}, {s.ess:.0f} effective draws)" for s in chains
    ]
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
    hint = "; ".join(hints) or "add a method that has one (linearized, nuts)"
    return Verdict(
        "warning",
        "Believe none of them yet: no method here both explains the data and has a diagnostic "
        f"that vouches for it; {hint}.",
    )


def _misfits(summaries: Sequence[PosteriorSummary]) -> str:
    return _each(summaries, lambda s: f"chi2/m {s.reduced_chi_square:.3g}, z = {s.misfit_z:+.1f}")


def _percent(share: float) -> str:
    return "all the weight" if share > 0.9995 else f"{100 * share:.3g} % of the weight"
