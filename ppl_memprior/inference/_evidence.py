"""The evidence of one problem over a grid of bandwidths: how wide a prior the data ask for.

The bandwidth of a memorized prior is not learned from the examples, each of which is its own
best explanation; the data that are to be inverted can choose it by their marginal likelihood
(D. MacKay, "Bayesian interpolation", 1992).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from ppl_memprior._arrays import real_array
from ppl_memprior._batches import batch_slices, items_that_fit
from ppl_memprior._execution.map_examples import Record
from ppl_memprior._execution.progress import progress_bar
from ppl_memprior._failures import tell_failures
from ppl_memprior.distributions import DiffusionMixturePrior
from ppl_memprior.distributions._weighted_examples import stored_examples
from ppl_memprior.inference._method_checks import advising, require_density
from ppl_memprior.inference._psis import weighted
from ppl_memprior.inference.linearized._gaussian_update import Spectrum, gaussian_update
from ppl_memprior.inference.linearized._linearize import (
    check_linearize,
    linearize,
    linearize_all,
    problem_size,
)
from ppl_memprior.inference.linearized._posterior import LinearizedPosterior, assembled
from ppl_memprior.problem.inverse_problem import InverseProblem


@dataclass(frozen=True)
class EvidenceCurve:
    """The evidence at each bandwidth; every array has shape (K,).

    Attributes:
        sigma: the bandwidths, in the unit of the examples.
        log_evidence: log p(data | sigma).
        log_evidence_error: standard error of `log_evidence` in nats; None without correction.
        khat: the Pareto shape of each correction, or None; see `PsisPosterior`.
        num_failed: number of examples and draws at which the simulation failed, over the whole
            curve. The likelihood is zero there; see `linearize` and `psis`.
        num_forward_evaluations: number of forward solves for the whole curve.
        num_gradient_evaluations: number of gradients, or products with the Jacobian, for the whole
            curve.
    """

    sigma: NDArray[np.float64]
    log_evidence: NDArray[np.float64]
    log_evidence_error: NDArray[np.float64] | None
    khat: NDArray[np.float64] | None
    num_failed: int
    num_forward_evaluations: int
    num_gradient_evaluations: int

    @property
    def best_sigma(self) -> float:
        """The bandwidth of the largest evidence."""
        return float(self.sigma[np.argmax(self.log_evidence)])


def evidence(
    problem: InverseProblem,
    sigma: ArrayLike,
    *,
    iterations: int = 0,
    rng_key: jax.Array | None = None,
    num_draws: int = 2000,
    progress: bool = False,
) -> EvidenceCurve:
    """Estimate log p(data | sigma) for each bandwidth of a grid.

    Without a key the evidence is that of the problem linearized at the examples. It is exact where
    the forward operator is linear and the noise Gaussian. With `iterations` it is Laplace's
    approximation at the components' modes. With a key, importance sampling from the linearized
    posterior corrects each value.

    Where `linearize` forms all Jacobians, the Jacobians at the examples serve all bandwidths. With
    `iterations`, and in problems so large that components are left out, every bandwidth costs what
    `linearize` costs, compilation included. With a key each bandwidth takes `num_draws` more
    forward solves.

    Args:
        problem: an inverse problem that `linearize` takes; its own bandwidth does not matter.
        sigma: bandwidths, shape (K,), positive, in the unit of the examples.
        iterations: Gauss-Newton steps of each component at each bandwidth, at most.
        rng_key: JAX random key, for the correction.
        num_draws: importance draws for each bandwidth.
        progress: show bars, on stderr.

    Returns:
        The curve of log-evidence over the bandwidths, in the order of `sigma`.

    Raises:
        ValueError: an empty grid; a bandwidth that is not positive and finite; a negative number
            of iterations; or a problem that `linearize` cannot take. `linearize` takes no
            `MemorizedPrior`, no noise that is not Gaussian, and no extra latent sites.

    Example::

        curve = mp.evidence(problem, [0.1, 0.2, 0.4, 0.8])
        print(curve.best_sigma, curve.log_evidence)
    """
    _check_bandwidth(problem)
    check_linearize(problem)
    grid = _checked_grid(sigma)
    widest = jnp.asarray(grid.max(), problem.take(0).dtype)
    prior = DiffusionMixturePrior(stored_examples(problem.prior), widest).reweight(
        problem.prior.log_weights
    )
    size = problem_size(problem)
    shared: dict[int, Record] = {}
    unusable: list[Record] = []
    if size.fits() and size.small and iterations == 0:
        shared, unusable = linearize_all(problem.with_prior(prior), 0, None, None, progress)
    counts = np.zeros(2, int)
    num_failed = len(unusable)
    for record in (*shared.values(), *unusable):
        counts += (record["forward_evaluations"], record["gradient_evaluations"])
    log_evidence, errors, shapes, failed = [], [], [], []
    with progress_bar(
        total=len(grid), description="evidence: bandwidths", progress=progress
    ) as bar:
        for i, bandwidth in enumerate(grid):
            narrowed = problem.with_prior(_with_bandwidth(prior, bandwidth))
            if shared:
                linearized = _at_bandwidth(narrowed, shared, bandwidth / grid.max())
            else:
                linearized = linearize(narrowed, iterations=iterations, progress=progress)
                num_failed += linearized.num_failed
            counts += (linearized.num_forward_evaluations, linearized.num_gradient_evaluations)
            if rng_key is None:
                log_evidence.append(float(linearized.log_evidence))
                bar.update()
                continue
            key = jax.random.fold_in(rng_key, i)
            corrected, lost = weighted(
                narrowed, linearized, key, num_draws=num_draws, progress=progress
            )
            failed.append(lost)
            log_evidence.append(float(corrected.log_evidence))
            errors.append(float(corrected.log_evidence_error))
            shapes.append(float(corrected.khat))
            counts[0] += corrected.num_forward_evaluations
            bar.update()
    if failed:
        num_failed += tell_failures("evidence", np.concatenate(failed), "draws")
    return EvidenceCurve(
        grid,
        np.asarray(log_evidence),
        np.asarray(errors) if errors else None,
        np.asarray(shapes) if shapes else None,
        num_failed,
        *counts.tolist(),
    )


@advising("evidence")
def _check_bandwidth(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a prior that is not the same mixture at another bandwidth."""
    require_density(problem, "evidence")
    prior = problem.prior
    if prior.component_direction_scales.shape[-1]:
        raise ValueError(
            "evidence varies the bandwidth of isotropic components; those of a "
            f"{type(prior).__name__} have other scales in some directions: give the model a "
            "DiffusionMixturePrior(examples, sigma)"
        )


def _checked_grid(sigma: ArrayLike) -> NDArray[np.float64]:
    grid = np.asarray(real_array("sigma", sigma), dtype=float)
    if grid.ndim != 1 or grid.size == 0:
        raise ValueError(
            f"sigma is a grid of bandwidths, shape (K,) with K > 0; got shape {grid.shape}"
        )
    if not (np.isfinite(grid) & (grid > 0)).all():
        bad = grid[~(np.isfinite(grid) & (grid > 0))]
        raise ValueError(f"bandwidths are positive and finite; sigma has {bad[0]:g}")
    return grid


def _with_bandwidth(prior: DiffusionMixturePrior, sigma: float) -> DiffusionMixturePrior:
    """The same prior, its prepared sums shared, at another bandwidth."""
    other = copy.copy(prior)
    other.sigma = jnp.asarray(sigma, prior.sigma.dtype)
    return other


def _at_bandwidth(
    problem: InverseProblem, records: Mapping[int, Record], ratio: float
) -> LinearizedPosterior:
    """The posterior at a bandwidth of `ratio` times the one that the records were made with.

    The means of the prior's components are read batch by batch. The posterior itself holds all its
    means, which are other numbers.
    """
    components = np.asarray(list(records))
    rescaled: dict[int, Record] = {}
    for batch in batch_slices(len(components), items_that_fit(math.prod(problem.event_shape))):
        indices = components[batch]
        means = np.asarray(problem.take(indices)).reshape(len(indices), -1)
        sigma = means.dtype.type(problem.prior.sigma)
        for n, mean in zip(indices.tolist(), means, strict=True):
            rescaled[n] = _rescaled(records[n], mean, sigma, ratio)
    num_failed = problem.num_examples - len(records)
    return assembled(problem, rescaled, [], 0.0, num_failed=num_failed)


def _rescaled(
    record: Record, mean: NDArray[np.floating], sigma: np.floating, ratio: float
) -> Record:
    """A component's record at the bandwidth `sigma`, `ratio` times the one of the given record.

    The whitened Jacobian is proportional to the bandwidth: its singular vectors stay the same.
    """
    s = (ratio * record["singular_values"]).astype(mean.dtype)
    directions, unexplained = record["directions"], record["unexplained"]
    update = gaussian_update(Spectrum(s, directions, record["coefficients"], unexplained))
    return {
        "mean": mean + sigma * update.mean,
        "directions": directions,
        "direction_scales": sigma / np.hypot(1, s),
        "log_evidence": update.log_evidence,
        "rank": record["rank"],
        "forward_evaluations": np.asarray(0),
        "gradient_evaluations": np.asarray(0),
    }
