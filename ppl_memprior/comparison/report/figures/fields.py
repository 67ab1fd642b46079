"""Pictures of sites of two dimensions: posterior mean and spread beside truth and examples.

A site is drawn over depth and distance only where it has their coordinates; elsewhere its axes
are rows and columns.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from ppl_memprior.comparison.report.figure import ReportFigure
from ppl_memprior.comparison.report.figures.style import (
    Runs,
    fitted,
    listed,
    shortened,
    units_of,
    whole_numbers,
)
from ppl_memprior.comparison.trees.dims import FIELD_DIMS, is_numbered

FLATTEST, STEEPEST = 0.3, 1.7  # height over width of a panel; fields beyond are stretched


class _Panel(NamedTuple):
    title: str
    values: xr.DataArray
    is_spread: bool = False


class _Side(NamedTuple):
    """One side of a field: its name, where it begins and ends, and whether that is in cells."""

    label: str
    ends: tuple[float, float]
    in_cells: bool


def fields_figure(runs: Runs, reference: str | None = None) -> Figure | None:
    """Posterior mean and standard deviation fields beside the truth and the nearest example.

    Of the prior's site if that is a field, else of the first deterministic site that is one.
    """
    first = runs[reference] if reference is not None else next(iter(runs.values()))
    site = field_site(first)
    if site is None:
        return None
    rows = _panels(runs, first, site)
    one = _posterior(first, site)[0, 0]
    vertical, horizontal = _side(one, 0), _side(one, 1)
    ratio, to_scale = _proportions(one, vertical, horizontal)
    everything = [*rows[0], *rows[1]]
    columns = len(rows[0])
    width = min(1.9, 9.4 / columns)  # inches; a page shrinks what is wider
    height = max(0.9, width * ratio)
    figure = Figure(figsize=(width * columns + 1.7, 2 * height + 1.5), layout="constrained")
    grid = figure.subplots(2, columns, squeeze=False)
    # one colour scale for all that are fields, one for all that are their spread
    ranges = {
        is_spread: _range([panel.values for panel in everything if panel.is_spread == is_spread])
        for is_spread in {panel.is_spread for panel in everything}
    }
    images: dict[bool, AxesImage] = {}
    for axes_row, panels in zip(grid, rows, strict=True):
        missing = columns - len(panels)
        for axes in axes_row[:missing]:
            axes.remove()
        for axes, panel in zip(axes_row[missing:], panels, strict=True):
            images[panel.is_spread] = _draw_panel(
                axes, panel, vertical, horizontal, limits=ranges[panel.is_spread]
            )
            axes.set_aspect("equal" if to_scale else "auto")
            lines = [fitted(line, width, 9) for line in panel.title.split("\n")]
            axes.set_title("\n".join(lines), fontsize=9)
            _label_sides(
                axes,
                vertical,
                horizontal,
                left=axes is axes_row[missing],
                below=panels is rows[1] or axes in grid[0][: columns - len(rows[1])],
            )
    label = f"{shortened(site)}{units_of(first, site)}"
    for is_spread, image in images.items():
        bar = figure.colorbar(image, ax=grid[int(is_spread), -1], shrink=0.9)
        bar.set_label(fitted(f"sd of {label}" if is_spread else label, height, 9), fontsize=9)
        bar.ax.tick_params(labelsize=8)
    titles = [" ".join(panel.title.split()) for panel in everything]
    figure.set_label(f"Pictures of {label}: {listed(titles)}.")
    return figure


def _draw_panel(
    axes: Axes, panel: _Panel, vertical: _Side, horizontal: _Side, limits: tuple[float, float]
) -> AxesImage:
    """Draw the picture of a panel; a spread begins at zero, whatever its limits."""
    return axes.imshow(
        panel.values,
        extent=(*horizontal.ends, *vertical.ends[::-1]),
        cmap="magma" if panel.is_spread else "viridis",
        vmin=0.0 if panel.is_spread else limits[0],
        vmax=limits[1],
        interpolation="nearest",
    )


def field_site(tree: xr.DataTree) -> str | None:
    """The prior's site or the first deterministic site that is a field; None without one."""
    posterior = tree["posterior"].to_dataset()
    latents = json.loads(str(tree.attrs["latent_sites"]))
    deterministics = [str(name) for name in posterior.data_vars if name not in latents]
    sites = [str(tree.attrs["prior_site"]), *deterministics]
    return next((site for site in sites if _is_field(_posterior(tree, site))), None)


def _is_field(values: xr.DataArray) -> bool:
    """Whether a site is a picture: two dimensions, and no covariance matrix or a factor of one."""
    if values.ndim != 4 or min(values.shape[2:]) < 2:
        return False
    if values.shape[2] != values.shape[3] or set(FIELD_DIMS) & set(values.coords):
        return True
    matrices = values[:, :: max(1, values.sizes["draw"] // 20)].to_numpy()  # some draws tell
    symmetric = np.allclose(matrices, np.swapaxes(matrices, 2, 3), equal_nan=True)
    triangular = not np.triu(matrices, 1).any() or not np.tril(matrices, -1).any()
    return not (symmetric or triangular)


def _panels(runs: Runs, first: xr.DataTree, site: str) -> tuple[list[_Panel], list[_Panel]]:
    """The upper row, fields, and the lower one, the fields' spread."""
    draws = {
        name: _posterior(tree, site)
        for name, tree in runs.items()
        if site in tree["posterior"].data_vars
    }
    means = {name: values.mean(("chain", "draw")) for name, values in draws.items()}
    tops = [_Panel(f"mean\n{shortened(name)}", mean) for name, mean in means.items()]
    bottoms = [
        _Panel(f"standard deviation\n{shortened(name)}", values.std(("chain", "draw")), True)
        for name, values in draws.items()
    ]
    truth, examples = _field(first, "truth", site), _field(first, "examples", site)
    if examples is not None:
        target = truth if truth is not None else _posterior(first, site).mean(("chain", "draw"))
        whose = "truth" if truth is not None else "posterior mean"
        distances = ((examples - target) ** 2).sum(examples.dims[1:])
        index = int(np.argmin(distances.to_numpy()))
        nearest = _Panel(f"example {index}, nearest\nto the {whose}", examples.isel(example=index))
        if truth is not None:
            bottoms = [nearest, *bottoms]
        else:
            spread = examples.std("example")
            tops = [nearest, *tops]
            bottoms = [_Panel("standard deviation\nof the examples", spread, True), *bottoms]
    return ([_Panel("truth", truth), *tops] if truth is not None else tops), bottoms


def _posterior(tree: xr.DataTree, site: str) -> xr.DataArray:
    return tree["posterior"].to_dataset()[site].transpose("chain", "draw", ...)


def _field(tree: xr.DataTree, group: str, site: str) -> xr.DataArray | None:
    if group not in tree.children:
        return None
    return tree[group].to_dataset().get(site)


def _side(values: xr.DataArray, which: int) -> _Side:
    dim, cells = str(values.dims[which]), values.shape[which]
    if dim in FIELD_DIMS and dim in values.coords and not is_numbered(values[dim]) and cells > 1:
        places = values[dim].to_numpy().astype(float)
        half = 0.5 * (places[1] - places[0])
        if half != 0 and np.allclose(np.diff(places), 2 * half, rtol=1e-3):
            return _Side(f"{dim} (m)", (places[0] - half, places[-1] + half), in_cells=False)
    return _Side(("row", "column")[which], (-0.5, cells - 0.5), in_cells=True)


def _proportions(values: xr.DataArray, vertical: _Side, horizontal: _Side) -> tuple[float, bool]:
    """Height over width of a panel, and whether that is to scale."""
    if vertical.in_cells != horizontal.in_cells:
        ratio, to_scale = values.shape[0] / values.shape[1], False
    else:
        ratio, to_scale = abs(np.ptp(vertical.ends) / np.ptp(horizontal.ends)), True
    bounded = float(np.clip(ratio, FLATTEST, STEEPEST))
    return bounded, to_scale and bounded == ratio


def _label_sides(
    axes: Axes, vertical: _Side, horizontal: _Side, *, left: bool, below: bool
) -> None:
    """Ticks on every panel, their numbers and names on the outer ones only."""
    axes.tick_params(labelsize=7, labelleft=left, labelbottom=below)
    for axis, side in ((axes.yaxis, vertical), (axes.xaxis, horizontal)):
        if side.in_cells:
            whole_numbers(axis, most=4)
        else:
            axis.set_major_locator(MaxNLocator(nbins=4))
    if left:
        axes.set_ylabel(vertical.label, fontsize=8)
    if below:
        axes.set_xlabel(horizontal.label, fontsize=8)


def _range(fields: list[xr.DataArray]) -> tuple[float, float]:
    values = np.concatenate([field.to_numpy().ravel() for field in fields])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    return low, high if high > low else low + 1.0


FIELDS = ReportFigure(
    name="fields",
    caption="Posterior mean (top) and standard deviation (bottom) of each method, beside the "
    "truth and its nearest training example. Without a truth: beside the example "
    "nearest to the posterior mean, and the standard deviation of the examples.",
    draw=fields_figure,
)
