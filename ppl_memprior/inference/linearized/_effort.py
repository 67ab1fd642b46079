"""How much work `linearize` may still do, and a bar for the work inside of one component.

Work that is done here, without an executor, finds the effort of its caller; elsewhere it finds
none, and neither ends early nor shows anything.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tqdm import tqdm

from ppl_memprior._execution.example_store import Record
from ppl_memprior._execution.progress import progress_bar


class CannotMatter(Exception):
    """A component was given up, because its weight is bound to be negligible.

    Attributes:
        bound: upper bound on its log-evidence.
        cost: what it took, as a record has it.
    """

    def __init__(self, bound: float, cost: Record) -> None:
        super().__init__(f"the log-evidence is at most {bound:.6g}")
        self.bound, self.cost = bound, cost


class Effort:
    """A budget of forward solves and Jacobian products, together, and of minutes from now on.

    Attributes:
        progress: whether to show bars.
        least: log-evidence below which the component at work does not matter.
    """

    def __init__(
        self,
        max_evaluations: int | None = None,
        max_minutes: float | None = None,
        progress: bool = False,
    ) -> None:
        self.progress, self.least = progress, -math.inf
        self._evaluations = math.inf if max_evaluations is None else max_evaluations
        self._seconds = math.inf if max_minutes is None else 60 * max_minutes
        self._began = time.monotonic()
        self._spent = 0

    def count(self, records: Iterable[Record]) -> None:
        """Count what finished work has taken; work that a store has kept counts as well."""
        for record in records:
            self._spent += int(record["forward_evaluations"]) + int(record["gradient_evaluations"])

    def suffices(self, evaluations: int = 1) -> bool:
        """Whether so many further evaluations fit."""
        in_time = time.monotonic() - self._began < self._seconds
        return in_time and self._spent + evaluations <= self._evaluations


_HERE: ContextVar[Effort | None] = ContextVar("effort", default=None)


@contextmanager
def at_work(effort: Effort, least: float = -math.inf) -> Iterator[None]:
    """Let work that is done here find the effort, and the log-evidence that it must reach."""
    effort.least = least
    token = _HERE.set(effort)
    try:
        yield
    finally:
        _HERE.reset(token)


def effort_here() -> Effort:
    """The effort that this work is part of; without any, as much as it takes."""
    return _HERE.get() or Effort()


class ComponentBar:
    """What is known of a component while its directions are found, on one line of stderr."""

    def __init__(self, bar: tqdm, accuracy: float) -> None:
        self._bar = bar
        self._most: int = bar.total
        self._accuracy = accuracy
        self._seen: list[tuple[int, float]] = []
        self._products, self._error = 0, ""

    def products(self, count: int) -> None:
        """So many products were made in all."""
        self._products = count
        self._bar.set_postfix_str(f"{count} products{self._error}")

    def directions(self, rank: int, error: float) -> None:
        """So many directions were found, and leave an error in nats."""
        self._error = f", error {error:.3g} nats"
        self._seen.append((rank, error))
        self._bar.total = self._expected(rank, error)
        self._bar.update(rank - self._bar.n)
        self.products(self._products)

    def _expected(self, rank: int, error: float) -> int:
        """The rank at the accuracy, if the error goes on falling as in the later half."""
        before, larger = self._seen[len(self._seen) // 2 - 1 if len(self._seen) > 1 else 0]
        if not 0 < error < larger:
            return self._most
        missing = max(math.log(error / self._accuracy), 0.0)
        further = missing * (rank - before) / math.log(larger / error)
        return min(self._most, rank + math.ceil(further))


@contextmanager
def component_bar(index: int, most: int, accuracy: float) -> Iterator[ComponentBar]:
    """A bar over the directions of one component.

    Args:
        index: of its example.
        most: directions at most.
        accuracy: nats at which no more are looked for.
    """
    with progress_bar(
        total=most,
        description=f"linearize: directions of component {index}",
        progress=effort_here().progress,
    ) as bar:
        yield ComponentBar(bar, accuracy)
