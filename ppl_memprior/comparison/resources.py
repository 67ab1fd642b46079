"""What a method works with: where work is done, where it is kept, and what methods share.

One `Resources` serves one run. Which methods run, and in which order, is left to `running`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ppl_memprior.problem.inverse_problem import InverseProblem

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Executor, store, progress and a cache, the same for all methods of a run.

    Attributes:
        executor: where work at single examples is done; here if None.
        store: folder that keeps unfinished work at single examples, or None.
        progress: whether to show bars on stderr.
    """

    executor: Executor | None = None
    store: Path | None = None
    progress: bool = False
    _made: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    _borrowed: list[float] = field(default_factory=list, repr=False, compare=False)

    def once(self, problem: InverseProblem, what: str, make: Callable[[], T]) -> T:
        """What `make` returns, made when it is first asked for and kept for the other methods.

        Args:
            problem: that it is made of.
            what: its name; one name, one thing.
            make: makes it.
        """
        key = id(problem), what
        if key in self._made:
            self._borrowed.append(self._made[key][2])
            return self._made[key][1]
        start = time.perf_counter()
        made = make()
        # the problem stays, and with it its identity
        self._made[key] = problem, made, time.perf_counter() - start
        return made

    def take_borrowed_seconds(self) -> float:
        """Wall time of what was shared, and not made anew, since the last call."""
        seconds = sum(self._borrowed)
        self._borrowed.clear()
        return seconds

    def folder(self, what: str) -> Path | None:
        """A folder of the store for one kind of work; None without a store.

        Args:
            what: says all that the work depends on besides the problem. Each text has a folder of
                its own.
        """
        if self.store is None:
            return None
        return self.store / hashlib.sha256(what.encode()).hexdigest()[:12]

    def for_examples(self, what: str) -> dict[str, Any]:
        """The arguments `executor`, `store` and `progress` of work at single examples.

        Args:
            what: as in `folder`.
        """
        return {"executor": self.executor, "store": self.folder(what), "progress": self.progress}
