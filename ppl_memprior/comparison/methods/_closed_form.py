"""Draws from a posterior that is a distribution with known weights of the examples."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from ppl_memprior.inference import LinearizedPosterior, LookupPosterior
from ppl_memprior.inference.draws import Cost, Draws
from ppl_memprior.problem.inverse_problem import InverseProblem


def closed_form_draws(
    problem: InverseProblem,
    posterior: LookupPosterior | LinearizedPosterior,
    weights: ArrayLike,
    key: jax.Array,
    num_samples: int,
    **numbers: Any,
) -> Draws:
    """Independent draws, one chain, with the evidence and the weights in closed form.

    Args:
        problem: whose posterior it is.
        posterior: the distribution.
        weights: posterior weights of the examples, shape (N,).
        key: JAX random key.
        num_samples: how many draws.
        **numbers: further single numbers to keep with the draws.
    """
    return Draws(
        latents={problem.prior_name: np.asarray(posterior.sample(key, (1, num_samples)))},
        cost=Cost.of(posterior),
        independent=True,
        num_failed=posterior.num_failed,
        example_weights=np.asarray(weights),
        numbers={"log_evidence": float(posterior.log_evidence), **numbers},
    )
