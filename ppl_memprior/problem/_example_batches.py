"""The examples of a problem, batch by batch, so that no more than a batch need be in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import numpy as np

from ppl_memprior._batches import batch_slices, items_that_fit

if TYPE_CHECKING:
    from ppl_memprior.problem.inverse_problem import InverseProblem


def example_batches(problem: InverseProblem, start: int = 0) -> Iterator[jax.Array]:
    """Yield the examples from `start` on in their order, shape (K, *event_shape) at a time."""
    size = items_that_fit(math.prod(problem.event_shape))
    for items in batch_slices(problem.num_examples - start, size):
        yield problem.take(start + np.arange(items.start, items.stop))
