"""What the figures of chains share: the posteriors that have chains, and a panel for each chain."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from ppl_memprior.comparison.report.figures.style import Runs, fitted, shortened

MAX_CHAINS = 8  # panels that still fit beside one another


def with_chains(runs: Runs) -> dict[str, xr.DataTree]:
    """The posteriors that are Markov chains, or repeats of a sampler."""
    return {name: tree for name, tree in runs.items() if not tree.attrs["independent_draws"]}


def row_of_panels(part: SubFigure, name: str, count: int, columns: int, of: str = "") -> list[Axes]:
    """A panel for each chain of a posterior, as many as fit, under its name."""
    hidden = f", the first {columns} of {count} chains" if count > columns else ""
    heading = fitted(f"{shortened(name)}{of}{hidden}", 7.8, 9.0)
    part.suptitle(heading, x=0.01, ha="left", fontsize=9)
    panels = list(part.subplots(1, columns, squeeze=False, sharex=True, sharey=True)[0])
    for chain, axes in enumerate(panels[:count]):
        axes.set_title(f"chain {chain}", loc="left", fontsize=8, pad=3)
    for axes in panels[count:]:
        axes.remove()
    return panels[:count]
