"""The data misfit of draws, compared with the misfit that the noise alone gives."""

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
    truth and the data. So a draw's chi-square has the distribution of the noise: mean m, variance
    2 m. A large z is prior-data conflict: no value that the prior allows explains the data. A very
    negative z is overfitting or an overstated noise level.

    Args:
        chi_square: squared norms of the whitened residuals of the draws, any shape. Values that are
            not finite are left out.
        num_data: number m of unmasked data.

    Returns:
        The misfit; NaN without finite chi-squares or without data.

    Example::

        misfit([98.0, 103.0, 101.0], num_data=100).reduced  # 1.007
    """
    values = np.asarray(chi_square, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not values.size or num_data < 1:
        return Misfit(float("nan"), float("nan"))
    mean = float(values.mean())
    return Misfit(mean / num_data, (mean - num_data) / float(np.sqrt(2 * num_data)))
