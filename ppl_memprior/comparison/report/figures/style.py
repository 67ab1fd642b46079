"""What all figures share: colours, labels that fit, axes of whole numbers, text in place of one.

A figure's description, for readers who cannot see it, is its Matplotlib label.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping

import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

Runs = Mapping[str, xr.DataTree]
# Okabe-Ito colours, which stay apart for colour-blind readers
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
TRUTH_COLOUR = "#222222"
CHARACTER = 0.0085  # inches that a character takes, for each point of its font's size
LONGEST_NAME = 40  # characters of a name that a figure still shows


def colour_of(runs: Runs, name: str) -> str:
    """The posterior's colour, the same in every figure."""
    return COLOURS[list(runs).index(name) % len(COLOURS)]


def shortened(name: str) -> str:
    """A name without its middle where it is long."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 15]}...{name[-12:]}"


def fitted(text: str, inches: float, fontsize: float = 10.0) -> str:
    """Text that users chose, in lines of at most `inches`, shown as it is written."""
    width = max(6, int(inches / (CHARACTER * fontsize)))
    # Matplotlib takes dollars for mathematics, and leaves names with an underscore out of legends
    lines = "\n".join(_break(text, width)).replace("$", r"\$")
    return f" {lines}" if lines.startswith("_") else lines


def whole_numbers(axis: Axis, most: int = 9) -> None:
    """Ticks at whole numbers only: an axis of examples, chains, draws or counts."""
    axis.set_major_locator(MaxNLocator(nbins=most, integer=True, min_n_ticks=1))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value)}"))


def units_of(tree: xr.DataTree, site: str) -> str:
    """The site's unit in brackets, or nothing."""
    values = tree["posterior"].to_dataset()[site]
    return f" ({shortened(str(values.attrs['units']))})" if "units" in values.attrs else ""


def legend_above(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend of all panels above them, in as many rows as its names need."""
    entries: dict[str, Artist] = {}
    for panel in axes:
        handles, names = panel.get_legend_handles_labels()
        entries = dict(zip(names, handles, strict=True)) | entries
    longest = max(max(map(len, name.split("\n"))) for name in entries)
    width = float(figure.get_figwidth())
    most = max(1, int(width / ((longest + 6) * CHARACTER * 8)))
    rows = -(-len(entries) // most)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside upper center",
        ncols=-(-len(entries) // rows),  # no name alone in the last row
        fontsize=8,
    )


def without_frame(axes: Axes) -> None:
    """Leave the left and the lower edge only."""
    axes.spines[["top", "right"]].set_visible(False)


def listed(names: Iterable[object]) -> str:
    """`a, b and c`."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


def _break(text: str, width: int) -> list[str]:
    """Lines of at most `width`, broken at spaces and underscores where there are any."""
    words = text.replace("_", "_\u200b").split("\u200b")
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word
    return [part for line in lines for part in textwrap.wrap(line, width) or [""]]
