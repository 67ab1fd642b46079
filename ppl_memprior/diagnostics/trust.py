"""Whether what a method computed can be believed: chains, importance weights, linearizations.

Sentences about single posteriors, from their summaries, with their thresholds. What the posteriors
say together, and which one to believe, is left to `verdict`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ppl_memprior.diagnostics._wording import beside
from ppl_memprior.diagnostics.summary import PosteriorSummary

RHAT = 1.01  # Vehtari et al. (2021)
ESS_PER_RUN = 400.0  # Vehtari et al. (2021): 100 for each of four chains
# total variation of a chain's occupancy of the examples: weights that differ by less leave a
# posterior's conclusions as they are, and a few hundred effective draws scatter by as much
MODE_TV = 0.05
LINEARIZATION_NATS = 0.5  # log-likelihood error that a linearized posterior may have
KHAT = 0.7  # Vehtari et al. (2024): least reliable shape of importance weights, many draws
IMPORTANCE_ESS = 100.0  # weighted draws whose mean is known to a tenth of a standard deviation
EVIDENCE_NATS = 0.1  # difference of log evidences that matters
# standard errors that two log evidences must differ by before the difference means anything
EVIDENCE_ERRORS = 3.0
# what helps a method that does move between modes
_REMEDIES = {
    "mode-jump": "run it longer, or give ModeJump a better proposal",
    "smc": "use more particles",
    "gibbs": "run it longer",
}
_MOVES_BETWEEN_MODES = {
    "mode-jump": "which moves between modes",
    "smc": "whose particles start in every mode",
    "gibbs": "which draws the example from its exact conditional",
}


class Verdict(NamedTuple):
    """One sentence, and how it is meant.

    Attributes:
        level: "conflict" (first of all), "warning", "good" or "note".
        text: the sentence.
    """

    level: Literal["conflict", "warning", "good", "note"]
    text: str


def sampler_honesty(s: PosteriorSummary) -> list[Verdict]:
    """Whether chains agree, and whether a linearization holds."""
    found = []
    if s.rhat > RHAT:
        rhat, limit = beside(s.rhat, RHAT, 2)
        found.append(
            Verdict(
                "warning",
                f"{s.method}: split R-hat {rhat} is above {limit}: its chains disagree, so their "
                "shares of the modes, if there are several, are not to be trusted; "
                f"{remedy(s)}.",
            )
        )
    elif s.rhat != s.rhat and not s.independent:
        found.append(
            Verdict(
                "warning",
                f"{s.method}: a single chain has no R-hat, so nothing says whether it found all "
                "modes; run at least four chains.",
            )
        )
    elif s.rhat == s.rhat and s.ess < ESS_PER_RUN:
        ess, wanted = beside(s.ess, ESS_PER_RUN, 0)
        found.append(
            Verdict(
                "warning",
                f"{s.method}: {ess} effective draws are few (want {wanted}); run it longer before "
                "you read its tails.",
            )
        )
    elif s.rhat == s.rhat:
        found.append(
            Verdict("good", f"{s.method}: its chains agree (R-hat {s.rhat:.3f}, ESS {s.ess:.0f}).")
        )
    if s.divergences:
        found.append(
            Verdict(
                "warning",
                f"{s.method}: {s.divergences} divergent transitions, so its chains may have missed "
                "narrow parts of the posterior.",
            )
        )
    if s.num_failed:
        found.append(
            Verdict(
                "note",
                f"{s.method}: {s.num_failed:,} of its simulations failed. They count as models "
                "that cannot explain the data. If they should, check the forward operator's "
                "limits.",
            )
        )
    if s.linearization_error > LINEARIZATION_NATS:
        found.append(
            Verdict(
                "warning",
                f"{s.method}: the forward operator is not linear over a bandwidth. At the "
                f"components' means the log-likelihood is off by {_nats(s)}, so the weights and "
                "widths are approximate.",
            )
        )
    elif s.linearization_error == s.linearization_error:
        found.append(
            Verdict(
                "good",
                f"{s.method}: the linearization holds at the components' means (log-likelihood "
                f"off by {_nats(s)}).",
            )
        )
    return found


def khat_limit(num_draws: int) -> float:
    """The k-hat below which `num_draws` weighted draws can be believed (Vehtari et al., 2024)."""
    return min(1 - 1 / math.log10(num_draws), KHAT)


def is_corrected(s: PosteriorSummary) -> bool:
    """Whether a posterior is a reliable importance correction."""
    return s.importance_draws > 0 and s.khat < khat_limit(s.importance_draws)


def has_failed(s: PosteriorSummary) -> bool:
    """Whether a posterior is an importance correction that cannot be believed."""
    return s.importance_draws > 0 and not is_corrected(s)


def importance(summaries: Sequence[PosteriorSummary]) -> list[Verdict]:
    """Whether importance weights can be believed, and what they say of the linearization."""
    found = []
    linearized = [s for s in summaries if s.linearization_error == s.linearization_error]
    for s in (s for s in summaries if s.importance_draws):
        ess, wanted = beside(s.importance_ess, IMPORTANCE_ESS, 0)
        effective = f"{ess} effective of {s.importance_draws:,} weighted draws"
        highest = khat_limit(s.importance_draws)
        khat, limit = beside(s.khat, highest, 2)
        if has_failed(s):
            relation = "above" if s.khat > highest else "not below"  # equal to it, or NaN
            found.append(
                Verdict(
                    "warning",
                    f"{s.method}: k-hat {khat} is {relation} {limit}: a few draws carry the "
                    "importance weights. Neither its draws nor its evidence are to be trusted, "
                    "and it does not vouch for the linearized posterior "
                    f"({effective}).",
                )
            )
            continue
        if s.importance_ess < IMPORTANCE_ESS:
            found.append(
                Verdict(
                    "warning",
                    f"{s.method}: k-hat {khat} is below {limit}, but {effective} are few "
                    f"(want {wanted}); take more weighted draws.",
                )
            )
            continue
        found.append(
            Verdict(
                "good",
                f"{s.method}: the importance weights can be believed (k-hat {khat}, below {limit}; "
                f"{effective}).",
            )
        )
        found += [_plain_linearization(base, s) for base in linearized]
    return found


def evidence_differs(base: PosteriorSummary, corrected: PosteriorSummary) -> bool:
    """Whether two log evidences are further apart than the second one's error explains."""
    difference = abs(base.log_evidence - corrected.log_evidence)
    return difference > max(EVIDENCE_ERRORS * corrected.log_evidence_error, EVIDENCE_NATS)


def _plain_linearization(base: PosteriorSummary, corrected: PosteriorSummary) -> Verdict:
    """What a reliable correction says of the posterior linearized at the examples."""
    difference = base.log_evidence - corrected.log_evidence
    reasons = []
    if evidence_differs(base, corrected):
        reasons.append(
            f"its log evidence is off by {difference:+.2f} (standard error "
            f"{corrected.log_evidence_error:.3f})"
        )
    if base.linearization_error > LINEARIZATION_NATS:
        reasons.append(f"at its components' means the log-likelihood is off by {_nats(base)}")
    if reasons:
        return Verdict(
            "note",
            f"{corrected.method} corrects {base.method}: {' and '.join(reasons)}.",
        )
    return Verdict(
        "good",
        f"{corrected.method} vouches for {base.method}: its log evidence is off by "
        f"{difference:+.2f} (standard error {corrected.log_evidence_error:.3f}), and the "
        f"log-likelihood at its components' means by {_nats(base)}.",
    )


def mode_weights(s: PosteriorSummary) -> list[Verdict]:
    """Whether the chains agree on the weights between the modes."""
    if s.mode_rhat != s.mode_rhat:
        return []
    trips = "" if s.round_trips != s.round_trips else f", {s.round_trips:.0f} round trips"
    numbers = f"mode R-hat {s.mode_rhat:.3f}, mode ESS {s.mode_ess:.0f}{trips}"
    if modes_disagree(s):
        return [
            Verdict(
                "warning",
                f"{s.method}: its chains disagree on how much weight each example has, by up to "
                f"{s.between_chain_tv:.2f} in total variation from their mean ({numbers}); "
                f"{remedy(s)}.",
            )
        ]
    if s.mode_ess < ESS_PER_RUN:
        ess, wanted = beside(s.mode_ess, ESS_PER_RUN, 0)
        numbers = f"mode R-hat {s.mode_rhat:.3f}, mode ESS {ess}{trips}"
        return [
            Verdict(
                "warning",
                f"{s.method}: its chains move between examples too seldom for reliable weights "
                f"({numbers}; want a mode ESS of {wanted}).",
            )
        ]
    return [
        Verdict(
            "good",
            f"{s.method}: its chains agree on the weights of the examples, within "
            f"{s.between_chain_tv:.2f} in total variation ({numbers}).",
        )
    ]


def remedy(s: PosteriorSummary) -> str:
    """What to do about a method whose chains disagree."""
    if s.method in _REMEDIES:
        return _REMEDIES[s.method]
    for name, how in _MOVES_BETWEEN_MODES.items():
        if name in applicable(s):
            return f"run {name}, {how}"
    return "run more and longer chains"


def applicable(s: PosteriorSummary) -> list[str]:
    """Other methods that are known to take the problem of this posterior."""
    return [name for name in s.methods or () if name != s.method]


def modes_disagree(s: PosteriorSummary) -> bool:
    return s.mode_rhat > RHAT and s.between_chain_tv > MODE_TV


def _nats(s: PosteriorSummary) -> str:
    return f"{s.linearization_error:.2g} nats"
