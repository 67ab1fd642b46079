"""What a `ModeJump` proposes its global moves from, unless the user says.

Any fixed density on the space of the prior's site leaves the posterior invariant; a good one is
close to it. The best that is known in closed form is the linearized posterior. The acceptance of
the moves is left to `mode_jump`.
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
    """A distribution to propose global moves from, and what it cost.

    Attributes:
        distribution: over the prior's site.
        num_failed: examples at which the simulation failed; none is proposed from there.
        num_forward_evaluations, num_gradient_evaluations: made to find it.
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
    """The posterior linearized at the components' modes, or the next best where it cannot be.

    Latent sites besides the prior's are set to their prior medians first (`at_prior_medians`).
    Where an observed site's noise is not Gaussian there is no residual to linearize: the proposal
    is then the prior with its weights multiplied by the likelihoods at the examples, and a warning
    says so. It has the modes in the right proportions where the likelihood changes little over a
    bandwidth.

    Args:
        problem: an inverse problem whose prior has a density.
        executor: where the work at the examples is done; see `linearize`.
        store: folder that keeps what is finished of it.
        progress: show a bar over the examples, on stderr.

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
    """The problem with its extra latent sites fixed at the medians of 1,001 prior draws.

    A site whose prior depends on another's value gets its median given that one's.
    """
    if not problem.extra_latents:
        return problem

    def medians(site: dict) -> jax.Array | None:
        wanted = site["name"] in problem.extra_latents
        return init_to_median(site, num_samples=_MEDIAN_DRAWS) if wanted else None

    @jax.jit  # which leaves out the forward solve, whose result is not used
    def values_at(example: jax.Array) -> dict[str, jax.Array]:
        seeded = handlers.seed(problem.model, rng_seed=0)
        at_example = handlers.substitute(seeded, data={problem.prior_name: example})
        model = handlers.trace(handlers.substitute(at_example, substitute_fn=medians))
        trace = model.get_trace(*problem.args, **problem.kwargs)
        return {name: trace[name]["value"] for name in problem.extra_latents}

    values = values_at(problem.take(0))
    return InverseProblem(
        handlers.condition(problem.model, data=values), *problem.args, **problem.kwargs
    )
