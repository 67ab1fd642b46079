"""NumPyro's NUTS on the user's model, with the statistics that its diagnostics need."""

from __future__ import annotations

import jax

from ppl_memprior.inference._method_checks import method_check, require_continuous, require_density
from ppl_memprior.inference.draws import Draws
from ppl_memprior.inference.mcmc._chains import MakeNuts, run_chains
from ppl_memprior.problem.inverse_problem import InverseProblem

_STATS = ("num_steps", "diverging", "accept_prob", "energy", "potential_energy")


def nuts(
    problem: InverseProblem,
    rng_key: jax.Array,
    *,
    num_samples: int = 1000,
    num_warmup: int = 500,
    num_chains: int = 4,
    max_tree_depth: int = 10,
    progress: bool = False,
) -> Draws:
    """Sample the model's posterior with NUTS, all chains vectorized.

    Args:
        problem: an inverse problem whose prior has a density.
        rng_key: JAX random key.
        num_samples: number of draws that each chain keeps.
        num_warmup: number of adaptation steps of each chain.
        num_chains: number of chains. Each starts from its own draw from the prior.
        max_tree_depth: a trajectory has at most 2 ** max_tree_depth - 1 gradient evaluations. In
            warmup it has at most 31.
        progress: show a bar over the iterations, on stderr.

    Returns:
        Draws with the statistics `num_steps`, `diverging`, `accept_prob`, `energy` and
        `potential_energy`. A simulation that fails ends its trajectory. The trajectory counts as
        divergent.

    Raises:
        ValueError: a `MemorizedPrior`, which has no density to differentiate; discrete latent
            sites.
    """
    check_nuts(problem)
    return run_chains(
        problem,
        MakeNuts(max_tree_depth),
        rng_key,
        num_samples=num_samples,
        num_warmup=num_warmup,
        num_chains=num_chains,
        statistics=_STATS,
        evaluations="num_steps",
        progress=progress,
        description="nuts: iterations",
    )


@method_check("nuts")
def check_nuts(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a problem that `nuts` cannot take."""
    require_density(problem, "nuts")
    require_continuous(problem, "nuts")
