"""What the fields of a model of the subsurface may hold, and what is said of those that do not.

A value may be impossible (a negative velocity), beyond what the time step is stable for, or so far
off that another unit must have been meant. Which field has which limits is left to `deepwave`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Nothing lighter, kg/m^3, carries waves faster, m/s: hydrogen is fastest among gases.
_LIGHT, _FAST_IN_GAS = 30.0, 1500.0
_POSITIVE = (
    "velocities must be positive. A prior that can reach this needs a positive support or bounds."
)
_NEGATIVE = "velocities of S waves must not be negative. A prior that can reach this needs bounds."


class Limits(NamedTuple):
    """What one field of a model may hold.

    Attributes:
        name: of the field.
        unit: of its values.
        low, high: values that it may not leave; None where there is no limit.
        closed: whether `low` itself is allowed.
        advice_low, advice_high: what an error adds about a value beyond.
        reach: what the largest value of a model must reach, or the unit cannot be meant; or None.
        advice_reach: what an error adds about a model that does not.
    """

    name: str
    unit: str
    low: float | None = None
    high: float | None = None
    closed: bool = False
    advice_low: str = ""
    advice_high: str = ""
    reach: float | None = None
    advice_reach: str = ""

    def inside(self, values: Any) -> Any:
        """Which values of an array or tensor are allowed; none that is not a number."""
        allowed = abs(values) < float("inf")
        if self.low is not None:
            allowed = allowed & (values >= self.low if self.closed else values > self.low)
        if self.high is not None:
            allowed = allowed & (values <= self.high)
        return allowed

    def check(self, values: NDArray[Any]) -> None:
        """Raise `ValueError` that names a value which is not allowed."""
        if not np.all(np.isfinite(values)):
            raise ValueError(
                f"the {self.name} model has {np.count_nonzero(~np.isfinite(values))} non-finite "
                f"values among {values.size}; every {self.name} must be a number of {self.unit}."
            )
        if self.in_another_unit(values.max()):
            raise ValueError(self.unit_message(values.max()))
        if np.all(self.inside(values)):
            return
        if self.low is not None and not np.all(self._replace(high=None).inside(values)):
            raise ValueError(
                f"the lowest {self.name} is {values.min():g} {self.unit}; {self.advice_low}"
            )
        raise ValueError(
            f"the highest {self.name} is {values.max():g} {self.unit}, above {self.advice_high}"
        )

    def in_another_unit(self, highest: Any) -> Any:
        """Whether the largest value of a model, or of each of several, shows another unit."""
        return (highest > 0) & (highest < (0.0 if self.reach is None else self.reach))

    def unit_message(self, highest: float) -> str:
        """What to say of a model whose largest value shows another unit."""
        return f"the highest {self.name} is {highest:g} {self.unit}, {self.advice_reach}"


def velocity_limits(name: str, lowest: float, highest: float) -> Limits:
    """Limits of a velocity whose largest value in a model is between two bounds, m/s."""
    beyond = (
        f"max_velocity = {highest:g} m/s, for which the time step is stable. Raise max_velocity "
        "(smaller time steps, slower) or bound the model."
    )
    too_slow = (
        f"but on this grid and at this peak frequency nothing below {lowest:g} m/s is longer than "
        "a grid cell, so it cannot be meant. Velocities are in m/s: is the model in km/s?"
    )
    return Limits(
        name,
        "m/s",
        0.0,
        highest,
        advice_low=_POSITIVE,
        advice_high=beyond,
        reach=lowest,
        advice_reach=too_slow,
    )


def shear_limits(lowest: float) -> Limits:
    """Limits of the velocity of S waves, m/s, where P waves must reach `lowest`.

    S waves may be slow, but a tenth of what is shorter than a grid cell is no wave on that grid.
    """
    return Limits(
        "S velocity",
        "m/s",
        0.0,
        closed=True,
        advice_low=_NEGATIVE,
        reach=lowest / 10,
        advice_reach=(
            f"but on this grid and at this peak frequency nothing below {lowest / 10:g} m/s is "
            "longer than a tenth of a grid cell, so it cannot be meant. Velocities are in m/s: is "
            "the model in km/s? A fluid has S velocities of 0 everywhere."
        ),
    )


def density_limits(low: float, high: float) -> Limits:
    """Limits of a density, kg/m^3."""
    between = (
        f"density_range = ({low:g}, {high:g}) kg/m^3, for which the time step is stable. Widen "
        "density_range (smaller time steps, slower) or bound the model."
    )
    return Limits(
        "density",
        "kg/m^3",
        low,
        high,
        closed=True,
        advice_low=f"below {between}",
        advice_high=between,
        reach=low / 100,
        advice_reach=f"where {low:g} to {high:g} kg/m^3 are expected: is the model in g/cm^3?",
    )


def checked_range(density_range: Sequence[float], max_velocity: float) -> tuple[float, float]:
    """A range of densities, kg/m^3, that suits velocities up to `max_velocity`, m/s."""
    values = tuple(float(value) for value in density_range)
    if len(values) != 2 or not (0 < values[0] <= values[1] < math.inf):
        raise ValueError(
            "density_range must be two positive densities in kg/m^3, lowest first, got "
            f"{density_range}."
        )
    if values[1] < _LIGHT and max_velocity > _FAST_IN_GAS:
        raise ValueError(
            f"density_range = {values} kg/m^3 is that of a gas, where no wave is as fast as "
            f"max_velocity = {max_velocity:g} m/s. Densities are in kg/m^3: is it in g/cm^3?"
        )
    return values[0], values[1]
