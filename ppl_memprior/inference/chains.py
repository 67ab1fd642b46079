"""Markov chains of NumPyro on a problem, warmup counted and chains kept apart.

What the kernel is, is left to the methods (`nuts`, `mode_jump`, `gibbs`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from numpyro.infer import MCMC
from numpyro.infer.mcmc import MCMCKernel

from ppl_memprior.problem import InverseProblem

# Chains that start from the prior begin where the data's gradient is steep; until the step size has
# adapted, deeper trees cost a thousand simulations a step and bring nothing.
WARMUP_TREE_DEPTH = 5


class Chains(NamedTuple):
    """Draws and statistics of several chains.

    Attributes:
        latents: each latent site's draws, shape (chains, draws, *event_shape).
        sample_stats: each statistic, shape (chains, draws).
        num_evaluations: of all chains and iterations, warmup included.
    """

    latents: dict[str, np.ndarray]
    sample_stats: dict[str, np.ndarray]
    num_evaluations: int


def tree_depths(max_tree_depth: int) -> tuple[int, int]:
    """Largest tree depths of NUTS in warmup and after."""
    return min(WARMUP_TREE_DEPTH, max_tree_depth), max_tree_depth


def run_chains(
    problem: InverseProblem,
    kernel: MCMCKernel,
    rng_key: jax.Array,
    *,
    num_samples: int,
    num_warmup: int,
    num_chains: int,
    statistics: tuple[str, ...],
    evaluations: str,
    progress: bool,
) -> Chains:
    """Warm a kernel up and draw from it, all chains vectorized.

    Args:
        problem: whose model the kernel samples.
        kernel: a NumPyro kernel.
        rng_key: JAX random key.
        num_samples, num_warmup: draws kept, and adaptation steps, of each chain.
        num_chains: number of chains.
        statistics: fields of the kernel's state to keep with the draws.
        evaluations: the one among them that counts evaluations of the model.
        progress: show NumPyro's bar, on stderr.
    """
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=progress,
    )
    warmup_key, sample_key = jax.random.split(rng_key)
    warmup_evaluations = 0
    if num_warmup:
        mcmc.warmup(
            warmup_key,
            *problem.args,
            collect_warmup=True,
            extra_fields=(evaluations,),
            **problem.kwargs,
        )
        warmup_evaluations = int(np.sum(mcmc.get_extra_fields()[evaluations]))
    mcmc.run(sample_key, *problem.args, extra_fields=statistics, **problem.kwargs)
    draws = mcmc.get_samples(group_by_chain=True)
    kept = mcmc.get_extra_fields(group_by_chain=True)
    stats = {name: np.asarray(kept[name]) for name in statistics}
    wanted = (problem.prior_name, *problem.extra_latents)
    return Chains(
        latents={name: np.asarray(draws[name]) for name in wanted},
        sample_stats=stats,
        num_evaluations=warmup_evaluations + int(np.sum(stats[evaluations])),
    )
