"""Examples as the diagnostics read them: some rows of an array, or of a prior, at a time.

The diagnostics compare examples with one another in batches, so that examples in a file need not be
in memory together. How many rows a batch has is left to `ppl_memprior._batches`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_memprior._arrays import real_array
from ppl_memprior._batches import batch_slices, items_that_fit
from ppl_memprior.distributions import LearnedPrior


@dataclass(frozen=True)
class ExampleRows:
    """N examples of which some are read at a time.

    Attributes:
        shape: (N, *event_shape).
        take: maps whole numbers (K,) to the examples of these numbers, shape (K, *event_shape).
    """

    shape: tuple[int, ...]
    take: Callable[[NDArray[np.intp]], NDArray[np.number]]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Numbers in one example."""
        return math.prod(self.shape[1:])

    def flat(self, indices: NDArray[np.intp]) -> NDArray[np.float64]:
        """The examples of these numbers in double precision, shape (K, d)."""
        return self.take(indices).reshape(len(indices), -1).astype(np.float64, copy=False)

    def batches(self, indices: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
        """Cut numbers of examples, shape (K,), into batches of which each fits in memory."""
        for items in batch_slices(len(indices), items_that_fit(self.size)):
            yield indices[items]


def example_rows(examples: ArrayLike | LearnedPrior) -> ExampleRows:
    """Return examples for reading.

    Args:
        examples: an array of shape (N, *event_shape), or a prior, whose component means they are.

    Raises:
        TypeError: if an array does not hold real numbers.
    """
    if isinstance(examples, LearnedPrior):
        prior = examples
        shape = (prior.num_components, *prior.event_shape)
        return ExampleRows(shape, lambda indices: np.asarray(prior.take(indices)))
    array = np.asarray(real_array("examples", examples))
    return ExampleRows(array.shape, lambda indices: array[indices])
