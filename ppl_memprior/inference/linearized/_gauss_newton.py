"""Gauss-Newton steps with a backtracking line search, from a component's mean to its mode.

In whitened coordinates the negative log-density of a component's posterior is, but for a constant,
phi(z) = |r(z)|^2 / 2 + |z|^2 / 2. A step goes to the mean of the posterior that is linearized at
z; it is halved until phi falls by enough. The iteration only asks for what it needs. `answer` does
that for one component, `answer_in_batches` for many, whose solves then go into one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ppl_memprior.inference.linearized._gaussian_update import GaussianUpdate

# Squared length of a step that is not worth taking, in the metric of the posterior's precision:
# a hundredth of a posterior standard deviation. It is never shorter than in prior units.
TOLERANCE = 1e-4
ROUNDING = 8  # units of rounding of phi below which a decrease cannot be seen
SUFFICIENT = 1e-4  # share of the predicted decrease that a step must bring (Armijo)
SHORTEST = 2.0**-10


class Linearized(Protocol):
    """A component linearized at a point z, with what a step needs."""

    @property
    def objective(self) -> Any:
        """phi(z)."""

    @property
    def update(self) -> GaussianUpdate:
        """The posterior of the component linearized there."""

    @property
    def decrement(self) -> Any:
        """Squared length of the step to the update's mean: |step|^2 + |B step|^2."""


class Mode(NamedTuple):
    """Where the iteration ended.

    Attributes:
        z: the point, shape (d,).
        linearized: the component linearized there.
        iterations: steps taken.
        converged: whether the next step would not be worth taking.
        forward_evaluations: forward solves of the line searches.
        first_objective: phi where the iteration began.
    """

    z: Any
    linearized: Any
    iterations: Any
    converged: Any
    forward_evaluations: Any
    first_objective: Any


class ObjectiveAt(NamedTuple):
    """An iteration's question for phi(z).

    Attributes:
        z: the point, shape (d,).
    """

    z: Any


class LinearizedAt(NamedTuple):
    """An iteration's question for the component linearized at z.

    Attributes:
        z: the point, shape (d,).
        before: the linearization before, None at the first point.
    """

    z: Any
    before: Linearized | None


Question = ObjectiveAt | LinearizedAt
Search = Generator[Question, Any, Mode]


def search_mode(start: NDArray[Any], iterations: int) -> Search:
    """Iterate, given the answer to one question after the other.

    Args:
        start: first z, shape (d,).
        iterations: steps at most.

    Yields:
        What the iteration wants to know.

    Returns:
        Where it ended.
    """
    here: Linearized = yield LinearizedAt(start, None)
    z, first_objective, count, trials = start, here.objective, 0, 0
    # written so that what is not a number ends the iteration
    while count < iterations and here.decrement > 0 and not _negligible(here, z.dtype):
        point, tried = yield from _line_search(z, here)
        trials += tried
        if point is None:
            break
        z = point
        here = yield LinearizedAt(z, here)
        count += 1
    return Mode(z, here, count, _negligible(here, z.dtype), trials, first_objective)


def _line_search(
    z: NDArray[Any], here: Linearized
) -> Generator[Question, Any, tuple[NDArray[Any] | None, int]]:
    """Halve the step to the mean of the linearized posterior until phi falls by enough.

    Returns:
        The point that the step reaches, None where even the shortest step is too long; and how
        many steps were tried.
    """
    direction = here.update.mean - z
    length, trials = 1.0, 0
    while length >= SHORTEST:
        point = (z + length * direction).astype(z.dtype)
        value = yield ObjectiveAt(point)
        trials += 1
        enough = here.objective - SUFFICIENT * length * here.decrement
        if value <= enough + _rounding(z.dtype) * here.objective:  # not so where phi is NaN
            return point, trials
        length /= 2
    return None, trials


def _negligible(here: Linearized, dtype: np.dtype) -> bool:
    """Whether the next step is not worth taking; false for NaN."""
    return bool(here.decrement <= TOLERANCE + _rounding(dtype) * here.objective)


def _rounding(dtype: np.dtype) -> float:
    return ROUNDING * float(np.finfo(dtype).eps)


def answer(
    search: Search, linearize_at: Callable[[Any, Any], Any], objective: Callable[[Any], float]
) -> Mode:
    """Answer the questions of one iteration.

    Args:
        search: the iteration.
        linearize_at: from z and the linearization before (or None) to a `Linearized`.
        objective: phi.

    Returns:
        Where it ended.
    """
    asked = _resume(search, None)
    while not isinstance(asked, Mode):
        if isinstance(asked, LinearizedAt):
            asked = _resume(search, linearize_at(asked.z, asked.before))
        else:
            asked = _resume(search, objective(asked.z))
    return asked


def answer_in_batches(
    searches: Sequence[Search],
    linearize_at: Callable[[NDArray[Any], NDArray[Any]], Iterable[Any]],
    objectives: Callable[[NDArray[Any], NDArray[Any]], Iterable[Any]],
) -> list[Mode]:
    """Answer the questions of several iterations, those of one kind in one batch.

    Args:
        searches: the iterations.
        linearize_at: from numbers of iterations, shape (B,), and their z, shape (B, d), to a
            `Linearized` for each.
        objectives: from the same to phi for each.

    Returns:
        Where they ended, in their order.
    """
    asked = [_resume(search, None) for search in searches]
    while not all(isinstance(question, Mode) for question in asked):
        _answer_kind(ObjectiveAt, objectives, searches, asked)
        _answer_kind(LinearizedAt, linearize_at, searches, asked)
    return cast("list[Mode]", asked)


def _answer_kind(
    kind: type[Question],
    answers: Callable[[NDArray[Any], NDArray[Any]], Iterable[Any]],
    searches: Sequence[Search],
    asked: list[Question | Mode],
) -> None:
    """Answer all questions of one kind, and put the next ones in their places."""
    asking = [n for n, question in enumerate(asked) if isinstance(question, kind)]
    if not asking:
        return
    points = np.stack([asked[n].z for n in asking])
    for n, found in zip(asking, answers(np.asarray(asking), points), strict=True):
        asked[n] = _resume(searches[n], found)


def _resume(search: Search, found: Any) -> Question | Mode:
    """Give an iteration its answer (None to begin), and return its next question or its end."""
    try:
        return search.send(found)
    except StopIteration as end:
        return end.value
