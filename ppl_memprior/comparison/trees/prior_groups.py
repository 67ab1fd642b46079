"""Draws from the prior and what the model predicts at them, once for all methods of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from ppl_memprior._execution.progress import map_in_batches
from ppl_memprior.comparison.trees.at_draws import can_sample, is_defined, nan_where_undefined
from ppl_memprior.comparison.trees.observed_sites import data_sites, elementwise
from ppl_memprior.problem.inverse_problem import InverseProblem

#: Draws from the prior that a run keeps.
NUM_PRIOR_DRAWS = 100


@dataclass(frozen=True)
class PriorDraws:
    """Draws from the prior, and data drawn at them.

    Attributes:
        sites: values of the latent and deterministic sites by name, shape (n, *event_shape).
        predictive: data by observed site, shape (n, *data_shape).
        num_evaluations: forward solves, one for each draw.
    """

    sites: Mapping[str, np.ndarray]
    predictive: Mapping[str, np.ndarray]
    num_evaluations: int


def prior_groups(
    problem: InverseProblem,
    rng_key: jax.Array,
    num_prior_draws: int = NUM_PRIOR_DRAWS,
    progress: bool = False,
) -> PriorDraws | None:
    """Draw the latent sites from the prior, and data given these; one forward solve a draw.

    Args:
        problem: the inverse problem.
        rng_key: JAX random key.
        num_prior_draws: draws; 0 makes none.
        progress: show a bar over the forward solves, on stderr.

    Returns:
        The draws, for `to_datatree(..., prior=...)`; None without any.

    Raises:
        TypeError: a number of draws that is no whole number.
        ValueError: a negative number of draws.
    """
    if isinstance(num_prior_draws, bool) or not isinstance(num_prior_draws, int | np.integer):
        raise TypeError(
            "num_prior_draws must be a whole number, at least 0, got "
            f"{type(num_prior_draws).__name__} {num_prior_draws!r}"
        )
    if num_prior_draws < 0:
        raise ValueError(f"num_prior_draws must be at least 0, got {num_prior_draws}")
    if num_prior_draws == 0:
        return None
    names = _kept_sites(problem)
    sites, predictive = map_in_batches(
        Partial(_draw, problem),
        jax.random.split(rng_key, int(num_prior_draws)),
        elements_per_item=sum(problem.data[name].size for name in data_sites(problem))
        + int(np.prod(problem.event_shape)),
        description="forward solves at draws from the prior",
        progress=progress,
    )
    predictive = {name: nan_where_undefined(*pair) for name, pair in predictive.items()}
    return PriorDraws({name: sites[name] for name in names}, predictive, int(num_prior_draws))


def _kept_sites(problem: InverseProblem) -> tuple[str, ...]:
    return (problem.prior_name, *problem.extra_latents, *problem.deterministic_names)


def _draw(problem: InverseProblem, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """The latent and deterministic sites, and data; these with whether their noise is defined."""
    latent_key, noise_key = jax.random.split(key)
    trace = problem.prior_trace(latent_key)
    sites = {name: trace[name]["value"] for name in _kept_sites(problem)}
    data = {}
    for i, name in enumerate(data_sites(problem)):
        noise = elementwise(trace[name]["fn"])
        if can_sample(noise):
            drawn = noise.sample(jax.random.fold_in(noise_key, i))
            data[name] = drawn, is_defined(noise)
    return sites, data
