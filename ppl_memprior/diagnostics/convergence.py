"""Effective sample size, split R-hat and Monte Carlo error of chains, through ArviZ."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr

from ppl_memprior._arviz import az


class Convergence(NamedTuple):
    """Diagnostics of chains at their worst coordinates.

    Attributes:
        ess: smallest bulk effective sample size.
        rhat: largest rank-normalised split R-hat.
        relative_mcse: largest Monte Carlo standard error of a mean, in posterior standard
            deviations.
    """

    ess: float
    rhat: float
    relative_mcse: float


def convergence(draws: xr.DataArray) -> Convergence:
    """Diagnose chains of one site.

    Args:
        draws: dims `chain`, `draw` and any others; at least two chains of four draws.

    Returns:
        Each diagnostic at its worst coordinate; NaN where no coordinate has a finite value.

    Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), "Rank-normalization, folding,
    and localization: an improved R-hat".
    """
    ess = np.asarray(az.ess(draws, method="bulk"), dtype=float)
    rhat = np.asarray(az.rhat(draws, method="rank"), dtype=float)
    sd = np.asarray(draws.std(("chain", "draw")), dtype=float)
    error = np.asarray(az.mcse(draws, method="mean"), dtype=float)
    relative = error / np.where(sd > 0, sd, np.nan)
    return Convergence(_worst(np.min, ess), _worst(np.max, rhat), _worst(np.max, relative))


def _worst(choose: Callable[[np.ndarray], float], values: np.ndarray) -> float:
    finite = np.ravel(values)[np.isfinite(np.ravel(values))]
    return float(choose(finite)) if finite.size else float("nan")
