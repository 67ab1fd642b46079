"""Gauss-Newton steps with a backtracking line search, from a component's mean to its mode.

In whitened coordinates the negative log-density of a component's posterior is, but for a constant,
phi(z) = |r(z)|^2 / 2 + |z|^2 / 2. A step goes to the mean of the posterior that is linearized at
z; it is halved until phi falls by enough. The iteration only asks for what it needs; it is answered
for one component alone, or for many together, so that their solves go into one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

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


class Question(NamedTuple):
    """What an iteration wants to know at z: phi(z), or the component linearized there.

    Attributes:
        z: the point, shape (d,).
        linearize: the `Linearized` component is wanted, otherwise phi alone.
        before: the linearization before, if any.
    """

    z: Any
    linearize: bool
    before: Any


Search = Generator[Question, Any, Mode]


def search_mode(start: NDArray[Any], iterations: int) -> Search:
    """Iterate, given the answer to one question after the other.

    Args:
        start: first z, shape (d,).
        iterations: steps at most.
    """
    dtype = start.dtype
    rounding = ROUNDING * float(np.finfo(dtype).eps)

    def negligible(here: Linearized) -> bool:
        return bool(here.decrement <= TOLERANCE + rounding * here.objective)

    first: Linearized = yield Question(start, True, None)
    z, here, count, trials = start, first, 0, 0
    # written so that what is not a number ends the iteration, and counts as too long a step
    while count < iterations and here.decrement > 0 and not negligible(here):
        direction = here.update.mean - z
        length, falls = 1.0, False
        while not falls and length >= SHORTEST:
            value = yield Question((z + length * direction).astype(dtype), False, None)
            trials += 1
            enough = here.objective - SUFFICIENT * length * here.decrement
            falls = bool(value <= enough + rounding * here.objective)
            length = length if falls else length / 2
        if not falls:
            break
        z = (z + length * direction).astype(dtype)
        here = yield Question(z, True, here)
        count += 1
    return Mode(z, here, count, negligible(here), trials, first.objective)


def alone(
    search: Search, linearize_at: Callable[[Any, Any], Any], objective: Callable[[Any], float]
) -> Mode:
    """Answer the questions of one iteration.

    Args:
        search: the iteration.
        linearize_at: from z and the linearization before (or None) to a `Linearized`.
        objective: phi.
    """
    try:
        question = next(search)
        while True:
            z, linearize, before = question
            question = search.send(linearize_at(z, before) if linearize else objective(z))
    except StopIteration as end:
        return end.value


def together(
    searches: Sequence[Search],
    linearize_at: Callable[[NDArray[Any], NDArray[Any]], Iterable[Any]],
    objectives: Callable[[NDArray[Any], NDArray[Any]], Iterable[Any]],
) -> list[Mode]:
    """Answer the questions of several iterations, those of one kind at once.

    Args:
        searches: the iterations.
        linearize_at: from numbers of iterations, shape (B,), and their z, shape (B, d), to a
            `Linearized` for each.
        objectives: from the same to phi for each.

    Returns:
        Where they ended, in their order.
    """
    questions = {n: next(search) for n, search in enumerate(searches)}
    modes: dict[int, Mode] = {}
    while questions:
        for linearize, answer in ((False, objectives), (True, linearize_at)):
            asking = [n for n, question in questions.items() if question.linearize == linearize]
            if not asking:
                continue
            points = np.stack([questions[n].z for n in asking])
            for n, found in zip(asking, answer(np.asarray(asking), points), strict=True):
                try:
                    questions[n] = searches[n].send(found)
                except StopIteration as end:
                    modes[n] = end.value
                    del questions[n]
    return [modes[n] for n in range(len(searches))]
