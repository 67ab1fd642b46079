"""The posterior that `linearize` returns, put together from what was found at each example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from numpyro.distributions import Distribution

from ppl_memprior._execution.map_examples import Record
from ppl_memprior.distributions import LowRankGaussianMixture
from ppl_memprior.inference.linearized._component_prior import component_priors
from ppl_memprior.problem.inverse_problem import InverseProblem


class ComponentReport(NamedTuple):
    """What the linearization found at each example; every field has shape (N,).

    NaN where a component was left out (`linearized`) and nothing was computed.

    Attributes:
        misfit: squared norm of the whitened residual at the example.
        linearized_misfit: the same at the component's mean, as the linear model predicts it.
        misfit_at_mean: the same at the component's mean, through the forward operator itself;
            where it is far from `linearized_misfit` the linearization is not to be believed.
            Infinite where the simulation fails there.
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
        num_failed: components that are left out because the simulation fails at their examples.
        num_forward_evaluations, num_gradient_evaluations: forward solves, and Jacobian products
            (each of the cost of a gradient), that the components needed.
    """

    pytree_data_fields = ("log_evidence", "neglected_mass", "report")
    pytree_aux_fields = ("num_failed", "num_forward_evaluations", "num_gradient_evaluations")

    log_evidence: jax.Array
    neglected_mass: jax.Array
    report: ComponentReport
    num_failed: int
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


def plain(distribution: Distribution) -> Distribution:
    """The mixture alone of a linearized posterior; another distribution as it is.

    A posterior's counts of evaluations belong to its structure as a pytree, so that a program that
    takes it would be compiled for every count.
    """
    if not isinstance(distribution, LinearizedPosterior):
        return distribution
    mixture: LowRankGaussianMixture = object.__new__(LowRankGaussianMixture)
    names = {*LinearizedPosterior.pytree_data_fields, *LinearizedPosterior.pytree_aux_fields}
    kept = {name: value for name, value in vars(distribution).items() if name not in names}
    mixture.__dict__.update(kept)
    return mixture


def assembled(
    problem: InverseProblem,
    results: Mapping[int, Record],
    bounds: Sequence[Record],
    neglected: float,
    also: Sequence[Record] = (),
    num_failed: int = 0,
) -> LinearizedPosterior:
    """Put the components together; those without results keep the prior and lose their weight.

    Args:
        problem: whose posterior it is.
        results: what `DenseTask` or `LowRankTask` found, by the example's index.
        bounds: what `BoundTask` found at every example, or nothing.
        neglected: bound on the weight of the components without results.
        also: further records whose evaluations count.
        num_failed: components whose simulation failed, which are not among the results.
    """
    num = problem.num_examples
    left_out = np.asarray([n for n in range(num) if n not in results], int)
    priors = jax.tree.map(np.asarray, component_priors(problem.prior, left_out))
    num_model, dtype = priors.mean.shape[1], priors.mean.dtype
    scale = np.asarray(problem.prior.bandwidth, dtype)
    as_before = iter(zip(priors.mean, priors.directions, priors.direction_scales, strict=True))
    parts = [
        (results[n]["mean"], results[n]["directions"], results[n]["direction_scales"])
        if n in results
        else next(as_before)
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
    posterior.log_evidence = jnp.asarray(total + float(_log_normalizer(problem)), dtype)
    posterior.neglected_mass = jnp.asarray(neglected, dtype)
    posterior.num_failed = num_failed
    posterior.report = _report({**dict(enumerate(bounds)), **results}, num, dtype)
    records = [*results.values(), *bounds, *also]
    posterior.num_forward_evaluations = sum(int(r["forward_evaluations"]) for r in records)
    posterior.num_gradient_evaluations = sum(int(r["gradient_evaluations"]) for r in records)
    return posterior


def _report(records: Mapping[int, Record], num: int, dtype: Any) -> ComponentReport:
    """The report from what is known of each component: its bound, everything, or nothing."""

    def number(name: str, default: float = np.nan) -> jax.Array:
        return jnp.asarray(_column(records, num, name, default), dtype)

    def count(name: str) -> jax.Array:
        return jnp.asarray(_column(records, num, name, 0), int)

    misfit_at_mean = _column(records, num, "misfit_at_mean", np.nan)
    linearized = np.asarray(["rank" in records.get(n, {}) for n in range(num)])
    misfit_at_mean[linearized & np.isnan(misfit_at_mean)] = np.inf
    return ComponentReport(
        misfit=number("misfit"),
        linearized_misfit=number("linearized_misfit"),
        misfit_at_mean=jnp.asarray(misfit_at_mean, dtype),
        log_determinant=number("log_determinant"),
        shift=number("shift", 0.0),
        informed_directions=number("informed_directions"),
        rank=count("rank"),
        truncation_error=number("truncation_error"),
        iterations=count("iterations"),
        converged=count("converged").astype(bool),
        linearized=jnp.asarray(linearized),
    )


def _column(records: Mapping[int, Record], num: int, name: str, default: float) -> NDArray[Any]:
    """One number of each component, in float64; the default where it is not known."""
    known = [records.get(n, {}).get(name, default) for n in range(num)]
    return np.asarray([float(value) for value in known])


@jax.jit
def _log_normalizer(problem: InverseProblem) -> jax.Array:
    return problem.log_normalizer()
