"""The figure of the fit: whether each posterior explains the data as well as the noise allows."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from ppl_memprior._numbers import written
from ppl_memprior.comparison.report.figure import ReportFigure
from ppl_memprior.comparison.report.figures.style import (
    Runs,
    colour_of,
    fitted,
    shortened,
    without_frame,
)
from ppl_memprior.diagnostics.verdicts.criteria import MISFIT_Z

LINEAR_Z = 10.0  # misfits beyond are drawn on a logarithmic scale


def misfit_figure(runs: Runs, reference: str | None = None) -> Figure | None:
    """Each posterior's chi-square, in standard deviations of the noise from its expectation."""
    z = {
        name: np.quantile(values, [0.05, 0.5, 0.95])
        for name, tree in runs.items()
        if "chi_square" in tree["sample_stats"] and len(values := _chi_square_z(tree))
    }
    if not z:
        return None
    figure = Figure(figsize=(8, 1.0 + 0.45 * len(z)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-MISFIT_Z, MISFIT_Z, color="0.88", label="what the noise allows")
    for row, (name, (low, middle, high)) in enumerate(z.items()):
        colour = colour_of(runs, name)
        axes.plot([low, high], [row, row], color=colour, lw=5, alpha=0.5, solid_capstyle="butt")
        axes.plot([middle], [row], "o", color=colour)
    axes.set_yticks(range(len(z)), [fitted(shortened(name), 2.5) for name in z])
    axes.set_ylim(len(z) - 0.5, -0.5)
    lowest, highest = np.min(list(z.values())), np.max(list(z.values()))
    if max(-lowest, highest) > LINEAR_Z * MISFIT_Z:
        axes.set_xscale("symlog", linthresh=LINEAR_Z)
        ticks = _decades(lowest, highest)
        axes.set_xticks(ticks, [_power(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        lowest, highest = (3.0 * end if abs(end) > LINEAR_Z else end for end in (lowest, highest))
    margin = 0.5 * MISFIT_Z
    axes.set_xlim(min(-MISFIT_Z, lowest) - margin, max(MISFIT_Z, highest) + margin)
    axes.set_xlabel(r"misfit z = ($\chi^2 - m$) / $\sqrt{2m}$: median and 5 to 95 % of the draws")
    figure.legend(loc="outside upper right", fontsize=8, frameon=False)
    without_frame(axes)
    described = (
        f"{name} {written(middle, '.1f')} ({written(low, '.1f')} to {written(high, '.1f')})"
        for name, (low, middle, high) in z.items()
    )
    figure.set_label(
        f"Misfit z of each posterior, median and 5 to 95 % of its draws: {', '.join(described)}. "
        f"The noise allows -{MISFIT_Z:g} to {MISFIT_Z:g}."
    )
    return figure


def _decades(lowest: float, highest: float) -> list[float]:
    """Zero and at most a handful of powers of ten on both sides of it, as far as they reach."""
    last = int(np.ceil(np.log10(max(-lowest, highest))))
    powers = 10.0 ** np.arange(1, last + 1, max(1, -(-last // 5)))
    return [*(-powers[-lowest > powers][::-1]), 0.0, *powers[highest > powers]]


def _power(tick: float) -> str:
    if abs(tick) < 1e5:
        return f"{tick:.0f}"
    return rf"${'-' if tick < 0 else ''}10^{{{round(np.log10(abs(tick)))}}}$"


def _chi_square_z(tree: xr.DataTree) -> NDArray[np.float64]:
    """Misfit z of each draw whose chi-square is finite."""
    values = tree["sample_stats"]["chi_square"].to_numpy().ravel().astype(float)
    num_data = int(tree.attrs["num_data"])
    values = values[np.isfinite(values)]
    return (values - num_data) / np.sqrt(2 * num_data)


MISFIT = ReportFigure(
    name="misfit",
    caption="Does each posterior explain the data? Inside the grey band the misfit is what the "
    "noise allows. To the right of it no draw explains the data (prior-data conflict).",
    draw=misfit_figure,
)
