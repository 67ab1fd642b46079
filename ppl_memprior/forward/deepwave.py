"""Seismic waves as JAX functions of the velocity model, propagated by Deepwave.

A wave equation here is a frozen object made from a `Survey`: call it on a velocity model and get
the recorded data. It checks velocities, batches many models into one propagation and pins
everything that Deepwave would otherwise infer from the model, so that the same model gives the same
data in every call. Derivatives and JAX transformations are left to `torch_call`.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, field, fields
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._torch_evaluate import require
from .survey import BANDWIDTH, Survey
from .torch_call import TorchFunction, torch_function

# Below this many grid cells per shortest wavelength, finite differences visibly disperse.
_POINTS_PER_WAVELENGTH = 4.0


@dataclass(frozen=True)
class ScalarWave:
    """Constant-density acoustic waves in 2-D: velocity model to recorded pressure.

    Solves v^-2 d2u/dt2 = laplacian(u) + f with absorbing boundaries (PML) on all four sides. It is
    differentiable once in both modes; `jax.vmap` propagates many models together. Where the
    survey's dt is too long for stability at `max_velocity`, Deepwave takes several steps inside
    each; its reverse-mode gradient then correlates wavefields at the survey's samples only, which
    differs from the exact (forward-mode) derivative by some 1e-5 of its size.

    Args:
        survey: sources, receivers, wavelet and model grid.
        grid_spacing: size of a grid cell, m.
        max_velocity: highest velocity that a model may have, m/s. It fixes the internal time step
            and the absorbing boundaries, so that they do not depend on the model.
        accuracy: order of the spatial finite differences: 2, 4, 6 or 8.
        pml_width: width of the absorbing boundaries, cells.
        min_velocity: lowest velocity expected, m/s, for a warning where the grid is too coarse for
            the shortest wavelength. None skips that check.
        max_memory: the number of models that propagate together is chosen so that the wavefields
            stored for one gradient stay below about this many bytes.

    Raises:
        ImportError: PyTorch or Deepwave is not installed.
        ValueError: a number that is not positive, or an accuracy that Deepwave does not have.
    """

    survey: Survey
    grid_spacing: float = 10.0
    max_velocity: float = field(default=4500.0, kw_only=True)
    accuracy: int = field(default=4, kw_only=True)
    pml_width: int = field(default=20, kw_only=True)
    min_velocity: float | None = field(default=None, kw_only=True)
    max_memory: float = field(default=1e9, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("grid_spacing", "max_velocity", "max_memory"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}.")
        if self.accuracy not in (2, 4, 6, 8):
            raise ValueError(f"accuracy must be 2, 4, 6 or 8, got {self.accuracy}.")
        if self.pml_width < 0:
            raise ValueError(f"pml_width must not be negative, got {self.pml_width}.")
        self._warn_of_dispersion()
        _deepwave()
        propagator = _Propagator(self)
        object.__setattr__(
            self,
            "_function",
            torch_function(
                propagator.one, batched=propagator.many, max_batch=self._models_per_call()
            ),
        )

    @property
    def input_shape(self) -> tuple[int, int]:
        """Shape (nz, nx) of a velocity model."""
        return self.survey.shape

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (shots, receivers, nt) of the data."""
        return self.survey.num_shots, self.survey.num_receivers, self.survey.num_times

    def __call__(self, v: jax.typing.ArrayLike) -> jax.Array:
        """Data recorded in a velocity model.

        Args:
            v: velocity, m/s, shape (nz, nx), float32 or float64.

        Returns:
            Pressure at the receivers, shape (shots, receivers, nt), of the dtype of `v`. While JAX
            traces (`jit`, `vmap`, `grad`) the values are not known, so a model with a velocity that
            is not finite or not in (0, max_velocity] gets data (and gradients) of NaN, which every
            sampler rejects; the other models of a batch are not affected.

        Raises:
            ValueError: a model of another shape; outside of a trace also a velocity that is not
                finite or not in (0, max_velocity].
        """
        array = jnp.asarray(v)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            array = array.astype(jnp.result_type(float))
        if array.shape != self.input_shape:
            advice = " Use jax.vmap for many models." if array.ndim > 2 else ""
            raise ValueError(
                f"a velocity model of shape {self.input_shape} (depth, distance) is expected, "
                f"got {array.shape}.{advice}"
            )
        if not isinstance(array, jax.core.Tracer):
            self._check_velocity(np.asarray(array))
        function: TorchFunction = self._function  # type: ignore[attr-defined]
        return function(array)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {f.name: getattr(self, f.name) for f in fields(self)})

    def _check_velocity(self, v: np.ndarray) -> None:
        if not np.all(np.isfinite(v)):
            raise ValueError(
                f"the velocity model has {np.count_nonzero(~np.isfinite(v))} non-finite values "
                f"among {v.size}; every velocity must be a number of m/s."
            )
        if v.min() <= 0:
            raise ValueError(
                f"the lowest velocity is {v.min():g} m/s; velocities must be positive. A prior "
                "that can reach this needs a positive support or bounds."
            )
        if v.max() > self.max_velocity:
            raise ValueError(
                f"the highest velocity is {v.max():g} m/s, above max_velocity = "
                f"{self.max_velocity:g} m/s, for which the time step is stable. Raise max_velocity "
                "(smaller time steps, slower) or bound the model."
            )

    def _warn_of_dispersion(self) -> None:
        if self.min_velocity is None:
            return
        if not (np.isfinite(self.min_velocity) and self.min_velocity > 0):
            raise ValueError(f"min_velocity must be positive and finite, got {self.min_velocity}.")
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

    def _models_per_call(self) -> int:
        """How many models one propagation may hold within `max_memory`."""
        survey = self.survey
        cells = np.prod([n + 2 * self.pml_width + self.accuracy for n in survey.shape])
        stored = float(survey.num_shots * survey.num_times) * float(cells) * 4
        return max(1, int(self.max_memory // stored))


class _Propagator:
    """Deepwave's calls for one `ScalarWave`, as functions of tensors."""

    def __init__(self, wave: ScalarWave) -> None:
        torch = require("torch")
        survey = wave.survey
        self.shots = survey.num_shots
        self.sources = torch.from_numpy(survey.source_locations.copy())
        self.receivers = torch.from_numpy(survey.receiver_locations.copy())
        self.wavelet = torch.from_numpy(survey.wavelet.copy())
        self.max_velocity = wave.max_velocity
        self.shape = wave.shape
        self.settings = {
            "grid_spacing": wave.grid_spacing,
            "dt": survey.dt,
            "accuracy": wave.accuracy,
            "pml_width": wave.pml_width,
            "pml_freq": survey.peak_frequency,
            "max_vel": wave.max_velocity,
        }

    def one(self, v: Any) -> Any:
        """Data (shots, receivers, nt) of one model (nz, nx); NaN where the model is not valid."""
        # Shapes are learned by a call on zeros, which is not valid either: nothing is propagated.
        if not self._valid(v):
            return self._nothing(v[None])[0]
        return self._propagate(v, 1)

    def many(self, v: Any) -> Any:
        """Data (n, shots, receivers, nt) of n models (n, nz, nx), in one propagation."""
        torch = require("torch")
        valid = self._valid(v)
        good = valid.nonzero()[:, 0]
        if len(good) == 0:
            return self._nothing(v)
        models = v if len(good) == len(v) else v[good]
        shots = models[:, None].expand(-1, self.shots, -1, -1).reshape(-1, *v.shape[1:])
        data = self._propagate(shots, len(good)).reshape(len(good), *self.shape)
        if len(good) == len(v):
            return data
        bad = (~valid).nonzero()[:, 0]
        order = torch.argsort(torch.cat([good, bad]))
        return torch.cat([data, self._nothing(v[bad])])[order]

    def _valid(self, v: Any) -> Any:
        """For every model, whether all of its velocities are in (0, max_velocity]."""
        # Comparisons with NaN are false.
        inside = (v.detach() > 0) & (v.detach() <= self.max_velocity)
        return inside.flatten(-2).all(-1)

    def _nothing(self, v: Any) -> Any:
        """NaN in the place of data, and in the place of gradients."""
        return (v.sum((1, 2)) * float("nan"))[:, None, None, None].expand(-1, *self.shape)

    def _propagate(self, v: Any, models: int) -> Any:
        shots = models * self.shots
        amplitudes = self.wavelet.to(v.dtype).expand(shots, self.sources.shape[1], -1)
        return _deepwave().scalar(
            v,
            source_amplitudes=amplitudes,
            source_locations=self.sources.repeat(models, 1, 1),
            receiver_locations=self.receivers.repeat(models, 1, 1),
            **self.settings,
        )[-1]


@functools.cache
def _deepwave() -> ModuleType:
    require("torch")
    with warnings.catch_warnings():
        # Deepwave's import announces that torch.jit.script is deprecated, many times.
        warnings.simplefilter("ignore", DeprecationWarning)
        return require("deepwave")


def _rebuild(cls: type, values: dict[str, Any]) -> Any:
    return cls(**values)
