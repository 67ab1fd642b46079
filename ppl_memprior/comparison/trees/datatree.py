"""Draws of a method into a labelled `DataTree` with the groups that ArviZ reads.

Every tree carries what its report needs: the draws, their statistics, the examples, the truth if
it is known, and where it came from. Names of dimensions, coordinates and units are left to
`labels`, files to `storage`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ppl_memprior import _batches
from ppl_memprior._failures import first_few, tell_count
from ppl_memprior.comparison.trees.at_draws import at_draws
from ppl_memprior.comparison.trees.at_examples import (
    at_examples,
    deterministics_at,
    num_example_evaluations,
    same_examples,
)
from ppl_memprior.comparison.trees.constant_data import constant_data
from ppl_memprior.comparison.trees.dims import dataset
from ppl_memprior.comparison.trees.observed_sites import data_sites, masks
from ppl_memprior.comparison.trees.prior_groups import PriorDraws
from ppl_memprior.comparison.trees.sample_stats import named_as_arviz
from ppl_memprior.diagnostics import nearest_examples
from ppl_memprior.inference.draws import Draws
from ppl_memprior.problem.inverse_problem import InverseProblem

_LEAD = ("chain", "draw")


def to_datatree(
    problem: InverseProblem,
    draws: Draws,
    *,
    truth: Mapping[str, np.ndarray] | None = None,
    prior: PriorDraws | None = None,
    progress: bool = False,
) -> xr.DataTree:
    """Name the draws' dimensions and add what is derived from them.

    Args:
        problem: where the draws come from.
        draws: a method's result.
        truth: true values by site, as `labels.checked_truth` returns them, or None.
        prior: draws from the prior, as `prior_groups` returns them, or None.
        progress: show a bar over the forward solves, on stderr.

    Returns:
        The tree of `tree_of_draws`, with the method's cost in the attributes
        `num_forward_evaluations` and `num_gradient_evaluations`, and `num_failed`.
    """
    tree = tree_of_draws(problem, draws, truth=truth, prior=prior, progress=progress)
    tree.attrs.update(
        {
            "num_failed": int(draws.num_failed),
            "num_forward_evaluations": int(draws.cost.num_forward_evaluations),
            "num_gradient_evaluations": int(draws.cost.num_gradient_evaluations),
        }
    )
    return tree


def tree_of_draws(
    problem: InverseProblem,
    draws: Draws,
    *,
    truth: Mapping[str, np.ndarray] | None = None,
    prior: PriorDraws | None = None,
    progress: bool = False,
) -> xr.DataTree:
    """A tree of draws whose cost is not known, or not wanted; arguments as `to_datatree`.

    Returns:
        A tree with the groups

        - `posterior`: the latent and deterministic sites.
        - `sample_stats`: the method's statistics under ArviZ's names, `chi_square`,
          `nearest_example` and `nearest_ratio`. `nearest_example` counts examples that are the
          same as their representative.
        - `log_likelihood`: of each datum, a multivariate distribution's event being one datum;
          weights of `numpyro.handlers.scale` multiply it.
        - `posterior_predictive`: data drawn at the draws. Repeated draws have noise of their own.
        - `observed_data`, and `constant_data`: the examples and other arrays that the model takes.
        - `prior`, `prior_predictive`: if draws from the prior are given.
        - `examples`: the prior's site and deterministic sites at each example, `prior_weight`,
          `mean_responsibility`, `posterior_weight` where the method has it, and `representative`,
          the number of the first example that is the same at the scale of the bandwidth. Sites of
          more than `BATCH_ELEMENTS` numbers at all examples together are left out; the group's
          attribute `left_out` names them. If the prior's site is one of these,
          `leave_one_out_ratio` has the null of the nearest-neighbour ratio at some examples.
        - `truth`, if it is given.

        Masked data are left out: a site that has some stands along the one dimension
        `<site>_datum`, and `<site>_index_<axis>` are its coordinates. Groups of predictions and
        log-likelihoods of more than `BATCH_ELEMENTS` numbers keep evenly spaced draws only; their
        coordinate `draw` and attribute `thinned` say which.

        The attribute `bandwidth` of a latent bandwidth is its mean over the draws. Draws at which
        the simulation fails have a `chi_square` that is not finite; `num_failed_draws` counts them.
        Forward solves for the tree are counted: `num_predictive_evaluations`, one for each distinct
        draw; `num_prior_evaluations`, one for each draw from the prior; and
        `num_example_evaluations`, one for each example and for the truth where the model has
        deterministic sites that are not left out. Those at examples and at draws from the prior are
        made once for all trees of a problem.
    """
    latents = {name: np.asarray(value) for name, value in draws.latents.items()}
    chains, length = latents[problem.prior_name].shape[:2]
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in latents.items()}
    kept = _kept_draws(length, chains * _num_predicted(problem))
    chosen = (np.arange(chains)[:, None] * length + kept).ravel()
    found = at_draws(problem, flat, chosen, _noise_key(flat[problem.prior_name]), progress=progress)
    bandwidth = _bandwidth(problem) or _mean_bandwidth(problem, flat)
    narrowest = _narrowest(problem, bandwidth["bandwidth"])
    stats: dict[str, Any] = dict(named_as_arviz(draws.sample_stats))
    stats["nearest_example"], stats["nearest_ratio"] = nearest_examples(
        flat[problem.prior_name], problem.prior, same_examples(problem, narrowest)
    )
    if found.chi_square is not None:
        stats["chi_square"] = found.chi_square

    def by_chain(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {n: np.reshape(v, (chains, -1, *np.shape(v)[1:])) for n, v in values.items()}

    observed = {name: problem.data[name] for name in data_sites(problem)}
    groups = {
        "/posterior": dataset({**latents, **by_chain(found.deterministics)}, _LEAD),
        "/sample_stats": dataset(
            {name: np.reshape(value, (chains, length)) for name, value in stats.items()}, _LEAD
        ),
        "/log_likelihood": _at_kept(problem, by_chain(found.log_likelihood), kept, length),
        "/posterior_predictive": _at_kept(problem, by_chain(found.predictive), kept, length),
        "/observed_data": dataset(observed, (), masks(problem)),
        "/constant_data": constant_data(problem, _batches.BATCH_ELEMENTS),
        "/examples": at_examples(problem, draws, found, narrowest),
    }
    if prior is not None:
        groups |= _of_prior(problem, prior)
    if truth is not None:
        groups["/truth"] = dataset({**deterministics_at(problem, truth), **truth}, ())
    tree = xr.DataTree.from_dict({n: g for n, g in groups.items() if g.data_vars})
    tree.attrs.update(
        {
            "prior_site": problem.prior_name,
            "num_data": problem.num_data,
            "latent_sites": json.dumps(list(latents)),
            "independent_draws": int(draws.independent),
            **({"exchangeable_draws": 1} if draws.exchangeable else {}),
            "num_failed_draws": _tell_failed_draws(found.failed),
            "num_predictive_evaluations": found.num_evaluations,
            "num_example_evaluations": num_example_evaluations(problem, truth is not None),
            **({} if prior is None else {"num_prior_evaluations": prior.num_evaluations}),
            **bandwidth,
            **draws.numbers,
        }
    )
    return tree


def _of_prior(problem: InverseProblem, prior: PriorDraws) -> dict[str, xr.Dataset]:
    length = prior.num_evaluations
    kept = _kept_draws(length, _num_predicted(problem))
    predicted = {name: values[None, kept] for name, values in prior.predictive.items()}
    return {
        "/prior": dataset({name: values[None] for name, values in prior.sites.items()}, _LEAD),
        "/prior_predictive": _at_kept(problem, predicted, kept, length),
    }


def _at_kept(
    problem: InverseProblem, values: Mapping[str, Any], kept: np.ndarray, length: int
) -> xr.Dataset:
    """A group of observed sites that may be thinned, and says how."""
    group = dataset(values, _LEAD, masks(problem), draws=kept)
    group.attrs.update(_thinned(kept, length))
    return group


def _tell_failed_draws(failed: np.ndarray) -> int:
    """Warn of draws at which the simulation fails, and count them."""
    numbers = np.flatnonzero(failed)
    return tell_count("the posterior", len(numbers), len(failed), "draws", first_few(numbers))


def _num_predicted(problem: InverseProblem) -> int:
    """Numbers of one prediction, without masked data."""
    kept = masks(problem)
    shares = {name: float(np.mean(mask)) for name, mask in kept.items()}
    sizes = {name: problem.data[name].size for name in data_sites(problem)}
    return sum(round(size * shares.get(name, 1.0)) for name, size in sizes.items())


def _kept_draws(length: int, numbers: int) -> np.ndarray:
    """Numbers of evenly spaced draws, all of them where a group may hold them.

    Args:
        length: draws of a chain.
        numbers: what a group holds for one draw of each chain.
    """
    most = _batches.items_that_fit(numbers)
    return np.arange(0, length, -(-length // most))


def _thinned(kept: np.ndarray, length: int) -> dict[str, str]:
    """The attribute that says how a group was thinned; none where it was not."""
    if len(kept) == length:
        return {}
    step = int(kept[1]) if len(kept) > 1 else length
    return {
        "thinned": f"one draw in {step} of the {length} of a chain, so that the group stays below "
        f"{_batches.BATCH_ELEMENTS} numbers"
    }


def _noise_key(draws: np.ndarray) -> jax.Array:
    """A random key that the draws decide: equal draws have equal predictions."""
    return jax.random.fold_in(jax.random.key(0), zlib.crc32(np.ascontiguousarray(draws).tobytes()))


def _bandwidth(problem: InverseProblem) -> dict[str, float]:
    return {} if problem.extra_latents else {"bandwidth": float(problem.prior.bandwidth)}


def _mean_bandwidth(problem: InverseProblem, latents: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean over the draws of a bandwidth that other latent sites may decide."""
    others = {name: jnp.asarray(latents[name]) for name in problem.extra_latents}
    # compiled, so that the forward solves, whose results are not used, are not made
    return {"bandwidth": float(np.mean(_bandwidths(problem, others), dtype=float))}


@jax.jit
def _bandwidths(problem: InverseProblem, others: Mapping[str, jax.Array]) -> jax.Array:
    return jax.vmap(lambda given: problem.prior_given(**given).bandwidth)(others)


def _narrowest(problem: InverseProblem, bandwidth: float) -> float:
    """The smallest standard deviation that a component of the prior has in any direction."""
    scales = problem.prior.component_direction_scales
    return min(bandwidth, float(jnp.min(scales, initial=bandwidth)))


__all__ = ["to_datatree", "tree_of_draws"]
