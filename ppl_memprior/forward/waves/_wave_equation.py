"""The common part of all wave equations: their settings, their checks and their call.

A wave equation is a frozen object made from a `Survey`. Call it on a model of the subsurface to get
the recorded data. `_operators` states the equations, `_propagate` propagates the waves, and
`torch_bridge` gives derivatives and JAX transformations.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl_memprior._arrays import real_array
from ppl_memprior.forward.survey import BANDWIDTH, Survey, value_key
from ppl_memprior.forward.torch_bridge._torch_function import TorchFunction, torch_function
from ppl_memprior.forward.waves._propagate import Physics, Propagation, deepwave

# With fewer grid cells per shortest wavelength, finite differences visibly disperse.
_POINTS_PER_WAVELENGTH = 4.0

# Limits of the wavelength of the fastest wave at the peak frequency, in grid cells. Usual
# wavelengths are some ten to some hundred cells. A wavelength outside of the limits means that a
# length, a time or a velocity is in another unit. If one unit is wrong by a factor of a thousand, a
# usual wavelength is far outside. A coherent system of other units does not change it at all.
_FEWEST_CELLS, _MOST_CELLS = 1.0, 3000.0
_SLOWEST = 1e-3  # limit of min_velocity, as a share of max_velocity

_ITEMSIZE = {"float32": 4, "float64": 8}  # bytes


@dataclass(frozen=True, eq=False)
class WaveEquation(ABC):
    """A wave equation in 2-D with absorbing boundaries (PML) on all four sides.

    `WaveEquation` is the abstract base of `ScalarWave`, `ScalarBorn`, `AcousticWave` and
    `ElasticWave`. The equations are differentiable once in both modes, and `jax.vmap` propagates
    many models together. Two equations are equal if all their settings are equal. Lengths are in m,
    times in s, frequencies in Hz, velocities in m/s, densities in kg/m^3.

    The internal time step is dt / n: the longest whole fraction of the survey's time step that is
    stable at `max_velocity`. It does not depend on the model. For n > 1 the gradient in reverse
    mode correlates wavefields at the survey's samples only. It then differs from the exact
    derivative of forward mode by about 1e-5 of its size.

    Args:
        survey: sources, receivers, wavelet and model grid.
        grid_spacing: size of a grid cell, m.
        max_velocity: highest velocity that a model may have, m/s. It fixes the internal time step
            and the absorbing boundaries, so that they do not depend on the model.
        accuracy: order of the spatial finite differences: 2, 4, 6 or 8.
        pml_width: width of the absorbing boundaries, cells.
        min_velocity: lowest expected velocity, m/s, of S waves in an elastic equation. A warning
            says if the grid is too coarse for the shortest wavelength. None skips the check.
        frequencies: None for data in time. Otherwise frequencies, Hz, at which the data are the
            components sum_n d[n] exp(-2 pi i f n dt), NumPy's convention. A last axis of length two
            holds the real and the imaginary part.
        max_memory: approximate limit, in bytes, of the wavefields stored for one gradient. It sets
            the number of models and shots that propagate together.
        shots_per_group: number of shots of a model that propagate, and are stored, together. With
            fewer than all shots, a gradient propagates once more. None takes as many as
            `max_memory` allows.
        segments: number of parts into which the time axis is cut. A gradient stores one part at a
            time. With more than one part, it propagates twice more.
        storage: place of the wavefields that a gradient stores: "device" (in memory), "cpu" (in
            host memory, for tensors on a GPU) or "disk" (in the folder for temporary files).

    Raises:
        ImportError: PyTorch or Deepwave is not installed.
        ValueError: a setting is out of range or evidently in another unit. For example, the
            wavelength of `max_velocity` at the peak frequency must have 1 to 3,000 grid cells. The
            message names the value. Any coherent system of units passes.
    """

    survey: Survey
    grid_spacing: float = 10.0
    max_velocity: float = field(default=4500.0, kw_only=True)
    accuracy: int = field(default=4, kw_only=True)
    pml_width: int = field(default=20, kw_only=True)
    min_velocity: float | None = field(default=None, kw_only=True)
    frequencies: Sequence[float] | None = field(default=None, kw_only=True)
    max_memory: float = field(default=1e9, kw_only=True)
    shots_per_group: int | None = field(default=None, kw_only=True)
    segments: int = field(default=1, kw_only=True)
    storage: str = field(default="device", kw_only=True)

    def __post_init__(self) -> None:
        self._check_settings()
        if self.frequencies is not None:
            chosen = tuple(float(f) for f in self.frequencies)
            _check_frequencies(chosen, self.survey)
            object.__setattr__(self, "frequencies", chosen)
        self._warn_of_dispersion()
        deepwave()
        object.__setattr__(self, "_equation", self._physics())
        functions = {dtype: self._function(size) for dtype, size in _ITEMSIZE.items()}
        object.__setattr__(self, "_functions", functions)

    @abstractmethod
    def _physics(self) -> Physics:
        """Return the equation to solve. Check the settings that only this equation has."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a model: (nz, nx), or (fields, nz, nx) if the equation takes several fields."""
        count = len(self._equation.fields)  # type: ignore[attr-defined]
        return self.survey.shape if count == 1 else (count, *self.survey.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the data: (shots, receivers, nt), with components first if there are any.

        With `frequencies`, (frequencies, 2) takes the place of nt.
        """
        return self._propagation(4).shape

    @property
    def gradient_memory(self) -> int:
        """Bytes of wavefields that the gradient of one float32 model stores at a time."""
        return int(self._shot_memory(4) * self._group(4))

    def _apply(self, *models: jax.typing.ArrayLike) -> jax.Array:
        """Return the data of one model. Check its fields if their values are known."""
        limits = self._equation.fields  # type: ignore[attr-defined]
        arrays = [
            jnp.asarray(real_array(f"the {limit.name} model", model))
            for limit, model in zip(limits, models, strict=True)
        ]
        dtype = jnp.result_type(*arrays)
        if dtype.name not in _ITEMSIZE:
            dtype = jnp.dtype(jnp.result_type(float))
        relation = self._equation.relation  # type: ignore[attr-defined]
        for limit, array in zip(limits, arrays, strict=True):
            self._check_shape(limit.name, array.shape)
            if not isinstance(array, jax.core.Tracer):
                limit.check(np.asarray(array))
        if relation is not None and not any(isinstance(a, jax.core.Tracer) for a in arrays):
            values = [np.asarray(array) for array in arrays]
            if not np.all(relation.holds(*values)):
                raise ValueError(relation.message(*values))
        function: TorchFunction = self._functions[dtype.name]  # type: ignore[attr-defined]
        return function(*(array.astype(dtype) for array in arrays))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WaveEquation):
            return NotImplemented
        return type(self) is type(other) and value_key(self) == value_key(other)

    def __hash__(self) -> int:
        return hash((type(self), value_key(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {f.name: getattr(self, f.name) for f in fields(self)})

    def _function(self, itemsize: int) -> TorchFunction:
        """Return the bridge to the propagation of models with 4 or 8 bytes for each value."""
        propagation = self._propagation(itemsize)
        memory = self._shot_memory(itemsize) * propagation.shots_per_group
        return torch_function(
            propagation.one,
            result=jax.ShapeDtypeStruct(propagation.shape, f"float{8 * itemsize}"),
            batched=propagation.many,
            max_batch=max(1, int(self.max_memory // memory)),
            linear=propagation.physics.linear,
        )

    def _propagation(self, itemsize: int) -> Propagation:
        physics: Physics = self._equation  # type: ignore[attr-defined]
        settings = {
            "grid_spacing": self.grid_spacing,
            "dt": self.survey.dt,
            "accuracy": self.accuracy,
            "pml_width": self.pml_width,
            # Without the next two, Deepwave would infer them from the wavelet and the model.
            "pml_freq": self.survey.peak_frequency,
            "max_vel": physics.max_velocity,
            "storage_mode": self.storage,
        }
        chosen = None if self.frequencies is None else tuple(self.frequencies)
        return Propagation(
            physics, self.survey, settings, self._group(itemsize), self.segments, chosen
        )

    def _shot_memory(self, itemsize: int) -> float:
        """Return the bytes that the gradient of one model stores at a time for each shot."""
        physics: Physics = self._equation  # type: ignore[attr-defined]
        cells = np.prod([float(n + 2 * self.pml_width + self.accuracy) for n in physics.cells])
        samples = -(-self.survey.num_times // self.segments)
        return physics.histories * samples * float(cells) * itemsize

    def _group(self, itemsize: int) -> int:
        """Return the number of shots of a model that propagate together."""
        if self.shots_per_group is not None:
            return min(self.shots_per_group, self.survey.num_shots)
        fitting = int(self.max_memory // self._shot_memory(itemsize))
        return min(max(fitting, 1), self.survey.num_shots)

    def _check_settings(self) -> None:
        for name in ("grid_spacing", "max_velocity", "max_memory"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}.")
        self._check_units()
        if self.accuracy not in (2, 4, 6, 8):
            raise ValueError(f"accuracy must be 2, 4, 6 or 8, got {self.accuracy}.")
        if self.pml_width < 0:
            raise ValueError(f"pml_width must not be negative, got {self.pml_width}.")
        if self.shots_per_group is not None and self.shots_per_group < 1:
            raise ValueError(f"shots_per_group must be at least 1, got {self.shots_per_group}.")
        if not 1 <= self.segments <= self.survey.num_times:
            raise ValueError(
                f"segments must be between 1 and the {self.survey.num_times} time samples, "
                f"got {self.segments}."
            )
        if self.storage not in ("device", "cpu", "disk"):
            raise ValueError(f"storage must be 'device', 'cpu' or 'disk', got {self.storage!r}.")

    @property
    def _speeds(self) -> tuple[float, float]:
        """Bounds of a model's highest velocity, m/s: the grid's lowest, and `max_velocity`."""
        lowest = _FEWEST_CELLS * self.survey.peak_frequency * self.grid_spacing
        return lowest, self.max_velocity

    def _check_units(self) -> None:
        cells = self.max_velocity / (self.survey.peak_frequency * self.grid_spacing)
        if _FEWEST_CELLS <= cells <= _MOST_CELLS:
            return
        advice = "Is max_velocity in km/s?"
        if cells > _MOST_CELLS:
            advice = "Is grid_spacing in km, or the survey's peak frequency in kHz?"
        raise ValueError(
            f"max_velocity = {self.max_velocity:g} m/s is a wavelength of {cells:.3g} grid cells "
            f"(peak frequency {self.survey.peak_frequency:g} Hz, grid_spacing "
            f"{self.grid_spacing:g} m), where {_FEWEST_CELLS:g} to {_MOST_CELLS:g} are possible. "
            f"{advice}"
        )

    def _check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if shape != self.survey.shape:
            advice = " Use jax.vmap for many models." if len(shape) > 2 else ""
            raise ValueError(
                f"a {name} model of shape {self.survey.shape} (depth, distance) is expected, "
                f"got {shape}.{advice}"
            )

    def _warn_of_dispersion(self) -> None:
        if self.min_velocity is None:
            return
        if not (np.isfinite(self.min_velocity) and self.min_velocity > 0):
            raise ValueError(f"min_velocity must be positive and finite, got {self.min_velocity}.")
        if not _SLOWEST * self.max_velocity < self.min_velocity <= self.max_velocity:
            raise ValueError(
                f"min_velocity = {self.min_velocity:g} m/s must not be above max_velocity = "
                f"{self.max_velocity:g} m/s, nor below a thousandth of it. Is one of them in km/s?"
            )
        highest = BANDWIDTH * self.survey.peak_frequency
        points = self.min_velocity / highest / self.grid_spacing
        if points < _POINTS_PER_WAVELENGTH:
            warnings.warn(
                f"grid dispersion: the shortest wavelength, {self.min_velocity / highest:.3g} m "
                f"({self.min_velocity:g} m/s at {highest:g} Hz), has {points:.2g} grid cells of "
                f"{self.grid_spacing:g} m where about {_POINTS_PER_WAVELENGTH:g} are needed. Lower "
                "the peak frequency or the grid spacing.",
                stacklevel=4,
            )


def _check_frequencies(frequencies: Sequence[float], survey: Survey) -> None:
    dt, peak = survey.dt, survey.peak_frequency
    nyquist = 0.5 / dt
    if not frequencies:
        raise ValueError("frequencies must name at least one frequency in Hz, or be None.")
    for frequency in frequencies:
        if not 0 <= frequency <= nyquist * (1 + 1e-9):
            raise ValueError(
                f"a frequency of {frequency:g} Hz cannot be told from samples every {dt:g} s; "
                f"frequencies must be between 0 and {nyquist:g} Hz."
            )
    if 0 < max(frequencies) < peak / 100:
        raise ValueError(
            f"frequencies up to {max(frequencies):g} Hz hold nothing of a wavelet whose peak "
            f"frequency is {peak:g} Hz. Frequencies are in Hz: are these in kHz?"
        )


def _rebuild(cls: type, values: dict[str, Any]) -> Any:
    return cls(**values)
