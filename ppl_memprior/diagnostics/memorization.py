"""How much of a posterior is a lookup among the training examples.

Two measures: how many examples the draws belong to (responsibilities), and how much closer a
draw is to its nearest example than to the next ones (nearest-neighbour ratio). The ratio says
something only beside its null: real, never memorized collections have small ratios too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_memprior.distributions import MemorizedPrior

NEIGHBOURS = 50


def effective_examples(weights: ArrayLike) -> float:
    """exp(entropy) of normalised weights over examples, shape (N,): between 1 and N."""
    p = np.asarray(weights, dtype=np.float64)
    p = p[p > 0] / p.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def nearest_examples(
    x: ArrayLike, examples: ArrayLike, *, exclude_self: bool = False
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Nearest example of each x, and the nearest-neighbour ratio r = d_1 / mean(d_2 .. d_50).

    Args:
        x: shape (n, *event_shape).
        examples: shape (N, *event_shape).
        exclude_self: x are the examples themselves; leave each out of its own neighbours.

    Returns:
        The index of the nearest example, shape (n,), and the ratio, shape (n,): 0 on an example,
        about 1 where the examples are no guide; NaN with fewer than two neighbours or where all
        distances are zero.
    """
    stored = MemorizedPrior(np.asarray(examples))
    neighbours = min(stored.num_examples, NEIGHBOURS + exclude_self)
    distances, order = (np.asarray(found) for found in stored.nearest(np.asarray(x), neighbours))
    index = np.empty(len(distances), dtype=np.intp)
    ratio = np.full(len(distances), np.nan)
    for i, (distance, where) in enumerate(zip(distances.astype(np.float64), order, strict=True)):
        if exclude_self:
            # Among coinciding examples an example itself may come last, or not at all.
            own = np.flatnonzero(where == i)
            distance, where = (np.delete(v, own[0] if own.size else -1) for v in (distance, where))
        if not where.size:
            index[i] = i
            continue
        index[i] = where[0]
        others = distance[1:]
        if others.size and others.mean() > 0:
            ratio[i] = distance[0] / others.mean()
    return index, ratio


def leave_one_out_ratios(examples: ArrayLike) -> NDArray[np.float64]:
    """The null of the nearest-neighbour ratio: each example against all others, shape (N,)."""
    return nearest_examples(examples, examples, exclude_self=True)[1]
