"""Work at single examples: what a task is, and its function for a problem, made once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import jax
import numpy as np

from ppl_memprior._execution.example_store import Record
from ppl_memprior.problem._cache import remembered
from ppl_memprior.problem.inverse_problem import InverseProblem

BatchFunction = Callable[[np.ndarray], list[Record]]

#: Held while a task prepares, which it may do with the help of another.
PREPARING = threading.RLock()


class ExampleTask(Protocol):
    """Work at single examples: a frozen dataclass of plain settings, which can be pickled.

    Attributes:
        name: what it is called in a store and in messages.
    """

    @property
    def name(self) -> str: ...

    def prepare(self, problem: InverseProblem) -> BatchFunction:
        """A function of indices of examples, (B,), that returns a dict of arrays for each.

        Called once for each problem in each process: the place for `jax.jit`. The function gets
        batches of one size.
        """
        ...


def prepared(problem: InverseProblem, task: ExampleTask) -> BatchFunction:
    """The task's function for the problem, made once."""
    key = (task, x64_enabled())
    with PREPARING:
        return remembered(problem, key, lambda: task.prepare(problem))


def x64_enabled() -> bool:
    """Whether JAX computes in double precision in this thread."""
    return jax.dtypes.canonicalize_dtype(float) == np.float64


def filled_up(batch: np.ndarray, size: int) -> np.ndarray:
    """The batch with its last index repeated: one size, one compilation."""
    return np.pad(batch, (0, size - len(batch)), mode="edge")


def examples_named(indices: np.ndarray) -> str:
    """The first few of the examples, for a message."""
    names = ", ".join(map(str, indices[:5])) + (", ..." if len(indices) > 5 else "")
    return f"example{'s' if len(indices) > 1 else ''} {names}"
