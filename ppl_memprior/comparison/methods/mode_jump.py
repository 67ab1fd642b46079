"""NUTS with jumps between the modes of the prior's site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
from numpyro.distributions import Distribution

from ppl_memprior.comparison.methods._chain import ChainMethod
from ppl_memprior.comparison.methods._proposal import shared_proposal
from ppl_memprior.comparison.methods.options import instance, real, whole
from ppl_memprior.comparison.resources import Resources
from ppl_memprior.inference import (
    Draws,
    check_mode_jump,
    check_proposal,
    check_proposal_fits,
    mode_jump,
)
from ppl_memprior.problem.inverse_problem import InverseProblem


@dataclass(frozen=True, kw_only=True)
class ModeJump(ChainMethod):
    """Sample by NUTS and jumps; see `ppl_memprior.ModeJump`. Sizes as in `ChainMethod`.

    Attributes:
        local_every: NUTS moves in every so many iterations after warmup.
        num_jumps: jumps in each iteration.
        defensive_share: share of the jumps that are proposed from the prior.
        proposal: a NumPyro distribution; the posterior linearized at its modes if None.
    """

    name: ClassVar[str] = "mode-jump"
    remedy: ClassVar[str] = "run it longer, or give ModeJump a better proposal"
    moves_between_modes: ClassVar[str] = "which moves between modes"

    local_every: int = whole(1)
    num_jumps: int = whole(1)
    defensive_share: float = real(0.1, at_least=0.0, below=1.0)
    proposal: Distribution | None = instance(Distribution, "a NumPyro distribution")

    def check(self, problem: InverseProblem) -> None:
        check_mode_jump(problem)
        if self.proposal is not None:
            check_proposal(self.proposal)
            check_proposal_fits(self.proposal, problem)

    def draw(self, problem: InverseProblem, key: jax.Array, resources: Resources) -> Draws:
        proposal = self.proposal
        return mode_jump(
            problem,
            key,
            **self.sizes,
            local_every=int(self.local_every),
            num_jumps=int(self.num_jumps),
            defensive_share=self.defensive_share,
            proposal=shared_proposal(problem, resources) if proposal is None else proposal,
            progress=resources.progress,
        )
