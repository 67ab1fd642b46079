"""What is worked out once for each problem: compiled functions, the fingerprint, related problems.

Each caller keeps what it makes under a key of its own. A problem holds its cache, so that both are
freed together. A copy, in another process too, begins with an empty one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Cache:
    """Values by key, each made once, whatever the number of threads that ask for it."""

    def __init__(self) -> None:
        self._values: dict[Hashable, object] = {}
        # of one thread several times: to make a value another one may be needed
        self._making = threading.RLock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of the key, made now if it is not there."""
        with self._making:
            if key not in self._values:
                self._values[key] = make()
            return self._values[key]  # type: ignore[return-value]


class HasCache(Protocol):
    """An object with a cache of its own, such as an `InverseProblem`."""

    @property
    def _cache(self) -> Any: ...


def remembered(problem: HasCache, key: Hashable, make: Callable[[], T]) -> T:
    """Return what `make()` returned at the first call with this problem and key.

    Args:
        problem: any inverse problem. The value may refer to it.
        key: names the value among all that are remembered for the problem.
        make: makes the value; an exception leaves nothing behind.

    Returns:
        The value, the same object at each call.
    """
    return problem._cache.get(key, make)
