"""The model's posterior by `ModeJump` around NUTS, with the statistics of its diagnostics."""

from __future__ import annotations

import os
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import jax
from numpyro.distributions import Distribution
from numpyro.infer.mcmc import MCMCKernel

from ppl_memprior._failures import tell_count
from ppl_memprior.inference.draws import Cost, Draws
from ppl_memprior.inference.linearized._posterior import plain
from ppl_memprior.inference.mcmc._chains import nuts_kernel, run_chains
from ppl_memprior.inference.mcmc.mode_jump._checks import (
    check_mode_jump,
    check_proposal,
    check_proposal_fits,
    check_settings,
)
from ppl_memprior.inference.mcmc.mode_jump._kernel import ModeJump
from ppl_memprior.inference.mcmc.mode_jump._proposal import JumpProposal, default_proposal
from ppl_memprior.problem.inverse_problem import InverseProblem

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
    num_jumps: int = 1,
    defensive_share: float = 0.1,
    proposal: Distribution | JumpProposal | None = None,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Draws:
    """Sample the model's posterior with NUTS and jumps between modes, all chains vectorized.

    Args:
        problem: an inverse problem whose prior has a density.
        rng_key: JAX random key.
        num_samples: number of draws that each chain keeps.
        num_warmup: number of adaptation steps of each chain.
        num_chains: number of chains. Each starts from its own draw from the prior.
        max_tree_depth: a trajectory of NUTS has at most 2 ** max_tree_depth - 1 gradient
            evaluations. In warmup it has at most 31.
        local_every: after warmup NUTS moves once in this number of iterations; see `ModeJump`.
        num_jumps: number of jumps in each iteration, with one gradient evaluation each.
        defensive_share: share of the jumps that are proposed from the prior, in [0, 1).
        proposal: distribution of the jumps: a NumPyro distribution, or a result of
            `default_proposal`. The cost of such a result counts as the sampler's. The default
            calls `default_proposal`.
        executor: computes the components of the proposal; see `linearize`.
        store: folder that keeps finished components of the proposal.
        progress: show bars, on stderr.

    Returns:
        Draws with the statistics of NUTS and of `ModeJumpState`. `num_failed` counts the failed
        simulations at jumps and at components of the proposal.

    Raises:
        ValueError: a `MemorizedPrior`, which has no density; discrete latent sites; a simulation
            that fails at all training examples; a proposal that does not fit the prior's site.
    """
    check_mode_jump(problem)
    check_settings(defensive_share, num_jumps, local_every)
    if proposal is None and problem.is_traced:
        raise TypeError(
            "mode_jump finds its proposal outside of jax.vmap and jit: pass proposal=, such as "
            "linearize(problem) of one of the data sets, or call it in a loop"
        )
    if proposal is None:
        proposal = default_proposal(problem, executor=executor, store=store, progress=progress)
    elif not isinstance(proposal, JumpProposal):
        check_proposal(proposal)
        check_proposal_fits(proposal, problem)
        proposal = JumpProposal(proposal, 0, 0, 0)
    chains = run_chains(
        problem,
        _MakeModeJump(max_tree_depth, float(defensive_share), int(num_jumps), int(local_every)),
        rng_key,
        held=plain(proposal.distribution),
        num_samples=num_samples,
        num_warmup=num_warmup,
        num_chains=num_chains,
        statistics=_STATS,
        evaluations="num_forward_evaluations",
        progress=progress,
        description="mode-jump: iterations",
    )
    if problem.is_traced:
        return chains
    failed = int(chains.sample_stats["num_failed"].sum())
    tell_count("mode-jump", failed, chains.sample_stats["num_failed"].size, "jumps")
    return replace(
        chains, num_failed=failed + proposal.num_failed, cost=chains.cost + Cost.of(proposal)
    )


@dataclass(frozen=True)
class _MakeModeJump:
    """Makes `ModeJump` around NUTS, with the proposal that is held."""

    max_tree_depth: int
    defensive_share: float
    num_jumps: int
    local_every: int

    def __call__(self, problem: InverseProblem, held: Any) -> MCMCKernel:
        kernel = ModeJump(
            nuts_kernel(problem, self.max_tree_depth),
            held,
            defensive_share=self.defensive_share,
            num_jumps=self.num_jumps,
            local_every=self.local_every,
        )
        kernel.target_read(problem)
        return kernel
