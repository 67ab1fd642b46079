"""Progress of long work, on stderr, with an estimate of the time left.

Loops in Python use `tqdm`; `scan_with_progress` gives the same bar to a compiled `jax.lax.scan`.
`map_in_batches` is the loop that the forward solves of every method run in; how large its batches
are is left to `_batches`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial
from tqdm import tqdm

from ppl_memprior._batches import batch_slices, filled_batches, items_in_batch
from ppl_memprior._failures import told_plainly

HEARTBEAT = 2.0  # seconds after which a bar shows again that there is life


@contextmanager
def progress_bar(
    *, total: int, description: str, progress: bool, initial: int = 0
) -> Iterator[tqdm]:
    """A bar on stderr whose clock goes on while nothing is finished, during a compilation say.

    Args:
        total: steps in all.
        description: what the bar says.
        progress: whether to show it.
        initial: steps that were done before.
    """
    with tqdm(
        total=total,
        initial=initial,
        desc=description,
        file=sys.stderr,
        leave=False,
        disable=not progress,
    ) as bar:
        if not progress:
            yield bar
            return
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT):
                bar.refresh()

        heart = threading.Thread(target=beat, daemon=True)
        heart.start()
        try:
            yield bar
        finally:
            ended.set()
            heart.join()


def scan_with_progress(
    step: Partial,
    carry: Any,
    xs: jax.Array,
    *,
    description: str,
    progress: bool,
) -> tuple[Any, Any]:
    """`jax.lax.scan` over the leading axis of `xs`, with a bar on stderr.

    The scan is compiled once for a fortieth of its length and called on one batch of steps after
    the other, so that the bar moves and Ctrl-C is answered between the batches. Call it outside
    `jit`.

    Args:
        step: as for `jax.lax.scan`, with what it needs besides as the arguments of the `Partial`:
            a step of the same function and other arrays is not compiled again.
        carry: the initial state, a pytree.
        xs: inputs along the leading axis.
        description: what the bar says.
        progress: whether to show the bar.

    Returns:
        The final state and the outputs, stacked, as NumPy arrays.
    """
    size = max(1, len(xs) // 40)
    outputs = []
    with progress_bar(total=len(xs), description=description, progress=progress) as bar:
        for steps in batch_slices(len(xs), size):
            carry, output = jax.block_until_ready(_scan(step, carry, xs[steps]))
            outputs.append(jax.tree.map(np.asarray, output))
            bar.update(steps.stop - steps.start)
    return carry, jax.tree.map(lambda *leaves: np.concatenate(leaves), *outputs)


@jax.jit
def _scan(step: Partial, carry: Any, xs: jax.Array) -> tuple[Any, Any]:
    return jax.lax.scan(step, carry, xs)


def map_in_batches(
    function: Callable[[Any], Any],
    xs: Any,
    *,
    elements_per_item: int,
    description: str = "",
    progress: bool = False,
) -> Any:
    """`jax.vmap(function)(xs)` in batches that bound the memory, with a bar on stderr.

    Args:
        function: JAX function of one item; may return a pytree. One that is a
            `jax.tree_util.Partial` is compiled once for all arrays among its arguments.
        xs: items along the leading axis; an array or a pytree of arrays.
        elements_per_item: numbers that one item needs while it is worked on.
        description: what the bar says.
        progress: whether to show the bar.

    Returns:
        The results as NumPy arrays, stacked along a new leading axis, as if by one `vmap`.
    """
    return map_taken_in_batches(
        function,
        lambda indices: jax.tree.map(lambda leaf: leaf[indices], xs),
        len(jax.tree.leaves(xs)[0]),
        elements_per_item=elements_per_item,
        description=description,
        progress=progress,
    )


def map_taken_in_batches(
    function: Callable[[Any], Any],
    take: Callable[[np.ndarray], Any],
    count: int,
    *,
    elements_per_item: int,
    description: str = "",
    progress: bool = False,
) -> Any:
    """`map_in_batches` for items of which no more than a batch is in memory.

    Args:
        function: of one item; see `map_in_batches`.
        take: maps indices (K,) to the items, an array or a pytree of arrays with K rows.
        count: items in all.
        elements_per_item: numbers that one item needs while it is worked on.
        description: what the bar says.
        progress: whether to show the bar.

    Returns:
        The results as NumPy arrays, stacked along a new leading axis.
    """
    size = items_in_batch(count, elements_per_item)
    shared = isinstance(function, Partial)
    batched = partial(_vmapped, function) if shared else jax.jit(jax.vmap(function))
    parts = []
    with progress_bar(total=count, description=description, progress=progress) as bar:
        for items, indices in filled_batches(count, size):
            with told_plainly(description or "forward solves"):
                part = jax.block_until_ready(batched(take(indices)))
            kept = items.stop - items.start
            parts.append(jax.tree.map(lambda leaf, k=kept: np.asarray(leaf)[:k], part))
            bar.update(kept)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


@jax.jit
def _vmapped(function: Partial, items: Any) -> Any:
    return jax.vmap(function)(items)
