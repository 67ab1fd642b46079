"""Can the posteriors be told from the reference, and is the reference one to measure by?"""

from __future__ import annotations

from ppl_memprior.diagnostics.summary import PosteriorSummary
from ppl_memprior.diagnostics.verdicts._reading import Reading
from ppl_memprior.diagnostics.verdicts._verdict import Verdict
from ppl_memprior.diagnostics.verdicts._wording import beside, each, names
from ppl_memprior.diagnostics.verdicts.criteria import FEW_DRAWS, chains_disagree, correction_fails


def judge_agreement(reading: Reading) -> list[Verdict]:
    """Compare every posterior with the reference, unless the reference itself fails."""
    base = reading.reference_summary
    if base is None:
        return []
    others = [s for s in reading.summaries if s is not base]
    if others and (chains_disagree(base) or correction_fails(base)):
        return [
            Verdict(
                code="reference-not-trusted",
                severity="note",
                sentence=f"The reference {base.method} is not to be trusted itself. The energy "
                "distances to it do not rank the others: "
                f"{each(others, lambda s: f'{s.distance:.3f}')}.",
                about=(base.method, *names(others)),
            )
        ]
    return [_agreement(s, base) for s in others]


def _agreement(s: PosteriorSummary, base: PosteriorSummary) -> Verdict:
    distance, noise = beside(s.distance, s.distance_noise, 3)
    draws = f"{s.thinned_draws} and {base.thinned_draws} nearly independent draws"
    weights = (
        f"The weights over the examples differ by {s.weights_distance:.2f} in total variation."
    )
    about = (s.method, base.method)
    if s.distance > s.distance_noise:
        return Verdict(
            code="differs-from-reference",
            severity="note",
            sentence=f"{s.method} differs from {base.method}: the energy distance is {distance} "
            f"between {draws}, above the {noise} of sampling noise. {weights}",
            about=about,
        )
    if min(s.thinned_draws, base.thinned_draws) < FEW_DRAWS:
        return Verdict(
            code="indistinct-from-reference",
            severity="note",
            sentence=f"{s.method} cannot be told from {base.method}, with {draws} only: the energy "
            f"distance is {distance}, within the {noise} of sampling noise. {weights}",
            about=about,
        )
    return Verdict(
        code="agrees-with-reference",
        severity="good",
        sentence=f"{s.method} agrees with {base.method}: the energy distance is {distance} "
        f"between {draws}, within the {noise} of sampling noise. {weights}",
        about=about,
    )
