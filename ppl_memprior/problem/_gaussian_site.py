"""What an observed NumPyro site says about its noise, if that noise is Gaussian.

Unwraps `Independent`, expanded and masked distributions down to a `Normal` or a
`MultivariateNormal`, for `problem.py`, which alone uses it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular


class GaussianSite(NamedTuple):
    """One observed site as `value ~ N(loc, noise)`, elementwise masked.

    `loc`, `mask` have the shape of the data; `mask` is True where the datum counts. `noise` is
    the standard deviation (`Normal`, broadcastable to the data) or the lower Cholesky factor of
    the covariance over the last axis (`MultivariateNormal`). `weight` (broadcastable to the
    data) is the power to which `numpyro.handlers.scale` raises the likelihood.
    """

    value: jax.Array
    loc: jax.Array
    noise: jax.Array
    mask: jax.Array
    weight: jax.Array
    correlated: bool

    def residual(self) -> jax.Array:
        """Whitened data minus prediction times the root of the weight, flattened; 0 if masked."""
        return jnp.ravel(self.whitened() * jnp.sqrt(self.weight))

    def whitened(self) -> jax.Array:
        """Whitened data minus prediction, of the data's shape; zero where masked."""
        difference = jnp.where(self.mask, self.value - self.loc, 0.0)
        if self.correlated:
            factor = jnp.broadcast_to(self.noise, (*self.loc.shape, self.loc.shape[-1]))
            return solve_triangular(factor, difference[..., None], lower=True)[..., 0]
        return difference / self.noise

    def log_normalizer(self) -> jax.Array:
        """The log-likelihood's part that does not depend on the residual."""
        if self.correlated:
            factor = jnp.broadcast_to(self.noise, (*self.loc.shape, self.loc.shape[-1]))
            log_scale = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1))
        else:
            log_scale = jnp.broadcast_to(jnp.log(self.noise), self.loc.shape)
        terms = jnp.where(self.mask, -log_scale - 0.5 * math.log(2 * math.pi), 0.0)
        return jnp.sum(terms * self.weight)


def gaussian_site(site: dict[str, Any]) -> GaussianSite | None:
    """The site's Gaussian form, or None where its noise is not (additive) Gaussian.

    Args:
        site: an observed site of a NumPyro trace (`numpyro.handlers.trace`).
    """
    fn = site["fn"]
    shape = (*fn.batch_shape, *fn.event_shape)
    mask = jnp.ones(shape, dtype=bool)
    while True:
        if isinstance(fn, dist.MaskedDistribution):
            level = jnp.asarray(fn._mask, dtype=bool)
            level = jnp.broadcast_to(level, fn.batch_shape)
            level = jnp.reshape(level, level.shape + (1,) * len(fn.event_shape))
            mask = mask & jnp.broadcast_to(level, shape)
        elif not isinstance(fn, dist.Independent | dist.ExpandedDistribution):
            break
        fn = fn.base_dist
    if type(fn) is dist.Normal:
        noise, correlated = jnp.asarray(fn.scale), False
    elif type(fn) is dist.MultivariateNormal:
        noise, correlated = jnp.asarray(fn.scale_tril), True
    else:
        return None
    weight = jnp.asarray(1.0 if site["scale"] is None else site["scale"])
    weight = jnp.broadcast_to(weight, site["fn"].batch_shape)
    weight = jnp.reshape(weight, weight.shape + (1,) * len(site["fn"].event_shape))
    value = jnp.broadcast_to(jnp.asarray(site["value"]), shape)
    loc = jnp.broadcast_to(fn.loc, shape)
    return GaussianSite(value, loc, noise, mask, weight, correlated)
