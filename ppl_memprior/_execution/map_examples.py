"""A piece of work at each training example: in batches, here or on workers, kept as it finishes.

A task says what is done at a batch of examples. `map_examples` decides which examples are still
to be done and where, stores what is finished, and puts the results in order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np

from ppl_memprior._batches import BATCH_ITEMS, batch_slices, items_in_batch
from ppl_memprior._execution.example_store import ExampleStore, Record
from ppl_memprior._execution.progress import progress_bar
from ppl_memprior._execution.task import (
    ExampleTask,
    examples_named,
    filled_up,
    prepared,
)
from ppl_memprior._execution.workers import check_executor, run_on_workers
from ppl_memprior._failures import told_plainly
from ppl_memprior.problem._fingerprint import problem_fingerprint
from ppl_memprior.problem.inverse_problem import InverseProblem

#: Batches into which work is divided that is spread or stored: one of them is lost at most.
MIN_BATCHES = 64
#: What a task puts into a record that it has not finished.
CUT_SHORT = "cut_short"


def map_examples(
    problem: InverseProblem,
    task: ExampleTask,
    indices: np.ndarray,
    *,
    batch_size: int,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    description: str = "",
    progress: bool = False,
) -> list[Record]:
    """Do a task at some examples, in batches.

    With one store and task it may be called several times: a stored result is found by the index of
    its example, whatever the batches were. A result of NaN is kept like any other, because the same
    simulation would fail again. A batch with a result that was `CUT_SHORT` is not kept, so it is
    tried again.

    Args:
        problem: the inverse problem.
        task: what is done; see `ExampleTask`.
        indices: of examples, (K,).
        batch_size: examples in a batch.
        executor: any `concurrent.futures.Executor`; without one the work is done here.
        store: folder that keeps each batch as soon as it is finished.
        description: what the bar says.
        progress: show a bar, on stderr.

    Returns:
        What the task returned for each example, in the order of `indices`.

    Raises:
        TypeError: no executor, a problem that cannot be pickled for it, or a task that returns
            something else than one dict for each example.
        ValueError: indices that are not those of examples; a process pool that forks; a store of
            another problem or other settings.
        RuntimeError: the task failed in a worker (which examples).
    """
    wanted = _checked_indices(indices, problem.num_examples, batch_size)
    if executor is not None:
        check_executor(executor)
    kept = None if store is None else ExampleStore(store, problem_fingerprint(problem), task)
    finished: dict[int, Record] = {} if kept is None else kept.load(wanted)

    once = list(dict.fromkeys(wanted))
    size = min(batch_size, max(1, len(once)))
    missing = np.asarray([index for index in once if index not in finished], dtype=int)
    batches = [missing[batch] for batch in batch_slices(len(missing), size)]
    with progress_bar(
        total=len(once),
        initial=len(once) - len(missing),
        description=description,
        progress=progress,
    ) as bar:

        def finish(batch: np.ndarray, records: list[Record]) -> None:
            _check_records(task, records, size)
            records = records[: len(batch)]  # without those of the filled up places
            # all of them, so that none is left with the mark
            cut_short = [record.pop(CUT_SHORT, None) is not None for record in records]
            if kept is not None and not any(cut_short):
                kept.add(batch.tolist(), records)
            finished.update(zip(batch.tolist(), records, strict=True))
            bar.update(len(batch))

        if executor is None:
            _run_here(problem, task, batches, size, finish)
        elif batches:
            run_on_workers(executor, problem, task, batches, size, finish)
    return [finished[index] for index in wanted]


def examples_in_batch(
    count: int,
    elements_per_example: int,
    *,
    executor: Executor | None,
    store: str | os.PathLike[str] | None,
    at_most: int = BATCH_ITEMS,
) -> int:
    """How many examples `map_examples` should take at a time: the memory is bounded by that.

    Work that is spread or stored is cut into `MIN_BATCHES` batches at least, as far as there are
    examples, so that all workers have some and an interruption costs little.

    Args:
        count: examples in all.
        elements_per_example: numbers that one example needs while it is worked on.
        executor: the executor that `map_examples` will get.
        store: the store that `map_examples` will get.
        at_most: examples in a batch.
    """
    batches = 1 if executor is None and store is None else MIN_BATCHES
    return min(at_most, items_in_batch(count, elements_per_example, at_least=batches))


def _run_here(
    problem: InverseProblem,
    task: ExampleTask,
    batches: Sequence[np.ndarray],
    size: int,
    finish: Callable[[np.ndarray, list[Record]], None],
) -> None:
    for batch in batches:
        try:
            with told_plainly(f"{task.name} at {examples_named(batch)}"):
                records = prepared(problem, task)(filled_up(batch, size))
        except Exception as error:
            error.add_note(f"in {task.name} at {examples_named(batch)}")
            raise
        finish(batch, records)


def _check_records(task: ExampleTask, records: list[Record], size: int) -> None:
    if not isinstance(records, list) or len(records) != size:
        found = f"{len(records)}" if isinstance(records, list) else type(records).__name__
        raise TypeError(f"{task.name} must return a list of {size} dicts, got {found}")


def _checked_indices(indices: np.ndarray, num_examples: int, batch_size: int) -> list[int]:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    array = np.asarray(indices)
    if array.ndim != 1 or not (array.size == 0 or np.issubdtype(array.dtype, np.integer)):
        raise ValueError(
            f"indices must be integers of shape (K,), got {array.dtype} of shape {array.shape}"
        )
    outside = array[(array < 0) | (array >= num_examples)]
    if outside.size:
        raise ValueError(f"indices must be from 0 to {num_examples - 1}, got {outside[0]}")
    return [int(index) for index in array]
