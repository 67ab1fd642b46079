"""A problem with observed sites of every kind, and a tree of draws whose values are known."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from ppl_memprior import DiffusionMixturePrior, InverseProblem
from ppl_memprior.inference.draws import Cost, Draws

EXAMPLES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
SCALE = 0.5
COVARIANCE = np.array([[0.5, 0.2], [0.2, 0.4]], np.float32)
MASK = np.array([[True, False], [True, True], [False, True]])
WEIGHT = 0.25
DATA = {
    "grid": np.arange(6, dtype=np.float32).reshape(3, 2) / 6,  # independent, in one event
    "gappy": np.arange(6, dtype=np.float32).reshape(3, 2) / 5,  # under a mask
    "pairs": np.ones((3, 2), np.float32),  # multivariate events, weighted
    "count": np.array([1, 0, 2]),  # discrete
}


def kinds(gain: Any, offset: Any, grid: Any, gappy: Any, pairs: Any, count: Any) -> None:
    """Every kind of observed site."""
    x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray(EXAMPLES), 0.3))
    field = numpyro.deterministic("field", gain * jnp.stack([x, 2 * x + offset], axis=1))
    numpyro.sample("grid", dist.Normal(field, SCALE).to_event(2), obs=grid)
    with handlers.mask(mask=MASK):
        numpyro.sample("gappy", dist.Normal(field, SCALE), obs=gappy)
    with handlers.scale(scale=WEIGHT), numpyro.plate("three", 3):
        numpyro.sample("pairs", dist.MultivariateNormal(field, COVARIANCE), obs=pairs)
    numpyro.sample("count", dist.Poisson(jnp.exp(x)).to_event(1), obs=count)


@pytest.fixture(scope="session")
def kinds_problem() -> InverseProblem:
    return InverseProblem(kinds, 2.0, jnp.asarray([0.1, 0.2, 0.3]), **DATA)


@pytest.fixture(scope="session")
def kinds_draws() -> Draws:
    """Two chains of six draws, with a repeated one."""
    x = np.random.default_rng(1).normal(size=(2, 6, 3)).astype(np.float32)
    x[1, 3] = x[0, 2]
    return Draws(
        latents={"x": x},
        cost=Cost(num_forward_evaluations=7, num_gradient_evaluations=3),
        num_failed=2,
        sample_stats={
            "num_steps": np.array([[0, 1, 2, 3, 4, 7]] * 2),
            "potential_energy": np.full((2, 6), 3.0),
            "accept_prob": np.full((2, 6), 0.8),
            "diverging": np.zeros((2, 6), bool),
        },
        numbers={"log_evidence": -1.5},
    )
