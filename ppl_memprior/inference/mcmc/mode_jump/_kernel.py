"""An MCMC kernel that moves between the modes of a learned prior, where NUTS alone stays in one.

A gradient kernel of NumPyro explores the mode that the chain is in. Independence Metropolis moves
of the prior's site go between modes (Tierney 1994, "Markov chains for exploring posterior
distributions"). They are proposed from a fixed approximation of the posterior. `_proposal` makes
the approximation, `_sampler` the draws.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.distributions import CategoricalProbs, Distribution, MixtureGeneral
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from ppl_memprior.distributions import LearnedPrior
from ppl_memprior.inference.mcmc._chain_start import check_start, initialized
from ppl_memprior.inference.mcmc.mode_jump._checks import (
    check_inner_kernel,
    check_inner_state,
    check_mode_jump,
    check_proposal,
    check_proposal_fits,
    check_settings,
)
from ppl_memprior.inference.mcmc.mode_jump._inner_state import (
    failed_at,
    moved,
    own_copy,
    selected,
    stay,
)
from ppl_memprior.inference.mcmc.mode_jump._proposal import default_proposal
from ppl_memprior.inference.mcmc.mode_jump._target import Target
from ppl_memprior.problem.inverse_problem import InverseProblem


class ModeJumpState(NamedTuple):
    """State of `ModeJump`. Every field of the inner kernel's state is an attribute of it as well.

    So the `extra_fields` of `MCMC.run` may name `z`, `potential_energy`, `num_steps`, `accept_prob`
    or `diverging`, as for the inner kernel.

    Attributes:
        i: number of iterations made.
        inner_state: the inner kernel's state, at the position after the jumps.
        jump_accepted: whether this iteration accepted a jump.
        jump_accept_prob: mean acceptance probability of this iteration's jumps.
        mean_jump_accept_prob: mean of `jump_accept_prob` since the start, or the end of warmup.
        component: number of the example whose component most probably produced the prior's site.
        num_failed: number of this iteration's jumps whose simulation failed; they are rejected.
        num_forward_evaluations: number of the iteration's potential energies with gradients.
        rng_key: JAX random key of the next iteration.
    """

    i: jax.Array
    inner_state: Any
    jump_accepted: jax.Array
    jump_accept_prob: jax.Array
    mean_jump_accept_prob: jax.Array
    component: jax.Array
    num_failed: jax.Array
    num_forward_evaluations: jax.Array
    rng_key: jax.Array

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.inner_state, name)


class ModeJump(MCMCKernel):
    r"""Local moves by a gradient kernel, then global moves of the prior's site between its modes.

    An iteration first moves all latent sites by `inner_kernel`. After warmup, only every
    `local_every`-th iteration makes this local move. Then it makes `num_jumps` independence
    Metropolis moves of the prior's site given the others. A proposed :math:`x' \sim q` replaces
    :math:`x` with probability

    .. math:: \min\left(1,\; \frac{\pi(x' \mid \text{rest})\, q(x)}
                                   {\pi(x \mid \text{rest})\, q(x')}\right), \qquad
              q = (1 - s)\, q_0 + s\, p(\cdot \mid \text{rest})

    with the proposal :math:`q_0`, the prior :math:`p` and the share :math:`s`. The posterior stays
    invariant for any proposal. The prior's share bounds :math:`\pi / q` by the largest likelihood
    over s times the evidence, so the chain leaves every region often enough. With a hyperprior,
    :math:`p` is the prior given the current values of the other sites. A jump does not change
    the other sites.

    Without a proposal, `init` reads the model and calls `default_proposal`: it linearizes the model
    at the mode of each training example, with other latent sites at their prior medians. The
    proposal is made once for each set of model arguments, outside `jit`. With `jit_model_args` of
    `MCMC`, the first data's proposal stays: valid, but maybe less efficient. Jumps are made during
    warmup too. The inner kernel adapts to its own moves. Every `chain_method` works.

    Args:
        inner_kernel: a NumPyro kernel of a model, such as `NUTS`, `HMC` or `BarkerMH`. Its state
            has `z`, `z_grad`, `potential_energy` and `rng_key`.
        proposal: a NumPyro distribution with the prior's event shape, no batch shape and a density
            on all real arrays.
        defensive_share: probability s of proposing from the prior, in [0, 1).
        num_jumps: number of jumps in each iteration. Each costs one potential energy with gradient.
        local_every: after warmup the inner kernel moves once in this number of iterations. Where
            jumps are often accepted, they renew the prior's site at lower cost. Only the inner
            kernel moves the other sites.

    Raises:
        TypeError: `inner_kernel` is no kernel, or `proposal` is no distribution.
        ValueError: a kernel without a model, an argument out of range, or a proposal without
            density. At `init`: a `MemorizedPrior`, a proposal of another event shape, a kernel
            whose state lacks a field, or a start whose log-density is not finite.

    Example::

        MCMC(mp.ModeJump(NUTS(model)), num_warmup=500, num_samples=1000, num_chains=4)
    """

    sample_field = "z"

    def __init__(
        self,
        inner_kernel: MCMCKernel,
        proposal: Distribution | None = None,
        *,
        defensive_share: float = 0.1,
        num_jumps: int = 1,
        local_every: int = 1,
    ) -> None:
        check_inner_kernel(inner_kernel)
        if proposal is not None:
            check_proposal(proposal)
        check_settings(defensive_share, num_jumps, local_every)
        self.inner_kernel = own_copy(inner_kernel)
        self.proposal = proposal
        self.defensive_share = float(defensive_share)
        self.num_jumps = int(num_jumps)
        self.local_every = int(local_every)
        self._num_warmup = 0
        self._target: Target | None = None
        self._sample_fn: Any = None  # `MCMC` initializes a kernel in which this is None

    @property
    def model(self) -> Any:
        """The model of the inner kernel."""
        return self.inner_kernel.model

    @property
    def default_fields(self) -> tuple[str, ...]:
        """Fields that `MCMC` always collects: the inner kernel's, and `jump_accepted`."""
        return (*self.inner_kernel.default_fields, "jump_accepted")

    def get_diagnostics_str(self, state: ModeJumpState) -> str:
        """Return the inner kernel's diagnostics and the mean acceptance of jumps as text."""
        inner = self.inner_kernel.get_diagnostics_str(state.inner_state)
        jumps = f"jump acc. prob={float(state.mean_jump_accept_prob):.2f}"
        return f"{inner}. {jumps}" if inner else jumps

    def postprocess_fn(self, model_args: tuple[Any, ...], model_kwargs: dict[str, Any]) -> Any:
        """Return the inner kernel's map from unconstrained values to values of the sites."""
        return self.inner_kernel.postprocess_fn(model_args, model_kwargs)

    def init(
        self,
        rng_key: jax.Array,
        num_warmup: int,
        init_params: Any,
        model_args: tuple[Any, ...],
        model_kwargs: dict[str, Any] | None,
    ) -> ModeJumpState:
        """Read the model, find the proposal and initialize the inner kernel.

        Args:
            rng_key: JAX random key, or one key for each chain.
            num_warmup: number of adaptation steps of the inner kernel.
            init_params: unconstrained start values by site (of each chain), or None.
            model_args: positional arguments of the model, data included.
            model_kwargs: keyword arguments of the model, data included.

        Returns:
            State of the chain, or of the chains along a leading axis; errors as in the class.
        """
        kwargs = model_kwargs or {}
        self._num_warmup = num_warmup
        self._target = self._read(model_args, kwargs)

        def start(key: jax.Array, params: Any) -> ModeJumpState:
            return self._start(key, num_warmup, params, model_args, kwargs)

        single = is_prng_key(rng_key)
        state = (start if single else jax.vmap(start))(rng_key, init_params)
        check_start(state.inner_state, self.inner_kernel, model_args, kwargs)
        self._sample_fn = self._iterate
        return state

    def sample(
        self, state: ModeJumpState, model_args: tuple[Any, ...], model_kwargs: dict[str, Any] | None
    ) -> ModeJumpState:
        """Make one iteration of each chain in the state: the inner kernel's move, then jumps."""
        assert self._sample_fn is not None, "`init` must be called before `sample`."
        # of all chains at once, not of each, so that a vmapped iteration leaves out what it skips
        i = jnp.ravel(state.i)[0]
        local = (i < self._num_warmup) | (i % self.local_every == 0)
        iterate = partial(
            self._sample_fn, local=local, model_args=model_args, model_kwargs=model_kwargs or {}
        )
        return iterate(state) if is_prng_key(state.rng_key) else jax.vmap(iterate)(state)

    def target_read(self, problem: InverseProblem) -> None:
        """Take a problem that has been read from the model; the proposal is the kernel's own."""
        assert self.proposal is not None
        self._target = Target((problem.args, problem.kwargs), problem, self.proposal)

    def _read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Target:
        """The model with these arguments and the proposal, kept from the last call if the same."""
        if self._target is not None and self._target.is_of(args, kwargs):
            return self._target
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            raise ValueError(
                "ModeJump.init reads the model's arguments, and they are traced by jit or vmap; "
                "call MCMC.run outside of the transformation"
            )
        # `MCMC` initializes parallel chains inside pmap: what depends on the arguments alone is
        # computed at once all the same
        with jax.ensure_compile_time_eval():
            problem = InverseProblem(self.model, *args, **kwargs)
            check_mode_jump(problem)
            if self.proposal is not None:
                check_proposal_fits(self.proposal, problem)
            proposal = self.proposal or default_proposal(problem).distribution
        return Target((args, kwargs), problem, proposal)

    def _start(
        self,
        key: jax.Array,
        num_warmup: int,
        init_params: Any,
        model_args: tuple[Any, ...],
        model_kwargs: dict[str, Any],
    ) -> ModeJumpState:
        key, inner_key = jax.random.split(key)
        inner = initialized(
            self.inner_kernel, inner_key, num_warmup, init_params, model_args, model_kwargs
        )
        check_inner_state(inner)
        dtype = jnp.result_type(inner.potential_energy)
        return ModeJumpState(
            i=jnp.zeros((), int),
            inner_state=inner,
            jump_accepted=jnp.zeros((), bool),
            jump_accept_prob=jnp.zeros((), dtype),
            mean_jump_accept_prob=jnp.zeros((), dtype),
            component=self._component(inner.z, model_args, model_kwargs),
            num_failed=jnp.zeros((), int),
            num_forward_evaluations=jnp.zeros((), int),
            rng_key=key,
        )

    def _iterate(
        self,
        state: ModeJumpState,
        local: jax.Array,
        model_args: tuple[Any, ...],
        model_kwargs: dict[str, Any],
    ) -> ModeJumpState:
        key, inner_key, jumps_key = jax.random.split(state.rng_key, 3)
        # `MCMC` hands a new key to the outer state alone when it goes on from an earlier one
        inner = state.inner_state._replace(rng_key=inner_key)
        move = partial(self.inner_kernel.sample, model_args=model_args, model_kwargs=model_kwargs)
        if self.local_every > 1:
            inner = jax.lax.cond(local, move, stay, inner)
        else:
            inner = move(inner)
        steps = getattr(inner, "num_steps", jnp.where(local, 1, 0))
        inner, jumps = self._jump(inner, jumps_key, model_args, model_kwargs)
        i = state.i + 1
        n = jnp.where(i > self._num_warmup, i - self._num_warmup, i)
        mean = state.mean_jump_accept_prob
        return ModeJumpState(
            i=i,
            inner_state=inner,
            jump_accepted=jumps.accepted,
            jump_accept_prob=jumps.accept_prob,
            mean_jump_accept_prob=mean + (jumps.accept_prob - mean) / n,
            component=self._component(inner.z, model_args, model_kwargs),
            num_failed=jumps.num_failed,
            num_forward_evaluations=jnp.asarray(steps + self.num_jumps, int),
            rng_key=key,
        )

    def _jump(
        self,
        inner: Any,
        key: jax.Array,
        model_args: tuple[Any, ...],
        model_kwargs: dict[str, Any],
    ) -> tuple[Any, _Jumps]:
        """The inner state after the jumps, and how they went."""
        assert self._target is not None
        name = self._target.problem.prior_name
        density = self._density(inner.z, model_args, model_kwargs)

        def jump(carry: tuple[Any, jax.Array], key: jax.Array) -> tuple[Any, Any]:
            here, log_proposal = carry
            draw_key, accept_key = jax.random.split(key)
            x = density.sample(draw_key).astype(here.z[name].dtype)
            there = moved(self.inner_kernel, here, {**here.z, name: x}, model_args, model_kwargs)
            log_proposal_there = density.log_prob(x)
            log_ratio = log_acceptance_ratio(
                -there.potential_energy, log_proposal_there, -here.potential_energy, log_proposal
            )
            failed = failed_at(there)
            log_ratio = jnp.where(failed, -jnp.inf, log_ratio)
            # -log(u) of a uniform u, without the rounding of u to a multiple of 2**-23
            accept = jax.random.exponential(accept_key, dtype=log_ratio.dtype) >= -log_ratio
            carry = (
                selected(accept, there, here),
                jnp.where(accept, log_proposal_there, log_proposal),
            )
            return carry, (accept, jnp.exp(log_ratio), failed)

        start = (inner, density.log_prob(inner.z[name]))
        keys = jax.random.split(key, self.num_jumps)
        (inner, _), (accepted, probabilities, failed) = jax.lax.scan(jump, start, keys)
        return inner, _Jumps(jnp.any(accepted), jnp.mean(probabilities), jnp.sum(failed, dtype=int))

    def _density(
        self, z: dict[str, jax.Array], model_args: tuple[Any, ...], model_kwargs: dict[str, Any]
    ) -> Distribution:
        """q, for the values of the other latent sites in z."""
        assert self._target is not None
        share, proposal = self.defensive_share, self._target.proposal
        if share == 0.0:
            return proposal
        shares = CategoricalProbs(jnp.asarray([1.0 - share, share]))
        prior = self._prior(z, model_args, model_kwargs)
        return MixtureGeneral(shares, [proposal, prior], support=prior.support)

    def _prior(
        self, z: dict[str, jax.Array], model_args: tuple[Any, ...], model_kwargs: dict[str, Any]
    ) -> LearnedPrior:
        """The prior for the values of the other latent sites in z."""
        assert self._target is not None
        problem = self._target.problem
        others = {}
        if problem.extra_latents:
            values = self.inner_kernel.get_constrain_fn(model_args, model_kwargs)(z)
            others = {name: values[name] for name in problem.extra_latents}
        return problem.prior_given(**others)

    def _component(
        self, z: dict[str, jax.Array], model_args: tuple[Any, ...], model_kwargs: dict[str, Any]
    ) -> jax.Array:
        assert self._target is not None
        prior = self._prior(z, model_args, model_kwargs)
        return jnp.argmax(prior.responsibilities(z[self._target.problem.prior_name]))

    def __getstate__(self) -> dict[str, Any]:
        # found again by `init`, which `MCMC` calls on a kernel without a sampling function
        return {**self.__dict__, "_sample_fn": None, "_target": None}


class _Jumps(NamedTuple):
    accepted: jax.Array  # whether one was
    accept_prob: jax.Array  # their mean
    num_failed: jax.Array


def log_acceptance_ratio(
    log_target_there: jax.Array,
    log_proposal_there: jax.Array,
    log_target_here: jax.Array,
    log_proposal_here: jax.Array,
) -> jax.Array:
    """Return the logarithm of the acceptance probability of an independence Metropolis move.

    Args:
        log_target_there: log-density of the target at the proposed value, up to a constant.
        log_proposal_there: log-density of the proposal at the proposed value.
        log_target_here: log-density of the target at the current value, up to the same constant.
        log_proposal_here: log-density of the proposal at the current value.

    Returns:
        min(0, log of the ratio of importance weights); minus infinity where the ratio is NaN.
    """
    ratio = (log_target_there - log_proposal_there) - (log_target_here - log_proposal_here)
    return jnp.where(jnp.isnan(ratio), -jnp.inf, jnp.minimum(ratio, 0.0))
