"""Which components of a posterior are worth their work, given upper bounds on their weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ppl_memprior.inference._map_examples import Record

Array = NDArray[Any]


def in_order_of_importance(
    work: Callable[[Array], list[Record]],
    log_weights: Array,
    bounds: Array,
    neglect: float,
    *,
    at_once: int,
    progress: bool,
) -> tuple[dict[int, Record], float]:
    """Work on components, the largest bound first, until the others cannot matter.

    Args:
        work: from indices to a record for each that holds its `log_evidence`.
        log_weights: prior log-weights, shape (N,).
        bounds: upper bounds on the log-evidences, shape (N,).
        neglect: share of the weight below which the others do not matter; 0 works on all.
        at_once: components that are handed over together.
        progress: show a bar on stderr.

    Returns:
        The records by index, and the bound on the others' weight as a share of these.
    """
    upper = log_weights + bounds
    order = np.argsort(-upper, kind="stable")
    results: dict[int, Record] = {}
    total, share = -np.inf, np.inf
    with tqdm(
        total=len(order),
        desc="linearize: components",
        file=sys.stderr,
        leave=False,
        disable=not progress,
    ) as bar:
        while len(results) < len(order) and (neglect == 0 or not share <= neglect):
            batch = order[len(results) : len(results) + at_once]
            for n, result in zip(batch.tolist(), work(batch), strict=True):
                results[n] = result
                total = np.logaddexp(total, log_weights[n] + float(result["log_evidence"]))
            others = upper[order[len(results) :]]
            rest = np.logaddexp.reduce(others) if len(others) else -np.inf
            share = (
                float(np.exp(min(rest - total, 700.0))) if rest > -np.inf else 0.0
            )  # or overflow
            bar.update(len(batch))
    return results, share
