"""The Gaussian-mixture posterior from linearizing the forward operator at every example.

Around example n, F(x) is replaced by F(x_n) + J_n (x - x_n). Each component of the prior then
has a Gaussian posterior and a closed-form evidence (Siahkoohi & Sabeddu, arXiv:2603.19629; the
component weights here include the log-determinant of the data covariance, which differs from
component to component). What is done at one component stands in `_linearize_tasks`; here it is
decided how and for which components, and the posterior is put together.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ppl_memprior._progress import BATCH_ITEMS
from ppl_memprior.distributions import LowRankGaussianMixture, MemorizedPrior
from ppl_memprior.inference._component_prior import component_priors
from ppl_memprior.inference._importance import in_order_of_importance
from ppl_memprior.inference._linearize_tasks import BLOCK, BoundTask, DenseTask, LowRankTask
from ppl_memprior.inference._map_examples import Record, examples_in_batch, map_examples
from ppl_memprior.inference.lookup import check_finite_examples
from ppl_memprior.problem import InverseProblem

# A Jacobian is formed if it has at most so many elements (32 MiB in float32) and its shorter side,
# the number of products and the size of its singular value decomposition, is at most so long.
DENSE_ELEMENTS = 2**23
DENSE_SIDE = 1024
# Multiplications in the factorizations of all Jacobians, about a second of work, below which it is
# not asked which of them matter.
BOUNDED_OPERATIONS = 10**9
# Steps of bidiagonalization that bound every component where products are dear, and those that may
# matter or are cheap.
FIRST_STEPS, CLOSER_STEPS = 1, 4


class ComponentReport(NamedTuple):
    """What the linearization found at each example; every field has shape (N,).

    NaN where a component was left out (`linearized`) and nothing was computed.

    Attributes:
        misfit: squared norm of the whitened residual at the example.
        linearized_misfit: the same at the component's mean, as the linear model predicts it.
        misfit_at_mean: the same at the component's mean, through the forward operator itself;
            where it is far from `linearized_misfit` the linearization is not to be believed.
        log_determinant: log det(I + J~ C0 J~^T), J~ the whitened Jacobian and C0 the prior's
            covariance (sigma^2 I for a `DiffusionMixturePrior`).
        shift: distance of the component's mean from the example, in prior standard deviations.
        informed_directions: sum of the data's share of each direction's precision, between 0
            (the data say nothing) and min(d, m).
        rank: directions of the prior that the data were found to inform.
        truncation_error: estimate of the error that the other directions leave in the component's
            log-evidence, in nats; zero where the Jacobian was formed.
        iterations: Gauss-Newton steps taken.
        converged: whether the component was linearized at its mode.
        linearized: whether it was linearized at all; its weight is zero if not.
    """

    misfit: jax.Array
    linearized_misfit: jax.Array
    misfit_at_mean: jax.Array
    log_determinant: jax.Array
    shift: jax.Array
    informed_directions: jax.Array
    rank: jax.Array
    truncation_error: jax.Array
    iterations: jax.Array
    converged: jax.Array
    linearized: jax.Array


class LinearizedPosterior(LowRankGaussianMixture):
    """A `LowRankGaussianMixture` that carries the evidence and a report on its components.

    Attributes:
        log_evidence: log p(data) of the linearized problem (scalar).
        neglected_mass: bound on the weight of the components that were left out, as a share of
            the others' (scalar). NaN where components were iterated and some left out: their bound
            is not one on what they would have had at their modes.
        report: `ComponentReport`.
        num_forward_evaluations, num_gradient_evaluations: forward solves, and Jacobian products
            (each of the cost of a gradient), that the components needed.
    """

    pytree_data_fields = ("log_evidence", "neglected_mass", "report")
    pytree_aux_fields = ("num_forward_evaluations", "num_gradient_evaluations")

    log_evidence: jax.Array
    neglected_mass: jax.Array
    report: ComponentReport
    num_forward_evaluations: int
    num_gradient_evaluations: int

    @property
    def linearization_error(self) -> jax.Array:
        """Mean over the posterior's components of the log-likelihood's error at their means.

        Half the difference of the misfit that the forward operator has there and the one that
        its linearization promised, in nats (scalar). Below about one half the linearized
        posterior can be believed; far above, it describes another problem. NaN where a component
        was iterated to its mode, which is its mean: there the two agree by construction and say
        nothing of the rest. Then let `psis` tell.
        """
        report = self.report
        error = 0.5 * jnp.abs(report.misfit_at_mean - report.linearized_misfit)
        error = jnp.where((report.iterations > 0) & report.converged, jnp.nan, error)
        weights = jnp.exp(self.log_weights)
        return jnp.sum(jnp.where(weights > 0, weights * error, 0.0))


def linearize(
    problem: InverseProblem,
    *,
    iterations: int = 0,
    accuracy: float = 0.1,
    max_rank: int | None = None,
    neglect: float = 1e-6,
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

    Args:
        problem: an inverse problem with a `DiffusionMixturePrior` or a `LowRankGaussianMixture`
            (an earlier posterior, say), Gaussian noise and no extra latent sites.
        iterations: Gauss-Newton steps of each component, at most.
        accuracy: error of a component's log-evidence, in nats, at which to stop looking for
            directions; where the Jacobian is formed there is none.
        max_rank: most directions to find for a component; a report's `truncation_error` says what
            that costs.
        neglect: components are left out that together have less than this share of the weight;
            0 linearizes all.
        executor: where the components' work is done: any `concurrent.futures.Executor`, Dask's
            `client.get_executor()` included; here, without one. By products several components
            are begun at once, and a few more of them than needed may be finished.
        store: folder that keeps finished components. Called again with the same problem and
            settings after an interruption, those in it are not repeated.
        progress: show bars on stderr.

    Returns:
        A NumPyro distribution: the Gaussian mixture with covariances
        (C0_n^-1 + J_n^T Gamma^-1 J_n)^-1, C0_n the prior's, and weights proportional to
        pi_n N(data; F(x_n), J_n C0_n J_n^T + Gamma).

    Raises:
        ValueError: a `MemorizedPrior` (it has no bandwidth), noise that is not Gaussian, extra
            latent sites, no data, a setting out of range, non-finite forward output or Jacobian
            (which examples); a store of another problem or other settings.
        RuntimeError: a component failed in a worker (which example).
    """
    check_linearize(problem)
    _check_settings(iterations, accuracy, max_rank, neglect)
    num, num_model = problem.num_examples, math.prod(problem.event_shape)
    num_residuals = _num_residuals(problem)
    dense = _is_dense(num_model, num_residuals, max_rank)
    task: DenseTask | LowRankTask = DenseTask(iterations)
    if not dense:
        task = LowRankTask(iterations, accuracy, min(max_rank or num_model, num_model))
    do = partial(map_examples, problem, executor=executor, store=store)
    in_batch = partial(examples_in_batch, num, executor=executor, store=store)

    # a bound is proven for components that are not iterated; where linearizing all of them is a
    # matter of seconds, finding out which ones matter is not worth it
    seldom = num * num_model * num_residuals * min(num_model, num_residuals) < BOUNDED_OPERATIONS
    if dense and (seldom or iterations or not neglect):
        found = do(
            task,
            np.arange(num),
            batch_size=in_batch(8 * num_model * num_residuals),
            description="linearize: examples",
            progress=progress,
        )
        results = dict(enumerate(found))
        _check_finite(problem, results)
        return _posterior(problem, results, [], 0.0)

    bounds = do(
        BoundTask(CLOSER_STEPS if dense else FIRST_STEPS),
        np.arange(num),
        batch_size=in_batch(
            10 * (num_model + num_residuals), at_most=BATCH_ITEMS if dense else BLOCK
        ),
        description="linearize: bounds",
        progress=progress,
    )
    _check_finite(problem, dict(enumerate(bounds)))
    upper = np.asarray([bound["log_evidence"] for bound in bounds], np.float64)
    tightened: list[Record] = []
    batch_size = BLOCK if dense else 1

    def tighten(indices: NDArray[Any]) -> NDArray[Any]:
        if dense:
            return upper[indices]
        records = do(BoundTask(CLOSER_STEPS, "bound-closer"), indices, batch_size=1)
        tightened.extend(records)
        return np.asarray([record["log_evidence"] for record in records], np.float64)

    def work(indices: NDArray[Any]) -> list[Record]:
        records = do(task, indices, batch_size=batch_size)
        _check_finite(problem, dict(zip(indices.tolist(), records, strict=True)))
        return records

    results, neglected = in_order_of_importance(
        work,
        tighten,
        np.asarray(problem.prior.log_weights, np.float64),
        upper,
        neglect,
        at_once=1 if executor is None and not dense else BLOCK,
        progress=progress,
    )
    if iterations and len(results) < num:
        neglected = math.nan
    return _posterior(problem, results, bounds, neglected, tightened)


def check_linearize(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a problem that `linearize` cannot take."""
    if isinstance(problem.prior, MemorizedPrior):
        raise ValueError(
            "linearize needs a DiffusionMixturePrior; a MemorizedPrior has no bandwidth, and its "
            "exact posterior is lookup(problem)"
        )
    problem.require_no_extra_latents("linearize")
    problem.require_residual("linearize")
    if not problem.num_data:
        raise ValueError(
            f"linearize has no data: the observed sites {list(problem.observed)} are empty or "
            "masked altogether; the posterior is the prior"
        )


def _check_settings(iterations: int, accuracy: float, max_rank: int | None, neglect: float) -> None:
    wanted = [
        ("iterations", iterations, "at least 0", iterations >= 0),
        ("accuracy", accuracy, "a positive number of nats", 0 < accuracy < math.inf),
        ("max_rank", max_rank, "at least 1, or None", max_rank is None or max_rank >= 1),
        ("neglect", neglect, "in [0, 1)", 0 <= neglect < 1),
    ]
    for name, value, condition, fulfilled in wanted:
        if not fulfilled:
            raise ValueError(f"{name} must be {condition}, got {value}")


def _is_dense(num_model: int, num_residuals: int, max_rank: int | None) -> bool:
    side = min(num_model, num_residuals)
    fits = num_model * num_residuals <= DENSE_ELEMENTS and side <= DENSE_SIDE
    return fits and (max_rank is None or max_rank >= side)


def _num_residuals(problem: InverseProblem) -> int:
    """Length m of the residual, masked data included."""
    return jax.eval_shape(problem.residual, problem.examples[0]).shape[0]


def _check_finite(problem: InverseProblem, results: Mapping[int, Record]) -> None:
    """Raise a `ValueError` that says what is not finite, and at which examples."""
    failed = np.zeros(problem.num_examples, dtype=bool)
    bent = np.zeros(problem.num_examples, dtype=bool)
    for n, result in results.items():
        failed[n] = not np.isfinite(result["misfit"])
        bent[n] = not all(np.isfinite(value).all() for value in result.values())
    if failed.any():
        predicted = problem.predict(problem.examples[int(np.argmax(failed))])
        if all(np.isfinite(np.asarray(data)).all() for data in predicted.values()):
            raise ValueError(
                f"the whitened residual is not finite at {failed.sum()} of {len(failed)} "
                "examples, though the forward operator is: the noise's scale is zero or its "
                "covariance singular; give every datum noise of positive variance"
            )
    check_finite_examples("the forward operator", failed)
    check_finite_examples("the Jacobian of the forward operator", bent)


def _posterior(
    problem: InverseProblem,
    results: Mapping[int, Record],
    bounds: Sequence[Record],
    neglected: float,
    also: Sequence[Record] = (),
) -> LinearizedPosterior:
    """Put the components together; those without results keep the prior and lose their weight."""
    priors = jax.tree.map(np.asarray, component_priors(problem.prior))
    (num, num_model), dtype, scale = priors.mean.shape, priors.mean.dtype, priors.scale[0]
    parts = [
        (results[n]["mean"], results[n]["directions"], results[n]["direction_scales"])
        if n in results
        else (priors.mean[n], priors.directions[n], priors.direction_scales[n])
        for n in range(num)
    ]
    rank = max(len(scales) for _, _, scales in parts)
    # where a component has fewer directions than another, rows of zeros of the common scale
    directions = np.zeros((num, rank, num_model), dtype)
    direction_scales = np.full((num, rank), scale, dtype)
    for n, (_, rows, scales) in enumerate(parts):
        directions[n, : len(rows)], direction_scales[n, : len(rows)] = rows, scales
    log_evidence = _column(results, num, "log_evidence", -np.inf)
    log_joint = np.asarray(problem.prior.log_weights, np.float64) + log_evidence
    total = np.logaddexp.reduce(log_joint)
    shape = problem.event_shape
    posterior = LinearizedPosterior(
        np.stack([mean for mean, _, _ in parts]).astype(dtype).reshape(num, *shape),
        scale,
        directions.reshape(num, rank, *shape),
        direction_scales,
        (log_joint - total).astype(dtype),
    )
    posterior.log_evidence = jnp.asarray(total + float(problem.log_normalizer()), dtype)
    posterior.neglected_mass = jnp.asarray(neglected, dtype)
    posterior.report = _report({**dict(enumerate(bounds)), **results}, dtype)
    records = [*results.values(), *bounds, *also]
    posterior.num_forward_evaluations = sum(int(r["forward_evaluations"]) for r in records)
    posterior.num_gradient_evaluations = sum(int(r["gradient_evaluations"]) for r in records)
    return posterior


def _report(records: Mapping[int, Record], dtype: Any) -> ComponentReport:
    """The report from what is known of each component: its bound, or everything."""
    num = len(records)

    def number(name: str, default: float = np.nan) -> jax.Array:
        return jnp.asarray(_column(records, num, name, default), dtype)

    def count(name: str) -> jax.Array:
        return jnp.asarray(_column(records, num, name, 0), int)

    return ComponentReport(
        misfit=number("misfit"),
        linearized_misfit=number("linearized_misfit"),
        misfit_at_mean=number("misfit_at_mean"),
        log_determinant=number("log_determinant"),
        shift=number("shift", 0.0),
        informed_directions=number("informed_directions"),
        rank=count("rank"),
        truncation_error=number("truncation_error"),
        iterations=count("iterations"),
        converged=count("converged").astype(bool),
        linearized=jnp.asarray(["rank" in records[n] for n in range(num)]),
    )


def _column(records: Mapping[int, Record], num: int, name: str, default: float) -> NDArray[Any]:
    """One number of each component, in float64; the default where it is not known."""
    known = [records.get(n, {}).get(name, default) for n in range(num)]
    return np.asarray([float(value) for value in known])
