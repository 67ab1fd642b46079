"""Exact updates of the example, alternating with NUTS on the other latent sites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax

from ppl_memprior.comparison.methods._chain import ChainMethod
from ppl_memprior.comparison.resources import Resources
from ppl_memprior.inference import Draws, check_gibbs, gibbs
from ppl_memprior.problem.inverse_problem import InverseProblem


@dataclass(frozen=True, kw_only=True)
class Gibbs(ChainMethod):
    """Draw the example from its exact conditional; options as in `ChainMethod`."""

    name: ClassVar[str] = "gibbs"
    moves_between_modes: ClassVar[str] = "which draws the example from its exact conditional"

    def check(self, problem: InverseProblem) -> None:
        check_gibbs(problem)

    def draw(self, problem: InverseProblem, key: jax.Array, resources: Resources) -> Draws:
        return gibbs(problem, key, **self.sizes, progress=resources.progress)
