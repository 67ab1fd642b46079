"""Reverse diffusions that draw from an approximate posterior: diffusion posterior sampling.

A sampler turns a problem and a key into independent draws. Noise levels come from `noise`, the
data's gradient from `guidance`, and the denoiser from the prior, in closed form.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from ppl_memprior._execution.progress import scan_with_progress
from ppl_memprior._failures import require_some, tell_count
from ppl_memprior.diffusion.guidance import dps_guidance, guidance_scale
from ppl_memprior.diffusion.noise import levels_for
from ppl_memprior.diffusion.spread import example_spread
from ppl_memprior.inference._method_checks import method_check
from ppl_memprior.inference.draws import Cost, Draws
from ppl_memprior.problem.inverse_problem import InverseProblem


def dps(
    problem: InverseProblem,
    rng_key: jax.Array,
    *,
    num_samples: int = 100,
    num_steps: int = 200,
    step_size: float | None = None,
    progress: bool = False,
) -> Draws:
    """Draw by diffusion posterior sampling with the prior's closed-form denoiser.

    The reverse process starts from noise of twice the examples' radius: the largest distance of an
    example from their mean. A larger bandwidth takes the radius' place. Each step first draws x_s
    from its exact distribution given x_t and the denoised model. It then moves against the gradient
    of the whitened residual's norm, by step_size L^2 / R times the gradient. L is the
    root-mean-square spread of the examples, R the spread of their whitened predictions.

    Args:
        problem: an inverse problem with Gaussian noise and no extra latent sites, whose prior has a
            denoiser, such as a `MemorizedPrior` or a `DiffusionMixturePrior`.
        rng_key: JAX random key.
        num_samples: number of independent draws, all advanced together.
        num_steps: number of steps between noise levels. Each draw takes one forward solve and one
            gradient in each step.
        step_size: zeta' of the source's algorithm 1, made free of units as above. The default is
            10 / num_steps, so the whole path may cross the examples' spread several times.
        progress: show a bar on stderr.

    Returns:
        Independent draws, in one chain. They approximate the posterior; compare them with another
        posterior to see how well. The statistic `residual_norm` is the norm of the whitened
        residual at each draw's last denoised model. The statistic `skipped_steps` counts the steps
        without the data, where the gradient was not finite. `num_failed` counts failures at
        examples and at skipped steps.

    Raises:
        ValueError: extra latent sites; noise that is not Gaussian; a prior without a denoiser, such
            as `LowRankGaussianMixture`; or a simulation that fails at all examples or steps.

    Source: Chung et al. (2023), "Diffusion Posterior Sampling for General Noisy Inverse Problems",
    algorithm 1, in variance-exploding form.
    """
    check_dps(problem)
    if step_size is None:
        step_size = 10.0 / num_steps
    if num_samples < 1 or not step_size > 0:
        raise ValueError(
            f"dps needs num_samples >= 1 and step_size > 0, got {num_samples} and {step_size}"
        )
    levels = levels_for(problem, num_steps)
    scale = guidance_scale(problem, progress=progress)
    length = step_size * scale.model**2 / scale.data

    start_key, chain_key = jax.random.split(rng_key)
    centre = example_spread(problem).mean
    noise = jax.random.normal(start_key, (num_samples, *problem.event_shape), centre.dtype)
    start = centre + levels[0] * noise
    pairs = jnp.stack([levels[:-1], levels[1:]], axis=1)
    (draws, _), (norms, skipped) = scan_with_progress(
        Partial(_step, problem, length),
        (start, chain_key),
        pairs,
        description="dps: noise levels",
        progress=progress,
    )
    num_skipped = int(skipped.sum())
    require_some("dps", num_skipped, skipped.size, "steps")
    consequence = "and these steps go without the data"
    tell_count("dps", num_skipped, skipped.size, "steps", consequence=consequence)
    return Draws(
        latents={problem.prior_name: np.asarray(draws)[None]},
        cost=Cost(
            num_forward_evaluations=problem.num_examples + num_samples * num_steps,
            num_gradient_evaluations=num_samples * num_steps,
        ),
        independent=True,
        num_failed=scale.num_failed + num_skipped,
        sample_stats={
            "residual_norm": np.asarray(norms[-1])[None],
            "skipped_steps": np.asarray(skipped.sum(axis=0))[None],
        },
    )


def _step(
    problem: InverseProblem,
    length: jax.Array,
    state: tuple[jax.Array, jax.Array],
    levels: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Move all samples from one noise level to the next.

    Args:
        problem: the inverse problem.
        length: of the step along the gradient of the residual's norm.
        state: the samples, shape (K, *event_shape), and a JAX random key.
        levels: the level now and the level after, shape (2,).

    Returns:
        The new state, and each sample's residual norm and whether its step went without the data.
    """
    x, key = state
    key, *keys = jax.random.split(key, len(x) + 1)
    now, after = levels

    def advance(x: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        guidance = dps_guidance(problem, x, now)
        keep = (after / now) ** 2
        noise = after * jnp.sqrt(1 - keep) * jax.random.normal(key, x.shape, x.dtype)
        moved = guidance.denoised + keep * (x - guidance.denoised) + noise
        skipped = jnp.logical_not(guidance.usable)
        return moved - length * guidance.gradient, (guidance.residual_norm, skipped)

    x, stats = jax.vmap(advance)(x, jnp.stack(keys))
    return (x, key), stats


@method_check("dps")
def check_dps(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a problem that `dps` cannot take."""
    if not problem.prior.has_denoiser:
        raise ValueError(
            "dps needs a prior with a denoiser, a MemorizedPrior or a DiffusionMixturePrior; a "
            f"{type(problem.prior).__name__} has none"
        )
    problem.require_no_extra_latents("dps")
    problem.require_residual("dps")
