"""Sequential Monte Carlo from the prior to the posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax

from ppl_memprior.comparison.methods.method import Method
from ppl_memprior.comparison.methods.options import real, whole
from ppl_memprior.comparison.resources import Resources
from ppl_memprior.inference import Draws, check_tempered_smc, tempered_smc
from ppl_memprior.problem.inverse_problem import InverseProblem


@dataclass(frozen=True, kw_only=True)
class Smc(Method):
    """Temper the likelihood in; see `ppl_memprior.inference._tempered_smc`.

    Attributes:
        num_particles: particles of each repeat.
        num_repeats: independent repeats, which show how far the weights can be trusted.
        target_ess: share of the particles that each next temperature leaves effective.
        num_mcmc_steps: Hamiltonian trajectories at each temperature.
    """

    name: ClassVar[str] = "smc"
    remedy: ClassVar[str] = "use more particles"
    moves_between_modes: ClassVar[str] = "whose particles start in every mode"
    diagnosed: ClassVar[bool] = True

    num_particles: int = whole(1000, at_least=4)
    num_repeats: int = whole(4)
    target_ess: float = real(0.7, above=0.0, below=1.0)
    num_mcmc_steps: int = whole(3)

    def check(self, problem: InverseProblem) -> None:
        check_tempered_smc(problem)

    def draw(self, problem: InverseProblem, key: jax.Array, resources: Resources) -> Draws:
        return tempered_smc(
            problem,
            key,
            num_particles=int(self.num_particles),
            num_repeats=int(self.num_repeats),
            target_ess=self.target_ess,
            num_mcmc_steps=int(self.num_mcmc_steps),
            progress=resources.progress,
        )
