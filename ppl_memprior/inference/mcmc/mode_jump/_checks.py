"""What `ModeJump` can take: kernels, settings, priors and proposals, each refused by name."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Delta, Distribution, constraints
from numpyro.infer.mcmc import MCMCKernel

from ppl_memprior.inference._method_checks import method_check, require_continuous, require_density
from ppl_memprior.problem.inverse_problem import InverseProblem

# What a jump changes in the state of a gradient kernel.
POSITION_FIELDS = ("z", "z_grad", "potential_energy")


def check_inner_kernel(kernel: Any) -> None:
    """Raise an error for what is no gradient kernel of a model."""
    if not isinstance(kernel, MCMCKernel):
        raise TypeError(
            f"inner_kernel must be a NumPyro kernel, NUTS(model) say, got {type(kernel).__name__}"
        )
    name = type(kernel).__name__
    if getattr(kernel, "model", None) is None:
        raise ValueError(
            f"the inner kernel {name} has no model: ModeJump reads the prior from the model, so "
            "give the kernel a model rather than a potential function"
        )
    if kernel.is_ensemble_kernel or kernel.sample_field != "z":
        raise ValueError(f"the inner kernel {name} is not a gradient kernel: use NUTS, HMC, ...")


def check_settings(defensive_share: float, num_jumps: int, local_every: int) -> None:
    """Raise a `ValueError` for settings out of range; warn of a ratio without a bound."""
    if not 0.0 <= defensive_share < 1.0:
        raise ValueError(f"defensive_share must lie in [0, 1), got {defensive_share}")
    if defensive_share == 0.0:
        warnings.warn(
            "with defensive_share=0 the ratio of posterior and proposal is unbounded: a chain may "
            "stay for very long where the proposal has too little mass",
            stacklevel=3,
        )
    for name, value in (("num_jumps", num_jumps), ("local_every", local_every)):
        if value < 1 or int(value) != value:
            raise ValueError(f"{name} must be an integer of at least 1, got {value}")


def check_inner_state(state: Any) -> None:
    """Raise a `ValueError` for a kernel whose state is not a position with its gradient."""
    missing = [name for name in (*POSITION_FIELDS, "rng_key") if not hasattr(state, name)]
    if missing:
        raise ValueError(
            f"the state of the inner kernel, {type(state).__name__}, has no {', '.join(missing)}: "
            "ModeJump needs a gradient kernel such as NUTS, HMC or BarkerMH"
        )


@method_check("mode-jump")
def check_mode_jump(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a problem that `mode_jump` and `ModeJump` cannot take."""
    require_density(problem, "mode-jump")
    require_continuous(problem, "mode-jump")


def check_proposal(proposal: Distribution) -> None:
    """Raise an error for a distribution that global moves cannot be proposed from.

    Raises:
        TypeError: not a NumPyro distribution.
        ValueError: a batch shape, a support that is not all real arrays, no density.
    """
    if not isinstance(proposal, Distribution):
        raise TypeError(f"proposal must be a numpyro Distribution, got {type(proposal).__name__}")
    name = type(proposal).__name__
    if proposal.batch_shape:
        raise ValueError(
            f"the proposal {name} has batch shape {proposal.batch_shape}; a jump proposes one "
            "value: give a distribution of batch shape (), by .to_event(), say"
        )
    if isinstance(proposal, Delta) or proposal.support.is_discrete:
        raise ValueError(f"the proposal {name} is discrete; jumps need one with a density")
    support = proposal.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if not isinstance(support, type(constraints.real)):
        raise ValueError(
            f"the proposal {name} has support {proposal.support}; the prior's site takes all real "
            "values, and values outside the proposal's support could never be left by a jump"
        )


def check_proposal_fits(proposal: Distribution, problem: InverseProblem) -> None:
    """Raise a `ValueError` unless the proposal can be drawn and scored as the prior's site."""
    if tuple(proposal.event_shape) != problem.event_shape:
        raise ValueError(
            f"the proposal {type(proposal).__name__} has event shape {proposal.event_shape}, the "
            f"prior's site {problem.prior_name!r} has {problem.event_shape}"
        )
    try:
        jax.eval_shape(lambda key: proposal.log_prob(proposal.sample(key)), jax.random.key(0))
    except NotImplementedError as error:
        raise ValueError(
            f"the proposal {type(proposal).__name__} has no density or no sampler; jumps need both"
        ) from error
    at_example = proposal.log_prob(problem.take(0))
    if not bool(jnp.isfinite(at_example)):
        raise ValueError(
            f"the proposal {type(proposal).__name__} has log-density {float(at_example)} at the "
            "first training example; jumps need a finite one everywhere"
        )
