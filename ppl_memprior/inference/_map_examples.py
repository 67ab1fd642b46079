"""Work on training examples, batch by batch."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from tqdm import tqdm

from ppl_memprior.problem import InverseProblem

#: What a task returns for one example.
Record = dict[str, np.ndarray]


class ExampleTask(Protocol):
    """Something to compute at each example; a frozen, picklable dataclass of plain settings."""

    @property
    def name(self) -> str:
        """A short name."""

    def __hash__(self) -> int: ...

    def prepare(self, problem: InverseProblem) -> Callable[[np.ndarray], list[Record]]:
        """Build the function from a batch of example indices to one dict for each."""


def map_examples(
    problem: InverseProblem,
    task: ExampleTask,
    indices: np.ndarray,
    *,
    batch_size: int,
    executor: Any = None,
    store: Any = None,
    description: str = "",
    progress: bool = False,
) -> list[Record]:
    """Apply a task to the examples at `indices`, in batches of one size."""
    function = _prepared(problem, task, str(jax.dtypes.canonicalize_dtype(float)))
    results: list[Record] = []
    with tqdm(
        total=len(indices), desc=description, file=sys.stderr, leave=False, disable=not progress
    ) as bar:
        for start in range(0, len(indices), batch_size):
            # one shape, one compilation: the last batch repeats the last index, dropped again
            where = np.minimum(np.arange(start, start + batch_size), len(indices) - 1)
            kept = min(batch_size, len(indices) - start)
            results += function(indices[where])[:kept]
            bar.update(kept)
    return results


@functools.lru_cache(maxsize=4)
def _prepared(
    problem: InverseProblem, task: Any, dtype: str
) -> Callable[[np.ndarray], list[Record]]:
    return task.prepare(problem)
