"""The Gaussian-mixture posterior from linearizing the forward operator at every example.

Around example n, F(x) is replaced by F(x_n) + J_n (x - x_n). Each component of the prior then
has a Gaussian posterior and a closed-form evidence (Siahkoohi & Sabeddu, arXiv:2603.19629; the
component weights here include the log-determinant of the data covariance, which differs from
component to component). What is done at one component stands in `_tasks`, and how they
make a posterior in `linearized_posterior`; here it is decided how and for which components.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from ppl_memprior._execution.map_examples import Record, examples_in_batch, map_examples
from ppl_memprior._execution.progress import BATCH_ITEMS
from ppl_memprior._failures import tell_failures
from ppl_memprior.inference._method_checks import method_check, require_density
from ppl_memprior.inference.linearized._effort import CannotMatter, Effort, at_work
from ppl_memprior.inference.linearized._ordering import in_order_of_importance
from ppl_memprior.inference.linearized._posterior import LinearizedPosterior, assembled
from ppl_memprior.inference.linearized._tasks import BLOCK, BoundTask, DenseTask, LowRankTask
from ppl_memprior.problem.inverse_problem import InverseProblem

# A Jacobian is formed if it has at most so many elements (32 MiB in float32) and its shorter side,
# the number of products and the size of its singular value decomposition, is at most so long.
DENSE_ELEMENTS = 2**23
DENSE_SIDE = 1024
# Multiplications in the factorizations of all Jacobians, about a second of work, below which it is
# not asked which of them matter.
BOUNDED_OPERATIONS = 10**9
# Steps of bidiagonalization that bound every component where products are dear, those that may
# matter for all that, and those that still may; and every component where products are cheap.
STEPS, CHEAP_STEPS = (1, 2, 4), 4
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
    do = partial(map_examples, problem, executor=executor, store=store)
    bounds = do(
        BoundTask(CHEAP_STEPS if dense else STEPS[0]),
        np.arange(size.num),
        batch_size=examples_in_batch(
            size.num,
            10 * (size.num_model + size.num_residuals),
            executor=executor,
            store=store,
            at_most=BATCH_ITEMS if dense else BLOCK,
        ),
        description="linearize: bounds",
        progress=progress,
    )
    failed = {n for n, bound in enumerate(bounds) if not _simulated(bound)}
    _require_some(problem, failed)
    effort.count(bounds)
    upper = np.asarray([bound["log_evidence"] for bound in bounds], np.float64)
    upper[list(failed)] = -np.inf
    log_weights = np.asarray(problem.prior.log_weights, np.float64)
    # bounds of few steps hardly differ where the data are much better than the prior: begin with
    # the component whose example fits best, beside which the others' bounds may soon be too low
    misfits = np.asarray([bound["misfit"] for bound in bounds], np.float64)
    misfits[list(failed)] = np.inf
    first = None if dense else int(np.argmax(log_weights - 0.5 * misfits))
    tightened: list[Record] = []
    batch_size = BLOCK if dense else 1

    def tighten(steps: int, indices: NDArray[Any]) -> NDArray[Any]:
        records = do(
            BoundTask(steps),
            indices,
            batch_size=1,
            description="linearize: closer bounds",
            progress=progress,
        )
        effort.count(records)
        tightened.extend(records)
        closer = np.asarray([record["log_evidence"] for record in records], np.float64)
        return np.where(np.isnan(closer), np.inf, closer)  # no bound: `work` will see it fail

    def work(indices: NDArray[Any], least: NDArray[Any]) -> list[Record | float]:
        wanted = [n for n in indices.tolist() if n not in failed]
        try:
            with at_work(effort, float(least.min())):
                done = do(task, np.asarray(wanted, int), batch_size=batch_size)
        except CannotMatter as found:  # of components that are worked on alone
            effort.count([found.cost])
            tightened.append(found.cost)
            return [found.bound]
        effort.count(done)
        records = dict(zip(wanted, done, strict=True))
        failed.update(n for n, record in records.items() if not _simulated(record))
        return [
            {**records.get(n, _UNTRIED), "log_evidence": np.asarray(-np.inf)}
            if n in failed
            else records[n]
            for n in indices.tolist()
        ]

    side = min(size.num_model, size.num_residuals)
    # of a batch of Jacobians; by products, of the probes, the first directions and the mean
    least = BLOCK * (side + 3) if dense else 5 * min(BLOCK, side) + 2
    results, neglected = in_order_of_importance(
        work,
        [] if dense else [partial(tighten, steps) for steps in STEPS[1:]],
        log_weights,
        upper,
        neglect,
        at_once=1 if executor is None and not dense else BLOCK,
        first=first,
        goes_on=lambda: effort.suffices(least),
        progress=progress,
    )
    tightened += [results.pop(n) for n in failed & results.keys()]
    _tell_failures(problem, failed)
    _warn_of_what_is_left(results, size.num - len(failed), neglected, neglect, accuracy)
    if iterations and len(results) + len(failed) < size.num:
        neglected = math.nan
    return assembled(problem, results, bounds, neglected, tightened, len(failed))


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
    failed = {n for n, record in enumerate(found) if not _simulated(record)}
    _require_some(problem, failed)
    _tell_failures(problem, failed)
    results = {n: record for n, record in enumerate(found) if n not in failed}
    return results, [found[n] for n in failed]


# stands for the record of a component that is known to fail
_UNTRIED: Record = {
    "forward_evaluations": np.asarray(0),
    "gradient_evaluations": np.asarray(0),
}


def _simulated(record: Record) -> bool:
    """Whether forward output and Jacobian are finite; the posterior's own mean is not asked."""
    return all(np.isfinite(v).all() for name, v in record.items() if name != "misfit_at_mean")


def _require_some(problem: InverseProblem, failed: set[int]) -> None:
    """Raise a `ValueError` that says what is not finite, where that is so at all examples."""
    if len(failed) < problem.num_examples:
        return
    # compiled, as everywhere: a direct call may raise where the operator fails
    both = jax.jit(lambda x: (problem.predict(x), problem.residual(x)))
    predicted, residual = both(problem.take(0))
    if np.isfinite(residual).all() or not all(
        np.isfinite(np.asarray(data)).all() for data in predicted.values()
    ):
        _tell_failures(problem, failed)  # which is an error
    raise ValueError(
        f"the whitened residual is not finite at any of {len(failed)} examples, though the "
        "forward operator is: the noise's scale is zero or its covariance singular; give every "
        "datum noise of positive variance"
    )


def _tell_failures(problem: InverseProblem, failed: set[int]) -> None:
    which = np.isin(np.arange(problem.num_examples), list(failed))
    consequence = "these components are left out, and the evidence lacks what is around them"
    tell_failures("linearize", which, "examples", consequence)
