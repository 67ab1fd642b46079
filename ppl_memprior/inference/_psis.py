"""Pareto-smoothed importance sampling (PSIS): a proposal corrected to the posterior.

Draws from an approximate posterior have the weights p(x) p(data | x) over their own density. The
shape of the weights' tail says whether the result can be believed (Vehtari, Simpson, Gelman, Yao &
Gabry, "Pareto smoothed importance sampling", JMLR 25, 2024). A share of the draws comes from the
prior, so the likelihood bounds the weights (Hesterberg, "Weighted average importance sampling and
defensive mixture distributions", Technometrics 37, 1995). ArviZ fits the tail.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from numpy.typing import NDArray
from numpyro.distributions import Distribution, constraints
from scipy.special import logsumexp

from ppl_memprior._arviz import az
from ppl_memprior._execution.progress import map_in_batches
from ppl_memprior._failures import has_failed, tell_failures, zero_where_failed
from ppl_memprior.distributions import MemorizedPrior
from ppl_memprior.inference._method_checks import advising, method_check, require_density
from ppl_memprior.inference.linearized._linearize import require_linearizable
from ppl_memprior.inference.linearized._posterior import plain
from ppl_memprior.problem.inverse_problem import InverseProblem

SMALLEST_NUM_DRAWS = 25  # a fifth of them is the tail, and a fit wants five values
FLAT_TAIL = 8  # units in the last place of the densities: a shorter tail is rounding error
LONGEST_TAIL = 700.0  # nats between its ends: exp(-700) is about the smallest float64


class PsisPosterior(MemorizedPrior):
    """Weighted draws as a `MemorizedPrior`, with the diagnostics of their weights.

    `sample` draws from the weighted draws with replacement, so values repeat. `mean` and `variance`
    are weighted sums without sampling noise. `log_weights` are smoothed and normalised. Call
    `psis` to make an object of this class.

    Args:
        draws: shape (S, *event).
        log_ratios: log p(x) p(data | x) / q(x) at each draw, shape (S,).
        counts: numbers of draws from each part of the proposal, in the order of the draws.
        resolution: rounding error of the ratios, in nats.
        validate_args: NumPyro's switch for checking sampled values as well.

    Attributes:
        log_evidence: log p(data), from the smoothed weights (scalar).
        log_evidence_error: standard error of `log_evidence` in nats (scalar). The delta method on
            the smoothed weights gives it, with a separate variance for each part of the proposal.
            Where `khat` is large, the error is large and still an underestimate.
        khat: shape of the generalized Pareto distribution that fits the largest weights (scalar).
            Below min(1 - 1 / log10(S), 0.7) the weighted draws can be believed. It is minus
            infinity where the largest weights are equal up to rounding. It is infinity where too
            few weights are positive for a fit.
        effective_sample_size: 1 / sum of the squared weights (scalar).
        num_failed: number of draws at which the simulation failed; their weight is zero.
        num_forward_evaluations: number of forward solves, one for each draw.
        num_gradient_evaluations: zero.
    """

    pytree_data_fields = ("log_evidence", "log_evidence_error", "khat", "effective_sample_size")
    pytree_aux_fields = ("num_failed", "num_forward_evaluations", "num_gradient_evaluations")

    num_failed = 0

    def __init__(
        self,
        draws: jax.Array,
        log_ratios: NDArray[np.float64],
        counts: tuple[int, ...],
        resolution: float = 0.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        smoothed, khat = _smooth(log_ratios, resolution)
        log_sum = logsumexp(smoothed)
        weights = np.exp(smoothed - log_sum)
        super().__init__(draws, weights, validate_args=validate_args)
        # not the logarithm of the rounded weights, which may be zero
        self.log_weights = jnp.asarray(smoothed - log_sum, self.log_weights.dtype)
        self.log_evidence = jnp.asarray(log_sum - math.log(len(smoothed)))
        self.log_evidence_error = jnp.asarray(_relative_error(weights, counts))
        self.khat = jnp.asarray(khat)
        self.effective_sample_size = jnp.asarray(1 / np.sum(weights**2))
        self.num_forward_evaluations = len(smoothed)
        self.num_gradient_evaluations = 0

    @property
    def draws(self) -> jax.Array:
        """Draws from the proposal, followed by draws from the prior, shape (S, *event)."""
        return self._in_memory("draws")


class _LogDensities(NamedTuple):
    prior: NDArray[np.floating]
    proposal: NDArray[np.floating]
    likelihood: NDArray[np.floating]


def psis(
    problem: InverseProblem,
    proposal: Distribution,
    rng_key: jax.Array,
    *,
    num_draws: int = 4000,
    defensive_share: float = 0.1,
    progress: bool = False,
) -> PsisPosterior:
    """Correct a proposal to the posterior by Pareto-smoothed importance sampling.

    The draws come from the mixture q of the proposal and of the prior, in fixed numbers. Each draw
    has the weight p(x) p(data | x) / q(x). This is the deterministic-mixture weighting of Owen &
    Zhou, "Safe and effective importance sampling", 2000.

    A simulation fails where its log-likelihood is NaN or plus infinity. There the likelihood is
    zero, the draw has no weight, and the evidence stays unbiased. A warning counts such draws.

    Args:
        problem: an inverse problem whose prior has a density, without extra latent sites; any
            likelihood.
        proposal: a NumPyro distribution with a density on all of R^event, such as
            `linearize(problem)`.
        rng_key: JAX random key.
        num_draws: number S of draws, at least 25; one forward solve for each.
        defensive_share: share of the draws that come from the prior, in [0, 1).
        progress: show a bar over the forward solves, on stderr.

    Returns:
        The weighted draws, a `MemorizedPrior`, with the evidence, its standard error and k-hat.

    Raises:
        ValueError: a `MemorizedPrior` or extra latent sites; a proposal of another event shape,
            with a batch shape, or without a density on all of R^event; a density of proposal or
            prior that is NaN or infinite at a draw (the message counts them); a likelihood that is
            zero at all draws.
        TypeError: a proposal that is not a NumPyro distribution.

    Example::

        posterior = mp.psis(problem, mp.linearize(problem), jax.random.key(0))
        print(posterior.khat, posterior.mean)
    """
    posterior, failed = weighted(
        problem,
        proposal,
        rng_key,
        num_draws=num_draws,
        defensive_share=defensive_share,
        progress=progress,
    )
    tell_failures("psis", failed, "draws")
    return posterior


def weighted(
    problem: InverseProblem,
    proposal: Distribution,
    rng_key: jax.Array,
    *,
    num_draws: int,
    defensive_share: float = 0.1,
    progress: bool = False,
) -> tuple[PsisPosterior, NDArray[np.bool_]]:
    """Return what `psis` returns, and the draws at which the simulation failed, shape (S,).

    Warning of the failures is left to the caller.
    """
    check_correctable(problem, proposal)
    counts = _counts(num_draws, defensive_share)
    parts = (proposal, problem.prior)
    keys = jax.random.split(rng_key, len(parts))
    draws = jnp.concatenate(
        [part.sample(key, (count,)) for part, key, count in zip(parts, keys, counts, strict=False)]
    )
    found = _LogDensities(
        *map_in_batches(
            Partial(_log_densities, problem, plain(proposal)),
            draws,
            elements_per_item=problem.num_data + draws[0].size,
            description="psis: forward solves",
            progress=progress,
        )
    )
    _check_log_density("the prior's log-density", found.prior)
    _check_log_density("the proposal's log-density", found.proposal)
    failed = has_failed(found.likelihood)
    found = found._replace(likelihood=zero_where_failed(found.likelihood))
    if not np.isfinite(found.likelihood).any():
        lost = f" (the simulation failed at {failed.sum()} of them)" if failed.any() else ""
        raise ValueError(
            f"the likelihood is zero at all {num_draws} draws{lost}: the proposal and the prior "
            "miss what explains the data; check the data, the noise and the forward operator, or "
            "take another proposal"
        )
    log_q = _log_mixture(found, counts)
    log_ratios = found.prior.astype(float) + found.likelihood.astype(float) - log_q
    largest = np.argmax(log_ratios)
    densities = (found.prior, found.likelihood, log_q.astype(found.proposal.dtype))
    resolution = FLAT_TAIL * max(float(np.spacing(np.abs(part[largest]))) for part in densities)
    posterior = PsisPosterior(draws, log_ratios, counts, resolution)
    posterior.num_failed = int(failed.sum())
    return posterior, failed


def _log_densities(
    problem: InverseProblem, proposal: Distribution, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return problem.prior.log_prob(x), proposal.log_prob(x), problem.log_likelihood(x)


@method_check("psis")
def check_psis(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a problem that `psis` cannot correct `linearize(problem)` of."""
    _require_correctable(problem)
    try:
        require_linearizable(problem)
    except ValueError as refusal:
        raise ValueError(
            f"psis corrects linearize(problem), unless you call psis(problem, proposal, key) with "
            f"a proposal of your own; {refusal}"
        ) from None


def _require_correctable(problem: InverseProblem) -> None:
    require_density(problem, "psis")
    problem.require_no_extra_latents("psis")


_check_prior = advising("psis")(_require_correctable)


def check_correctable(problem: InverseProblem, proposal: Distribution) -> None:
    """Raise for a problem or a proposal that `psis` cannot correct; see there."""
    _check_prior(problem)
    _check_proposal(problem, proposal)


def _check_proposal(problem: InverseProblem, proposal: Distribution) -> None:
    if not isinstance(proposal, Distribution):
        raise TypeError(
            f"the proposal is a NumPyro distribution, linearize(problem) say; got a "
            f"{type(proposal).__name__}"
        )
    name = type(proposal).__name__
    if tuple(proposal.event_shape) != problem.event_shape or proposal.batch_shape:
        raise ValueError(
            f"the proposal ({name}) has batch shape {tuple(proposal.batch_shape)} and event shape "
            f"{tuple(proposal.event_shape)}; the prior's site {problem.prior_name!r} has () and "
            f"{problem.event_shape} (.to_event(n) turns batch axes into event axes)"
        )
    support = proposal.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if not isinstance(support, type(constraints.real)):
        raise ValueError(
            f"the proposal ({name}) has no density on all of R^{problem.event_shape}: its support "
            f"is {support}; use linearize(problem), or a normal distribution"
        )


def _counts(num_draws: int, defensive_share: float) -> tuple[int, ...]:
    """The numbers of draws from the proposal and, if any, from the prior."""
    if not isinstance(num_draws, int) or num_draws < SMALLEST_NUM_DRAWS:
        raise ValueError(
            f"num_draws must be an integer of at least {SMALLEST_NUM_DRAWS}, got {num_draws}"
        )
    if not 0 <= defensive_share < 1:
        raise ValueError(f"defensive_share must be in [0, 1), got {defensive_share}")
    if defensive_share == 0:
        warnings.warn(
            "defensive_share=0: where the proposal's tails are lighter than the posterior's the "
            "weights are unbounded; a share of 0.1 bounds them at a tenth of the draws",
            stacklevel=3,
        )
        return (num_draws,)
    # two of each, so that each part has a variance
    from_prior = min(max(round(defensive_share * num_draws), 2), num_draws - 2)
    return num_draws - from_prior, from_prior


def _check_log_density(what: str, values: NDArray[np.floating]) -> None:
    bad = int(np.sum(np.isnan(values) | np.isposinf(values)))
    if bad:
        raise ValueError(
            f"{what} is NaN or infinite at {bad} of {len(values)} draws: use a distribution "
            "whose density is finite at its own draws and at those of the prior"
        )


def _log_mixture(found: _LogDensities, counts: tuple[int, ...]) -> NDArray[np.float64]:
    """Return log q(x), q the mixture of proposal and prior in the proportions of the counts."""
    parts = np.stack([found.proposal, found.prior][: len(counts)]).astype(float)
    shares = np.asarray(counts) / sum(counts)
    return np.asarray(logsumexp(parts + np.log(shares)[:, None], axis=0))


def _smooth(
    log_ratios: NDArray[np.float64], resolution: float
) -> tuple[NDArray[np.float64], float]:
    """Replace the largest ratios by quantiles of the fitted Pareto distribution; and its shape.

    A tail that is not longer than `resolution` (nats) is taken as it is. So is one that is longer
    than the logarithms that a float64 can hold, or whose fit has no mean: there is nothing that
    smoothing could save.
    """
    count = len(log_ratios)
    tail = int(3 * np.sqrt(count)) if count > 225 else count // 5  # as ArviZ has it
    ordered = np.sort(log_ratios)
    cutoff = ordered[-1 - tail]
    if ordered[-1] - cutoff > LONGEST_TAIL:
        return log_ratios, math.inf
    if ordered[-1] - cutoff <= resolution:
        return log_ratios, -math.inf
    # ArviZ takes log-likelihoods, the negative log-ratios of leave-one-out cross-validation
    negative = az.ndarray_to_dataarray(-log_ratios, "log_ratio", sample_dims=["draw"])
    with np.errstate(divide="ignore", invalid="ignore"):
        smoothed, khat = negative.azstats.psislw(dim=["draw"])
    # it also normalises; the smallest ratio, which no smoothing changes, undoes that
    smallest = int(np.argmin(np.where(np.isneginf(log_ratios), np.inf, log_ratios)))
    restored = smoothed.to_numpy() + (log_ratios[smallest] - float(smoothed[smallest]))
    shape = math.inf if math.isnan(float(khat)) else float(khat)
    return (log_ratios if shape > 1 else restored), shape


def _relative_error(weights: NDArray[np.float64], counts: tuple[int, ...]) -> float:
    """Standard error of the mean of the weights over that mean, of a stratified sample."""
    strata = np.split(weights, np.cumsum(counts)[:-1])
    return math.sqrt(sum(len(w) * w.var(ddof=1) for w in strata)) / float(weights.sum())
