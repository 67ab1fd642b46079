"""Figures of chains: which examples each one visits, and whether their draws are of one law."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata

from ppl_memprior._arviz import az
from ppl_memprior.diagnostics.modes import visited_modes
from ppl_memprior.diagnostics.multimodality import occupancy

Runs = Mapping[str, xr.DataTree]
MAX_EXAMPLES = 12
MAX_CHAINS = 8  # rank histograms that still fit beside one another
RANK_BINS = 20


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
    heights = [0.3 * s.sizes["chain"] + 0.55 for s in shares.values()]
    figure = Figure(figsize=(8, sum(heights) + 0.7), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(shares), 1, sharex=True, height_ratios=heights))
    for axes, (name, share) in zip(panels, shares.items(), strict=True):
        table = share.reindex(example=top, fill_value=0.0)
        image = axes.imshow(table, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        for (row, column), value in np.ndenumerate(table.to_numpy()):
            if value >= 0.005:
                colour = "white" if value > 0.6 else "0.15"
                text = f"{value:.2f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
        axes.set_yticks(range(table.sizes["chain"]), table["chain"].to_numpy())
        axes.set_ylabel("chain")
        axes.set_title(name, loc="left", fontsize=10, pad=3)
    panels[-1].set_xticks(range(len(top)), top)
    panels[-1].set_xlabel("nearest example (number)")
    figure.colorbar(image, ax=list(panels), label="share of the chain's draws", fraction=0.04)
    return figure


def ranks_figure(runs: Runs) -> Figure | None:
    """Rank histograms of the coordinate with the largest R-hat, one panel a chain.

    A draw's rank is its place among the draws of all chains; the histograms of chains of one law
    are flat (Vehtari et al. 2021). The band holds 95 % of the bars of independent draws.
    """
    chains = {name: t for name, t in with_chains(runs).items() if t["posterior"].sizes["chain"] > 1}
    if not chains:
        return None
    columns = min(MAX_CHAINS, max(tree["posterior"].sizes["chain"] for tree in chains.values()))
    figure = Figure(figsize=(8, 0.5 + 1.35 * len(chains)), layout="constrained")
    panels = figure.subplots(len(chains), columns, squeeze=False, sharex="row", sharey="row")
    for row, (name, tree) in zip(panels, chains.items(), strict=True):
        label, values = worst_coordinate(tree)
        ranks = rankdata(values).reshape(values.shape) / values.size
        expected = values.shape[1] / RANK_BINS
        spread = 1.96 * np.sqrt(expected * (1 - 1 / RANK_BINS))
        for chain, axes in enumerate(row):
            if chain >= len(ranks):
                axes.remove()
                continue
            axes.axhspan(expected - spread, expected + spread, color="0.88")
            counts, edges = np.histogram(ranks[chain], bins=RANK_BINS, range=(0, 1))
            axes.stairs(counts, edges, fill=True, color="#0072B2", alpha=0.7)
            axes.axhline(expected, color="0.4", lw=0.8)
            axes.set_xticks([0, 0.5, 1])
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=7)
            heading = f"{name}: {label}\nchain 0" if chain == 0 else f"chain {chain}"
            axes.set_title(heading, loc="left", fontsize=8, pad=2)
        row[0].set_ylabel("draws", fontsize=8)
    figure.supxlabel("rank among the draws of all chains, over their number", fontsize=9)
    return figure


def with_chains(runs: Runs) -> dict[str, xr.DataTree]:
    """The posteriors that are Markov chains, or repeats of a sampler."""
    return {name: tree for name, tree in runs.items() if not tree.attrs["independent_draws"]}


def worst_coordinate(tree: xr.DataTree) -> tuple[str, NDArray[np.floating]]:
    """Name and draws, shape (chains, draws), of the latent coordinate with the largest R-hat."""
    posterior = tree["posterior"].to_dataset()
    worst: tuple[float, str, tuple[int, ...]] = (-np.inf, "", ())
    for name in json.loads(str(tree.attrs["latent_sites"])):
        with np.errstate(divide="ignore", invalid="ignore"):
            rhat = np.nan_to_num(np.asarray(az.rhat(posterior[name], method="rank"), dtype=float))
        index = np.unravel_index(int(np.argmax(rhat)), rhat.shape)
        position = tuple(int(i) for i in index)
        if rhat[position] > worst[0]:
            worst = (float(rhat[position]), name, position)
    _, name, position = worst
    label = f"{name}[{', '.join(map(str, position))}]" if position else name
    values = posterior[name].transpose("chain", "draw", ...)
    kept = dict(zip(values.dims[2:], position, strict=True))
    return label, values.isel(kept).to_numpy()


def _occupancy(tree: xr.DataTree) -> xr.DataArray:
    return occupancy(visited_modes(tree))
