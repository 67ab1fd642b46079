"""What a model says of itself: its sites, its data, and what depends on what.

`read_model` traces the model once, without a forward solve. All it finds is in the `Structure`
that it returns. What the sites must be like is left to `_model_sites`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr

from ppl_memprior.distributions import LearnedPrior
from ppl_memprior.problem._dependence import RANDOM_KEY, NamedLatents, dependencies
from ppl_memprior.problem._gaussian_site import gaussian_site
from ppl_memprior.problem._model_data import masked_sites, unobserved, with_masks
from ppl_memprior.problem._model_run import RUNNING_A_MODEL, trace_model
from ppl_memprior.problem._model_sites import (
    check_finite,
    check_shapes,
    describe,
    known_data,
    the_prior_site,
)
from ppl_memprior.problem._prior_site import distribution_at


@dataclass(frozen=True)
class Structure:
    """A model, read.

    Attributes:
        prior_name: the prior's site.
        prior: its distribution, of concrete arrays.
        extra_latents: the other latent sites.
        discrete_latents: those of them that are discrete.
        deterministic_names: the `numpyro.deterministic` sites.
        observed: the observed sites that depend on a latent one.
        masked: the sites with `obs_mask=`.
        non_gaussian: why a site has no residual, by observed site.
        data: the data by observed site.
        num_data: number of data that are not masked.
        fixed_prior: whether the prior is the same for all values of the other latent sites.
        fixed_data: the sites whose data reach them as they are, not made by JAX in the model.
    """

    prior_name: str
    prior: LearnedPrior
    extra_latents: tuple[str, ...]
    discrete_latents: tuple[str, ...]
    deterministic_names: tuple[str, ...]
    observed: tuple[str, ...]
    masked: tuple[str, ...]
    non_gaussian: Mapping[str, str]
    data: Mapping[str, np.ndarray]
    num_data: int
    fixed_prior: bool
    fixed_data: tuple[str, ...]


def read_model(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Structure:
    """Read a NumPyro model that runs inside `ObservedData`.

    The model is traced by JAX with a traced random key, so that no draw is looked at. A prior that
    the model makes itself is made again, of concrete arrays, by running the model up to its site.

    Args:
        model: without the masks of `obs_mask=`, which are read here.
        args: its positional arguments.
        kwargs: its arguments by name.

    Returns:
        The structure.

    Raises:
        ValueError: a model that is no inverse problem, or data that are not finite.
    """
    seen: list[_Facts] = []  # not an output: JAX keeps what a traced function returns

    def report(key: jax.Array) -> _Values:
        with RUNNING_A_MODEL, NamedLatents():
            trace = trace_model(model, args, kwargs, {}, key)
        seen.append(_facts(trace))
        return _values(with_masks(trace, seen[-1].masked), seen[-1])

    traced, values = jax.make_jaxpr(report, return_shape=True)(jax.random.PRNGKey(0))
    facts = seen[-1]
    depends: _Values = dependencies(traced, values)
    _require_unused(facts.masked, depends)
    prior = facts.prior
    if prior is None:
        with RUNNING_A_MODEL:
            prior = distribution_at(model, facts.prior_name, args, kwargs)
    _require_no_batch(facts.prior_name, prior)
    observed = _observed(facts, depends)
    _require_fixed(observed, depends)
    data, num_data = _read_data(traced, values, observed)
    data |= {name: facts.known[name] for name in observed if name in facts.known}
    check_finite(data)
    return Structure(
        prior_name=facts.prior_name,
        prior=prior,
        extra_latents=facts.extra_latents,
        discrete_latents=facts.discrete_latents,
        deterministic_names=facts.deterministic_names,
        observed=observed,
        masked=facts.masked,
        non_gaussian=_non_gaussian(facts, depends, observed),
        data=data,
        num_data=num_data,
        fixed_prior=facts.prior is not None,
        fixed_data=tuple(n for n in observed if n in facts.known and facts.known[n].size),
    )


@dataclass(frozen=True)
class _Facts:
    """What is known of a trace without its arrays; fields as in `Structure`.

    Attributes:
        prior: None where the model makes it, of traced arrays.
        described: what a user calls the distribution, by observed site.
        known: the data of the sites where tracing left them as they were.
    """

    prior_name: str
    prior: LearnedPrior | None
    extra_latents: tuple[str, ...]
    discrete_latents: tuple[str, ...]
    deterministic_names: tuple[str, ...]
    masked: tuple[str, ...]
    described: Mapping[str, str]
    known: Mapping[str, np.ndarray]


def _facts(trace: dict[str, Any]) -> _Facts:
    """Look at the sites of a trace.

    Raises:
        ValueError: no supported prior site, or data that cannot be those of their sites.
    """
    masked = masked_sites(trace)
    sites = with_masks(trace, masked)
    prior_name = the_prior_site(sites)
    if sites[prior_name]["scale"] is not None:
        raise ValueError(
            f"the prior's site {prior_name!r} stands under numpyro.handlers.scale, which "
            "would make another prior of it; put the handler around the observed sites only"
        )
    prior = sites[prior_name]["fn"]
    _require_no_batch(prior_name, prior)
    known = known_data(sites)
    check_finite(known)
    check_shapes(sites)
    samples = {name: site for name, site in sites.items() if site["type"] == "sample"}
    extra = [n for n, site in samples.items() if not site["is_observed"] and n != prior_name]
    made_here = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(vars(prior)))
    return _Facts(
        prior_name=prior_name,
        prior=None if made_here else prior,
        extra_latents=tuple(extra),
        discrete_latents=tuple(n for n in extra if samples[n]["fn"].support.is_discrete),
        deterministic_names=tuple(n for n, s in sites.items() if s["type"] == "deterministic"),
        masked=masked,
        described={n: describe(s["fn"]) for n, s in samples.items() if s["is_observed"]},
        known=known,
    )


@dataclass(frozen=True)
class _Values:
    """What is asked of the sites, traced; or, in the same places, what each answer depends on.

    Attributes:
        log_prob: log-likelihood by observed site.
        noise: by observed site with Gaussian noise, all but the prediction.
        value: data by observed site whose data are not known.
        count: number of data that are not masked, by observed site.
        rest: what the other sites say; asked only where a site has `obs_mask=`.
    """

    log_prob: dict[str, Any]
    noise: dict[str, Any]
    value: dict[str, Any]
    count: dict[str, Any]
    rest: dict[str, Any]


jax.tree_util.register_dataclass(
    _Values, ["log_prob", "noise", "value", "count", "rest"], meta_fields=[]
)


def _values(sites: dict[str, Any], facts: _Facts) -> _Values:
    """Ask the sites of a trace."""
    observed = {name: sites[name] for name in facts.described}
    gaussian = {name: gaussian_site(site) for name, site in observed.items()}
    return _Values(
        log_prob={n: jnp.sum(s["fn"].log_prob(s["value"])) for n, s in observed.items()},
        noise={
            n: [site.value, site.noise, site.mask, site.weight]
            for n, site in gaussian.items()
            if site is not None
        },
        value={n: jnp.asarray(s["value"]) for n, s in observed.items() if n not in facts.known},
        count={
            n: jnp.asarray(jnp.size(observed[n]["value"])) if site is None else jnp.sum(site.mask)
            for n, site in gaussian.items()
        },
        rest=_rest(sites) if facts.masked else {},
    )


def _rest(sites: dict[str, Any]) -> dict[str, Any]:
    """What the latent sites' distributions and the deterministic sites are made of."""
    found: dict[str, Any] = {}
    for name, site in sites.items():
        if site["type"] == "deterministic":
            found[name] = site["value"]
        elif site["type"] == "sample" and not site["is_observed"]:
            # a prior whose examples lie in a file may have no log-probability
            is_prior = isinstance(site["fn"], LearnedPrior)
            fn = site["fn"]
            found[name] = jax.tree.leaves(fn) if is_prior else fn.log_prob(site["value"])
    return found


def _require_unused(masked: Iterable[str], depends: _Values) -> None:
    """Raise a `ValueError` where the model uses what `obs_mask=` makes up for missing data."""
    used = frozenset().union(*jax.tree.leaves(depends))
    for name in masked:
        if unobserved(name) in used:
            raise ValueError(
                f"the model goes on with the values that obs_mask= makes up at site {name!r}; "
                "put the site under numpyro.handlers.mask(mask=...) instead, and compute what "
                "follows from its prediction"
            )


def _require_no_batch(name: str, prior: LearnedPrior) -> None:
    if prior.batch_shape:
        raise ValueError(
            f"the prior's site {name!r} has batch shape {prior.batch_shape}; "
            "inference takes one field at a time: give sigma as a scalar and keep the site "
            "out of plates"
        )


def _observed(facts: _Facts, depends: _Values) -> tuple[str, ...]:
    """The observed sites that depend on a latent one.

    Raises:
        ValueError: none of them depends on the prior's.
    """
    observed = tuple(name for name, sites in depends.log_prob.items() if sites)
    if not any(facts.prior_name in depends.log_prob[name] for name in observed):
        latents = ", ".join(map(repr, facts.extra_latents))
        through = (
            f". If data are to reach {facts.prior_name!r} through {latents}, compute that from "
            "it, z = x + s * eps with eps a latent site, instead of sampling z around x"
        )
        raise ValueError(
            f"no observed site depends on the prior's site {facts.prior_name!r} "
            f"(observed sites: {list(facts.described)}): pass the data to the model, "
            "InverseProblem(model, data=...), and give them to a site as obs="
            f"{through if latents else ''}"
        )
    return observed


def _require_fixed(observed: Iterable[str], depends: _Values) -> None:
    """Raise a `ValueError` for data that the model draws at random, a minibatch say."""
    for name in observed:
        if RANDOM_KEY in depends.value.get(name, ()):
            raise ValueError(
                f"the data of site {name!r} depend on the model's random key: the posterior wants "
                "all data, and the same at every call; draw them before, and pass them to the model"
            )


def _non_gaussian(facts: _Facts, depends: _Values, observed: Iterable[str]) -> dict[str, str]:
    """Why sites have no residual, by name."""
    reasons = {}
    for name in observed:
        if name not in depends.noise:
            reasons[name] = f"has {facts.described[name]} noise"
        elif facts.prior_name in frozenset().union(*depends.noise[name]):
            reasons[name] = "has noise whose scale depends on the prior's site"
    return reasons


def _read_data(
    traced: ClosedJaxpr, outputs: _Values, observed: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], int]:
    """The data that the model has made by JAX, by site, and the number of all data not masked."""
    structure: Any = jax.tree.structure(outputs)
    wanted: _Values = jax.tree.unflatten(structure, range(structure.num_leaves))
    places = [wanted.value[n] for n in observed if n in wanted.value]
    places += [wanted.count[n] for n in observed]
    # without what these do not need: the forward solve
    used = [place in places for place in range(structure.num_leaves)]
    needed, inputs = dce_jaxpr(traced.jaxpr, used)
    key = [jax.random.PRNGKey(0)] if inputs[0] else []
    found = dict(
        zip(sorted(places), jaxpr_as_fun(ClosedJaxpr(needed, traced.consts))(*key), strict=True)
    )
    made = {n: found[wanted.value[n]] for n in observed if n in wanted.value}
    counts = [found[wanted.count[n]] for n in observed]
    return {n: np.asarray(value) for n, value in made.items()}, sum(int(c) for c in counts)
