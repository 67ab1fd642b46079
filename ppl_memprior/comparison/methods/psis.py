"""A proposal corrected to the posterior by Pareto-smoothed importance sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np
from numpyro.distributions import Distribution

from ppl_memprior.comparison.methods._proposal import shared_proposal
from ppl_memprior.comparison.methods.method import Method
from ppl_memprior.comparison.methods.options import instance, real, whole
from ppl_memprior.comparison.resources import Resources
from ppl_memprior.inference import Cost, Draws, check_correctable, check_psis, psis
from ppl_memprior.problem.inverse_problem import InverseProblem


@dataclass(frozen=True, kw_only=True)
class Psis(Method):
    """Correct a proposal by importance weights; see `ppl_memprior.psis`.

    Attributes:
        num_samples: draws taken among the weighted ones.
        num_importance_draws: weighted draws, one forward solve each.
        defensive_share: share of the weighted draws that come from the prior.
        proposal: a NumPyro distribution; the posterior linearized at its modes if None.
    """

    name: ClassVar[str] = "psis"
    diagnosed: ClassVar[bool] = True

    num_samples: int = whole(1000, at_least=4)
    num_importance_draws: int = whole(4000, at_least=25)
    defensive_share: float = real(0.1, at_least=0.0, below=1.0)
    proposal: Distribution | None = instance(Distribution, "a NumPyro distribution")

    def check(self, problem: InverseProblem) -> None:
        if self.proposal is None:
            check_psis(problem)
        else:
            check_correctable(problem, self.proposal)

    def draw(self, problem: InverseProblem, key: jax.Array, resources: Resources) -> Draws:
        proposal, cost, num_failed = self.proposal, Cost(), 0
        if proposal is None:
            found = shared_proposal(problem, resources)
            proposal, cost, num_failed = found.distribution, Cost.of(found), found.num_failed
        weigh_key, sample_key = jax.random.split(key)
        posterior = psis(
            problem,
            proposal,
            weigh_key,
            num_draws=int(self.num_importance_draws),
            defensive_share=self.defensive_share,
            progress=resources.progress,
        )
        draws = np.asarray(posterior.sample(sample_key, (1, self.num_samples)))
        ess = float(posterior.effective_sample_size)
        return Draws(
            latents={problem.prior_name: draws},
            cost=cost + Cost.of(posterior),
            independent=True,
            num_failed=num_failed + posterior.num_failed,
            numbers={
                "log_evidence": float(posterior.log_evidence),
                "log_evidence_error": float(posterior.log_evidence_error),
                "khat": float(posterior.khat),
                "num_importance_draws": int(self.num_importance_draws),
                "importance_ess": ess,
                # drawing among the weighted draws adds its own variance to theirs
                "ess": 1 / (1 / ess + 1 / self.num_samples),
            },
        )
