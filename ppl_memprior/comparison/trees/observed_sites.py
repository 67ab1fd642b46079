"""Observed sites datum by datum: their distributions without masks and event dimensions.

`numpyro` sums the log-likelihood over `.to_event()` dimensions and draws masked data too. ArviZ
wants one log-likelihood for each datum, and only for the data that count.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike
from numpyro.ops.provenance import eval_provenance

from ppl_memprior.problem._cache import remembered
from ppl_memprior.problem.inverse_problem import InverseProblem

_WRAPPERS = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)


def elementwise(fn: Any) -> Any:
    """The distribution of each datum, without masks.

    Args:
        fn: a NumPyro distribution of shape `batch_shape + event_shape`.

    Returns:
        A distribution of the same shape. Dimensions of `.to_event()` are batch dimensions of it;
        those of a multivariate distribution remain event dimensions.
    """
    base = _base(fn)
    batch = _datum_shape(fn)
    return base if tuple(base.batch_shape) == batch else base.expand(batch)


def datum_mask(fn: Any) -> jax.Array:
    """Which data count, shape of the batch of `elementwise(fn)`."""
    shape = _datum_shape(fn)
    mask = jnp.ones(shape, dtype=bool)
    inner_dims = len(_base(fn).event_shape)
    while isinstance(fn, _WRAPPERS):
        if isinstance(fn, dist.MaskedDistribution):
            level = jnp.broadcast_to(jnp.asarray(fn._mask, dtype=bool), fn.batch_shape)
            level = level.reshape(level.shape + (1,) * (len(fn.event_shape) - inner_dims))
            mask = mask & jnp.broadcast_to(level, shape)
        fn = fn.base_dist
    return mask


def log_likelihoods(site: dict[str, Any]) -> jax.Array:
    """Return log p(datum | latents) of each datum, shape of the batch of `elementwise`.

    Args:
        site: an observed site of a NumPyro trace. The weights of `numpyro.handlers.scale` multiply
            the log-likelihoods, so that their sum is the model's. Masked data have zeros.
    """
    fn = site["fn"]
    mask = datum_mask(fn)
    values = jnp.broadcast_to(elementwise(fn).log_prob(site["value"]), mask.shape)
    if site["scale"] is not None:
        weight = jnp.broadcast_to(jnp.asarray(site["scale"]), fn.batch_shape)
        values = values * weight.reshape(weight.shape + (1,) * (mask.ndim - weight.ndim))
    return jnp.where(mask, values, 0.0)


def data_sites(problem: InverseProblem) -> tuple[str, ...]:
    """The observed sites that have data: all but those of `numpyro.factor`."""
    return tuple(name for name in problem.observed if problem.data[name].size)


def masks(problem: InverseProblem) -> dict[str, np.ndarray]:
    """Which data count, of each observed site where some do not.

    No forward solve is made. A mask that depends on the latent sites is none: its data count.

    Returns:
        By the site's name, shape of the batch of `elementwise`.
    """
    return remembered(problem, "masks of the observed sites", lambda: _read_masks(problem))


def some_latents(problem: InverseProblem) -> tuple[jax.Array, dict[str, ArrayLike]]:
    """Values of the prior's site and of the other latent sites, to trace the model with."""
    x = problem.take(0)
    shapes = jax.eval_shape(problem.draw_extra_latents, x) if problem.extra_latents else {}
    return x, {name: jnp.zeros(found.shape, found.dtype) for name, found in shapes.items()}


def _read_masks(problem: InverseProblem) -> dict[str, np.ndarray]:
    latents = some_latents(problem)
    depends = eval_provenance(partial(_all_masks, problem), latents=latents)
    found = _compiled_masks(problem, latents)
    return {
        name: np.asarray(mask)
        for name, mask in found.items()
        if not depends[name] and not np.all(mask)
    }


def _all_masks(
    problem: InverseProblem, latents: tuple[jax.Array, dict[str, ArrayLike]]
) -> dict[str, jax.Array]:
    x, others = latents
    trace = problem.trace(x, **others)
    return {name: datum_mask(trace[name]["fn"]) for name in data_sites(problem)}


_compiled_masks = jax.jit(_all_masks)  # what no mask needs is not computed


def _base(fn: Any) -> Any:
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn


def _datum_shape(fn: Any) -> tuple[int, ...]:
    shape = (*fn.batch_shape, *fn.event_shape)
    return shape[: len(shape) - len(_base(fn).event_shape)]
