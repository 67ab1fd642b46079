"""The model's posterior by `ModeJump` around NUTS, with all that its diagnosis needs kept."""

from __future__ import annotations

import os
from concurrent.futures import Executor

import jax

from ppl_memprior._failures import tell_count
from ppl_memprior.inference.chains import ChainDraws, nuts_kernel, run_chains
from ppl_memprior.inference.jump_checks import check_mode_jump
from ppl_memprior.inference.jump_proposal import default_proposal
from ppl_memprior.inference.mode_jump import ModeJump
from ppl_memprior.problem import InverseProblem

_STATS = (
    "num_forward_evaluations",
    "num_steps",
    "diverging",
    "accept_prob",
    "energy",
    "potential_energy",
    "jump_accepted",
    "jump_accept_prob",
    "component",
    "num_failed",
)


def mode_jump(
    problem: InverseProblem,
    rng_key: jax.Array,
    *,
    num_samples: int = 1000,
    num_warmup: int = 500,
    num_chains: int = 4,
    max_tree_depth: int = 10,
    local_every: int = 1,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> ChainDraws:
    """Sample the model's posterior with NUTS and jumps between modes, all chains vectorized.

    Args:
        problem: an inverse problem whose prior has a density.
        rng_key: JAX random key.
        num_samples, num_warmup: draws kept, and adaptation steps, of each chain.
        num_chains: chains, each started from its own draw from the prior.
        max_tree_depth: a trajectory of NUTS has at most 2 ** max_tree_depth - 1 gradient
            evaluations; in warmup at most 31.
        local_every: NUTS moves in every so many iterations after warmup; see `ModeJump`.
        executor: where the components of the proposal are found; see `linearize`.
        store: folder that keeps finished components of the proposal.
        progress: show bars, on stderr.

    Raises:
        ValueError: a `MemorizedPrior`, which has no density; discrete latent sites; a simulation
            that fails at all training examples.
    """
    check_mode_jump(problem)
    proposal = default_proposal(problem, executor=executor, store=store, progress=progress)
    inner = nuts_kernel(problem, max_tree_depth)
    chains = run_chains(
        problem,
        ModeJump(inner, proposal.distribution, local_every=local_every),
        rng_key,
        num_samples=num_samples,
        num_warmup=num_warmup,
        num_chains=num_chains,
        statistics=_STATS,
        evaluations="num_forward_evaluations",
        progress=progress,
    )
    failed = int(chains.sample_stats["num_failed"].sum())
    tell_count("mode-jump", failed, chains.sample_stats["num_failed"].size, "jumps")
    forwards = chains.num_forward_evaluations + proposal.num_forward_evaluations
    gradients = chains.num_gradient_evaluations + proposal.num_gradient_evaluations
    return chains._replace(
        num_failed=failed + proposal.num_failed,
        num_forward_evaluations=forwards,
        num_gradient_evaluations=gradients,
    )
