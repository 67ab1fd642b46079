"""The picture of a survey: its geometry on the grid, its wavelet and the wavelet's spectrum."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


class Drawable(Protocol):
    """What is drawn of a `Survey`."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def source_locations(self) -> np.ndarray: ...
    @property
    def receiver_locations(self) -> np.ndarray: ...
    @property
    def num_shots(self) -> int: ...
    @property
    def num_times(self) -> int: ...
    @property
    def dt(self) -> float: ...
    @property
    def times(self) -> np.ndarray: ...
    @property
    def wavelet(self) -> np.ndarray: ...
    @property
    def peak_frequency(self) -> float: ...


MOST_FREQUENCIES = 3.0  # peak frequencies that the spectrum shows
_SOURCE, _RECEIVER, _WAVELET = "#D55E00", "#0072B2", "#222222"


def draw(survey: Drawable, grid_spacing: float | None) -> Figure:
    """Draw a survey; axes in metres where `grid_spacing`, m, is given, otherwise in cells."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    panels = figure.subplot_mosaic([["geometry", "wavelet"], ["geometry", "spectrum"]])
    _draw_geometry(panels["geometry"], survey, grid_spacing)
    figure.legend(loc="outside lower left", ncols=2, frameon=False)
    _draw_wavelet(panels["wavelet"], survey)
    _draw_spectrum(panels["spectrum"], survey)
    return figure


def _draw_geometry(axes: Axes, survey: Drawable, grid_spacing: float | None) -> None:
    scale, unit = (1, "cells") if grid_spacing is None else (grid_spacing, "m")
    sources = scale * _distinct(survey.source_locations)
    receivers = scale * _distinct(survey.receiver_locations)
    nz, nx = (scale * n for n in survey.shape)
    _draw_cells(axes, survey, scale)
    # Markers of neighbours do not touch, and a source on top of a receiver leaves it to be seen.
    size = min(7.0, max(2.5, 180.0 / len(receivers)))
    axes.plot(
        *receivers[:, ::-1].T,
        "v",
        color=_RECEIVER,
        markersize=size,
        clip_on=False,
        label=_count(receivers, "receiver"),
    )
    axes.plot(
        *sources[:, ::-1].T,
        "*",
        color=_SOURCE,
        markersize=11,
        markeredgecolor="white",
        markeredgewidth=0.6,
        clip_on=False,
        label=_count(sources, "source"),
    )
    # The middle of the first cell is at zero.
    axes.set(
        xlim=(-scale / 2, nx - scale / 2),
        ylim=(nz - scale / 2, -scale / 2),
        aspect="equal",
        xlabel=f"distance ({unit})",
        ylabel=f"depth ({unit})",
    )
    shots = f"{survey.num_shots} shot" + "s" * (survey.num_shots > 1)
    of = "" if grid_spacing is None else f" of {grid_spacing:g} m"
    axes.set_title(f"{shots} on {survey.shape[0]} x {survey.shape[1]} cells{of}", fontsize=10)


def _draw_cells(axes: Axes, survey: Drawable, scale: float) -> None:
    """The edges of the cells, where they can be told apart."""
    if max(survey.shape) > 120:
        return
    nz, nx = survey.shape
    rows, columns = (scale * (np.arange(n + 1) - 0.5) for n in survey.shape)
    style: dict[str, Any] = {"colors": "0.8", "linewidths": 0.4, "zorder": 0}
    axes.hlines(rows, -scale / 2, scale * (nx - 0.5), **style)
    axes.vlines(columns, -scale / 2, scale * (nz - 0.5), **style)


def _draw_wavelet(axes: Axes, survey: Drawable) -> None:
    axes.plot(survey.times, survey.wavelet, color=_WAVELET, linewidth=1.2)
    axes.set(xlabel="time (s)", ylabel="amplitude", xlim=(0, survey.times[-1] or None))
    axes.set_title(f"wavelet: {survey.num_times} samples of {1e3 * survey.dt:g} ms", fontsize=10)
    axes.grid(alpha=0.25)


def _draw_spectrum(axes: Axes, survey: Drawable) -> None:
    # Padded with zeros, for a smooth curve of a short wavelet.
    length = 8 * survey.num_times
    spectrum = np.abs(np.fft.rfft(survey.wavelet, length))
    frequencies = np.fft.rfftfreq(length, survey.dt)
    axes.plot(frequencies, spectrum / (spectrum.max() or 1.0), color=_WAVELET, linewidth=1.2)
    axes.axvline(survey.peak_frequency, color=_SOURCE, linewidth=1, linestyle="--")
    axes.annotate(
        f"peak {survey.peak_frequency:g} Hz",
        (survey.peak_frequency, 1.04),
        xytext=(4, 0),
        textcoords="offset points",
        color=_SOURCE,
        fontsize=9,
    )
    axes.set(
        xlabel="frequency (Hz)",
        ylabel="relative amplitude",
        xlim=(0, min(MOST_FREQUENCIES * survey.peak_frequency, 0.5 / survey.dt)),
        ylim=(0, 1.2),
    )
    axes.set_title("its amplitude spectrum", fontsize=10)
    axes.grid(alpha=0.25)


def _distinct(locations: np.ndarray) -> np.ndarray:
    return np.unique(locations.reshape(-1, 2), axis=0)


def _count(positions: np.ndarray, what: str) -> str:
    return f"{len(positions)} {what} position" + "s" * (len(positions) > 1)
