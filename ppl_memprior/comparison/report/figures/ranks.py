"""The figure of the ranks: whether the draws of all chains have one distribution."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata

from ppl_memprior._arviz import az
from ppl_memprior.comparison.latents import Coordinate
from ppl_memprior.comparison.report.figure import ReportFigure
from ppl_memprior.comparison.report.figures.chain_panels import (
    MAX_CHAINS,
    row_of_panels,
    with_chains,
)
from ppl_memprior.comparison.report.figures.style import (
    COLOURS,
    Runs,
    shortened,
    whole_numbers,
    without_frame,
)

RANK_BINS = 20


def ranks_figure(runs: Runs, reference: str | None = None) -> Figure | None:
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
        row = row_of_panels(part, name, len(values), columns, of)
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


RANKS = ReportFigure(
    name="ranks",
    caption="Ranks of each chain's draws among those of all chains, for the coordinate with the "
    "largest R-hat. Chains of one distribution have flat histograms within the band, if "
    "their draws are nearly independent.",
    draw=ranks_figure,
)
