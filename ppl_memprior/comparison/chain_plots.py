"""Figures of chains: which examples each visits, and whether their draws have one distribution.

Every figure has a row of panels for each posterior that has chains; what comes in no order, such
as particles, has no path to draw.
"""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.stats import rankdata

from ppl_memprior._arviz import az
from ppl_memprior.comparison.figure_style import (
    COLOURS,
    Runs,
    fitted,
    listed,
    shortened,
    whole_numbers,
    without_frame,
)
from ppl_memprior.comparison.latents import Coordinate
from ppl_memprior.diagnostics.modes import visited_modes
from ppl_memprior.diagnostics.multimodality import occupancy

MAX_EXAMPLES = 12
MAX_CHAINS = 8  # panels that still fit beside one another
MAX_NUMBERED_CHAINS = 16  # rows that are still high enough to be written into
RANK_BINS = 20


def chains_figure(runs: Runs) -> Figure | None:
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
        row = _row(part, name, len(visited), columns)
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


def occupancy_figure(runs: Runs) -> Figure | None:
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


def ranks_figure(runs: Runs) -> Figure | None:
    """Rank histograms of the coordinate with the largest R-hat, one panel a chain.

    A draw's rank is its place among the draws of all chains; the histograms of chains of one
    distribution are flat (Vehtari et al. 2021). The band holds 95 % of the bars of independent
    draws.
    """
    chains = {name: t for name, t in with_chains(runs).items() if t["posterior"].sizes["chain"] > 1}
    if not chains:
        return None
    columns = min(MAX_CHAINS, max(tree["posterior"].sizes["chain"] for tree in chains.values()))
    figure = Figure(figsize=(8, 0.5 + 1.45 * len(chains)), layout="constrained")
    parts = figure.subfigures(len(chains), 1, squeeze=False)[:, 0]
    shown = []
    for part, (name, tree) in zip(parts, chains.items(), strict=True):
        worst, values = worst_coordinate(tree)
        shown.append(f"{name}, {len(values)} chains, {worst}")
        of = f": {worst._replace(site=shortened(worst.site))}"
        row = _row(part, name, len(values), columns, of)
        ranks = rankdata(values).reshape(values.shape) / values.size
        expected = values.shape[1] / RANK_BINS
        spread = 1.96 * np.sqrt(expected * (1 - 1 / RANK_BINS))
        for chain, axes in enumerate(row):
            axes.axhspan(max(0.0, expected - spread), expected + spread, color="0.88")
            counts, edges = np.histogram(ranks[chain], bins=RANK_BINS, range=(0, 1))
            axes.stairs(counts, edges, fill=True, color=COLOURS[0], alpha=0.7)
            axes.axhline(expected, color="0.4", lw=0.8)
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            whole_numbers(axes.yaxis, most=4)
            without_frame(axes)
            axes.tick_params(labelsize=7)
        row[0].set_ylabel("draws", fontsize=8)
    figure.supxlabel("rank among the draws of all chains, over their number", fontsize=9)
    figure.set_label(
        "Histograms of the ranks of each chain's draws among those of all chains, for the "
        f"coordinate with the largest R-hat: {'; '.join(shown)}."
    )
    return figure


def with_chains(runs: Runs) -> dict[str, xr.DataTree]:
    """The posteriors that are Markov chains, or repeats of a sampler."""
    return {name: tree for name, tree in runs.items() if not tree.attrs["independent_draws"]}


def worst_coordinate(tree: xr.DataTree) -> tuple[Coordinate, NDArray[np.floating]]:
    """The latent coordinate with the largest R-hat, and its draws, shape (chains, draws)."""
    posterior = tree["posterior"].to_dataset()
    found: list[tuple[float, Coordinate]] = []
    for name in json.loads(str(tree.attrs["latent_sites"])):
        with np.errstate(divide="ignore", invalid="ignore"):
            rhat = np.nan_to_num(np.asarray(az.rhat(posterior[name], method="rank"), dtype=float))
        index = np.unravel_index(int(np.argmax(rhat)), rhat.shape)
        position = tuple(int(i) for i in index)
        found.append((float(rhat[position]), Coordinate(name, position)))
    _, worst = max(found, key=lambda pair: pair[0])
    return worst, worst.draws(tree).to_numpy()


def _row(part: SubFigure, name: str, count: int, columns: int, of: str = "") -> list[Axes]:
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


def _occupancy(tree: xr.DataTree) -> xr.DataArray:
    return occupancy(visited_modes(tree))
