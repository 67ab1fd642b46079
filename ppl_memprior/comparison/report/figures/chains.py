"""The figure of the chains: which examples each chain visits, and in what order."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ppl_memprior.comparison.report.figure import ReportFigure
from ppl_memprior.comparison.report.figures.chain_panels import (
    MAX_CHAINS,
    row_of_panels,
    with_chains,
)
from ppl_memprior.comparison.report.figures.style import COLOURS, Runs, without_frame

MAX_EXAMPLES = 12  # rows of a panel


def chains_figure(runs: Runs, reference: str | None = None) -> Figure | None:
    """Nearest example of each draw, one panel a chain: a chain that never moves has not mixed.

    The rows of a panel are the examples that some chain visits, as many as fit.
    """
    chains = {
        name: tree
        for name, tree in with_chains(runs).items()
        # particles come in no order that a path along them could show
        if not tree.attrs.get("exchangeable_draws", 0)
    }
    if not chains:
        return None
    visits = {
        name: tree["sample_stats"]["nearest_example"].transpose("chain", "draw").to_numpy()
        for name, tree in chains.items()
    }
    rows = {name: _rows(visited) for name, visited in visits.items()}
    heights = [0.75 + 0.17 * max(2, len(labels)) for _, labels in rows.values()]
    columns = min(MAX_CHAINS, max(len(visited) for visited in visits.values()))
    figure = Figure(figsize=(8, sum(heights) + 0.35), layout="constrained")
    parts = figure.subfigures(len(chains), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, (name, visited) in zip(parts, visits.items(), strict=True):
        places, labels = rows[name]
        row = row_of_panels(part, name, len(visited), columns)
        for chain, axes in enumerate(row):
            axes.plot(places[chain], "|", ms=5, mew=0.8, color=COLOURS[0], snap=False)
            axes.set_ylim(len(labels) - 0.5, -0.5)
            axes.set_yticks(range(len(labels)), labels)
            axes.grid(axis="y", color="0.9", lw=0.6)
            axes.tick_params(labelsize=7)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))
            without_frame(axes)
        row[0].set_ylabel("example", fontsize=8)
    figure.supxlabel("draw", fontsize=9)
    figure.set_label(
        "Nearest training example of each draw along each chain, one panel a chain. "
        + " ".join(
            f"{name}: {len(visited)} chains, which visit {[len(set(c)) for c in visited.tolist()]} "
            "examples."
            for name, visited in visits.items()
        )
    )
    return figure


def _rows(visited: NDArray[np.integer]) -> tuple[NDArray[np.integer], list[str]]:
    """The row of each draw, and the rows' labels: the examples visited most, then all others."""
    numbers, counts = np.unique(visited, return_counts=True)
    if len(numbers) <= MAX_EXAMPLES:
        return np.searchsorted(numbers, visited), [str(number) for number in numbers]
    top = np.sort(numbers[np.argsort(-counts, kind="stable")[: MAX_EXAMPLES - 1]])
    places = np.searchsorted(top, visited)
    known = np.isin(visited, top)
    others = len(numbers) - len(top)
    return np.where(known, places, len(top)), [*map(str, top), f"{others} others"]


CHAINS = ReportFigure(
    name="chains",
    caption="Nearest training example of each draw: a panel for each chain, and a row for each "
    "example that a chain visits. Chains that stay with different examples have not "
    "mixed: their weights are those of the starting points.",
    draw=chains_figure,
)
