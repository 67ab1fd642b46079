"""Markov chains of NumPyro on a problem, warmup counted and chains kept apart.

The methods (`nuts`, `mode_jump`, `gibbs`) choose the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, init_to_sample
from numpyro.infer.mcmc import MCMCKernel

from ppl_memprior._failures import LIMITS
from ppl_memprior.inference.draws import Cost, Draws
from ppl_memprior.problem.inverse_problem import InverseProblem

# Chains that start from the prior begin where the data's gradient is steep; until the step size has
# adapted, deeper trees cost a thousand simulations a step and bring nothing.
WARMUP_TREE_DEPTH = 5


def nuts_kernel(problem: InverseProblem, max_tree_depth: int) -> NUTS:
    """Return NUTS on the problem's latent sites. Each chain starts from its own prior draw."""
    depths = min(WARMUP_TREE_DEPTH, max_tree_depth), max_tree_depth
    model = handlers.block(problem.model, hide_fn=_is_deterministic)
    return NUTS(model, init_strategy=init_to_sample, max_tree_depth=depths)


def _is_deterministic(site: dict[str, Any]) -> bool:
    """Whether NumPyro would run the model once more for a site, at every draw and uncounted."""
    return site["type"] == "deterministic"


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
) -> Draws:
    """Warm a kernel up and draw from it, all chains vectorized.

    Args:
        problem: the problem whose model the kernel samples.
        kernel: a NumPyro kernel.
        rng_key: JAX random key.
        num_samples: number of draws that each chain keeps.
        num_warmup: number of adaptation steps of each chain.
        num_chains: number of chains.
        statistics: fields of the kernel's state to keep with the draws.
        evaluations: the statistic that counts evaluations of the model, each with its gradient.
        progress: show NumPyro's bar, on stderr.

    Returns:
        The draws of all latent sites and the statistics. Their cost includes the warmup, and counts
        what each chain needs: a chain that waits for a longer trajectory of another chain computes
        on, and drops the result. Within a trajectory of NUTS a failed simulation ends the
        trajectory and counts as a divergence.
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
    with starts_may_fail():
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
    count = warmup_evaluations + int(np.sum(stats[evaluations]))
    return Draws(
        latents={name: np.asarray(draws[name]) for name in wanted},
        cost=Cost(num_forward_evaluations=count, num_gradient_evaluations=count),
        sample_stats=stats,
    )


_NO_START = ("Cannot find valid initial parameters", " distribution got invalid ")


@contextmanager
def starts_may_fail() -> Iterator[None]:
    """Let NumPyro start where the simulation fails, and look for another start.

    NumPyro runs a model once before it samples. With validation it refuses a distribution with a
    NaN parameter, such as the output of a failed simulation.

    Raises:
        ValueError: no start was found.
    """
    try:
        with numpyro.validation_enabled(False):
            yield
    except (RuntimeError, ValueError) as error:
        # where NumPyro finds no start, it validates the model at the last one, to say more
        if not any(words in str(error) for words in _NO_START):
            raise
        raise ValueError(
            "no draw from the prior has a posterior density and gradient that are finite, so no "
            f"chain can start: the simulation failed at all of them; {LIMITS}"
        ) from error
