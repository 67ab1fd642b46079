"""The examples of a problem, block by block, so that no more than a block need be in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import numpy as np

if TYPE_CHECKING:
    from ppl_memprior.problem.inverse_problem import InverseProblem

#: Numbers in one block.
BLOCK_ELEMENTS = 2**22


def example_blocks(problem: InverseProblem) -> Iterator[jax.Array]:
    """Yield all examples in their order, (K, *event_shape) at a time."""
    num = problem.num_examples
    step = max(1, BLOCK_ELEMENTS // max(1, math.prod(problem.event_shape)))
    for start in range(0, num, step):
        yield problem.take(np.arange(start, min(start + step, num)))
