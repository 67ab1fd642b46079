"""Kullback-Leibler divergences that NumPyro's `kl_divergence` finds.

Two `MemorizedPrior`s have one in closed form. Mixtures of Gaussians have none; what there is
instead is said in the error.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import kl_divergence

from ppl_memprior.distributions import _checks
from ppl_memprior.distributions.diffusion_mixture import DiffusionMixturePrior
from ppl_memprior.distributions.gaussian_mixture import LowRankGaussianMixture
from ppl_memprior.distributions.memorized import MemorizedPrior


@kl_divergence.register(MemorizedPrior, MemorizedPrior)
def _between_memorized(p: MemorizedPrior, q: MemorizedPrior) -> jax.Array:
    """Return sum_n p_n log(p(x_n) / q(x_n)); infinite where q lacks an example of p."""
    if p.event_shape != q.event_shape:
        raise ValueError(f"p has event shape {p.event_shape}, q has {q.event_shape}.")
    _checks.broadcast_shapes(p=p.batch_shape, q=q.batch_shape)
    values = p.enumerate_support(expand=False)
    # both distributions outside of validation, which would warn of what is infinite
    log_p, log_q = (_log_prob(each, values) for each in (p, q))
    weights = jnp.moveaxis(p.weights, -1, 0)
    ones = (1,) * (log_p.ndim - weights.ndim)
    weights = weights.reshape(weights.shape[:1] + ones + weights.shape[1:])
    return jnp.sum(jnp.where(weights > 0, weights * (log_p - log_q), 0), axis=0)


def _log_prob(prior: MemorizedPrior, values: jax.Array) -> jax.Array:
    log_prob: Any = type(prior).log_prob
    return log_prob.__wrapped__(prior, values)


def _only_bounds(p: DiffusionMixturePrior, q: DiffusionMixturePrior) -> jax.Array:
    raise NotImplementedError(
        "the divergence between two Gaussian mixtures has no closed form; p.kl_bounds(q) bounds "
        "it from both sides, and the mean of p.log_prob(x) - q.log_prob(x) over x = p.sample(...) "
        "estimates it."
    )


def _only_estimates(p: Any, q: Any) -> jax.Array:
    raise NotImplementedError(
        "the divergence between two Gaussian mixtures has no closed form; the mean of "
        "p.log_prob(x) - q.log_prob(x) over x = p.sample(...) estimates it."
    )


def _without_density(p: Any, q: Any) -> jax.Array:
    raise NotImplementedError(
        "a MemorizedPrior has no density with respect to a mixture, nor a mixture with respect to "
        "it; give it a bandwidth, prior.diffuse(1.0, sigma), and use kl_bounds."
    )


kl_divergence.register(DiffusionMixturePrior, DiffusionMixturePrior)(_only_bounds)
for _pair in (
    (LowRankGaussianMixture, LowRankGaussianMixture),
    (LowRankGaussianMixture, DiffusionMixturePrior),
    (DiffusionMixturePrior, LowRankGaussianMixture),
):
    kl_divergence.register(*_pair)(_only_estimates)
for _mixture in (DiffusionMixturePrior, LowRankGaussianMixture):
    kl_divergence.register(MemorizedPrior, _mixture)(_without_density)
    kl_divergence.register(_mixture, MemorizedPrior)(_without_density)
