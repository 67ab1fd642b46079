"""Marginal densities: the prior's site where it varies most, and every other latent site."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ppl_memprior.comparison.latents import having, shown_coordinates
from ppl_memprior.comparison.report.figure import ReportFigure
from ppl_memprior.comparison.report.figures.style import (
    TRUTH_COLOUR,
    Runs,
    colour_of,
    fitted,
    legend_above,
    listed,
    shortened,
    units_of,
    without_frame,
)


def marginals_figure(runs: Runs, reference: str | None = None) -> Figure:
    """Marginals of all latent sites: of arrays, the coordinates that vary most."""
    first = next(iter(runs.values()))
    chosen = shown_coordinates(runs)
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(8, 2.3 * rows + 0.5), layout="constrained")
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, coordinate in zip(panels, chosen, strict=False):
        trees = having(runs, coordinate.site)
        for name, tree in trees.items():
            values = coordinate.draws(tree).to_numpy().ravel()
            _density(axes, values, colour_of(runs, name), fitted(shortened(name), 7.0, 8.0))
        if coordinate.site == first.attrs["prior_site"] and coordinate.is_in(first, "examples"):
            at = coordinate.of(first, "examples").to_numpy()
            axes.plot(at, np.full(len(at), -0.06), "|", color="0.45", ms=6, label="examples")
        truth = coordinate.truth(runs)
        if truth is not None:
            axes.axvline(truth, color=TRUTH_COLOUR, ls="--", lw=1, label="truth")
        unit = units_of(next(iter(trees.values())), coordinate.site)
        label = f"{coordinate._replace(site=shortened(coordinate.site))}{unit}"
        axes.set_xlabel(fitted(label, 7.0 / columns))
        axes.set_yticks([])
        axes.set_ylim(-0.12, 1.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        without_frame(axes)
        axes.spines["left"].set_visible(False)
    for axes in panels[len(chosen) :]:
        axes.remove()
    legend_above(figure, panels[: len(chosen)])
    figure.set_label(
        f"Marginal densities of {listed(chosen)} under {listed(runs)}"
        f"{', with the true values' if 'truth' in first.children else ''}."
    )
    return figure


def _density(axes: Axes, values: NDArray[np.floating], colour: str, label: str) -> None:
    """A histogram outline scaled to height one; stems where the draws repeat single values."""
    values = values[np.isfinite(values)]
    if not len(values):
        return
    atoms, counts = np.unique(values, return_counts=True)
    if len(atoms) < 0.2 * len(values):
        axes.vlines(atoms, 0, counts / counts.max(), color=colour, lw=1.5, alpha=0.8, label=label)
        return
    heights, edges = np.histogram(values, bins=min(60, max(10, int(np.sqrt(len(values))))))
    axes.stairs(heights / heights.max(), edges, color=colour, lw=1.4, label=label)


MARGINALS = ReportFigure(
    name="marginals",
    caption="Marginals of every latent site, of arrays the coordinates that vary most, each "
    "scaled to the same height. Stems are draws that repeat single values.",
    draw=marginals_figure,
)
