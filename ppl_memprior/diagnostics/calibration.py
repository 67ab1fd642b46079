"""Whether draws explain the data as well, and only as well, as the noise allows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Misfit(NamedTuple):
    """Data misfit of a posterior's draws.

    Attributes:
        reduced: mean chi-square of the draws divided by the number of data.
        z: (mean chi-square - m) / sqrt(2 m), in standard deviations of the noise.
    """

    reduced: float
    z: float


def misfit(chi_square: ArrayLike, num_data: int) -> Misfit:
    """Compare the draws' chi-square with what the noise alone would give.

    If the model is right, a posterior draw and the data have the same joint distribution as the
    truth and the data; so the chi-square of a draw is that of the noise: mean m, variance 2 m.
    A large z is prior-data conflict: nothing in the prior's reach explains the data. A very
    negative z is overfitting or an overstated noise level.

    Args:
        chi_square: squared norms of the whitened residuals of the draws, any shape.
        num_data: m, the number of unmasked data.
    """
    values = np.asarray(chi_square, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not values.size or num_data < 1:
        return Misfit(float("nan"), float("nan"))
    mean = float(values.mean())
    return Misfit(mean / num_data, (mean - num_data) / float(np.sqrt(2 * num_data)))
