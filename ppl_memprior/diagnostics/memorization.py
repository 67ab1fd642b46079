"""How much of a posterior is a lookup among the training examples.

Two measures: how many examples the draws belong to (responsibilities), and how much closer a
draw is to its nearest example than to the next ones (nearest-neighbour ratio). The ratio says
something only beside its null: real, never memorized collections have small ratios too. Examples
of one mode count as one (`modes`).
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
    """exp(entropy) of normalised weights over examples, shape (N,): between 1 and N."""
    p = np.asarray(weights, dtype=np.float64)
    p = p[p > 0] / p.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def nearest_examples(
    x: ArrayLike, examples: ArrayLike, groups: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Nearest example of each x, and the nearest-neighbour ratio r = d_1 / mean(d_2 .. d_50).

    The distances d_1, d_2, ... lead to distinct examples, in ascending order: to the mean of a
    group of examples that are the same.

    Args:
        x: shape (n, *event_shape).
        examples: shape (N, *event_shape).
        groups: which examples are the same, shape (N,), as `distinct_examples` says; by default
            those that coincide.

    Returns:
        The number of the nearest distinct example (of the first one in its group), shape (n,), and
        the ratio, shape (n,): 0 on an example, about 1 where the examples are no guide; NaN with
        fewer than three distinct examples.
    """
    first, centres = _distinct(examples, groups)
    neighbours = min(len(first), NEIGHBOURS)
    found = MemorizedPrior(centres).nearest(np.asarray(real_array("x", x)), neighbours)
    distances, order = (np.asarray(values) for values in found)
    return first[order[:, 0]], _ratios(distances, len(first))


def leave_one_out_ratios(
    examples: ArrayLike, groups: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """The null of the nearest-neighbour ratio: each distinct example against all others.

    Args:
        examples: shape (N, *event_shape).
        groups: which examples are the same, as in `nearest_examples`.

    Returns:
        One ratio for each distinct example; NaN with fewer than three of them.
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
