"""NumPyro's NUTS on the user's model, with everything that its diagnosis needs kept.

The kernel and the driver are NumPyro's own; this module starts the chains from prior draws,
counts the gradient evaluations of warmup and sampling, and returns the chains unflattened.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from numpyro.infer import MCMC, NUTS, init_to_sample

from ppl_memprior.distributions import MemorizedPrior
from ppl_memprior.problem import InverseProblem

# Chains that start from the prior begin where the data's gradient is steep; until the step size has
# adapted, deeper trees cost a thousand simulations a step and bring nothing.
WARMUP_TREE_DEPTH = 5
_STATS = ("num_steps", "diverging", "accept_prob", "energy", "potential_energy")


class NutsResult(NamedTuple):
    """Draws and statistics of NUTS.

    Attributes:
        latents: each latent site's draws, shape (chains, draws, *event_shape).
        sample_stats: each statistic, shape (chains, draws).
        num_gradient_evaluations: leapfrog steps of all chains, warmup included.
    """

    latents: dict[str, np.ndarray]
    sample_stats: dict[str, np.ndarray]
    num_gradient_evaluations: int


def nuts(
    problem: InverseProblem,
    rng_key: jax.Array,
    *,
    num_samples: int = 1000,
    num_warmup: int = 500,
    num_chains: int = 4,
    max_tree_depth: int = 10,
    progress: bool = False,
) -> NutsResult:
    """Sample the model's posterior with NUTS, all chains vectorized.

    Args:
        problem: an inverse problem whose prior has a density.
        rng_key: JAX random key.
        num_samples, num_warmup: draws kept, and adaptation steps, of each chain.
        num_chains: chains, each started from its own draw from the prior.
        max_tree_depth: a trajectory has at most 2 ** max_tree_depth - 1 gradient evaluations; in
            warmup at most 31.
        progress: show NumPyro's bar, on stderr.

    Raises:
        ValueError: a `MemorizedPrior`, which has no density to differentiate.
    """
    check_nuts(problem)
    mcmc = MCMC(
        NUTS(
            problem.model,
            init_strategy=init_to_sample,
            max_tree_depth=(min(WARMUP_TREE_DEPTH, max_tree_depth), max_tree_depth),
        ),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=progress,
    )
    warmup_key, sample_key = jax.random.split(rng_key)
    mcmc.warmup(
        warmup_key,
        *problem.args,
        collect_warmup=True,
        extra_fields=("num_steps",),
        **problem.kwargs,
    )
    warmup_steps = int(np.sum(mcmc.get_extra_fields()["num_steps"]))
    mcmc.run(sample_key, *problem.args, extra_fields=_STATS, **problem.kwargs)
    wanted = (problem.prior_name, *problem.extra_latents)
    draws = mcmc.get_samples(group_by_chain=True)
    stats = {
        name: np.asarray(value)
        for name, value in mcmc.get_extra_fields(group_by_chain=True).items()
    }
    return NutsResult(
        latents={name: np.asarray(draws[name]) for name in wanted},
        sample_stats=stats,
        num_gradient_evaluations=warmup_steps + int(np.sum(stats["num_steps"])),
    )


def check_nuts(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a problem that `nuts` cannot take."""
    if isinstance(problem.prior, MemorizedPrior):
        raise ValueError(
            "nuts needs a prior with a density; a MemorizedPrior has none. Its exact posterior "
            "is lookup(problem); for a density use DiffusionMixturePrior(examples, sigma)"
        )
