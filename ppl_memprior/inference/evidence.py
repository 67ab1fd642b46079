"""The evidence of one problem over a grid of bandwidths: how wide a prior the data ask for.

The bandwidth of a memorized prior is not learned from the examples, each of which is its own
best explanation; the data that are to be inverted can choose it by their marginal likelihood
(D. MacKay, "Bayesian interpolation", 1992).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from ppl_memprior.distributions import DiffusionMixturePrior
from ppl_memprior.inference.importance import psis
from ppl_memprior.inference.linearize import check_linearize, linearize
from ppl_memprior.problem import InverseProblem


@dataclass(frozen=True)
class EvidenceCurve:
    """The evidence at each bandwidth; every array has shape (K,).

    Attributes:
        sigma: the bandwidths, in the unit of the examples.
        log_evidence: log p(data | sigma).
        log_evidence_error: its standard error in nats, where it was corrected, or None.
        khat: the Pareto shape of each correction, or None; see `PsisPosterior`.
    """

    sigma: NDArray[np.float64]
    log_evidence: NDArray[np.float64]
    log_evidence_error: NDArray[np.float64] | None
    khat: NDArray[np.float64] | None

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
    """log p(data | sigma) for each bandwidth of a grid.

    Without a key it is that of the problem linearized at the examples, which is exact where the
    forward operator is linear and the noise Gaussian; with `iterations`, Laplace's approximation
    at the components' modes. With a key each value is corrected by importance sampling from that
    posterior.

    Every bandwidth costs what `linearize` costs, compilation included, and with a key
    `num_draws` forward solves more.

    Args:
        problem: an inverse problem that `linearize` takes; its own bandwidth does not matter.
        sigma: bandwidths, shape (K,), positive, in the unit of the examples.
        iterations: Gauss-Newton steps of each component at each bandwidth, at most.
        rng_key: JAX random key, for the correction.
        num_draws: importance draws for each bandwidth.
        progress: show bars, on stderr.

    Raises:
        ValueError: an empty grid, a bandwidth that is not positive and finite, a negative number
            of iterations, or what `linearize` cannot take (a `MemorizedPrior`, noise that is not
            Gaussian, extra latent sites).
    """
    prior = problem.prior
    if not isinstance(prior, DiffusionMixturePrior):
        raise ValueError(
            f"evidence varies the bandwidth of a DiffusionMixturePrior; a {type(prior).__name__} "
            "has none to vary (its evidence is that of lookup(problem) or linearize(problem))"
        )
    check_linearize(problem)
    grid = _checked_grid(sigma)
    log_evidence, errors, shapes = [], [], []
    for i, bandwidth in enumerate(grid):
        narrowed = problem.with_prior(_with_bandwidth(prior, bandwidth))
        linearized = linearize(narrowed, iterations=iterations, progress=progress)
        if rng_key is None:
            log_evidence.append(float(linearized.log_evidence))
            continue
        key = jax.random.fold_in(rng_key, i)
        corrected = psis(narrowed, linearized, key, num_draws=num_draws, progress=progress)
        log_evidence.append(float(corrected.log_evidence))
        errors.append(float(corrected.log_evidence_error))
        shapes.append(float(corrected.khat))
    return EvidenceCurve(
        grid,
        np.asarray(log_evidence),
        np.asarray(errors) if errors else None,
        np.asarray(shapes) if shapes else None,
    )


def _checked_grid(sigma: ArrayLike) -> NDArray[np.float64]:
    grid = np.asarray(sigma, dtype=float)
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
