"""What a method works with: where work is done, where it is kept, and what methods share.

One `Resources` serves one run. Which methods run, and in which order, is left to `running`.
"""

from __future__ import annotations

import hashlib
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

    def once(self, problem: InverseProblem, what: str, make: Callable[[], T]) -> T:
        """What `make` returns, made when it is first asked for and kept for the other methods.

        Args:
            problem: that it is made of.
            what: its name; one name, one thing.
            make: makes it.
        """
        key = id(problem), what
        if key not in self._made:
            self._made[key] = problem, make()  # the problem stays, and with it its identity
        return self._made[key][1]

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
