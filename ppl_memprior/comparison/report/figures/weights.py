"""The figure of the weights: how much each training example holds of each posterior."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ppl_memprior.comparison.report.figure import ReportFigure
from ppl_memprior.comparison.report.figures.style import (
    Runs,
    colour_of,
    fitted,
    listed,
    shortened,
    whole_numbers,
    without_frame,
)

MOST_BARS = 100  # more examples than that are drawn as lines, which do not get thinner


def weights_figure(runs: Runs, reference: str | None = None) -> Figure:
    """Mean responsibility of each training example, one panel a posterior."""
    weights = {name: t["examples"]["mean_responsibility"].to_numpy() for name, t in runs.items()}
    figure = Figure(figsize=(8, 0.7 + 1.1 * len(runs)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(runs), 1, sharex=True, sharey=True))
    for axes, (name, weight) in zip(panels, weights.items(), strict=True):
        numbers = np.arange(len(weight))
        if len(weight) <= MOST_BARS:
            axes.bar(numbers, weight, color=colour_of(runs, name), width=0.8)
        else:
            axes.vlines(numbers, 0, weight, color=colour_of(runs, name), lw=1.0)
        axes.set_ylabel("weight")
        axes.set_title(fitted(shortened(name), 7.0), loc="left", fontsize=10, pad=3)
        without_frame(axes)
    highest = max(float(weight.max()) for weight in weights.values())
    axes.set_ylim(0, 1.05 * highest)
    axes.set_xlim(-0.7, len(weight) - 0.3)
    axes.set_xlabel("training example (number)")
    whole_numbers(axes.xaxis, most=12)
    tops = (f"{name} example {w.argmax()} with {w.max():.2f}" for name, w in weights.items())
    figure.set_label(
        f"Weights of the {len(weight)} training examples; the largest is of {listed(tops)}."
    )
    return figure


WEIGHTS = ReportFigure(
    name="weights",
    caption="Weight of each training example: the mean responsibility of the draws. A single "
    "bar at one is a lookup.",
    draw=weights_figure,
)
