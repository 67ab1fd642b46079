"""The result of every sampler: draws of the latent sites, and their cost.

Labels, derived numbers and storage are left to `ppl_memprior.comparison`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Evaluations of the forward operator.

    Attributes:
        num_forward_evaluations: forward solves.
        num_gradient_evaluations: gradients, or products with the Jacobian.
    """

    num_forward_evaluations: int = 0
    num_gradient_evaluations: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            num_forward_evaluations=self.num_forward_evaluations + other.num_forward_evaluations,
            num_gradient_evaluations=self.num_gradient_evaluations + other.num_gradient_evaluations,
        )

    @classmethod
    def of(cls, result: Any) -> Cost:
        """Read the cost of a result, such as a closed-form posterior, from its attributes."""
        return cls(
            num_forward_evaluations=int(result.num_forward_evaluations),
            num_gradient_evaluations=int(result.num_gradient_evaluations),
        )


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Draws from a posterior, and the numbers that the sampler reports with them.

    Attributes:
        latents: draws of each latent site, shape (chains, draws, *event_shape).
        cost: evaluations of the forward operator, warmup included.
        independent: whether the draws are independent of one another, not a Markov chain.
        exchangeable: whether the draws of a chain have no order, as particles have none.
        num_failed: number of failed simulations, where the sampler sees each simulation.
        sample_stats: further numbers of each draw, shape (chains, draws).
        example_weights: posterior weights of the examples, in closed form, shape (N,); or None.
        numbers: scalars of the whole run, such as `log_evidence` (nats), `log_evidence_error`,
            `khat`, `ess` and `linearization_error`.
        details: further arrays of the sampler by name, such as a temperature schedule. They are not
            stored with the draws.
    """

    latents: Mapping[str, np.ndarray]
    cost: Cost
    independent: bool = False
    exchangeable: bool = False
    num_failed: int = 0
    sample_stats: Mapping[str, np.ndarray] = field(default_factory=dict)
    example_weights: np.ndarray | None = None
    numbers: Mapping[str, float | int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
