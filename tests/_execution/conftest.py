"""A problem with a handful of examples."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import InverseProblem, MemorizedPrior

from .powers import NUM


@pytest.fixture(scope="module")
def problem():
    examples = np.random.default_rng(0).normal(size=(NUM, 3)).astype(np.float32)
    prior = MemorizedPrior(examples)

    def model(data=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(jnp.sin(x), 0.3).to_event(1), obs=data)

    return InverseProblem(model, data=np.asarray([0.1, -0.2, 0.3], np.float32))
