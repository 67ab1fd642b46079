"""Distances between two posteriors, from their draws or from their weights over examples."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

MAX_DRAWS = 400  # of each posterior; the cost is quadratic


class EnergyDistance(NamedTuple):
    """Energy distance of two samples, scaled to lie between 0 and 1, and its noise level.

    Attributes:
        value: (2 E|X-Y| - E|X-X'| - E|Y-Y'|) / (2 E|X-Y|): 0 for equal distributions, 1 for two
            different points.
        noise: 95 % quantile of the same number when the draws are dealt to the two samples at
            random. A value below it does not tell the posteriors apart.
    """

    value: float
    noise: float


def energy_distance(
    x: ArrayLike, y: ArrayLike, *, permutations: int = 199, seed: int = 0
) -> EnergyDistance:
    """Return the scaled energy distance between two sets of draws, with a permutation noise level.

    The noise level takes the draws of a set for independent. Two sets of autocorrelated draws from
    one distribution differ by more, so thin chains first (`thinned`).

    Args:
        x: draws, shape (n, *event_shape). Of more than 400 draws, 400 evenly spaced draws are used.
        y: draws, shape (m, *event_shape), likewise.
        permutations: number of random deals for the noise level.
        seed: seed of the random deals.

    Returns:
        The distance and its noise level, both without unit.

    Source: Székely & Rizzo (2013), "Energy statistics"; the scaled form is their coefficient of
    inhomogeneity.
    """
    first, second = thinned(x, MAX_DRAWS), thinned(y, MAX_DRAWS)
    pooled = np.concatenate([first, second])
    rng = np.random.default_rng(seed)
    deals = np.zeros((1 + permutations, len(pooled)))
    deals[:, : len(first)] = 1.0
    deals[1:] = rng.permuted(deals[1:], axis=1)
    values = _scaled(cdist(pooled, pooled), deals)
    # The observed value is one more deal under the null, so this rank is exceeded 5 times in 100.
    rank = math.ceil(0.95 * (permutations + 1)) - 1
    return EnergyDistance(float(values[0]), float(np.sort(values[1:])[min(rank, permutations - 1)]))


def thinned(draws: ArrayLike, number: float) -> NDArray[np.float64]:
    """Keep evenly spaced draws.

    Args:
        draws: shape (n, *event_shape), one chain's draws after another's.
        number: number of draws to keep. At least one draw is kept, and at most all.

    Returns:
        Shape (at most `number`, size of an event).
    """
    values = np.asarray(draws, dtype=np.float64)
    values = values.reshape(len(values), -1)
    kept = min(len(values), max(1, int(number)))
    return values[((np.arange(kept) + 0.5) * len(values) / kept).astype(int)]


def nearly_independent(num_draws: int, ess: float) -> int:
    """Return the number of evenly spaced draws that can be taken for independent.

    Draws thinned to their effective sample size still have an autocorrelation of about exp(-2). A
    test for independent draws then rejects too often. With half as many draws the autocorrelation
    is about exp(-4).

    Args:
        num_draws: number of draws.
        ess: effective sample size of the draws; NaN where every draw is the same.

    Returns:
        Half the effective sample size, at least one; `num_draws` where the draws are independent or
        `ess` is NaN.
    """
    if not ess < num_draws:
        return num_draws
    return max(1, int(ess / 2))


def total_variation(p: ArrayLike, q: ArrayLike) -> float:
    """Return the total variation of two weight vectors: half their L1 distance.

    Args:
        p: normalised weights over examples, shape (N,).
        q: normalised weights over the same examples, shape (N,).

    Returns:
        A number from 0 (equal weights) to 1 (no common example).
    """
    return 0.5 * float(np.abs(np.asarray(p, float) - np.asarray(q, float)).sum())


def _scaled(distances: NDArray[np.float64], deals: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scaled energy distance for each deal, a row with 1 for X and 0 for Y."""
    of_x = deals.sum(axis=1)
    of_y = deals.shape[1] - of_x
    to_x = deals @ distances
    within_x = (to_x * deals).sum(axis=1)
    between = to_x.sum(axis=1) - within_x
    within_y = distances.sum() - 2 * between - within_x
    mean = between / (of_x * of_y)
    difference = 2 * mean - within_x / of_x**2 - within_y / of_y**2
    return np.divide(difference, 2 * mean, out=np.zeros_like(mean), where=mean > 0)
