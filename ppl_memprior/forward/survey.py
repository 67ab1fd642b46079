"""Positions of the sources and receivers of a seismic survey, and the wavelet of the sources.

A `Survey` is plain NumPy data on a grid of cells. It knows neither the grid spacing nor the
physics: both belong to the wave equation that takes the survey (`waves`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_memprior._arrays import real_array
from ppl_memprior.forward.waves._survey_cells import (
    check_extent,
    grid_of,
    locations_of,
    nearest_cells,
    spread,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A Ricker wavelet's amplitude spectrum falls to 2 % of its peak at 2.5 times the peak frequency.
BANDWIDTH = 2.5


def ricker(peak_frequency: float, num_times: int, dt: float) -> NDArray[np.float64]:
    """Return a Ricker wavelet, the negative second derivative of a Gaussian, with a peak of one.

    Args:
        peak_frequency: frequency f at which the amplitude spectrum is largest, Hz.
        num_times: number of time samples.
        dt: time step, s.

    Returns:
        Samples of (1 - 2 a) exp(-a), a = (pi f (t - t0))^2, shape (num_times,). The peak is at
        t0 = 1.5 / f. The samples that are cut off before t = 0 are below 1e-7 of the peak.

    Source:
        N. Ricker, "The form and laws of propagation of seismic wavelets", Geophysics 18 (1953).
    """
    time = np.arange(num_times) * dt - 1.5 / peak_frequency
    a = (np.pi * peak_frequency * time) ** 2
    return (1 - 2 * a) * np.exp(-a)


@dataclass(frozen=True, eq=False)
class Survey:
    """Sources, receivers and time axis of a seismic survey on a grid.

    Two surveys are equal if all their values are equal. The arrays are read-only.

    Args:
        shape: cells of the model grid (nz, nx): depth, distance.
        source_locations: grid cells (depth, distance) of the sources, integers of shape
            (shots, sources_per_shot, 2). The sources of one shot fire together.
        receiver_locations: grid cells (depth, distance) of the receivers, integers of shape
            (shots, receivers, 2).
        wavelet: wavelet that every source emits, shape (nt,).
        dt: time step of the wavelet and of the data, s.
        peak_frequency: frequency at which the wavelet is strongest, Hz.

    Raises:
        ValueError: an array of the wrong shape; a position outside the grid; a wavelet that is not
            finite; or a time step that is too long for the wavelet's frequencies.
    """

    shape: tuple[int, int]
    source_locations: NDArray[np.int64]
    receiver_locations: NDArray[np.int64]
    wavelet: NDArray[np.float64]
    dt: float
    peak_frequency: float

    def __post_init__(self) -> None:
        shape = grid_of(self.shape)
        sources = locations_of(self.source_locations, "source_locations", shape)
        receivers = locations_of(self.receiver_locations, "receiver_locations", shape)
        if len(sources) != len(receivers):
            raise ValueError(
                f"source_locations have {len(sources)} shots and receiver_locations "
                f"{len(receivers)}; give every shot its own receivers."
            )
        wavelet = np.array(real_array("wavelet", self.wavelet), dtype=np.float64)
        if wavelet.ndim != 1 or not wavelet.size or not np.all(np.isfinite(wavelet)):
            raise ValueError(
                f"wavelet must be finite samples of shape (nt,), got shape {wavelet.shape} with "
                f"{np.count_nonzero(~np.isfinite(wavelet))} non-finite values."
            )
        _check_time_axis(self.peak_frequency, self.dt)
        wavelet.setflags(write=False)
        values = (shape, sources, receivers, wavelet, float(self.dt), float(self.peak_frequency))
        for field, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    @property
    def num_shots(self) -> int:
        """Number of shots."""
        return len(self.source_locations)

    @property
    def num_receivers(self) -> int:
        """Number of receivers of one shot."""
        return self.receiver_locations.shape[1]

    @property
    def num_times(self) -> int:
        """Number of time samples."""
        return len(self.wavelet)

    @property
    def times(self) -> NDArray[np.float64]:
        """Times of the samples, s, shape (nt,)."""
        return np.arange(self.num_times, dtype=np.float64) * np.float64(self.dt)

    @classmethod
    def from_metres(
        cls,
        shape: tuple[int, int],
        grid_spacing: float,
        sources: ArrayLike,
        receivers: ArrayLike,
        *,
        peak_frequency: float,
        dt: float,
        num_times: int | None = None,
        wavelet: ArrayLike | None = None,
    ) -> Survey:
        """Move sources and receivers at positions in metres to the nearest cells.

        The middle of the first cell is at (0, 0), the middle of cell (i, j) at
        (i, j) `grid_spacing`. So no position moves by more than half a cell along an axis.

        Args:
            shape: cells of the model grid (nz, nx).
            grid_spacing: size of a cell, m, the same as in the wave equation.
            sources: positions (depth, distance), m, of shape (shots, 2), or (shots,
                sources_per_shot, 2).
            receivers: positions (depth, distance), m, of shape (receivers, 2) for the same
                receivers in all shots, or (shots, receivers, 2).
            peak_frequency: frequency at which the wavelet is strongest, Hz.
            dt: time step, s.
            num_times: number of time samples of a Ricker wavelet.
            wavelet: wavelet that every source emits instead, shape (nt,).

        Returns:
            The survey on the grid's cells.

        Raises:
            ValueError: a position outside the grid; different positions that are all in one cell;
                a number that does not fit; or not exactly one of `num_times` and `wavelet`.
        """
        if (num_times is None) == (wavelet is None):
            raise ValueError("give one of num_times, for a Ricker wavelet, and wavelet.")
        if wavelet is None:
            wavelet = _whole_ricker(peak_frequency, num_times or 0, dt)
        grid = grid_of(shape)
        fired = nearest_cells(sources, "sources", grid, grid_spacing)
        heard = nearest_cells(receivers, "receivers", grid, grid_spacing)
        check_extent(sources, receivers, (fired, heard), grid_spacing)
        if fired.ndim == 2:
            fired = fired[:, None]
        if heard.ndim == 2:
            heard = np.broadcast_to(heard, (len(fired), *heard.shape))
        return cls(grid, fired, heard, wavelet, dt, peak_frequency)  # type: ignore[arg-type]

    @classmethod
    def surface(
        cls,
        shape: tuple[int, int],
        num_shots: int,
        num_receivers: int,
        peak_frequency: float,
        dt: float,
        num_times: int,
        depth: int = 1,
    ) -> Survey:
        """Put sources and receivers along one row near the surface, to record reflections.

        Args:
            shape: cells of the model grid (nz, nx).
            num_shots: shots of one source each, evenly spread over the columns.
            num_receivers: receivers, the same for every shot, evenly spread over the columns.
            peak_frequency: peak frequency of the Ricker wavelet, Hz.
            dt: time step, s.
            num_times: number of time samples.
            depth: row of sources and receivers.

        Returns:
            The survey, with a Ricker wavelet.

        Raises:
            ValueError: a number that does not fit the grid or the time axis.
        """
        return cls._line(
            shape, (depth, num_shots), (depth, num_receivers), peak_frequency, dt, num_times
        )

    @classmethod
    def transmission(
        cls,
        shape: tuple[int, int],
        num_shots: int,
        num_receivers: int,
        peak_frequency: float,
        dt: float,
        num_times: int,
        depth: int = 1,
    ) -> Survey:
        """Put sources along a row near the top, and receivers along a row near the bottom.

        Args:
            shape: cells of the model grid (nz, nx).
            num_shots: shots of one source each, evenly spread over the columns.
            num_receivers: receivers, the same for every shot, evenly spread over the columns.
            peak_frequency: peak frequency of the Ricker wavelet, Hz.
            dt: time step, s.
            num_times: number of time samples.
            depth: row of the sources. The receivers are the same number of rows above the last row.

        Returns:
            The survey, with a Ricker wavelet.

        Raises:
            ValueError: a number that does not fit the grid or the time axis.
        """
        bottom = grid_of(shape)[0] - 1 - depth
        return cls._line(
            shape, (depth, num_shots), (bottom, num_receivers), peak_frequency, dt, num_times
        )

    @classmethod
    def openfwi(
        cls,
        shape: tuple[int, int] = (70, 70),
        *,
        num_shots: int = 5,
        num_receivers: int | None = None,
        peak_frequency: float = 15.0,
        dt: float = 0.001,
        num_times: int = 1000,
    ) -> Survey:
        """Return the survey of OpenFWI's Vel, Fault and Style families, or a smaller one like it.

        Five shots are evenly spread over the columns, and every column has a receiver, all on grid
        row 1. The wavelet is a 15 Hz Ricker wavelet of 1,000 samples of 1 ms. OpenFWI's grid
        spacing is 10 m.

        Args:
            shape: cells of the model grid (nz, nx).
            num_shots: number of shots.
            num_receivers: number of receivers; None means one in each column.
            peak_frequency: peak frequency of the Ricker wavelet, Hz.
            dt: time step, s.
            num_times: number of time samples.

        Returns:
            The survey.

        Raises:
            ValueError: a number that does not fit the grid or the time axis.

        Source:
            C. Deng et al., "OpenFWI: Large-scale multi-structural benchmark datasets for full
            waveform inversion", NeurIPS 2022.
        """
        receivers = grid_of(shape)[1] if num_receivers is None else num_receivers
        return cls.surface(shape, num_shots, receivers, peak_frequency, dt, num_times)

    @classmethod
    def _line(
        cls,
        shape: tuple[int, int],
        sources: tuple[int, int],
        receivers: tuple[int, int],
        peak_frequency: float,
        dt: float,
        num_times: int,
    ) -> Survey:
        """Sources and receivers, each (row, how many), evenly spread along a row."""
        wavelet = _whole_ricker(peak_frequency, num_times, dt)
        grid = grid_of(shape)
        fired = spread(grid, *sources, "shots")
        heard = spread(grid, *receivers, "receivers")
        return cls(
            grid,
            fired[:, None, :],
            np.broadcast_to(heard, (len(fired), *heard.shape)),
            wavelet,
            dt,
            peak_frequency,
        )

    def plot(self, grid_spacing: float | None = None) -> Figure:
        """Draw the positions of sources and receivers, the wavelet and its spectrum.

        Args:
            grid_spacing: size of a cell, m, for axes in metres; None for axes in cells.

        Returns:
            A Matplotlib figure; `figure.savefig(path)` writes it.
        """
        from ppl_memprior.forward._survey_plot import draw

        return draw(self, grid_spacing)

    def __eq__(self, other: object) -> bool:
        return value_key(self) == value_key(other) if isinstance(other, Survey) else NotImplemented

    def __hash__(self) -> int:
        return hash(value_key(self))

    def __repr__(self) -> str:
        return (
            f"Survey(shape={self.shape}, {self.num_shots} shots, {self.num_receivers} receivers, "
            f"{self.num_times} samples of {self.dt:g} s, {self.peak_frequency:g} Hz)"
        )


def value_key(record: Any) -> tuple[Any, ...]:
    """Return a dataclass's values as a tuple that can be compared and hashed, arrays included."""
    values = (getattr(record, field.name) for field in fields(record))
    return tuple((v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for v in values)


def _whole_ricker(peak_frequency: float, num_times: int, dt: float) -> NDArray[np.float64]:
    """A Ricker wavelet on a time axis that is long enough for it."""
    _check_time_axis(peak_frequency, dt)
    if num_times * dt < 3.0 / peak_frequency:
        raise ValueError(
            f"{num_times} samples of {dt} s record {num_times * dt:g} s, less than the "
            f"{3.0 / peak_frequency:g} s that a {peak_frequency} Hz Ricker wavelet lasts. "
            "Raise num_times, or give peak_frequency in Hz and dt in s."
        )
    return ricker(peak_frequency, num_times, dt)


def _check_time_axis(peak_frequency: float, dt: float) -> None:
    if not (np.isfinite(dt) and dt > 0):
        raise ValueError(f"dt must be a positive time step in s, got {dt}.")
    if not (np.isfinite(peak_frequency) and peak_frequency > 0):
        raise ValueError(f"peak_frequency must be positive, in Hz, got {peak_frequency}.")
    highest, nyquist = BANDWIDTH * peak_frequency, 0.5 / dt
    if highest > nyquist:
        raise ValueError(
            f"dt = {dt} s is too long: it samples frequencies up to {nyquist:g} Hz, and a wavelet "
            f"of peak frequency {peak_frequency:g} Hz reaches {highest:g} Hz. Use dt <= "
            f"{0.5 / highest:.3g} s (seconds, not milliseconds) or a lower peak frequency."
        )
