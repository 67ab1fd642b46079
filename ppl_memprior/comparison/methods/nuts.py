"""NumPyro's NUTS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax

from ppl_memprior.comparison.methods._chain import ChainMethod
from ppl_memprior.comparison.resources import Resources
from ppl_memprior.inference import Draws, check_nuts, nuts
from ppl_memprior.problem.inverse_problem import InverseProblem


@dataclass(frozen=True, kw_only=True)
class Nuts(ChainMethod):
    """Sample by NUTS alone, which may stay in one mode; options as in `ChainMethod`."""

    name: ClassVar[str] = "nuts"
    remedy: ClassVar[str] = ""  # running longer does not help where modes are separated

    def check(self, problem: InverseProblem) -> None:
        check_nuts(problem)

    def draw(self, problem: InverseProblem, key: jax.Array, resources: Resources) -> Draws:
        return nuts(problem, key, **self.sizes, progress=resources.progress)
