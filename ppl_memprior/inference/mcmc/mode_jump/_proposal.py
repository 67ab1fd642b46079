"""The default distribution from which `ModeJump` proposes its jumps.

Any fixed density on the space of the prior's site leaves the posterior invariant. A good proposal
is close to the posterior. The linearized posterior is the best approximation in closed form.
`_kernel` accepts or rejects the jumps.
"""

from __future__ import annotations

import os
import warnings
from concurrent.futures import Executor
from typing import NamedTuple

import jax
from numpyro import handlers
from numpyro.distributions import Distribution
from numpyro.infer import init_to_median

from ppl_memprior.inference._lookup import lookup
from ppl_memprior.inference.linearized._linearize import linearize
from ppl_memprior.problem.inverse_problem import InverseProblem

# The median of so many draws lies within about 0.04 standard deviations of the prior's.
_MEDIAN_DRAWS = 1001
# Gauss-Newton steps at most. Where the forward operator bends over a bandwidth, components that are
# linearized at their own modes propose better; three to five steps were enough where it was
# measured, and a component that is not there yet still proposes.
PROPOSAL_ITERATIONS = 10


class JumpProposal(NamedTuple):
    """A distribution of jumps, and its cost.

    Attributes:
        distribution: NumPyro distribution of the prior's site.
        num_failed: number of examples at which the simulation failed. No jump is proposed from
            their components.
        num_forward_evaluations: number of forward solves that the distribution took.
        num_gradient_evaluations: number of gradients, or products with the Jacobian, that it took.
    """

    distribution: Distribution
    num_failed: int
    num_forward_evaluations: int
    num_gradient_evaluations: int


def default_proposal(
    problem: InverseProblem,
    *,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> JumpProposal:
    """Linearize the posterior at the components' modes, to propose jumps from.

    Latent sites besides the prior's are first set to their prior medians.

    Where an observed site's noise is not Gaussian, there is no residual to linearize. The proposal
    is then the prior with its weights multiplied by the likelihoods at the examples, and a warning
    says so. The modes have the right proportions where the likelihood changes little over a
    bandwidth.

    Args:
        problem: an inverse problem whose prior has a density.
        executor: does the work at the examples; see `linearize`.
        store: folder that keeps finished work at the examples.
        progress: show a bar over the examples, on stderr.

    Returns:
        The distribution of the prior's site, and its cost.

    Raises:
        ValueError: a simulation that fails at all examples; a store of another problem.
    """
    conditioned = at_prior_medians(problem)
    if not conditioned.num_data:
        return JumpProposal(conditioned.prior, 0, 0, 0)  # which is the posterior
    if conditioned.has_residual:
        posterior = linearize(
            conditioned,
            iterations=PROPOSAL_ITERATIONS,
            executor=executor,
            store=store,
            progress=progress,
        )
        return JumpProposal(
            posterior,
            posterior.num_failed,
            posterior.num_forward_evaluations,
            posterior.num_gradient_evaluations,
        )
    sites = "; ".join(f"{name!r} {why}" for name, why in conditioned.non_gaussian.items())
    warnings.warn(
        f"the posterior cannot be linearized, because site {sites}: jumps are proposed from the "
        "prior's components, weighted by the likelihood at the examples. Where the likelihood "
        "changes much over a bandwidth few will be accepted; then pass a proposal",
        stacklevel=2,
    )
    weighted = lookup(conditioned, executor=executor, store=store, progress=progress)
    return JumpProposal(
        conditioned.prior.reweight(weighted.log_likelihoods),
        weighted.num_failed,
        weighted.num_forward_evaluations,
        weighted.num_gradient_evaluations,
    )


def at_prior_medians(problem: InverseProblem) -> InverseProblem:
    """Return the problem with its extra latent sites fixed at the medians of 1,001 prior draws.

    A site's prior may depend on the value of another site. It gets its median given that value.
    """
    if not problem.extra_latents:
        return problem

    values = _medians(problem, problem.take(0))
    return InverseProblem(
        handlers.condition(problem.model, data=values), *problem.args, **problem.kwargs
    )


@jax.jit  # which leaves out the forward solve, whose result is not used
def _medians(problem: InverseProblem, example: jax.Array) -> dict[str, jax.Array]:
    def median(site: dict) -> jax.Array | None:
        wanted = site["name"] in problem.extra_latents
        return init_to_median(site, num_samples=_MEDIAN_DRAWS) if wanted else None

    seeded = handlers.seed(problem.model, rng_seed=0)
    at_example = handlers.substitute(seeded, data={problem.prior_name: example})
    model = handlers.trace(handlers.substitute(at_example, substitute_fn=median))
    trace = model.get_trace(*problem.args, **problem.kwargs)
    return {name: trace[name]["value"] for name in problem.extra_latents}
