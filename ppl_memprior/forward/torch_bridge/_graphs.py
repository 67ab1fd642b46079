"""Autograd graphs that wait between a forward pass and its backward pass.

A forward pass that will be differentiated leaves its graph in a `GraphStore` and returns tokens. A
token is four integers for each element of the batch. Tokens travel through JAX like any other
array, and the backward pass finds its graph by the token. The store is bounded, so a graph may be
gone when the backward pass needs it; the forward pass then runs again. `_evaluate` records graphs,
and `_cotangents` differentiates them.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

# Bounds on the waiting graphs. The newest graph is always kept, whatever its size: a gradient in
# plain PyTorch needs it too.
MAX_GRAPHS = 1024
MAX_BYTES = 2**30

TOKEN_LENGTH = 4
NO_GRAPH = 0
# A token of another process, for example in a pickled array, must not match a graph of this one.
_PROCESS = secrets.randbelow(2**31 - 1) + 1
_WORD = 31


@dataclass(eq=False)
class Graph:
    """One recorded forward pass.

    Attributes:
        owner: number of the function that it belongs to.
        length: length of the batch that it holds, or None for a single call.
        leaves: for every argument that can be differentiated, the leaf tensor.
        values: the tensors of floating dtype that the function returned.
        nbytes: approximate memory that it holds, bytes.
        reused: whether it was asked for again after its first use. It is then worth keeping.
    """

    owner: int
    length: int | None
    leaves: dict[int, Any]
    values: tuple[Any, ...]
    nbytes: int = 0
    reused: bool = False

    def answers(self, owner: int, wrt: Iterable[int], positions: Sequence[int]) -> bool:
        """Whether this graph shall serve a function's derivatives at some elements of its batch.

        It shall not if fewer than half of its elements are asked for, because its backward pass
        runs over all of them.
        """
        length = self.length or 1
        return (
            self.owner == owner
            and max(positions) < length <= 2 * len(set(positions))
            and all(i in self.leaves for i in wrt)
        )


class Element(NamedTuple):
    """The content of a token: the number of a graph, and a place in its batch."""

    graph: int
    place: int


def token(number: int, place: int = 0) -> list[int]:
    """Return the four int32 words of a token. They are zeros if there is no graph."""
    if number == NO_GRAPH:
        return [0] * TOKEN_LENGTH
    return [_PROCESS, number >> _WORD, number & (2**_WORD - 1), place]


def read_token(words: list[int]) -> Element:
    """Return the content of a token. A token of another process names no graph."""
    process, high, low, place = words
    return Element((high << _WORD) + low if process == _PROCESS else NO_GRAPH, place)


class GraphStore:
    """A bounded, thread-safe collection of graphs. The newest graphs push out the oldest.

    A graph is taken out while it is used, so that two threads never use it at the same time. The
    store remembers for a while the numbers of the graphs that were taken. A caller that asks for
    the same graph again is likely to ask often (Jacobian products in a solver). It therefore
    computes the graph again and puts it back.
    """

    def __init__(self) -> None:
        # Dropping a graph may run a function's finalizer, which calls `forget` in this thread.
        self._lock = threading.RLock()
        self._graphs: OrderedDict[int, Graph] = OrderedDict()
        self._used: OrderedDict[int, None] = OrderedDict()
        self._nbytes = 0
        self._last = NO_GRAPH

    def __len__(self) -> int:
        return len(self._graphs)

    @property
    def nbytes(self) -> int:
        """Approximate memory that the waiting graphs hold, bytes."""
        return self._nbytes

    def keep(self, graph: Graph) -> int:
        """Store a new graph and return its number."""
        with self._lock:
            self._last += 1
            self._insert(self._last, graph)
            return self._last

    def put_back(self, number: int, graph: Graph) -> None:
        """Store a graph under the number that it had before."""
        with self._lock:
            if number not in self._graphs:
                self._insert(number, graph)

    def take(self, number: int) -> tuple[Graph | None, bool]:
        """Take out the graph of a number, or None. Also return whether it was taken before."""
        with self._lock:
            graph = self._graphs.pop(number, None)
            if graph is not None:
                self._nbytes -= graph.nbytes
            again = number in self._used
            self._used[number] = None
            if len(self._used) > MAX_GRAPHS:
                self._used.popitem(last=False)
            return graph, again

    def forget(self, owner: int) -> None:
        """Drop all graphs of one function."""
        with self._lock:
            for number in [n for n, graph in self._graphs.items() if graph.owner == owner]:
                self._nbytes -= self._graphs.pop(number).nbytes

    def _insert(self, number: int, graph: Graph) -> None:
        self._graphs[number] = graph
        self._nbytes += graph.nbytes
        while len(self._graphs) > 1 and (
            len(self._graphs) > MAX_GRAPHS or self._nbytes > MAX_BYTES
        ):
            _, oldest = self._graphs.popitem(last=False)
            self._nbytes -= oldest.nbytes


STORE = GraphStore()


def reaches(value: Any, leaves: Iterable[Any]) -> bool:
    """Whether PyTorch's record of a value leads to one of some leaves."""
    wanted = {id(leaf) for leaf in leaves}
    if value.grad_fn is None:
        return id(value) in wanted
    # Breadth first: in most graphs, however long, some leaf is near the value.
    nodes = deque([value.grad_fn])
    seen = {id(value.grad_fn): value.grad_fn}  # kept alive, as in `measure`
    while nodes:
        node = nodes.popleft()
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        if not parents and id(getattr(node, "variable", None)) in wanted:
            return True
        nodes.extend(parent for parent in parents if id(parent) not in seen)
        seen.update((id(parent), parent) for parent in parents)
    return False


def measure(values: Iterable[Any]) -> int:
    """Return about how many bytes the graphs behind some tensors hold.

    PyTorch's own nodes show what they saved. In the nodes of custom functions, tensors in
    attributes are counted, also those inside lists, dicts and objects.
    """
    saved: list[Any] = []
    nodes = [value.grad_fn for value in values]
    seen: dict[int, Any] = {}
    while nodes:
        node = nodes.pop()
        if node is None or id(node) in seen:
            continue
        seen[id(node)] = node  # kept alive, so that no other node gets its id
        nodes.extend(parent for parent, _ in node.next_functions)
        names = [name for name in dir(node) if name.startswith("_saved_")]
        for name in [*names, "saved_tensors", "__dict__"]:
            with contextlib.suppress(AttributeError, RuntimeError):
                saved.append(getattr(node, name))
    return _count(saved)


def _count(things: list[Any]) -> int:
    """Return the bytes of all tensors within some Python objects. Shared memory counts once."""
    storages: dict[int, int] = {}
    seen: dict[int, Any] = {}
    while things:
        thing = things.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if hasattr(thing, "untyped_storage"):
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(thing, dict):
            things.extend(thing.values())
        elif isinstance(thing, (list, tuple)):
            things.extend(thing)
        elif type(thing).__module__ != "builtins" and not isinstance(thing, type):
            things.extend(getattr(thing, "__dict__", {}).values())
    return sum(storages.values())
