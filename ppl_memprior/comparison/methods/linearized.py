"""The Gaussian-mixture posterior in closed form, the forward operator linearized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from ppl_memprior.comparison.methods._closed_form import closed_form_draws
from ppl_memprior.comparison.methods.method import Method
from ppl_memprior.comparison.methods.options import real, whole
from ppl_memprior.comparison.resources import Resources
from ppl_memprior.inference import Draws, check_linearize, linearize
from ppl_memprior.problem.inverse_problem import InverseProblem


@dataclass(frozen=True, kw_only=True)
class Linearized(Method):
    """Linearize the forward operator at every example; see `ppl_memprior.linearize`.

    Attributes:
        num_samples: independent draws.
        iterations: Gauss-Newton steps of each component, at most; 0 linearizes at the examples.
        accuracy: error of a component's log evidence, in nats, that ends the search for directions.
        max_rank: most directions of a component.
        neglect: share of the weight that components left out may have together.
        max_evaluations: forward solves and Jacobian products after which to end.
        max_minutes: the same by the clock.
    """

    name: ClassVar[str] = "linearized"

    num_samples: int = whole(1000, at_least=4)
    iterations: int = whole(0, at_least=0)
    accuracy: float = real(0.1, above=0.0)
    max_rank: int | None = whole(None)
    neglect: float = real(1e-6, at_least=0.0, below=1.0)
    max_evaluations: int | None = whole(None)
    max_minutes: float | None = real(None, above=0.0)

    def check(self, problem: InverseProblem) -> None:
        check_linearize(problem)

    def draw(self, problem: InverseProblem, key: jax.Array, resources: Resources) -> Draws:
        options: dict[str, Any] = {
            "iterations": int(self.iterations),
            "accuracy": float(self.accuracy),
            "max_rank": None if self.max_rank is None else int(self.max_rank),
            "neglect": float(self.neglect),
        }
        posterior = linearize(
            problem,
            **options,
            max_evaluations=self.max_evaluations,
            max_minutes=self.max_minutes,
            **resources.for_examples(f"linearize {options}"),
        )
        return closed_form_draws(
            problem,
            posterior,
            np.exp(np.asarray(posterior.log_weights, dtype=float)),
            key,
            self.num_samples,
            linearization_error=float(posterior.linearization_error),
        )
