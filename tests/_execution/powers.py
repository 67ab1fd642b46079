"""Powers of examples as a task that logs its batches, and an executor that pickles."""

from __future__ import annotations

import pickle
from concurrent.futures import (
    Executor,
    Future,
)
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np

NUM = 11


@dataclass(frozen=True)
class Powers:
    """x^power of each example; keeps a log of the batches, and fails where it is told to."""

    log: str
    power: int = 2
    fails_at: int = -1
    failure: type[BaseException] = FloatingPointError
    name: ClassVar[str] = "powers"

    def prepare(self, problem):
        powers = jax.jit(lambda x: x**self.power)

        def solve(indices):
            if self.fails_at in indices:
                raise self.failure("as asked")
            with open(self.log, "a") as log:
                log.write(f"{indices.tolist()}\n")
            values = np.asarray(powers(problem.examples[indices]))
            return [
                {"powers": value, "ragged": np.arange(index)}
                for index, value in zip(indices, values, strict=True)
            ]

        return solve


class PicklingExecutor(Executor):
    """What an executor of other processes does to its arguments, in this one."""

    def submit(self, fn, /, *args):
        future = Future()
        try:
            future.set_result(pickle.loads(pickle.dumps(fn(*pickle.loads(pickle.dumps(args))))))
        except Exception as error:
            future.set_exception(error)
        return future


def batches_in(log):
    return [eval(line) for line in Path(log).read_text().splitlines()]


def assert_powers(records, problem, indices, power=2):
    expected = np.asarray(problem.examples)[indices] ** power
    np.testing.assert_array_equal(np.stack([r["powers"] for r in records]), expected)
    assert [len(r["ragged"]) for r in records] == list(indices)
