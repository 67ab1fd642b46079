"""How much of a posterior is a lookup among the training examples.

There are two measures. The number of effective examples comes from the responsibilities. The
nearest-neighbour ratio says how much closer a draw is to its nearest example than to the next
examples. Compare the ratio with its null: real collections without memorization have small ratios
too. Examples of one mode count as one (`modes`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_memprior._arrays import real_array
from ppl_memprior.diagnostics.modes import distinct_examples
from ppl_memprior.distributions import MemorizedPrior

NEIGHBOURS = 50
FEWEST = 3  # distinct examples with which the ratio has a null: one is left out, two are compared


def effective_examples(weights: ArrayLike) -> float:
    """Return the effective number of examples: exp(entropy) of the normalised weights.

    Args:
        weights: non-negative weights over examples, shape (N,).

    Returns:
        A number between 1 and N.

    Example::

        effective_examples([0.5, 0.5, 0.0])  # 2.0
    """
    p = np.asarray(weights, dtype=np.float64)
    p = p[p > 0] / p.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def nearest_examples(
    x: ArrayLike, examples: ArrayLike, groups: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the nearest example of each x, and the ratio r = d_1 / mean(d_2 .. d_50).

    d_1, d_2, ... are the distances to the distinct examples in ascending order. The distance to a
    group of equal examples is the distance to the group's mean.

    Args:
        x: points such as draws, shape (n, *event_shape).
        examples: shape (N, *event_shape).
        groups: number of the first example of each example's group, shape (N,), as
            `distinct_examples` returns. By default examples that coincide form a group.

    Returns:
        Two arrays of shape (n,). The first holds the number of the nearest distinct example: the
        first example of its group. The second holds the ratio: 0 on an example, about 1 far from
        all examples, NaN with fewer than three distinct examples.
    """
    first, centres = _distinct(examples, groups)
    neighbours = min(len(first), NEIGHBOURS)
    found = MemorizedPrior(centres).nearest(np.asarray(real_array("x", x)), neighbours)
    distances, order = (np.asarray(values) for values in found)
    return first[order[:, 0]], _ratios(distances, len(first))


def leave_one_out_ratios(
    examples: ArrayLike, groups: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """Return the null of the nearest-neighbour ratio: each distinct example against all others.

    Args:
        examples: shape (N, *event_shape).
        groups: groups of equal examples, as in `nearest_examples`.

    Returns:
        One ratio for each distinct example; NaN with fewer than three distinct examples.
    """
    first, centres = _distinct(examples, groups)
    neighbours = min(len(first), NEIGHBOURS + 1)
    found = MemorizedPrior(centres).nearest(centres, neighbours)
    distances, order = (np.asarray(values) for values in found)
    others = order != np.arange(len(first))[:, None]
    # rounding may put an example itself behind all the neighbours that are asked for
    others[others.all(axis=1), -1] = False
    return _ratios(distances[others].reshape(len(first), neighbours - 1), len(first))


def _distinct(
    examples: ArrayLike, groups: NDArray[np.intp] | None
) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """Number of the first example of each group, and the groups' means."""
    values = np.asarray(real_array("examples", examples))
    values = values.astype(np.result_type(values, np.float32), copy=False)
    if groups is None:
        groups = distinct_examples(values)
    first, member, count = np.unique(groups, return_inverse=True, return_counts=True)
    if len(first) == len(values):
        return first, values
    # the mean as a shift from the first example, so that copies have exactly their own value
    shift = np.zeros((len(first), values[0].size))
    np.add.at(shift, member.ravel(), (values - values[groups]).reshape(len(values), -1))
    shift /= count[:, None]
    return first, values[first] + shift.reshape(len(first), *values.shape[1:]).astype(values.dtype)


def _ratios(distances: NDArray[np.floating], num_distinct: int) -> NDArray[np.float64]:
    if num_distinct < FEWEST:
        return np.full(len(distances), np.nan)
    others = distances[:, 1:].astype(np.float64).mean(axis=1)
    return np.divide(distances[:, 0], others, out=np.full(len(others), np.nan), where=others > 0)
