"""Linearization of the components that matter: bounds for all, then work in their order.

A few products bound each component's evidence from above. Components are worked on by
`in_order_of_importance`, the largest bound first, until the others cannot matter or the budget
ends. What is done at a component is left to `_tasks`.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppl_memprior._batches import BATCH_ITEMS
from ppl_memprior._execution.map_examples import Record, examples_in_batch, map_examples
from ppl_memprior.inference.linearized._effort import CannotMatter, Effort, at_work
from ppl_memprior.inference.linearized._failed_components import require_some, simulated
from ppl_memprior.inference.linearized._ordering import in_order_of_importance
from ppl_memprior.inference.linearized._tasks import BLOCK, BoundTask, DenseTask, LowRankTask
from ppl_memprior.problem.inverse_problem import InverseProblem

# Steps of bidiagonalization that bound every component where products are costly, those that may
# matter for all that, and those that still may; and every component where products are cheap.
STEPS, CHEAP_STEPS = (1, 2, 4), 4

Array = NDArray[Any]

# stands for the record of a component that is known to fail
_UNTRIED: Record = {
    "forward_evaluations": np.asarray(0),
    "gradient_evaluations": np.asarray(0),
}


class ByImportance(NamedTuple):
    """What was found of the components that matter.

    Attributes:
        results: the records of the components worked on, by index, without failed ones.
        bounds: the records of the bounds on all components.
        neglected: bound on the weight of the others, as a share of these.
    """

    results: dict[int, Record]
    bounds: list[Record]
    neglected: float


class ComponentWork:
    """Work at components of a problem, within a budget.

    Args:
        problem: the inverse problem.
        task: what is done at a component that may matter.
        num_model: unknowns d.
        num_residuals: length m of the residual.
        effort: the budget; what is done is counted there.
        executor, store, progress: as for `linearize`.

    Attributes:
        failed: indices of the components whose simulation failed.
        unused: records of work that is no part of the results: closer bounds, components given up.
    """

    def __init__(
        self,
        problem: InverseProblem,
        task: DenseTask | LowRankTask,
        num_model: int,
        num_residuals: int,
        effort: Effort,
        executor: Executor | None,
        store: str | os.PathLike[str] | None,
        progress: bool,
    ) -> None:
        self.problem, self.task, self.effort, self.progress = problem, task, effort, progress
        self.failed: set[int] = set()
        self.unused: list[Record] = []
        self.dense = isinstance(task, DenseTask)
        self._num_model, self._num_residuals = num_model, num_residuals
        self._executor, self._store = executor, store
        self._map = partial(map_examples, problem, executor=executor, store=store)

    @property
    def at_once(self) -> int:
        """Components that are begun before the first of them is finished."""
        return 1 if self._executor is None and not self.dense else BLOCK

    @property
    def least_evaluations(self) -> int:
        """Evaluations without which the next components need not be begun.

        Those of a batch of Jacobians; by products, those of the probes, the first directions and
        the mean.
        """
        side = min(self._num_model, self._num_residuals)
        return BLOCK * (side + 3) if self.dense else 5 * min(BLOCK, side) + 2

    def bound_all(self) -> list[Record]:
        """Bound the log-evidence of every component.

        Raises:
            ValueError: the simulation fails at all examples.
        """
        num = self.problem.num_examples
        bounds = self._map(
            BoundTask(CHEAP_STEPS if self.dense else STEPS[0]),
            np.arange(num),
            batch_size=examples_in_batch(
                num,
                10 * (self._num_model + self._num_residuals),
                executor=self._executor,
                store=self._store,
                at_most=BATCH_ITEMS if self.dense else BLOCK,
            ),
            description="linearize: bounds",
            progress=self.progress,
        )
        self.failed = {n for n, bound in enumerate(bounds) if not simulated(bound)}
        require_some(self.problem, self.failed)
        self.effort.count(bounds)
        return bounds

    def tighten(self, steps: int, indices: Array) -> Array:
        """Bound some log-evidences more closely, by so many steps; shape of `indices`."""
        records = self._map(
            BoundTask(steps),
            indices,
            batch_size=1,
            description="linearize: closer bounds",
            progress=self.progress,
        )
        self.effort.count(records)
        self.unused.extend(records)
        closer = np.asarray([record["log_evidence"] for record in records], np.float64)
        return np.where(np.isnan(closer), np.inf, closer)  # no bound: `linearize` sees it fail

    def linearize(self, indices: Array, least: Array) -> list[Record | float]:
        """Do the task at some components.

        Args:
            indices: of the components, shape (K,).
            least: log-evidences below which they do not matter, shape (K,).

        Returns:
            A record for each; or a bound on its log-evidence, if it was found not to matter.
        """
        wanted = [n for n in indices.tolist() if n not in self.failed]
        try:
            with at_work(self.effort, float(least.min())):
                done = self._map(
                    self.task, np.asarray(wanted, int), batch_size=BLOCK if self.dense else 1
                )
        except CannotMatter as found:  # of components that are worked on alone
            self.effort.count([found.cost])
            self.unused.append(found.cost)
            return [found.bound]
        self.effort.count(done)
        records = dict(zip(wanted, done, strict=True))
        self.failed.update(n for n, record in records.items() if not simulated(record))
        return [self._without_weight_if_failed(n, records) for n in indices.tolist()]

    def _without_weight_if_failed(self, n: int, records: dict[int, Record]) -> Record:
        if n not in self.failed:
            return records[n]
        return {**records.get(n, _UNTRIED), "log_evidence": np.asarray(-np.inf)}


def linearize_by_importance(work: ComponentWork, neglect: float) -> ByImportance:
    """Linearize the components that matter.

    Args:
        work: at the components of a problem; its `failed` and `unused` are filled in.
        neglect: share of the weight below which the others do not matter; 0 works on all.

    Returns:
        The results, and what is known of the other components.

    Raises:
        ValueError: the simulation fails at all examples.
    """
    bounds = work.bound_all()
    log_weights = np.asarray(work.problem.prior.log_weights, np.float64)
    results, neglected = in_order_of_importance(
        work.linearize,
        [] if work.dense else [partial(work.tighten, steps) for steps in STEPS[1:]],
        log_weights,
        _column(bounds, "log_evidence", work.failed, -np.inf),
        neglect,
        at_once=work.at_once,
        first=None if work.dense else _best_fit(log_weights, bounds, work.failed),
        goes_on=partial(work.effort.suffices, work.least_evaluations),
        progress=work.progress,
    )
    work.unused += [results.pop(n) for n in work.failed & results.keys()]
    return ByImportance(results, bounds, neglected)


def _best_fit(log_weights: Array, bounds: list[Record], failed: set[int]) -> int:
    """The component whose example fits the data best, its prior weight included.

    Bounds of few steps hardly differ where the data are much better than the prior. Beside this
    component, the others' bounds may soon be too low.
    """
    return int(np.argmax(log_weights - 0.5 * _column(bounds, "misfit", failed, np.inf)))


def _column(bounds: list[Record], name: str, failed: set[int], at_failed: float) -> Array:
    """One number of each bound, with another in the place of failed components."""
    values = np.asarray([bound[name] for bound in bounds], np.float64)
    values[list(failed)] = at_failed
    return values
