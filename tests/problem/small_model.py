"""A model of two unknowns and three data, and what its parts are."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from ppl_memprior import DiffusionMixturePrior

EXAMPLES = np.array([[0.0, 0.0], [1.0, 2.0], [-1.0, 0.5]], np.float32)
DATA = np.array([0.3, -0.2, 0.9], np.float32)
PRIOR = DiffusionMixturePrior(EXAMPLES, 0.2)
MATRIX = jnp.asarray([[1.0, 0.5], [0.2, -1.0], [0.7, 0.1]])
X = jnp.asarray([0.4, -0.3])


def forward(x):
    return jnp.tanh(MATRIX @ x)


def normal_model(data=None, noise=0.3):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(forward(x), noise).to_event(1), obs=data)


def scale_model(data=None):
    x = numpyro.sample("x", PRIOR)
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(forward(x), scale).to_event(1), obs=data)
