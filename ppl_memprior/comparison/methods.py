"""The methods that `run` calls by name: each turns a problem and a key into `Draws`.

What they share (labels, wall time, storing, going on after an interruption) is left to `run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax.typing import ArrayLike

from ppl_memprior import diffusion, inference
from ppl_memprior.inference.draws import Cost, Draws
from ppl_memprior.inference.jump_proposal import PROPOSAL_ITERATIONS
from ppl_memprior.problem import InverseProblem

# four draws are the fewest that have an R-hat, two noise levels the fewest that have a step
_SMALLEST = {
    "num_samples": 4,
    "num_importance_draws": 25,
    "num_particles": 4,
    "num_diffusion_steps": 2,
}


@dataclass(frozen=True)
class Settings:
    """How long each method works.

    Attributes:
        num_samples: draws of the closed forms, and of each chain.
        num_warmup: adaptation steps of each chain.
        num_chains: Markov chains.
        num_importance_draws: weighted draws of the importance correction, one forward solve each;
            num_samples are drawn among them.
        max_tree_depth: of NUTS: a trajectory has at most 2 ** max_tree_depth - 1 gradients.
        num_particles: of each repeat of sequential Monte Carlo; it has num_chains repeats.
        num_diffusion_samples: draws of diffusion posterior sampling.
        num_diffusion_steps: its noise levels.
    """

    num_samples: int = 1000
    num_warmup: int = 500
    num_chains: int = 4
    num_importance_draws: int = 4000
    max_tree_depth: int = 10
    num_particles: int = 1000
    num_diffusion_samples: int = 200
    num_diffusion_steps: int = 200

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            smallest = _SMALLEST.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise TypeError(
                    f"{name} must be a whole number, at least {smallest}, got "
                    f"{type(value).__name__} {value!r}"
                )
            if value < smallest:
                raise ValueError(f"{name} must be at least {smallest}, got {value}")


@dataclass(frozen=True)
class Means:
    """What a method works with, and keeps its unfinished work in.

    Attributes:
        executor: where work at single examples is done; here if None.
        store: folder that keeps such work while it is unfinished, or None.
        progress: whether to show bars on stderr.
    """

    executor: Executor | None = None
    store: Path | None = None
    progress: bool = False

    @property
    def iterated_store(self) -> Path | None:
        """A folder for iterated components: one holds those of one number of iterations."""
        return None if self.store is None else self.store / "iterated"


Draw = Callable[[InverseProblem, jax.Array, Settings, Means], Draws]


@dataclass(frozen=True)
class Method:
    """A way to a posterior.

    Attributes:
        check: raises a `ValueError` for a problem that the method cannot take.
        draw: does the work.
    """

    check: Callable[[InverseProblem], None]
    draw: Draw


def _draw_lookup(
    problem: InverseProblem, key: jax.Array, settings: Settings, means: Means
) -> Draws:
    posterior = inference.lookup(
        problem, executor=means.executor, store=means.store, progress=means.progress
    )
    return _closed_form(problem, posterior, posterior.weights, key, settings)


def _draw_linearized(
    problem: InverseProblem, key: jax.Array, settings: Settings, means: Means
) -> Draws:
    posterior = inference.linearize(
        problem, executor=means.executor, store=means.store, progress=means.progress
    )
    weights = np.exp(np.asarray(posterior.log_weights, dtype=float))
    return _closed_form(
        problem,
        posterior,
        weights,
        key,
        settings,
        linearization_error=float(posterior.linearization_error),
    )


def _closed_form(
    problem: InverseProblem,
    posterior: inference.LookupPosterior | inference.LinearizedPosterior,
    weights: ArrayLike,
    key: jax.Array,
    settings: Settings,
    **attrs: float,
) -> Draws:
    draws = posterior.sample(key, (1, settings.num_samples))
    return Draws(
        latents={problem.prior_name: np.asarray(draws)},
        cost=Cost.of(posterior),
        independent=True,
        num_failed=posterior.num_failed,
        example_weights=np.asarray(weights),
        numbers={"log_evidence": float(posterior.log_evidence), **attrs},
    )


def _draw_psis(problem: InverseProblem, key: jax.Array, settings: Settings, means: Means) -> Draws:
    linearized = inference.linearize(
        problem,
        iterations=PROPOSAL_ITERATIONS,
        executor=means.executor,
        store=means.iterated_store,
        progress=means.progress,
    )
    weigh_key, sample_key = jax.random.split(key)
    posterior = inference.psis(
        problem,
        linearized,
        weigh_key,
        num_draws=settings.num_importance_draws,
        progress=means.progress,
    )
    ess = float(posterior.effective_sample_size)
    draws = posterior.sample(sample_key, (1, settings.num_samples))
    return Draws(
        latents={problem.prior_name: np.asarray(draws)},
        cost=Cost(
            num_forward_evaluations=linearized.num_forward_evaluations
            + posterior.num_forward_evaluations,
            num_gradient_evaluations=linearized.num_gradient_evaluations,
        ),
        independent=True,
        num_failed=linearized.num_failed + posterior.num_failed,
        numbers={
            "log_evidence": float(posterior.log_evidence),
            "log_evidence_error": float(posterior.log_evidence_error),
            "khat": float(posterior.khat),
            "num_importance_draws": settings.num_importance_draws,
            "importance_ess": ess,
            # drawing among the weighted draws adds its own variance to theirs
            "ess": 1 / (1 / ess + 1 / settings.num_samples),
        },
    )


def _chains(sampler: Callable[..., inference.ChainDraws]) -> Draw:
    """The draws of a sampler that makes Markov chains."""

    def draw(problem: InverseProblem, key: jax.Array, settings: Settings, means: Means) -> Draws:
        result = sampler(
            problem,
            key,
            num_samples=settings.num_samples,
            num_warmup=settings.num_warmup,
            num_chains=settings.num_chains,
            max_tree_depth=settings.max_tree_depth,
            progress=means.progress,
        )
        return Draws(
            latents=result.latents,
            cost=Cost.of(result),
            num_failed=result.num_failed,
            sample_stats=result.sample_stats,
        )

    return draw


def _draw_mode_jump(
    problem: InverseProblem, key: jax.Array, settings: Settings, means: Means
) -> Draws:
    sampler = partial(inference.mode_jump, executor=means.executor, store=means.iterated_store)
    return _chains(sampler)(problem, key, settings, means)


def _draw_smc(problem: InverseProblem, key: jax.Array, settings: Settings, means: Means) -> Draws:
    result = inference.tempered_smc(
        problem,
        key,
        num_particles=settings.num_particles,
        num_repeats=settings.num_chains,
        progress=means.progress,
    )
    return Draws(
        latents=result.latents,
        cost=Cost.of(result),
        exchangeable=True,
        num_failed=result.num_failed,
        numbers={
            "log_evidence": result.log_evidence,
            "log_evidence_error": result.log_evidence_error,
        },
    )


def _draw_dps(problem: InverseProblem, key: jax.Array, settings: Settings, means: Means) -> Draws:
    result = diffusion.dps(
        problem,
        key,
        num_samples=settings.num_diffusion_samples,
        num_steps=settings.num_diffusion_steps,
        progress=means.progress,
    )
    return Draws(
        latents={problem.prior_name: result.draws[None]},
        cost=Cost.of(result),
        independent=True,
        num_failed=result.num_failed,
        sample_stats={"skipped_steps": result.skipped_steps[None]},
    )


METHODS: Mapping[str, Method] = {
    "lookup": Method(inference.check_lookup, _draw_lookup),
    "linearized": Method(inference.check_linearize, _draw_linearized),
    "psis": Method(inference.check_psis, _draw_psis),
    "mode-jump": Method(inference.check_mode_jump, _draw_mode_jump),
    "nuts": Method(inference.check_nuts, _chains(inference.nuts)),
    "smc": Method(inference.check_tempered_smc, _draw_smc),
    "gibbs": Method(inference.check_gibbs, _chains(inference.gibbs)),
    "dps": Method(diffusion.check_dps, _draw_dps),
}
