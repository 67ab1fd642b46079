"""NumPyro's NUTS on the user's model, with everything that its diagnosis needs kept.

The kernel is NumPyro's own; this module starts the chains from prior draws. Running them is left
to `chains`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from numpyro.infer import NUTS, init_to_sample

from ppl_memprior.distributions import MemorizedPrior
from ppl_memprior.inference.chains import run_chains, tree_depths
from ppl_memprior.problem import InverseProblem

_STATS = ("num_steps", "diverging", "accept_prob", "energy", "potential_energy")


class NutsResult(NamedTuple):
    """Draws and statistics of NUTS.

    Attributes:
        latents: each latent site's draws, shape (chains, draws, *event_shape).
        sample_stats: each statistic, shape (chains, draws).
        num_gradient_evaluations: leapfrog steps of all chains, warmup included.
    """

    latents: dict[str, np.ndarray]
    sample_stats: dict[str, np.ndarray]
    num_gradient_evaluations: int

    @property
    def num_forward_evaluations(self) -> int:
        """One with each gradient."""
        return self.num_gradient_evaluations


def nuts(
    problem: InverseProblem,
    rng_key: jax.Array,
    *,
    num_samples: int = 1000,
    num_warmup: int = 500,
    num_chains: int = 4,
    max_tree_depth: int = 10,
    progress: bool = False,
) -> NutsResult:
    """Sample the model's posterior with NUTS, all chains vectorized.

    Args:
        problem: an inverse problem whose prior has a density.
        rng_key: JAX random key.
        num_samples, num_warmup: draws kept, and adaptation steps, of each chain.
        num_chains: chains, each started from its own draw from the prior.
        max_tree_depth: a trajectory has at most 2 ** max_tree_depth - 1 gradient evaluations; in
            warmup at most 31.
        progress: show NumPyro's bar, on stderr.

    Raises:
        ValueError: a `MemorizedPrior`, which has no density to differentiate.
    """
    check_nuts(problem)
    chains = run_chains(
        problem,
        NUTS(
            problem.model, init_strategy=init_to_sample, max_tree_depth=tree_depths(max_tree_depth)
        ),
        rng_key,
        num_samples=num_samples,
        num_warmup=num_warmup,
        num_chains=num_chains,
        statistics=_STATS,
        evaluations="num_steps",
        progress=progress,
    )
    return NutsResult(chains.latents, chains.sample_stats, chains.num_evaluations)


def check_nuts(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a problem that `nuts` cannot take."""
    if isinstance(problem.prior, MemorizedPrior):
        raise ValueError(
            "nuts needs a prior with a density; a MemorizedPrior has none. Its exact posterior "
            "is lookup(problem); for a density use DiffusionMixturePrior(examples, sigma)"
        )
