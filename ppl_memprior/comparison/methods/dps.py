"""Diffusion posterior sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax

from ppl_memprior.comparison.methods.method import Method
from ppl_memprior.comparison.methods.options import real, whole
from ppl_memprior.comparison.resources import Resources
from ppl_memprior.diffusion import check_dps, dps
from ppl_memprior.inference import Draws
from ppl_memprior.problem.inverse_problem import InverseProblem


@dataclass(frozen=True, kw_only=True)
class Dps(Method):
    """Follow the reverse diffusion and the data's gradient; see `ppl_memprior.diffusion.dps`.

    Attributes:
        num_samples: independent draws.
        num_steps: noise levels, a forward solve and a gradient for each draw at each.
        step_size: length of the data's pull, free of units; 10 / num_steps if None.
    """

    name: ClassVar[str] = "dps"

    num_samples: int = whole(200, at_least=4)
    num_steps: int = whole(200, at_least=2)
    step_size: float | None = real(None, above=0.0)

    def check(self, problem: InverseProblem) -> None:
        check_dps(problem)

    def draw(self, problem: InverseProblem, key: jax.Array, resources: Resources) -> Draws:
        return dps(
            problem,
            key,
            num_samples=int(self.num_samples),
            num_steps=int(self.num_steps),
            step_size=self.step_size,
            progress=resources.progress,
        )
