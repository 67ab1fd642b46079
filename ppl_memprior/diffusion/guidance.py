"""The data's part in a reverse diffusion step: the gradient through the denoiser.

Diffusion posterior sampling (DPS; Chung, Kim, McCann, Klasky & Ye 2023, "Diffusion Posterior
Sampling for General Noisy Inverse Problems") replaces the intractable p(data | x_t) by
p(data | E[x_0 | x_t]). So its draws are only approximately draws from the posterior.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from ppl_memprior._execution.progress import map_in_batches
from ppl_memprior._failures import tell_failures
from ppl_memprior.diffusion.spread import example_spread
from ppl_memprior.problem.inverse_problem import InverseProblem


class Guidance(NamedTuple):
    """One evaluation of the DPS guidance.

    Attributes:
        denoised: E[x_0 | x_t] under the prior, shape `event_shape`.
        residual_norm: norm of the whitened residual at `denoised`.
        gradient: gradient of `residual_norm` with respect to x_t; zero if it is not finite.
        usable: whether norm and gradient are finite.
    """

    denoised: jax.Array
    residual_norm: jax.Array
    gradient: jax.Array
    usable: jax.Array


class GuidanceScale(NamedTuple):
    """Spread of the examples and of their predicted data. They make the step free of units.

    Attributes:
        model: root-mean-square distance of the examples from their mean.
        data: root-mean-square distance of their whitened predictions from their mean.
        num_failed: number of examples at which the simulation failed; `data` leaves them out.
    """

    model: jax.Array
    data: jax.Array
    num_failed: int


def dps_guidance(problem: InverseProblem, x: jax.Array, sigma: jax.Array) -> Guidance:
    """Denoise x at noise level sigma, and differentiate the data misfit through the denoiser.

    Args:
        problem: an inverse problem with a residual.
        x: noisy model, shape `event_shape`.
        sigma: noise level of x, a positive scalar.

    Returns:
        The denoised model, the residual's norm and its gradient.
    """

    def misfit(noisy: jax.Array) -> tuple[jax.Array, jax.Array]:
        denoised = problem.prior.denoise(noisy, 1.0, sigma)
        squared = jnp.sum(problem.residual(denoised) ** 2)
        return jnp.sqrt(jnp.maximum(squared, jnp.finfo(squared.dtype).tiny)), denoised

    (norm, denoised), gradient = jax.value_and_grad(misfit, has_aux=True)(x)
    usable = jnp.isfinite(norm) & jnp.all(jnp.isfinite(gradient))
    return Guidance(denoised, norm, jnp.where(usable, gradient, 0.0), usable)


def guidance_scale(problem: InverseProblem, *, progress: bool = False) -> GuidanceScale:
    """Measure the spread of the examples and of their predictions, by N forward solves.

    Args:
        problem: an inverse problem with a residual.
        progress: show a bar over the forward solves, on stderr.

    Returns:
        The two spreads.

    Raises:
        ValueError: the simulation fails at all examples.
    """
    residuals = map_in_batches(
        Partial(InverseProblem.residual, problem),
        _Examples(problem),
        elements_per_item=problem.num_data,
        description="dps: forward solves",
        progress=progress,
    )
    failed = ~np.isfinite(residuals).all(axis=1)
    consequence = "and they have no part in the length of the steps"
    num_failed = tell_failures("dps", failed, "examples", consequence)
    data = _spread(jnp.asarray(residuals[~failed]))
    return GuidanceScale(_positive(example_spread(problem).root_mean_square), data, num_failed)


class _Examples:
    """The examples as items for `map_in_batches`, each read when it is worked on."""

    def __init__(self, problem: InverseProblem) -> None:
        self._problem = problem

    def __len__(self) -> int:
        return self._problem.num_examples

    def __getitem__(self, indices: np.ndarray) -> jax.Array:
        return self._problem.take(indices)


def _spread(points: jax.Array) -> jax.Array:
    squared = jnp.sum((points - points.mean(axis=0)) ** 2, axis=1)
    return _positive(jnp.sqrt(jnp.mean(squared)))


def _positive(spread: jax.Array) -> jax.Array:
    return jnp.where(spread > 0, spread, 1.0)
