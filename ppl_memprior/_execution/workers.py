"""Batches of examples through a `concurrent.futures.Executor`: threads, processes or a cluster.

Threads share the problem. Other workers get it pickled, once for each process where the executor
is Dask's, and compile its functions once. Which examples are worked on, and what becomes of the
results, is left to `map_examples`.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import multiprocessing
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from ppl_memprior._execution.example_store import Record
from ppl_memprior._execution.task import (
    PREPARING,
    BatchFunction,
    ExampleTask,
    examples_named,
    filled_up,
    prepared,
    x64_enabled,
)
from ppl_memprior.problem._cache import remembered
from ppl_memprior.problem.inverse_problem import InverseProblem

Submit = Callable[[np.ndarray], "Future[list[Record]]"]

#: Batches handed to an executor and not yet back: enough for hundreds of workers.
MAX_IN_FLIGHT = 512
#: Problems, each with one task, that a worker process keeps compiled.
MAX_PREPARED = 8

_WHY_WORKERS_DIE = (
    "Where workers die at once, the script starts them outside of `if __name__ == '__main__':`, "
    "which processes need because each of them imports the script; where they die later, memory "
    "may be short: give the executor fewer workers"
)

_PREPARED: OrderedDict[str, BatchFunction] = OrderedDict()


def check_executor(executor: Any) -> None:
    """Raise for what is no executor, and for one whose workers JAX cannot run in.

    Raises:
        TypeError: not a `concurrent.futures.Executor`.
        ValueError: a process pool that forks.
        RuntimeError: the call is made while a worker of a process pool imports the script.
    """
    if not isinstance(executor, Executor):
        hint = "client.get_executor() gives one" if hasattr(executor, "get_executor") else ""
        raise TypeError(
            f"executor must be a concurrent.futures.Executor, got {type(executor).__name__}"
            + (f"; {hint}" if hint else "")
        )
    context = getattr(executor, "_mp_context", None)
    # set while a new process imports the script that started it
    if context is not None and getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "a worker process imports this script and comes upon a call that starts workers; put "
            "the script's work under `if __name__ == '__main__':`"
        )
    if context is not None and context.get_start_method() == "fork":
        raise ValueError(
            "this ProcessPoolExecutor forks, and a forked JAX hangs; start its workers anew: "
            "ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn'))"
        )


def run_on_workers(
    executor: Executor,
    problem: InverseProblem,
    task: ExampleTask,
    batches: Sequence[np.ndarray],
    size: int,
    finish: Callable[[np.ndarray, list[Record]], None],
) -> None:
    """Work on all batches, and call `finish` with each and its records as it comes back.

    On an error or an interruption what has not started is cancelled, what has come back is
    finished, and the error is raised.

    Args:
        executor: where to.
        problem: the problem that is worked on.
        task: the task that is done at each example.
        batches: indices of examples.
        size: to which each batch is filled up.
        finish: takes a batch and its records, in this thread.

    Raises:
        RuntimeError: the task failed in a worker, or a worker died; names the examples.
        ImportError: cloudpickle is missing and the executor has no threads.
        TypeError: the problem cannot be pickled.
    """
    submit = _submitter(executor, problem, task)
    waiting = iter(batches)
    running: dict[Future[list[Record]], np.ndarray] = {}
    try:
        while _fill(running, waiting, submit, size, task):
            done, _ = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                batch = running[future]
                finish(batch, _result(future, batch, task))
                del running[future]
    except BaseException:
        for future in running:
            future.cancel()
        for future, batch in running.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                finish(batch, future.result())
        raise


def _fill(
    running: dict[Future[list[Record]], np.ndarray],
    waiting: Iterator[np.ndarray],
    submit: Submit,
    size: int,
    task: ExampleTask,
) -> bool:
    """Hand out batches up to the limit; whether any is out."""
    while len(running) < MAX_IN_FLIGHT and (batch := next(waiting, None)) is not None:
        try:
            running[submit(filled_up(batch, size))] = batch
        except BrokenExecutor as error:  # it died between two batches
            raise _failure(error, batch, task) from error
    return bool(running)


def _result(future: Future[list[Record]], batch: np.ndarray, task: ExampleTask) -> list[Record]:
    error = future.exception()
    if error is None:
        return future.result()
    if not isinstance(error, Exception):  # Ctrl-C, or an exit, that arrived in the worker
        raise error
    raise _failure(error, batch, task) from error


def _failure(error: Exception, batch: np.ndarray, task: ExampleTask) -> RuntimeError:
    hint = f". {_WHY_WORKERS_DIE}" if isinstance(error, BrokenExecutor) else ""
    return RuntimeError(
        f"{task.name} failed in a worker at {examples_named(batch)}: "
        f"{type(error).__name__}: {str(error).rstrip('.')}{hint}"
    )


def _submitter(executor: Executor, problem: InverseProblem, task: ExampleTask) -> Submit:
    x64 = x64_enabled()
    if isinstance(executor, ThreadPoolExecutor):
        function = prepared(problem, task)
        return lambda batch: executor.submit(_solve_in_thread, function, x64, batch)
    # not the fingerprint: two problems with the same numbers may be two programs
    identity = remembered(problem, "identity", lambda: uuid.uuid4().hex)
    key = f"{identity} {task!r} {x64}"
    content: Any = _pickled(problem, task)
    client = getattr(executor, "_client", None)  # of Dask's executor, which hides it
    if client is not None:
        # Each worker gets it once, and not with every batch. Not under a hash of the content: the
        # release of what an earlier call has scattered could overtake this one.
        content = client.scatter(content, hash=False)
    return lambda batch: executor.submit(_solve_in_process, key, x64, content, batch)


def _pickled(problem: InverseProblem, task: ExampleTask) -> bytes:
    """Problem and task as bytes; a model is a closure, which plain pickle cannot take."""
    try:
        cloudpickle = importlib.import_module("cloudpickle")
    except ImportError as error:
        raise ImportError(
            "workers in other processes need cloudpickle, which carries the model to them: "
            "pip install cloudpickle, or use a ThreadPoolExecutor"
        ) from error
    try:
        return cloudpickle.dumps((problem, task))
    except Exception as error:
        raise TypeError(
            f"the problem cannot be sent to other processes ({type(error).__name__}: {error}): "
            "something that its model uses cannot be pickled, an open file or a lock for example; "
            "open it inside the model, or use a ThreadPoolExecutor"
        ) from error


def _solve_in_thread(function: BatchFunction, x64: bool, indices: np.ndarray) -> list[Record]:
    with jax.enable_x64(x64):  # the setting belongs to a thread
        return function(indices)


def _solve_in_process(key: str, x64: bool, content: bytes, indices: np.ndarray) -> list[Record]:
    """Run in a worker: unpickle and prepare what `key` names, unless that is done already."""
    with jax.enable_x64(x64):
        with PREPARING:
            if key in _PREPARED:
                _PREPARED.move_to_end(key)
            else:
                problem, task = importlib.import_module("cloudpickle").loads(content)
                _PREPARED[key] = task.prepare(problem)
                while len(_PREPARED) > MAX_PREPARED:
                    _PREPARED.popitem(last=False)
            function = _PREPARED[key]
        return function(indices)
