"""Distances between two posteriors, from their draws or from their weights over examples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

MAX_DRAWS = 400  # of each posterior; the cost is quadratic


class EnergyDistance(NamedTuple):
    """Energy distance of two samples, scaled to lie between 0 and 1, and its noise level.

    Attributes:
        value: (2 E|X-Y| - E|X-X'| - E|Y-Y'|) / (2 E|X-Y|): 0 for equal laws, 1 for two
            different points.
        noise: 95 % quantile of the same number when the draws are dealt to the two samples at
            random: a smaller value does not tell the posteriors apart.
    """

    value: float
    noise: float


def energy_distance(
    x: ArrayLike, y: ArrayLike, *, permutations: int = 100, seed: int = 0
) -> EnergyDistance:
    """Scaled energy distance between two sets of draws, with a permutation noise level.

    Args:
        x, y: draws, shapes (n, *event_shape) and (m, *event_shape); of more than 400, every
            k-th is used.
        permutations: random deals for the noise level.
        seed: of the deals.

    Source: Székely & Rizzo (2013), "Energy statistics"; the scaled form is their coefficient of
    inhomogeneity.
    """
    first, second = _thinned(x), _thinned(y)
    pooled = np.concatenate([first, second])
    distances = cdist(pooled, pooled)
    labels = np.arange(len(pooled)) < len(first)
    value = _scaled(distances, labels)
    rng = np.random.default_rng(seed)
    null = [_scaled(distances, rng.permutation(labels)) for _ in range(permutations)]
    return EnergyDistance(value, float(np.quantile(null, 0.95)))


def total_variation(p: ArrayLike, q: ArrayLike) -> float:
    """Half the L1 distance of two weight vectors over the same examples: 0 to 1."""
    return 0.5 * float(np.abs(np.asarray(p, float) - np.asarray(q, float)).sum())


def _thinned(x: ArrayLike) -> NDArray[np.float64]:
    draws = np.asarray(x, dtype=np.float64)
    draws = draws.reshape(len(draws), -1)
    return draws[np.linspace(0, len(draws) - 1, min(len(draws), MAX_DRAWS)).astype(int)]


def _scaled(distances: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    between = distances[np.ix_(labels, ~labels)].mean()
    if between == 0:
        return 0.0
    within_x = distances[np.ix_(labels, labels)].mean()
    within_y = distances[np.ix_(~labels, ~labels)].mean()
    return float((2 * between - within_x - within_y) / (2 * between))
