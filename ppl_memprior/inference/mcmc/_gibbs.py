"""Exact Gibbs updates of the example for a memorized prior beside other, continuous latents.

Given the other latents, the site of a `MemorizedPrior` is a discrete variable. Its conditional
needs one log-likelihood for each example, so the site is drawn exactly, without a proposal.
NumPyro's HMC or NUTS moves the other latents. NumPyro's own `Gibbs` alternates the two.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer import HMC, Gibbs
from numpyro.infer.gibbs import GibbsState, ModelWrapper
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import compute_log_probs
from numpyro.util import identity, is_prng_key

from ppl_memprior._batches import BATCH_ITEMS, items_that_fit
from ppl_memprior._failures import (
    first_few,
    has_failed,
    require_some,
    tell_count,
    zero_where_failed,
)
from ppl_memprior.distributions import LearnedPrior
from ppl_memprior.inference._method_checks import method_check, require_continuous
from ppl_memprior.inference.draws import Cost, Draws
from ppl_memprior.inference.mcmc._chains import nuts_kernel, run_chains
from ppl_memprior.problem.inverse_problem import InverseProblem

# the inner kernel's fields in the state of `ExampleGibbs`, and what they are called among the draws
_STATS = {
    f"block_states.1.{name}": name
    for name in ("num_steps", "diverging", "accept_prob", "energy", "potential_energy")
}
_NUM_STEPS = "block_states.1.num_steps"
_FAILED, _FIRST_FAILED = "block_states.0.num_failed", "block_states.0.first_failed"


class _ExampleState(NamedTuple):
    z: dict[str, jax.Array]  # the prior's site, an example
    example: jax.Array  # its number; -1 before the first update
    num_failed: jax.Array  # examples at which the simulation failed in the update
    first_failed: jax.Array  # the first of them, or -1
    rng_key: jax.Array


class _ExampleBlock(MCMCKernel):
    """The block of `ExampleGibbs` that draws the example given everything else."""

    sample_field = "z"

    def __init__(self, model: Any) -> None:
        self.model = model

    def init(
        self,
        rng_key: jax.Array,
        num_warmup: int,
        init_params: Any,
        model_args: tuple[Any, ...],
        model_kwargs: dict[str, Any],
    ) -> _ExampleState:
        value = {name: jnp.asarray(x) for name, x in init_params.items()}
        none = jnp.asarray(-1, jnp.int32)
        return _ExampleState(value, none, jnp.asarray(0, jnp.int32), none, rng_key)

    def sample(
        self, state: _ExampleState, model_args: tuple[Any, ...], model_kwargs: dict[str, Any]
    ) -> _ExampleState:
        (site,) = state.z
        rng_key, draw_key = jax.random.split(state.rng_key)
        model = handlers.seed(self.model, rng_seed=0)
        log_joint, prior = _log_joint(model, site, state.z[site], model_args, model_kwargs)
        failed = has_failed(log_joint)
        log_joint = zero_where_failed(log_joint)
        example = jax.random.categorical(draw_key, log_joint).astype(jnp.int32)
        count = jnp.sum(failed, dtype=jnp.int32)
        first = jnp.where(count > 0, jnp.argmax(failed), -1).astype(jnp.int32)
        return _ExampleState({site: prior.take(example)}, example, count, first, rng_key)

    def refresh(self, state: Any, model_args: Any, model_kwargs: Any) -> Any:
        return state  # holds nothing that depends on the other latents

    def wrap_model(self, wrapper: ModelWrapper) -> _ExampleBlock:
        kernel = copy.copy(self)
        kernel.model = wrapper(self.model)
        return kernel

    def get_constrain_fn(self, model_args: Any, model_kwargs: Any) -> Any:
        return identity


class ExampleGibbs(Gibbs):
    r"""NumPyro kernel for a model with a `MemorizedPrior` and continuous latents.

    Each step draws the example from its exact conditional

    .. math:: p(n \mid \theta, y) \propto \pi_n\, p(y, \theta \mid x_n)

    by evaluating the model at all N examples, in batches that bound the memory. Then `inner_kernel`
    moves the other latents :math:`\theta`. The weights may depend on other latents, and the prior
    of a latent may depend on the example. An example at which the simulation fails has no weight.
    Examples in a file are read batch by batch: all of them in each update of the example, and again
    in each gradient of the inner kernel, for their probability may depend on other latents.

    Use it as any kernel of `numpyro.infer.MCMC`, with `chain_method` "sequential", "parallel" or
    "vectorized". The prior's site is then always one of the examples. These extra fields are of
    use:

    - `block_states.0.example`: number of the example;
    - `block_states.0.num_failed`: number of examples at which the simulation failed;
    - `block_states.1`: state of the inner kernel.

    Args:
        inner_kernel: `HMC` or `NUTS`, built on the model.

    Raises:
        ValueError: another kernel, or a kernel built on a potential function. When the chains
            start: a model without a `MemorizedPrior`, with several, or with other discrete latents.

    Example::

        mcmc = MCMC(ExampleGibbs(NUTS(model)), num_warmup=500, num_samples=1000)
        mcmc.run(jax.random.key(0), y=y)
    """

    def __init__(self, inner_kernel: HMC) -> None:
        if not isinstance(inner_kernel, HMC) or inner_kernel.model is None:
            raise ValueError(
                "ExampleGibbs takes an HMC or NUTS kernel built on a model, got "
                f"{type(inner_kernel).__name__}; write ExampleGibbs(NUTS(model))"
            )
        super().__init__([(_ExampleBlock(inner_kernel.model), _memorized), (inner_kernel, None)])

    def init(
        self,
        rng_key: jax.Array,
        num_warmup: int,
        init_params: Any = None,
        model_args: tuple[Any, ...] = (),
        model_kwargs: dict[str, Any] | None = None,
    ) -> GibbsState:
        """Start one chain, or vectorized chains.

        Args:
            rng_key: JAX random key, or one key for each vectorized chain.
            num_warmup: number of adaptation steps of the inner kernel.
            init_params: start values by site, or None.
            model_args: positional arguments of the model.
            model_kwargs: keyword arguments of the model.

        Returns:
            The state of the chain, or of the chains along a leading axis.
        """

        def one(key: jax.Array, params: Any) -> GibbsState:
            return super(ExampleGibbs, self).init(key, num_warmup, params, model_args, model_kwargs)

        if is_prng_key(rng_key):
            return one(rng_key, init_params)
        state = jax.vmap(one)(rng_key, init_params)
        self._sample_fn = jax.vmap(self._sample_one, in_axes=(0, None, None))
        return state


def gibbs(
    problem: InverseProblem,
    rng_key: jax.Array,
    *,
    num_samples: int = 1000,
    num_warmup: int = 500,
    num_chains: int = 4,
    max_tree_depth: int = 10,
    progress: bool = False,
) -> Draws:
    """Sample the posterior with `ExampleGibbs` around NUTS, all chains vectorized.

    Args:
        problem: an inverse problem with a `MemorizedPrior` and other, continuous latent sites.
        rng_key: JAX random key.
        num_samples: number of draws that each chain keeps.
        num_warmup: number of adaptation steps of each chain.
        num_chains: number of chains. Each starts from its own draw from the prior.
        max_tree_depth: a trajectory of NUTS has at most 2 ** max_tree_depth - 1 gradient
            evaluations. In warmup it has at most 31.
        progress: show a bar over the iterations, on stderr.

    Returns:
        The draws. Each update of the example counts as N forward evaluations.

    Raises:
        ValueError: another prior; no other latent sites (use `lookup`, which is exact); or other
            discrete latent sites.
    """
    check_gibbs(problem)
    chains = run_chains(
        problem,
        _MakeGibbs(max_tree_depth),
        rng_key,
        num_samples=num_samples,
        num_warmup=num_warmup,
        num_chains=num_chains,
        statistics=(*_STATS, _FAILED, _FIRST_FAILED),
        evaluations=_NUM_STEPS,
        progress=progress,
        description="gibbs: iterations",
    )
    updates = num_chains * (num_warmup + num_samples)
    failed = int(chains.sample_stats[_FAILED].sum())
    first = np.unique(chains.sample_stats[_FIRST_FAILED])
    total = num_chains * num_samples * problem.num_examples
    things = "times an example was tried"
    require_some("gibbs", failed, total, things)
    tell_count("gibbs", failed, total, things, f"{first_few(first[first >= 0])} among them")
    return replace(
        chains,
        num_failed=failed,
        sample_stats={name: chains.sample_stats[path] for path, name in _STATS.items()},
        cost=chains.cost + Cost(num_forward_evaluations=updates * problem.num_examples),
    )


@dataclass(frozen=True)
class _MakeGibbs:
    """Makes `ExampleGibbs` around NUTS."""

    max_tree_depth: int

    def __call__(self, problem: InverseProblem, held: Any) -> MCMCKernel:
        return ExampleGibbs(nuts_kernel(problem, self.max_tree_depth))


@method_check("gibbs")
def check_gibbs(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a problem that `gibbs` cannot take."""
    if problem.prior.has_density:
        raise ValueError(
            "gibbs needs a MemorizedPrior, whose examples it draws among; this one is a "
            f"{type(problem.prior).__name__}"
        )
    if not problem.extra_latents:
        raise ValueError(
            f"gibbs alternates between {problem.prior_name!r} and other latent sites, and the "
            "model has no others"
        )
    require_continuous(problem, "gibbs")


def _memorized(trace: dict[str, Any]) -> list[str]:
    """The one latent site with a `MemorizedPrior`, or another prior over points."""
    latents = {
        name: site["fn"]
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    names = [
        name for name, fn in latents.items() if isinstance(fn, LearnedPrior) and not fn.has_density
    ]
    if len(names) != 1 or latents[names[0]].batch_shape:
        raise ValueError(
            "ExampleGibbs needs a model with one latent site whose distribution is a "
            f"MemorizedPrior, outside plates; it has {names or 'none'}, its latent sites are "
            f"{list(latents)}"
        )
    return names


def _log_joint(
    model: Any,
    site: str,
    value: jax.Array,
    model_args: tuple[Any, ...],
    model_kwargs: dict[str, Any],
) -> tuple[jax.Array, LearnedPrior]:
    """Return log pi_n + log p(data, other latents | x_n), shape (N,), and the prior.

    NaN or plus infinity where the simulation failed. `value`, the present one of the site, only
    leads to the prior, which may depend on other latents.
    """
    _, trace = compute_log_probs(model, model_args, model_kwargs, {site: value})
    prior = trace[site]["fn"]
    elements = sum(np.size(s["value"]) for s in trace.values() if s["type"] == "sample")

    def given(index: jax.Array) -> jax.Array:
        # the prior's own term would be that of all examples equal to this one, and is not used
        values = {site: prior.take(index)}
        terms, _ = compute_log_probs(model, model_args, model_kwargs, values)
        del terms[site]
        return sum(terms.values(), jnp.zeros(()))

    num = prior.num_components
    size = min(BATCH_ITEMS, items_that_fit(elements), num)
    return prior.log_weights + jax.lax.map(given, jnp.arange(num), batch_size=size), prior
