"""Does any posterior explain the data? If none does, the prior contradicts the data."""

from __future__ import annotations

from collections.abc import Iterable

from ppl_memprior._numbers import written
from ppl_memprior.diagnostics.summary import PosteriorSummary
from ppl_memprior.diagnostics.verdicts._reading import Reading
from ppl_memprior.diagnostics.verdicts._verdict import Verdict
from ppl_memprior.diagnostics.verdicts._wording import each, names
from ppl_memprior.diagnostics.verdicts.criteria import MISFIT_Z, knows_misfit


def judge_data_fit(reading: Reading) -> list[Verdict]:
    """Say whose draws misfit the data by more, or by less, than the noise allows."""
    known = [s for s in reading.summaries if knows_misfit(s)]
    bad = [s for s in known if s.misfit_z > MISFIT_Z]
    good = [s for s in known if s.misfit_z <= MISFIT_Z]
    over = [s for s in known if s.misfit_z < -MISFIT_Z]
    if not known:
        return [_unknown(reading)]
    found = [_everybodys(bad) if not good else _some(bad, good) if bad else _nobodys(known)]
    if over:
        found.append(_overfit(over))
    return found


def _unknown(reading: Reading) -> Verdict:
    return Verdict(
        code="misfit-unknown",
        severity="note",
        sentence="The noise is not Gaussian, so no chi-square says whether the posteriors explain "
        "the data.",
        about=names(reading.summaries),
    )


def _everybodys(bad: list[PosteriorSummary]) -> Verdict:
    best = min(bad, key=lambda s: s.misfit_z)
    return Verdict(
        code="prior-data-conflict",
        severity="conflict",
        sentence="Prior-data conflict: no posterior explains the data. The closest, "
        f"{best.method}, has a reduced chi-square of {best.reduced_chi_square:.3g}, "
        f"{written(best.misfit_z, '.1f')} standard deviations above what the noise alone gives. "
        "Nothing that these methods reached contains the truth. The weights of the examples only "
        "say which wrong answer is least wrong.",
        about=names(bad),
    )


def _some(bad: list[PosteriorSummary], good: list[PosteriorSummary]) -> Verdict:
    return Verdict(
        code="prior-data-conflict-of-some",
        severity="conflict",
        sentence=f"Prior-data conflict: the noise cannot explain the misfit of {_misfits(bad)}. "
        f"The data are explained by {_misfits(good)}.",
        about=names((*bad, *good)),
    )


def _nobodys(known: list[PosteriorSummary]) -> Verdict:
    return Verdict(
        code="data-explained",
        severity="good",
        sentence="No prior-data conflict: the noise explains the misfit of every posterior: "
        f"{_misfits(known)}.",
        about=names(known),
    )


def _overfit(over: list[PosteriorSummary]) -> Verdict:
    return Verdict(
        code="overfit",
        severity="warning",
        sentence=f"The misfit is smaller than the noise allows: {_misfits(over)}. Either the "
        "method overfits or the model overstates the noise level.",
        about=names(over),
    )


def _misfits(summaries: Iterable[PosteriorSummary]) -> str:
    return each(
        summaries,
        lambda s: f"chi2/m {s.reduced_chi_square:.3g}, z = {written(s.misfit_z, '+.1f')}",
    )
