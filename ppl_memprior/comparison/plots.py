"""The figures of a comparison, each a function of the labelled posteriors.

What a figure has nothing to say about (fields of a problem without fields, chains where there
are none) is left out rather than drawn empty.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray

from ppl_memprior.comparison.chain_plots import occupancy_figure, ranks_figure
from ppl_memprior.comparison.labels import FIELD_DIMS
from ppl_memprior.diagnostics.verdict import MISFIT_Z

Runs = Mapping[str, xr.DataTree]
# Okabe-Ito colours, which stay apart for colour-blind readers
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
TRUTH_COLOUR = "#222222"
MAX_MARGINALS = 6


def figures(runs: Runs, reference: str | None = None) -> dict[str, Figure]:
    """All figures that have something to show, by name, in reading order."""
    made = {
        "misfit": misfit_figure(runs),
        "fields": fields_figure(runs, reference),
        "weights": weights_figure(runs),
        "marginals": marginals_figure(runs),
        "chains": chains_figure(runs),
        "occupancy": occupancy_figure(runs),
        "ranks": ranks_figure(runs),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def misfit_figure(runs: Runs) -> Figure | None:
    """Each posterior's chi-square, in standard deviations of the noise from its expectation."""
    z = {
        name: _chi_square_z(tree)
        for name, tree in runs.items()
        if "chi_square" in tree["sample_stats"]
    }
    if not z:
        return None
    figure = Figure(figsize=(8, 0.8 + 0.45 * len(z)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-MISFIT_Z, MISFIT_Z, color="0.88", label="what the noise allows")
    for row, (name, values) in enumerate(z.items()):
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        colour = _colour(runs, name)
        axes.plot([low, high], [row, row], color=colour, lw=5, alpha=0.5, solid_capstyle="butt")
        axes.plot([middle], [row], "o", color=colour)
    axes.set_yticks(range(len(z)), list(z))
    axes.set_ylim(len(z) - 0.5, -0.5)
    largest = max(np.abs(np.quantile(values, [0.05, 0.95])).max() for values in z.values())
    if largest > 10 * MISFIT_Z:
        axes.set_xscale("symlog", linthresh=10.0)
        axes.xaxis.set_major_formatter(ScalarFormatter())
    low, high = axes.get_xlim()
    axes.set_xlim(min(-1.5 * MISFIT_Z, low), max(1.5 * MISFIT_Z, high))
    axes.set_xlabel(r"misfit z = ($\chi^2 - m$) / $\sqrt{2m}$: median and 5 to 95 % of the draws")
    figure.legend(loc="outside upper right", fontsize=8, frameon=False)
    _clean(axes)
    return figure


def weights_figure(runs: Runs) -> Figure:
    """Mean responsibility of each training example, one panel a posterior."""
    figure = Figure(figsize=(8, 0.6 + 1.1 * len(runs)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(runs), 1, sharex=True, sharey=True))
    for axes, (name, tree) in zip(panels, runs.items(), strict=True):
        weight = tree["examples"]["mean_responsibility"].to_numpy()
        axes.bar(np.arange(len(weight)), weight, color=_colour(runs, name), width=0.8)
        axes.set_ylim(0, 1.05)
        axes.set_ylabel("weight")
        axes.set_title(name, loc="left", fontsize=10, pad=3)
        _clean(axes)
    panels[-1].set_xlabel("training example (number)")
    if len(weight) <= 12:
        panels[-1].set_xticks(range(len(weight)))
    return figure


def marginals_figure(runs: Runs) -> Figure:
    """Marginal densities of the coordinates of the prior's site that vary most."""
    first = next(iter(runs.values()))
    site = str(first.attrs["prior_site"])
    draws = {name: _draws(tree, site) for name, tree in runs.items()}
    examples = first["examples"][site].to_numpy()
    examples = examples.reshape(len(examples), -1)
    truth = _truth(runs, site)
    spread = np.max([values.std(axis=0) for values in draws.values()], axis=0)
    chosen = np.sort(np.argsort(-spread)[:MAX_MARGINALS])
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(8, 2.3 * rows + 0.5), layout="constrained")
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    labels = [_coordinate_label(first, site, i) for i in chosen]
    for axes, coordinate, label in zip(panels, chosen, labels, strict=False):
        for name, values in draws.items():
            _density(axes, values[:, coordinate], _colour(runs, name), name)
        axes.plot(
            examples[:, coordinate],
            np.full(len(examples), -0.06),
            "|",
            color="0.45",
            ms=6,
            label="examples",
        )
        if truth is not None:
            axes.axvline(
                truth.ravel()[coordinate], color=TRUTH_COLOUR, ls="--", lw=1, label="truth"
            )
        axes.set_xlabel(label)
        axes.set_yticks([])
        axes.set_ylim(-0.12, 1.08)
        _clean(axes)
    for axes in panels[len(chosen) :]:
        axes.remove()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), fontsize=8)
    return figure


def fields_figure(runs: Runs, reference: str | None) -> Figure | None:
    """Posterior mean and standard deviation fields beside the truth and the nearest example."""
    first = runs[reference] if reference is not None else next(iter(runs.values()))
    names = [
        name for name, value in first["posterior"].data_vars.items() if value.dims[2:] == FIELD_DIMS
    ]
    if not names:
        return None
    site = str(names[-1])
    draws = {name: _field(tree, "posterior", site) for name, tree in runs.items()}
    mean = {
        name: values.mean(("chain", "draw")) for name, values in draws.items() if values is not None
    }
    sd = {
        name: values.std(("chain", "draw")) for name, values in draws.items() if values is not None
    }
    truth = _field(first, "truth", site)
    examples = _field(first, "examples", site)
    tops = [*([("truth", truth)] if truth is not None else []), *_titled("mean", mean)]
    bottoms = _titled("standard deviation", sd)
    if examples is not None:
        target = truth if truth is not None else mean[reference or next(iter(mean))]
        whose = "truth" if truth is not None else "posterior mean"
        index = int(np.argmin(((examples - target) ** 2).sum(FIELD_DIMS).to_numpy()))
        nearest = (f"example {index}, nearest\nto the {whose}", examples.isel(example=index))
        if truth is not None:
            bottoms = [nearest, *bottoms]
        else:
            tops = [nearest, *tops]
            bottoms = [("standard deviation\nof the examples", examples.std("example")), *bottoms]
    columns = len(tops)
    height, width = truth.shape if truth is not None else tops[0][1].shape
    size = min(1.9, 9.4 / columns)  # inches; a page shrinks what is wider
    figure = Figure(
        figsize=(size * columns + 1.6, 2 * size * height / width + 1.4), layout="constrained"
    )
    panels = figure.subplots(2, columns, squeeze=False)
    # one colour scale for all that are fields, one for all that are their spread
    is_spread = {id(f) for title, f in bottoms if title.startswith("standard")}
    value_range = _range([f for _, f in [*tops, *bottoms] if id(f) not in is_spread])
    spread_range = (0.0, _range([f for _, f in bottoms if id(f) in is_spread])[1])
    images = {}
    for axes, (title, values) in zip(panels.ravel(), [*tops, *bottoms], strict=False):
        spread = id(values) in is_spread
        images[spread] = axes.imshow(
            values,
            extent=_extent(values),
            cmap="magma" if spread else "viridis",
            vmin=(spread_range if spread else value_range)[0],
            vmax=(spread_range if spread else value_range)[1],
            interpolation="nearest",
        )
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
    unit = f" ({first['posterior'][site].attrs['units']})" if _has_units(first, site) else ""
    for row, spread in enumerate((False, True)):
        if spread in images:
            label = f"sd of {site}{unit}" if spread else f"{site}{unit}"
            figure.colorbar(images[spread], ax=panels[row, -1], label=label, shrink=0.9)
    length = " (m)" if "depth" in first["posterior"][site].coords else " (cells)"
    for axes in panels[:, 0]:
        axes.set_ylabel(f"depth{length}", fontsize=8)
    for axes in panels[1]:
        axes.set_xlabel(f"distance{length}", fontsize=8)
    for axes in panels[:, 1:].ravel():
        axes.set_yticklabels([])
    for axes in panels[0]:
        axes.set_xticklabels([])
    return figure


def chains_figure(runs: Runs) -> Figure | None:
    """Nearest example of each draw along each chain: a chain that never moves has not mixed."""
    chains = {
        name: tree
        for name, tree in runs.items()
        # particles come in no order that a path along them could show
        if not (tree.attrs["independent_draws"] or tree.attrs.get("exchangeable_draws", 0))
    }
    if not chains:
        return None
    figure = Figure(figsize=(8, 0.7 + 1.8 * len(chains)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(chains), 1))
    for axes, (name, tree) in zip(panels, chains.items(), strict=True):
        nearest = tree["sample_stats"]["nearest_example"].to_numpy()
        for chain, visited in enumerate(nearest):
            offset = 0.5 * ((chain + 0.5) / len(nearest) - 0.5)
            axes.plot(visited + offset, ".", ms=2.5, color=COLOURS[chain % len(COLOURS)])
            axes.plot([], [], "o", ms=4, color=COLOURS[chain % len(COLOURS)], label=f"{chain}")
        axes.set_ylabel("nearest example\n(number)")
        axes.set_title(name, loc="left", fontsize=10, pad=3)
        axes.legend(
            title="chain", fontsize=8, title_fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5)
        )
        axes.yaxis.get_major_locator().set_params(integer=True)
        _clean(axes)
    panels[-1].set_xlabel("draw")
    return figure


def _density(axes: Axes, values: NDArray[np.floating], colour: str, label: str) -> None:
    """A histogram outline scaled to height one; stems where the draws repeat single values."""
    atoms, counts = np.unique(values, return_counts=True)
    if len(atoms) < 0.2 * len(values):
        axes.vlines(atoms, 0, counts / counts.max(), color=colour, lw=1.5, alpha=0.8, label=label)
        return
    heights, edges = np.histogram(values, bins=min(60, max(10, int(np.sqrt(len(values))))))
    axes.stairs(heights / heights.max(), edges, color=colour, lw=1.4, label=label)


def _chi_square_z(tree: xr.DataTree) -> NDArray[np.float64]:
    values = tree["sample_stats"]["chi_square"].to_numpy().ravel().astype(float)
    num_data = int(tree.attrs["num_data"])
    values = values[np.isfinite(values)]
    return (values - num_data) / np.sqrt(2 * num_data)


def _colour(runs: Runs, name: str) -> str:
    return COLOURS[list(runs).index(name) % len(COLOURS)]


def _draws(tree: xr.DataTree, site: str) -> NDArray[np.floating]:
    values = tree["posterior"][site].to_numpy()
    return values.reshape(values.shape[0] * values.shape[1], -1)


def _truth(runs: Runs, site: str) -> NDArray[np.floating] | None:
    first = next(iter(runs.values()))
    return first["truth"][site].to_numpy() if "truth" in first.children else None


def _coordinate_label(tree: xr.DataTree, site: str, index: int) -> str:
    shape = tree["posterior"][site].shape[2:]
    unit = f" ({tree['posterior'][site].attrs['units']})" if _has_units(tree, site) else ""
    if not shape:
        return f"{site}{unit}"
    position = ", ".join(str(i) for i in np.unravel_index(index, shape))
    return f"{site}[{position}]{unit}"


def _has_units(tree: xr.DataTree, site: str) -> bool:
    return "units" in tree["posterior"][site].attrs


def _field(tree: xr.DataTree, group: str, site: str) -> xr.DataArray | None:
    if group not in tree.children:
        return None
    return tree[group].to_dataset().get(site)


def _titled(what: str, fields: Mapping[str, xr.DataArray]) -> list[tuple[str, xr.DataArray]]:
    return [(f"{what}\n{name}", values) for name, values in fields.items()]


def _range(fields: list[xr.DataArray]) -> tuple[float, float]:
    low = min(float(values.min()) for values in fields)
    high = max(float(values.max()) for values in fields)
    return low, high if high > low else low + 1.0


def _extent(values: xr.DataArray) -> tuple[float, float, float, float]:
    depth, distance = (
        values[dim].to_numpy() if dim in values.coords else np.arange(values.sizes[dim])
        for dim in FIELD_DIMS
    )
    half = [0.5 * (axis[1] - axis[0]) if len(axis) > 1 else 0.5 for axis in (depth, distance)]
    return (
        float(distance[0] - half[1]),
        float(distance[-1] + half[1]),
        float(depth[-1] + half[0]),
        float(depth[0] - half[0]),
    )


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
