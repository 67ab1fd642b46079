"""The Gaussian-mixture posterior from linearizing the forward operator at every example.

Around example n, F(x) is replaced by F(x_n) + J_n (x - x_n). Each component of the prior then
has a Gaussian posterior and a closed-form evidence (Siahkoohi & Sabeddu, arXiv:2603.19629; the
component weights here include the log-determinant of the data covariance, which differs from
component to component). What is done at one component stands in `_tasks`, and how they
make a posterior in `_posterior`; here it is decided how, and whether for all components. Where not
for all, `_by_importance` chooses them.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import NamedTuple

import jax
import numpy as np

from ppl_memprior._execution.map_examples import Record, examples_in_batch, map_examples
from ppl_memprior.inference._method_checks import method_check, require_density
from ppl_memprior.inference.linearized._by_importance import (
    ComponentWork,
    linearize_by_importance,
)
from ppl_memprior.inference.linearized._effort import Effort
from ppl_memprior.inference.linearized._failed_components import (
    require_some,
    say_failed,
    simulated,
)
from ppl_memprior.inference.linearized._posterior import LinearizedPosterior, assembled
from ppl_memprior.inference.linearized._tasks import DenseTask, LowRankTask
from ppl_memprior.problem.inverse_problem import InverseProblem

# A Jacobian is formed if it has at most so many elements (32 MiB in float32) and its shorter side,
# the number of products and the size of its singular value decomposition, is at most so long. That
# chooses an algorithm; how many Jacobians a batch holds is left to `_batches`.
DENSE_ELEMENTS = 2**23
DENSE_SIDE = 1024
# Multiplications in the factorizations of all Jacobians, about a second of work, below which it is
# not asked which of them matter.
BOUNDED_OPERATIONS = 10**9
# Directions found for a component, if not told otherwise, without a Jacobian formed.
MAX_RANK = 512


def linearize(
    problem: InverseProblem,
    *,
    iterations: int = 0,
    accuracy: float = 0.1,
    max_rank: int | None = None,
    neglect: float = 1e-6,
    max_evaluations: int | None = None,
    max_minutes: float | None = None,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> LinearizedPosterior:
    """Posterior and evidence of the problem linearized at every training example.

    Exact where the forward operator is linear and the noise Gaussian. With `iterations`, every
    component is linearized at its own mode instead (Gauss-Newton with a line search) and weighted
    by Laplace's approximation there.

    Jacobians of at most `DENSE_ELEMENTS` elements are formed. Otherwise products with them find
    the directions that the data inform; the random probes among them depend on the example's index
    alone, so that the same problem gives the same result.

    Where there is much to do the most important components come first: a few products bound each
    component's evidence from above, and components that cannot matter are left out. For
    `iterations=0` the bound is proven. Iterated components have another evidence, and one that the
    bound leaves out may matter: where Jacobians are formed all are iterated, elsewhere use
    `neglect=0` if all are wanted, or `psis` to see what is missing.

    Where the forward output or the Jacobian at an example is not finite, the simulation has
    failed: the component is left out, a warning says so, and neither the posterior nor its
    evidence has what lies around that example. `psis` finds it again, by the prior's share of its
    draws.

    Args:
        problem: an inverse problem with a `DiffusionMixturePrior` or a `LowRankGaussianMixture`
            (an earlier posterior, say), Gaussian noise and no extra latent sites.
        iterations: Gauss-Newton steps of each component, at most.
        accuracy: error of a component's log-evidence, in nats, at which to stop looking for
            directions; where the Jacobian is formed there is none.
        max_rank: most directions to find for a component; a report's `truncation_error` says what
            that costs. If None, all where Jacobians are formed, and `MAX_RANK` elsewhere.
        neglect: components are left out that together have less than this share of the weight;
            0 linearizes all.
        max_evaluations: forward solves and Jacobian products, together, after which to end with
            what there is: the component at work with the directions that it has, the others left
            out. `neglected_mass` and the report's `truncation_error` say what that costs. A bound
            on every component (two evaluations or, where Jacobians are formed, eight) and the
            first directions of the most important one are made in any case, and of an iterated
            component those of each of its steps. The same budget gives the same result.
        max_minutes: the same by the clock.
        executor: where the components' work is done: any `concurrent.futures.Executor`, Dask's
            `client.get_executor()` included; here, without one. By products several components
            are begun at once, and a few more of them than needed may be finished. A budget then
            only ends between components.
        store: folder that keeps finished components. Called again with the same problem and
            settings after an interruption, or with a larger budget, those in it are not repeated;
            one that the budget cut short is begun anew. What is in it counts as spent.
        progress: show bars on stderr.

    Returns:
        A NumPyro distribution: the Gaussian mixture with covariances
        (C0_n^-1 + J_n^T Gamma^-1 J_n)^-1, C0_n the prior's, and weights proportional to
        pi_n N(data; F(x_n), J_n C0_n J_n^T + Gamma).

    Raises:
        ValueError: a `MemorizedPrior` (it has no bandwidth), noise that is not Gaussian, extra
            latent sites, no data, a setting out of range, a simulation that fails at all
            examples; a store of another problem or other settings.
        RuntimeError: a component failed in a worker (which example).
    """
    check_linearize(problem)
    _check_settings(iterations, accuracy, max_rank, neglect)
    _check_budget(max_evaluations, max_minutes)
    effort = Effort(max_evaluations, max_minutes, progress)
    unlimited = max_evaluations is None and max_minutes is None
    size = problem_size(problem)
    dense = size.fits(max_rank)
    # a bound is proven for components that are not iterated
    if dense and unlimited and (size.small or iterations or not neglect):
        results, also = linearize_all(problem, iterations, executor, store, progress)
        return assembled(problem, results, [], 0.0, also, size.num - len(results))

    task: DenseTask | LowRankTask = DenseTask(iterations)
    if not dense:
        task = LowRankTask(iterations, accuracy, min(max_rank or MAX_RANK, size.num_model))
    work = ComponentWork(
        problem, task, size.num_model, size.num_residuals, effort, executor, store, progress
    )
    found = linearize_by_importance(work, neglect)
    say_failed(problem, work.failed)
    num = size.num - len(work.failed)
    _warn_of_what_is_left(found.results, num, found.neglected, neglect, accuracy)
    left_out = iterations > 0 and len(found.results) < num  # and no bound on their weight
    neglected = math.nan if left_out else found.neglected
    return assembled(problem, found.results, found.bounds, neglected, work.unused, len(work.failed))


@method_check("linearized")
def check_linearize(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a problem that `linearize` cannot take."""
    require_linearizable(problem)


def require_linearizable(problem: InverseProblem) -> None:
    """As `check_linearize`; the error has the reason alone."""
    require_density(problem, "linearize")
    problem.require_no_extra_latents("linearize")
    problem.require_residual("linearize")
    if not problem.num_data:
        raise ValueError(
            f"linearize has no data: the observed sites {list(problem.observed)} are empty or "
            "masked altogether; the posterior is the prior"
        )


def _check_settings(iterations: int, accuracy: float, max_rank: int | None, neglect: float) -> None:
    wanted = [
        ("iterations", iterations, "an integer", _is_whole(iterations)),
        ("iterations", iterations, "at least 0", iterations >= 0),
        ("accuracy", accuracy, "a positive number of nats", 0 < accuracy < math.inf),
        ("max_rank", max_rank, "an integer, or None", max_rank is None or _is_whole(max_rank)),
        ("max_rank", max_rank, "at least 1, or None", max_rank is None or max_rank >= 1),
        ("neglect", neglect, "in [0, 1)", 0 <= neglect < 1),
    ]
    for name, value, condition, fulfilled in wanted:
        if not fulfilled:
            raise ValueError(f"{name} must be {condition}, got {value}")


def _check_budget(max_evaluations: int | None, max_minutes: float | None) -> None:
    whole = max_evaluations is None or (
        _is_whole(max_evaluations) and not isinstance(max_evaluations, bool)
    )
    if not whole or (max_evaluations is not None and max_evaluations < 1):
        raise ValueError(
            f"max_evaluations must be an integer of at least 1, or None, got {max_evaluations!r}"
        )
    number = isinstance(max_minutes, int | float | np.number) and not isinstance(max_minutes, bool)
    if max_minutes is not None and not (number and max_minutes > 0):
        raise ValueError(
            f"max_minutes must be a positive number of minutes, or None, got {max_minutes!r}"
        )


def _warn_of_what_is_left(
    results: Mapping[int, Record], num: int, neglected: float, neglect: float, accuracy: float
) -> None:
    errors = {n: float(result["truncation_error"]) for n, result in results.items()}
    rough = [n for n, error in errors.items() if error > accuracy]
    if rough:
        worst = max(rough, key=errors.__getitem__)
        warnings.warn(
            f"linearize: the log-evidences of {len(rough)} of {len(results)} components are not "
            f"known to {accuracy:g} nats; at example {worst}, {int(results[worst]['rank'])} "
            f"directions leave an error of about {errors[worst]:.3g} nats "
            "(report.truncation_error). A larger max_rank or budget finds more; where rounding "
            "ends the search, JAX_ENABLE_X64=1 does",
            stacklevel=3,
        )
    if len(results) < num and neglected > neglect:
        warnings.warn(
            f"linearize: the budget ended after {len(results)} of {num} components; the others may "
            f"have up to {neglected:.3g} times the weight of these (neglected_mass)",
            stacklevel=3,
        )


def _is_whole(value: float) -> bool:
    return isinstance(value, int | np.integer)


class ProblemSize(NamedTuple):
    """What decides how a problem is linearized.

    Attributes:
        num: examples.
        num_model: unknowns d.
        num_residuals: length m of the residual, masked data included.
    """

    num: int
    num_model: int
    num_residuals: int

    def fits(self, max_rank: int | None = None) -> bool:
        """Whether Jacobians are formed."""
        side = min(self.num_model, self.num_residuals)
        fits = self.num_model * self.num_residuals <= DENSE_ELEMENTS and side <= DENSE_SIDE
        return fits and (max_rank is None or max_rank >= side)

    @property
    def small(self) -> bool:
        """Whether all Jacobians are factorized sooner than asked which of them matter."""
        side = min(self.num_model, self.num_residuals)
        return self.num * self.num_model * self.num_residuals * side < BOUNDED_OPERATIONS


def problem_size(problem: InverseProblem) -> ProblemSize:
    """The size of a problem; nothing is computed."""
    residual = jax.eval_shape(problem.residual, problem.take(0))
    return ProblemSize(problem.num_examples, math.prod(problem.event_shape), residual.shape[0])


def linearize_all(
    problem: InverseProblem,
    iterations: int,
    executor: Executor | None,
    store: str | os.PathLike[str] | None,
    progress: bool,
) -> tuple[dict[int, Record], list[Record]]:
    """Form the Jacobian at every example.

    Returns:
        What `DenseTask` says of each component, by index, without those whose simulation failed;
        and the records of the failed ones.

    Raises:
        ValueError: the simulation fails at all examples.
    """
    num, num_model, num_residuals = problem_size(problem)
    elements = 8 * num_model * num_residuals
    found = map_examples(
        problem,
        DenseTask(iterations),
        np.arange(num),
        batch_size=examples_in_batch(num, elements, executor=executor, store=store),
        executor=executor,
        store=store,
        description="linearize: examples",
        progress=progress,
    )
    failed = {n for n, record in enumerate(found) if not simulated(record)}
    require_some(problem, failed)
    say_failed(problem, failed)
    results = {n: record for n, record in enumerate(found) if n not in failed}
    return results, [found[n] for n in failed]
