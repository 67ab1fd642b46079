"""The figure of the occupancy: whether the chains give the examples the same weights."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ppl_memprior.comparison.report.figure import ReportFigure
from ppl_memprior.comparison.report.figures.chain_panels import with_chains
from ppl_memprior.comparison.report.figures.style import (
    Runs,
    fitted,
    listed,
    shortened,
    whole_numbers,
)
from ppl_memprior.diagnostics.modes import visited_modes
from ppl_memprior.diagnostics.multimodality import occupancy

MAX_EXAMPLES = 12  # columns of a panel
MAX_NUMBERED_CHAINS = 16  # rows that are still high enough to be written into


def occupancy_figure(runs: Runs, reference: str | None = None) -> Figure | None:
    """Share of each chain's draws next to each example, of the examples visited most.

    Rows that look alike are chains that agree; a row with one dark cell is a chain that stayed.
    """
    chains = with_chains(runs)
    if not chains:
        return None
    shares = {name: _occupancy(tree) for name, tree in chains.items()}
    pooled = xr.concat([s.mean("chain") for s in shares.values()], "run", join="outer").fillna(0)
    mean = pooled.mean("run")
    top = np.sort(mean["example"].to_numpy()[np.argsort(-mean.to_numpy())[:MAX_EXAMPLES]])
    heights = [0.3 * min(s.sizes["chain"], MAX_NUMBERED_CHAINS) + 0.55 for s in shares.values()]
    figure = Figure(figsize=(8, sum(heights) + 1.1), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(shares), 1, sharex=True, height_ratios=heights))
    for axes, (name, share) in zip(panels, shares.items(), strict=True):
        table = share.reindex(example=top, fill_value=0.0)
        image = axes.imshow(table, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        if table.sizes["chain"] <= MAX_NUMBERED_CHAINS:
            for (row, column), value in np.ndenumerate(table.to_numpy()):
                if value >= 0.005:
                    colour = "white" if value > 0.6 else "0.15"
                    text = f"{value:.2f}"
                    axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
            axes.set_yticks(range(table.sizes["chain"]), table["chain"].to_numpy())
        else:
            whole_numbers(axes.yaxis)
        axes.set_ylabel("chain")
        axes.set_title(fitted(shortened(name), 7.0), loc="left", fontsize=10, pad=3)
    panels[-1].set_xticks(range(len(top)), top)
    panels[-1].set_xlabel("nearest example (number)")
    bar = figure.colorbar(
        image, ax=list(panels), location="bottom", label="share of the chain's draws", aspect=50
    )
    bar.ax.tick_params(labelsize=8)
    figure.set_label(
        f"Share of each chain's draws next to the examples {listed(top)}, one row a chain: "
        + "; ".join(
            f"{name}, chains together: "
            + ", ".join(
                f"{float(value):.2f} next to {int(value['example'])}"
                for value in share.mean("chain").reindex(example=top, fill_value=0.0)
                if value >= 0.005
            )
            for name, share in shares.items()
        )
        + "."
    )
    return figure


def _occupancy(tree: xr.DataTree) -> xr.DataArray:
    return occupancy(visited_modes(tree))


OCCUPANCY = ReportFigure(
    name="occupancy",
    caption="Share of each chain's draws next to each example, for the examples visited most. "
    "Rows that look alike are chains that agree on the weights.",
    draw=occupancy_figure,
)
