"""What values a field of a model may have, and what an error says about other values.

A value may be impossible (a negative velocity), too high for a stable time step, or so far off that
it must be in another unit. `_operators` says which field has which limits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# A medium with a density below the first number, kg/m^3, is a gas. No gas carries waves faster than
# the second number, m/s: hydrogen is the fastest.
_LIGHT, _FAST_IN_GAS = 30.0, 1500.0
_POSITIVE = (
    "velocities must be positive. A prior that can reach this needs a positive support or bounds."
)
_NEGATIVE = "velocities of S waves must not be negative. A prior that can reach this needs bounds."


class Limits(NamedTuple):
    """The limits of one field of a model.

    Attributes:
        name: name of the field.
        unit: unit of its values.
        low, high: lowest and highest value; None if there is no limit.
        closed: whether `low` itself is allowed.
        advice_low, advice_high: end of the message about a value below `low` or above `high`.
        reach: value that the highest value of a model must reach. A model that does not reach it is
            in another unit. None skips this check.
        advice_reach: end of the message about a model that does not reach it.
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
        """Say which values of an array or tensor are allowed. NaN and infinity are not."""
        allowed = abs(values) < float("inf")
        if self.low is not None:
            allowed = allowed & (values >= self.low if self.closed else values > self.low)
        if self.high is not None:
            allowed = allowed & (values <= self.high)
        return allowed

    def check(self, values: NDArray[Any]) -> None:
        """Raise a `ValueError` if a value is not allowed. The message names the value."""
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
        """Whether the highest value of a model, or of each of several models, has another unit."""
        return (highest > 0) & (highest < (0.0 if self.reach is None else self.reach))

    def unit_message(self, highest: float) -> str:
        """Return the message about a model whose highest value is in another unit."""
        return f"the highest {self.name} is {highest:g} {self.unit}, {self.advice_reach}"


def velocity_limits(name: str, lowest: float, highest: float) -> Limits:
    """Return the limits of a velocity, m/s.

    No velocity may exceed `highest`. The highest velocity of a model must reach `lowest`.
    """
    beyond = (
        f"max_velocity = {highest:g} m/s, for which the time step is stable. Raise max_velocity "
        "(smaller time steps, slower) or bound the model."
    )
    too_slow = (
        f"but at this peak frequency, nothing below {lowest:g} m/s has waves longer than a grid "
        "cell. Velocities are in m/s: is the model in km/s?"
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
    """Return the limits of the velocity of S waves, m/s. `lowest` is what P waves must reach.

    S waves may be slow. But S waves slower than a tenth of `lowest` are shorter than a tenth of a
    grid cell. The grid cannot carry such waves.
    """
    return Limits(
        "S velocity",
        "m/s",
        0.0,
        closed=True,
        advice_low=_NEGATIVE,
        reach=lowest / 10,
        advice_reach=(
            f"but at this peak frequency, nothing below {lowest / 10:g} m/s has waves longer than "
            "a tenth of a grid cell. Velocities are in m/s: is the model in km/s? A fluid has S "
            "velocities of 0 everywhere."
        ),
    )


def density_limits(low: float, high: float) -> Limits:
    """Return the limits of a density, kg/m^3."""
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
    """Return a range of densities, kg/m^3, after checks. It must suit `max_velocity`, m/s."""
    values = tuple(float(value) for value in density_range)
    if len(values) != 2 or not (0 < values[0] <= values[1] < math.inf):
        raise ValueError(
            "density_range must be two positive densities in kg/m^3, lowest first, got "
            f"{density_range}."
        )
    if values[1] < _LIGHT and max_velocity > _FAST_IN_GAS:
        raise ValueError(
            f"density_range = {values} kg/m^3 is the range of a gas, and in a gas no wave is as "
            f"fast as max_velocity = {max_velocity:g} m/s. Densities are in kg/m^3: is the range "
            "in g/cm^3?"
        )
    return values[0], values[1]
