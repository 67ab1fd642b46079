"""Which components of a posterior are worth their work, given upper bounds on their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_memprior._execution.map_examples import Record
from ppl_memprior._execution.progress import progress_bar

Array = NDArray[Any]
MARGIN = 0.01  # nats between what does not matter and what might: more than rounding


def in_order_of_importance(
    work: Callable[[Array, Array], list[Record | float]],
    tighten: Sequence[Callable[[Array], Array]],
    log_weights: Array,
    bounds: Array,
    neglect: float,
    *,
    at_once: int,
    first: int | None = None,
    goes_on: Callable[[], bool] = lambda: True,
    progress: bool,
) -> tuple[dict[int, Record], float]:
    """Work on components, the largest bound first, until the others cannot matter.

    A component whose turn it is has its bound tightened first, in as many steps as there are, each
    of which may put others before it.

    Args:
        work: from indices, and the log-evidences below which they do not matter, to a record for
            each that holds its `log_evidence`; or, for one that was found not to matter, to an
            upper bound that is below.
        tighten: each from indices to closer upper bounds on their log-evidences, the loosest and
            cheapest first; may be empty.
        log_weights: prior log-weights, shape (N,).
        bounds: upper bounds on the log-evidences, shape (N,).
        neglect: share of the weight below which the others do not matter; 0 works on all.
        at_once: components that are handed over together.
        first: the component to begin with, whatever its bound.
        goes_on: asked before each step whether there is a budget for it; the first components are
            worked on in any case.
        progress: show a bar on stderr.

    Returns:
        The records by index, and the bound on the others' weight as a share of these.
    """
    upper = log_weights + bounds
    tightened = np.zeros(len(upper), int)
    tightest = len(tighten) if neglect > 0 else 0
    results: dict[int, Record] = {}
    total, share = -np.inf, np.inf
    with progress_bar(
        total=len(upper), description="linearize: components", progress=progress
    ) as bar:
        while len(results) < len(upper) and (neglect == 0 or not share <= neglect):
            if results and not goes_on():
                break
            left = np.asarray([n for n in np.argsort(-upper, kind="stable") if n not in results])
            if first is not None and not results:
                left = np.asarray([first, *left[left != first]])
            batch = left[:at_once]
            loose = batch[tightened[batch] < tightest] if goes_on() else batch[:0]
            if len(loose):
                step = tightened[loose].min()
                loose = loose[tightened[loose] == step]
                closer = log_weights[loose] + tighten[step](loose)
                upper[loose], tightened[loose] = np.minimum(upper[loose], closer), step + 1
            else:
                # if all the others are below this, their share is below `neglect`
                least = total + np.log(neglect / len(upper)) if neglect > 0 else -np.inf
                found = work(batch, least - MARGIN - log_weights[batch])
                for n, result in zip(batch.tolist(), found, strict=True):
                    if isinstance(result, float):
                        upper[n] = min(upper[n], log_weights[n] + result)
                        continue
                    results[n] = result
                    total = np.logaddexp(total, log_weights[n] + float(result["log_evidence"]))
                    bar.update()
                left = np.asarray([n for n in left if n not in results], int)
            rest = np.logaddexp.reduce(upper[left]) if len(left) else -np.inf
            # a difference of more than 80 nats would overflow in float32
            share = float(np.exp(min(rest - total, 80.0))) if rest > -np.inf else 0.0
    return results, share
