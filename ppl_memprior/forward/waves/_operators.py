"""Four wave equations as JAX functions of the subsurface, propagated by Deepwave.

Each class states the equation that Deepwave solves, with its fields, its units and its conditions
for stability. Settings, checks and batches are left to `_wave_equation` and `_propagate`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_memprior._arrays import real_array
from ppl_memprior.forward.torch_bridge._functions import require
from ppl_memprior.forward.waves._limits import (
    Limits,
    checked_range,
    density_limits,
    shear_limits,
    velocity_limits,
)
from ppl_memprior.forward.waves._propagate import Physics, Relation, Shots, deepwave
from ppl_memprior.forward.waves._wave_equation import WaveEquation

# Sum of the absolute coefficients of the staggered first derivative, by order of accuracy. A
# staggered scheme is stable for Courant numbers up to the inverse of this sum.
_STAGGERED_SUM = {2: 1.0, 4: 7 / 6, 6: 149 / 120, 8: 2161 / 1680}
_COURANT = 0.6  # Deepwave's own choice

# Deepwave's names of sources and receivers by the names used here. Deepwave's first axis is y.
_RECEIVERS = {"pressure": "p", "vz": "y", "vx": "x"}
_SOURCES = {"explosion": "pressure_rate", "fz": "y", "fx": "x"}


@dataclass(frozen=True, eq=False)
class ScalarWave(WaveEquation):
    """Acoustic waves of constant density: velocity to recorded pressure.

    Solves v^-2 d2u/dt2 = laplacian(u) - f and records u. The wavelet is f in the cells of the
    sources, and f is zero elsewhere. u has the unit of f times m^2. `WaveEquation` documents all
    settings and the errors that they raise.

    Example::

        survey = mp.forward.Survey.surface(
            (50, 60), num_shots=3, num_receivers=60, peak_frequency=8.0, dt=0.002, num_times=400
        )
        wave = mp.forward.ScalarWave(survey, grid_spacing=10.0, max_velocity=3000.0)
        data = wave(jnp.full((50, 60), 2000.0))  # shape (3, 60, 400)
    """

    def __call__(self, v: jax.typing.ArrayLike) -> jax.Array:
        """Return the data recorded in a velocity model.

        Args:
            v: velocity, m/s, shape (nz, nx), float32 or float64.

        Returns:
            Pressure at the receivers, shape (shots, receivers, nt), of the dtype of `v`. With
            `frequencies` the shape is (shots, receivers, frequencies, 2).

            While JAX traces (`jit`, `vmap`, `grad`), the values are not known and nothing can be
            raised. The data and gradients are then NaN for a model with a velocity that is not
            finite or not in (0, max_velocity]. They are also NaN where all velocities are too slow
            for the grid. Every sampler rejects NaN. The other models of a batch are not affected.

        Raises:
            ValueError: a model of another shape. Outside of a trace also: a velocity that is not
                finite or not in (0, max_velocity]; or a model whose highest velocity has less than
                one grid cell per wavelength at the peak frequency, such as a model in km/s.
        """
        return self._apply(v)

    def _physics(self) -> Physics:
        def solve(fields: Sequence[Any], shots: Shots, settings: dict[str, Any]) -> Any:
            return deepwave().scalar(
                fields[0],
                source_amplitudes=shots.amplitudes,
                source_locations=shots.sources,
                receiver_locations=shots.receivers,
                **settings,
            )[-1][:, None]

        limits = (velocity_limits("velocity", *self._speeds),)
        highest = _highest_float32(self.max_velocity)
        return Physics(limits, solve, highest, histories=1, cells=self.survey.shape)


@dataclass(frozen=True, eq=False)
class ScalarBorn(WaveEquation):
    """Acoustic waves scattered once: a linear function of a velocity perturbation.

    With u the wavefield of `ScalarWave` in the background velocity v, solves

        v^-2 d2w/dt2 = laplacian(w) + 2 v^-3 dv d2u/dt2

    and records w. Up to rounding, w is the derivative of `ScalarWave` at v along dv. The gradient
    of half the squared misfit is a reverse time migration. JAX knows that the function is linear:
    `jax.linear_transpose` works, and second derivatives are zero. `WaveEquation` documents the
    other settings.

    Args:
        velocity: background velocity v, m/s, shape (nz, nx), in (0, max_velocity].

    Raises:
        ImportError: see `WaveEquation`.
        ValueError: see `WaveEquation`; also a background that is no velocity model.
    """

    velocity: ArrayLike = field(kw_only=True, repr=False)

    def __call__(self, dv: jax.typing.ArrayLike) -> jax.Array:
        """Return the data scattered by a velocity perturbation.

        Args:
            dv: perturbation of the velocity, m/s, shape (nz, nx), float32 or float64. Every finite
                value is allowed, small or not.

        Returns:
            Scattered pressure at the receivers, with the shape and dtype of `ScalarWave`. In a
            trace a perturbation that is not finite gives NaN.

        Raises:
            ValueError: a perturbation of another shape. Outside of a trace also a perturbation that
                is not finite.
        """
        return self._apply(dv)

    def _physics(self) -> Physics:
        background = np.array(real_array("velocity", self.velocity), dtype=np.float64)
        self._check_shape("background velocity", background.shape)
        velocity_limits("background velocity", *self._speeds).check(background)
        background.setflags(write=False)
        object.__setattr__(self, "velocity", background)
        # The warning is about a change since older versions of Deepwave. It does not matter here.
        warnings.filterwarnings(
            "ignore", "dv is non-zero in the outermost cells", deepwave().MigrationWarning
        )

        def solve(fields: Sequence[Any], shots: Shots, settings: dict[str, Any]) -> Any:
            v = require("torch").tensor(background, dtype=fields[0].dtype, device=fields[0].device)
            return deepwave().scalar_born(
                v,
                dv=fields[0],
                source_amplitudes=shots.amplitudes,
                source_locations=shots.sources,
                sc_receiver_locations=shots.receivers,
                **settings,
            )[-1][:, None]

        limits = (Limits("velocity perturbation", "m/s"),)
        highest = _highest_float32(self.max_velocity)
        # Deepwave has no forward mode for Born modelling. A linear function does not need one.
        return Physics(limits, solve, highest, histories=1, cells=self.survey.shape, linear=True)


@dataclass(frozen=True, eq=False)
class AcousticWave(WaveEquation):
    """Acoustic waves of variable density: velocity and density to recorded pressure.

    Solves, on a staggered grid,

        rho dq/dt = -grad(p),    1 / (rho v^2) dp/dt = -div(q) + s

    for the pressure p, Pa, and the particle velocity q, m/s, and records p. The wavelet is s in the
    cells of the sources: an injected volume per volume and time, 1/s. A source's sample acts half
    an internal time step after the pressure of the same index is recorded. `WaveEquation` documents
    the other settings.

    Args:
        density_range: lowest and highest density that a model may have, kg/m^3. A large contrast
            takes smaller time steps to be stable.

    Raises:
        ImportError: see `WaveEquation`.
        ValueError: see `WaveEquation`; also an invalid range of densities.
    """

    density_range: Sequence[float] = field(default=(1000.0, 3000.0), kw_only=True)

    def __call__(self, v: jax.typing.ArrayLike, rho: jax.typing.ArrayLike) -> jax.Array:
        """Return the data recorded in a model of velocity and density.

        Args:
            v: velocity, m/s, shape (nz, nx), in (0, max_velocity].
            rho: density, kg/m^3, shape (nz, nx), in `density_range`.

        Returns:
            Pressure at the receivers, Pa, with the shape and dtype of `ScalarWave`. In a trace a
            model outside of these limits gives NaN, as in `ScalarWave`.

        Raises:
            ValueError: see `ScalarWave`.
        """
        return self._apply(v, rho)

    def _physics(self) -> Physics:
        def solve(fields: Sequence[Any], shots: Shots, settings: dict[str, Any]) -> Any:
            return (
                deepwave()
                .acoustic(
                    *fields,
                    source_amplitudes_volume_rate=shots.amplitudes,
                    source_locations_volume_rate=shots.sources,
                    receiver_locations_p=shots.receivers,
                    **settings,
                )
                .receiver_amplitudes_p[:, None]
            )

        low, high = checked_range(self.density_range, self.max_velocity)
        object.__setattr__(self, "density_range", (low, high))
        return Physics(
            (
                velocity_limits("velocity", *self._speeds),
                density_limits(low, high),
            ),
            solve,
            self.max_velocity * _staggered_factor(self.accuracy, high / low),
            histories=3,
            cells=self.survey.shape,
        )


@dataclass(frozen=True, eq=False)
class ElasticWave(WaveEquation):
    """Elastic waves in the plane (P and SV): velocities and density to recorded data.

    Solves, on a staggered grid,

        rho dq/dt = div(sigma) + f,
        dsigma/dt = lambda div(q) I + mu (grad(q) + grad(q)^T) - s I

    for the particle velocity q, m/s, and the stress sigma, Pa, with the Lame parameters
    lambda = rho (vp^2 - 2 vs^2) and mu = rho vs^2. With `source` "explosion" the wavelet is s, a
    pressure per time, Pa/s. With "fz" (down) or "fx" it is a component of f, a force per volume,
    N/m^3.

    vz and fz are half a cell below the cell of their receiver or source. vx and fx are half a cell
    farther along x. To make room, the last row and the last column are repeated once. Velocity is
    recorded half an internal time step before pressure.

    `max_velocity` is the highest velocity of P waves, `min_velocity` the lowest velocity of S
    waves. `WaveEquation` documents the other settings.

    Args:
        density_range: lowest and highest density that a model may have, kg/m^3. A large contrast
            takes smaller time steps to be stable.
        source: type of the sources: "explosion", "fz" or "fx".
        components: recorded components, in this order: any of "vz", "vx" (particle velocity, m/s)
            and "pressure" (Pa).

    Raises:
        ImportError: see `WaveEquation`.
        ValueError: see `WaveEquation`; also an invalid range of densities, or an unknown source or
            component.
    """

    density_range: Sequence[float] = field(default=(1000.0, 3000.0), kw_only=True)
    source: str = field(default="explosion", kw_only=True)
    components: Sequence[str] = field(default=("vz", "vx"), kw_only=True)

    def __call__(
        self, vp: jax.typing.ArrayLike, vs: jax.typing.ArrayLike, rho: jax.typing.ArrayLike
    ) -> jax.Array:
        """Return the data recorded in an elastic model.

        Args:
            vp: velocity of P waves, m/s, shape (nz, nx), in (0, max_velocity].
            vs: velocity of S waves, m/s, shape (nz, nx), not negative and below sqrt(3)/2 vp, so
                that the bulk modulus is positive. Zero is a fluid.
            rho: density, kg/m^3, shape (nz, nx), in `density_range`.

        Returns:
            Recorded data of the dtype of the fields, shape (components, shots, receivers, nt). With
            `frequencies` the shape is (components, shots, receivers, frequencies, 2). In a trace a
            model outside of these limits gives NaN.

        Raises:
            ValueError: see `ScalarWave`.
        """
        return self._apply(vp, vs, rho)

    def _physics(self) -> Physics:
        low, high = checked_range(self.density_range, self.max_velocity)
        object.__setattr__(self, "density_range", (low, high))
        components = tuple(self.components)
        object.__setattr__(self, "components", components)
        _check_names("component", components, _RECEIVERS)
        _check_names("source", (self.source,), _SOURCES)
        source, channels = _SOURCES[self.source], [_RECEIVERS[name] for name in components]

        def solve(fields: Sequence[Any], shots: Shots, settings: dict[str, Any]) -> Any:
            torch = require("torch")
            padded = [_one_cell_more(values) for values in fields]
            located = {f"source_locations_{source}": shots.sources}
            located |= {f"receiver_locations_{channel}": shots.receivers for channel in channels}
            recorded = deepwave().elastic(
                *deepwave().vpvsrho_to_lambmubuoyancy(*padded),
                **{f"source_amplitudes_{source}": shots.amplitudes},
                **located,
                **settings,
            )
            data = [getattr(recorded, f"receiver_amplitudes_{channel}") for channel in channels]
            return torch.stack(data, dim=1)

        return Physics(
            (
                velocity_limits("P velocity", *self._speeds),
                shear_limits(self._speeds[0]),
                density_limits(low, high),
            ),
            solve,
            # The stiffnesses along an axis and across it add up to at most twice rho vp^2.
            self.max_velocity * _staggered_factor(self.accuracy, 2.0 * high / low),
            histories=5,
            cells=(self.survey.shape[0] + 1, self.survey.shape[1] + 1),
            relation=Relation(_bulk_modulus_is_positive, _bulk_modulus_message),
            components=len(components),
        )


def _highest_float32(velocity: float) -> float:
    """Return the velocity, or its float32 value if that is higher: a model may contain it."""
    return max(velocity, float(np.float32(velocity)))


def _staggered_factor(accuracy: int, contrast: float) -> float:
    """Return the factor on a velocity for which a staggered time step is stable.

    The largest eigenvalue of the discrete operator is bounded by the eigenvalue for the largest
    stiffness and the smallest density, even if they are in different cells. Deepwave computes this
    bound from the models of a call, and refuses models beyond it. The bound here holds for all
    allowed models. So none of them is refused, and each has the same data in a batch as alone.
    """
    # The last factor leaves room for rounding in float32.
    return max(1.0, _COURANT * _STAGGERED_SUM[accuracy] * math.sqrt(contrast)) * (1 + 1e-6)


def _bulk_modulus_is_positive(vp: Any, vs: Any, rho: Any) -> Any:
    return 4.0 * vs**2 < 3.0 * vp**2


def _bulk_modulus_message(vp: NDArray[Any], vs: NDArray[Any], rho: NDArray[Any]) -> str:
    worst = np.unravel_index(np.argmax(vs / vp), vp.shape)
    return (
        f"the S velocity is {vs[worst]:g} m/s where the P velocity is {vp[worst]:g} m/s, in cell "
        f"{tuple(int(i) for i in worst)}; there the S velocity must be below "
        f"{vp[worst] * math.sqrt(0.75):g} m/s, sqrt(3)/2 times the P velocity, for the bulk "
        "modulus to be positive."
    )


def _check_names(what: str, names: Sequence[str], known: dict[str, str]) -> None:
    if not names or len(set(names)) < len(names) or not set(names) <= set(known):
        raise ValueError(
            f"{what} must be of {', '.join(map(repr, known))}, each once at most, got "
            f"{', '.join(map(repr, names)) or 'none'}."
        )


def _one_cell_more(values: Any) -> Any:
    """Return a field with its last row and its last column repeated."""
    torch = require("torch")
    values = torch.cat([values, values[..., -1:, :]], dim=-2)
    return torch.cat([values, values[..., :, -1:]], dim=-1)
