"""What every sampler returns: draws of the latent sites, and what they cost.

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
        """The cost that a closed form, or another result, has in attributes of these names."""
        return cls(
            num_forward_evaluations=int(result.num_forward_evaluations),
            num_gradient_evaluations=int(result.num_gradient_evaluations),
        )


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Draws from a posterior, and what their sampler knows of itself.

    Attributes:
        latents: each latent site's draws, shape (chains, draws, *event_shape).
        cost: evaluations of the forward operator, warmup included.
        independent: the draws are independent of one another; not a Markov chain.
        exchangeable: the draws of a chain have no order, as particles have none.
        num_failed: simulations that failed where the sampler sees each.
        sample_stats: further numbers of each draw, shape (chains, draws).
        example_weights: posterior weights of the examples, in closed form, shape (N,); or None.
        numbers: single numbers beside the draws, such as `log_evidence` (nats) and
            `log_evidence_error`, `khat`, `ess`, `linearization_error`.
        details: further arrays of the sampler, a temperature schedule say, by name. They are not
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
