"""Tempered sequential Monte Carlo (SMC): particles carried from the prior to the posterior.

The particles start as draws from the prior, so every mode has its share of particles. They follow
p(x) p(data | x)^t as t grows from 0 to 1. Resampling moves weight between modes; Hamiltonian moves
need only work within a mode. The algorithm and its moves are BlackJAX's (`adaptive_tempered_smc`,
`hmc`). This module starts the particles, fits the moves' scale to the modes at each temperature,
repeats the run, and counts the solves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ppl_memprior._batches import items_that_fit
from ppl_memprior._execution.progress import progress_bar
from ppl_memprior._failures import LIMITS, has_failed, tell_failures, zero_where_failed
from ppl_memprior.inference._blackjax import load_blackjax
from ppl_memprior.inference._method_checks import method_check, require_continuous, require_density
from ppl_memprior.inference._unconstrained import Unconstrained, unconstrained
from ppl_memprior.inference.draws import Cost, Draws
from ppl_memprior.problem.inverse_problem import InverseProblem

if TYPE_CHECKING:
    from blackjax.smc.tempered import TemperedSMCState

LEAPFROG_STEPS = 4
ACCEPTANCE = 0.8  # between the 0.65 that suits one long trajectory and the safety of short ones
# A full covariance has to be well determined by the particles; with fewer, its diagonal is taken.
PARTICLES_PER_LATENT = 10
# Share of the prior's own scale in the moves' metric: decides only where there are no two
# particles in a mode, and bounds the metric's condition number to what float32 can factorize.
PRIOR_SHARE = 1e-5
# Stands for the logarithm of zero, because 0 times it must be 0 at the first temperature.
NO_LIKELIHOOD = -1e30
FINISHED = 1 - 1e-6  # of the inverse temperature, within float32 rounding


class _Carry(NamedTuple):
    state: TemperedSMCState  # particles (P, num_latents), weights (P,)
    log_step_size: jax.Array


def tempered_smc(
    problem: InverseProblem,
    rng_key: jax.Array,
    *,
    num_particles: int = 1000,
    num_repeats: int = 4,
    target_ess: float = 0.7,
    num_mcmc_steps: int = 3,
    progress: bool = False,
) -> Draws:
    """Sample the posterior, and estimate the evidence, by tempered SMC from the prior.

    A simulation fails where its log-likelihood is NaN or plus infinity. There the likelihood is
    zero. A warning counts the failures at draws from the prior. At most a share 1 - `target_ess` of
    the draws from the prior may have zero likelihood, failures included.

    Args:
        problem: an inverse problem whose prior has a density, with any likelihood; extra latent
            sites may have any continuous prior that can be sampled.
        rng_key: JAX random key.
        num_particles: number of particles in each repeat.
        num_repeats: number of independent repeats. Their spread gives the evidence's error.
        target_ess: share of the particles that each new temperature leaves effective.
        num_mcmc_steps: number of Hamiltonian trajectories at each temperature, of 4 leapfrog steps
            each.
        progress: show a bar over the temperatures, on stderr.

    Returns:
        Particles as draws, shape (repeats, particles, *event). The particles of a repeat have equal
        weights and random order. The repeats are independent of one another. The `numbers` are

        - `log_evidence`: logarithm of the mean of the repeats' estimates of p(data). Each estimate
          is unbiased up to the adaptation;
        - `log_evidence_error`: standard error of the repeats' mean log-evidence; NaN for one
          repeat.

        The `details` are

        - `log_evidences`: the log-evidence of each repeat, shape (repeats,);
        - `schedules`: the inverse temperatures t of each repeat, ascending, the last one 1;
        - `acceptance`: the mean acceptance probability of the moves at the last temperature, shape
          (repeats,).

        `num_failed` counts the draws from the prior at which the simulation failed. The cost is two
        forward solves for each particle and temperature, one forward solve with each gradient, and
        one forward solve for each particle at the start.

    Raises:
        ValueError: a `MemorizedPrior`; discrete latent sites; sizes out of range; a likelihood that
            is zero at too many draws from the prior (the message counts them).

    Source: Del Moral, Doucet & Jasra (2006), "Sequential Monte Carlo samplers". The moves adapt as
    in Buchholz, Chopin & Jacob (2021), "Adaptive tuning of Hamiltonian Monte Carlo within
    sequential Monte Carlo".
    """
    check_tempered_smc(problem)
    _check_sizes(num_particles, num_repeats, target_ess, num_mcmc_steps)
    step = partial(_step, problem, target_ess, num_mcmc_steps)
    particles, evidences, schedules, acceptance, failed = [], [], [], [], []
    with progress_bar(
        total=num_repeats, description="smc: inverse temperature", progress=progress
    ) as bar:
        for key in jax.random.split(rng_key, num_repeats):
            start_key, step_key, order_key = jax.random.split(key, 3)
            carry, likelihoods = _start(problem, num_particles, start_key)
            failed.append(np.asarray(has_failed(likelihoods)))
            _check_usable(np.asarray(likelihoods), target_ess)
            rows, evidence, schedule, accepted = _one_repeat(step, carry, step_key, bar)
            # resampling leaves siblings side by side; without order the particles are exchangeable
            shuffled = jax.random.permutation(order_key, rows)
            particles.append(jax.tree.map(np.asarray, _constrained(problem, shuffled)))
            evidences.append(evidence)
            schedules.append(schedule)
            acceptance.append(accepted)
    num_failed = tell_failures("smc", np.concatenate(failed), "draws from the prior")
    log_evidences = np.asarray(evidences)
    moves = num_particles * sum(len(schedule) for schedule in schedules)
    gradients = moves * (1 + num_mcmc_steps * LEAPFROG_STEPS)
    largest = log_evidences.max()
    error = log_evidences.std(ddof=1) / np.sqrt(num_repeats) if num_repeats > 1 else np.nan
    return Draws(
        latents={name: np.stack([p[name] for p in particles]) for name in particles[0]},
        cost=Cost(
            num_forward_evaluations=num_repeats * num_particles + 2 * moves + gradients,
            num_gradient_evaluations=gradients,
        ),
        exchangeable=True,
        num_failed=num_failed,
        numbers={
            "log_evidence": float(largest + np.log(np.mean(np.exp(log_evidences - largest)))),
            "log_evidence_error": float(error),
        },
        details={
            "log_evidences": log_evidences,
            "schedules": tuple(schedules),
            "acceptance": np.asarray(acceptance),
        },
    )


@method_check("smc")
def check_tempered_smc(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a problem that `tempered_smc` cannot take."""
    require_density(problem, "smc")
    require_continuous(problem, "smc")


def _check_sizes(
    num_particles: int, num_repeats: int, target_ess: float, num_mcmc_steps: int
) -> None:
    smallest = {"num_particles": (num_particles, 4), "num_repeats": (num_repeats, 1)}
    smallest["num_mcmc_steps"] = (num_mcmc_steps, 1)
    for name, (value, least) in smallest.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not 0 < target_ess < 1:
        raise ValueError(
            f"target_ess is the share of effective particles, between 0 and 1, got {target_ess}"
        )


def _check_usable(log_likelihoods: np.ndarray, target_ess: float) -> None:
    """Raise a `ValueError` if too few draws from the prior have a likelihood."""
    count, failed = len(log_likelihoods), int(has_failed(log_likelihoods).sum())
    if failed == count:
        tell_failures("smc", has_failed(log_likelihoods), "draws from the prior")
    unusable = failed + int(np.isneginf(log_likelihoods).sum())
    if count - unusable <= target_ess * count:
        raise ValueError(
            f"smc: the likelihood is zero at {unusable} of {count} draws from the prior (the "
            f"simulation failed at {failed} of them), and no more than {1 - target_ess:.2g} of "
            f"them may be: take a smaller target_ess, and check the data and the noise, or {LIMITS}"
        )


def _one_repeat(
    step: Callable[[_Carry, jax.Array], tuple[_Carry, jax.Array, jax.Array]],
    carry: _Carry,
    step_key: jax.Array,
    bar: tqdm,
) -> tuple[jax.Array, float, np.ndarray, float]:
    """Particles (P, num_latents), log-evidence, inverse temperatures and last acceptance."""
    reached, log_evidence = 0.0, 0.0
    schedule: list[float] = []
    while reached < FINISHED:
        carry, increment, _ = step(carry, jax.random.fold_in(step_key, len(schedule)))
        before, reached = reached, float(carry.state.tempering_param)
        log_evidence += float(increment)
        schedule.append(reached)
        if not reached > before:
            raise ValueError(
                f"smc stands still at the inverse temperature {before:.3g}: the log-likelihoods "
                "of the particles are too far apart for this precision; use more particles, "
                "float64 (JAX_ENABLE_X64), or a smaller target_ess"
            )
        bar.update(reached - before)
    # at this point the particles carry weights; this step resamples and moves them a last time
    carry, _, acceptance = step(carry, jax.random.fold_in(step_key, len(schedule)))
    schedule.append(1.0)
    return carry.state.particles, log_evidence, np.asarray(schedule), float(acceptance)


@jax.jit
def _constrained(problem: InverseProblem, particles: jax.Array) -> dict[str, jax.Array]:
    """The values of the latent sites by name."""
    return jax.vmap(unconstrained(problem).latents)(particles)


@partial(jax.jit, static_argnames="num_particles")
def _start(problem: InverseProblem, num_particles: int, key: jax.Array) -> tuple[_Carry, jax.Array]:
    """Draws from the prior, and their log-likelihoods as they come."""
    target = unconstrained(problem)
    particles = jax.vmap(target.draw_prior)(jax.random.split(key, num_particles))
    state = load_blackjax().smc.tempered.init(particles)
    # the usual scaling of the stable step of Hamiltonian Monte Carlo with the dimension
    log_step_size = jnp.asarray(-0.25 * np.log(target.num_latents), particles.dtype)
    batch = _batch_size(problem, target, num_particles) or num_particles
    values = jax.lax.map(target.log_likelihood, particles, batch_size=batch)
    state = state._replace(tempering_param=jnp.zeros((), particles.dtype))
    return _Carry(state, log_step_size), values


@partial(jax.jit, static_argnames=("target_ess", "num_mcmc_steps"))
def _step(
    problem: InverseProblem,
    target_ess: float,
    num_mcmc_steps: int,
    carry: _Carry,
    key: jax.Array,
) -> tuple[_Carry, jax.Array, jax.Array]:
    """Resample, move at the present temperature, weigh for the next one.

    Returns the new carry, the log-evidence's increment and the mean acceptance probability.
    """
    target = unconstrained(problem)
    smc_key, jitter_key = jax.random.split(key)
    particles, weights, _ = carry.state
    count = len(weights)

    def log_likelihood(z: jax.Array) -> jax.Array:
        value = zero_where_failed(target.log_likelihood(z))
        return jnp.where(jnp.isneginf(value), NO_LIKELIHOOD, value)

    blackjax = load_blackjax()
    kernel = blackjax.smc.adaptive_tempered.build_kernel(
        target.log_prior,
        log_likelihood,
        blackjax.hmc.build_kernel(),
        blackjax.hmc.init,
        blackjax.smc.resampling.systematic,
        target_ess,
        batch_size=_batch_size(problem, target, count),
    )
    # trajectories of one length would return to their start in directions of one period
    jitter = jax.random.uniform(jitter_key, (count,), particles.dtype, 0.5, 1.0)
    parameters = {
        "step_size": jnp.exp(carry.log_step_size) * jitter,
        "inverse_mass_matrix": _metric(problem, target, particles, weights)[None],
        "num_integration_steps": jnp.asarray([LEAPFROG_STEPS]),
    }
    state, info = kernel(smc_key, carry.state, num_mcmc_steps, parameters)
    acceptance = jnp.mean(jnp.nan_to_num(info.update_info.acceptance_rate))
    log_step_size = carry.log_step_size + acceptance - ACCEPTANCE
    return _Carry(state, log_step_size), info.log_likelihood_increment, acceptance


def _batch_size(problem: InverseProblem, target: Unconstrained, num_particles: int) -> int:
    """Particles to work on at a time within the memory allowed; 0 stands for all of them."""
    largest = items_that_fit(problem.num_data + target.num_latents)
    return 0 if largest >= num_particles else largest


def _metric(
    problem: InverseProblem, target: Unconstrained, particles: jax.Array, weights: jax.Array
) -> jax.Array:
    """Covariance (or variances) of the weighted particles within their modes.

    A mode is what belongs to one example. The spread of all particles together would be the
    distance between the modes, far too long for a move within one.
    """
    prior = problem.prior

    def example(z: jax.Array) -> jax.Array:
        return jnp.argmax(prior.responsibilities(target.latents(z)[problem.prior_name]))

    # in batches, because the responsibilities of all particles may not fit
    size = min(items_that_fit(prior.num_components), len(weights))
    label = jax.lax.map(example, particles, batch_size=size)
    num_examples = prior.num_components
    total = jax.ops.segment_sum(weights, label, num_examples)
    safe = jnp.where(total > 0, total, 1.0)
    centre = jax.ops.segment_sum(weights[:, None] * particles, label, num_examples)
    deviation = particles - (centre / safe[:, None])[label]
    # what centring each mode at its own mean takes from the sum of squares
    freedom = 1 - jnp.sum(jax.ops.segment_sum(weights**2, label, num_examples) / safe)
    # no wider than a mode, whatever the distance between the modes
    scale = jnp.minimum(jnp.var(particles, axis=0), prior.bandwidth**2)
    if target.num_latents * PARTICLES_PER_LATENT <= len(weights):
        squares = (weights[:, None] * deviation).T @ deviation
        return (squares + PRIOR_SHARE * jnp.diag(scale)) / (freedom + PRIOR_SHARE)
    return (weights @ deviation**2 + PRIOR_SHARE * scale) / (freedom + PRIOR_SHARE)
