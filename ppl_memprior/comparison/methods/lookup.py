"""The exact posterior of the memorized prior: the examples, reweighted by their likelihoods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax

from ppl_memprior.comparison.methods._closed_form import closed_form_draws
from ppl_memprior.comparison.methods.method import Method
from ppl_memprior.comparison.methods.options import whole
from ppl_memprior.comparison.resources import Resources
from ppl_memprior.inference import Draws, check_lookup, lookup
from ppl_memprior.problem.inverse_problem import InverseProblem


@dataclass(frozen=True, kw_only=True)
class Lookup(Method):
    """Reweight the examples by their likelihoods; see `ppl_memprior.lookup`.

    Attributes:
        num_samples: independent draws.
    """

    name: ClassVar[str] = "lookup"

    num_samples: int = whole(1000, at_least=4)

    def check(self, problem: InverseProblem) -> None:
        check_lookup(problem)

    def draw(self, problem: InverseProblem, key: jax.Array, resources: Resources) -> Draws:
        posterior = lookup(problem, **resources.for_examples("lookup"))
        return closed_form_draws(problem, posterior, posterior.weights, key, self.num_samples)
