"""Draws that `run` did not make, as trees that a comparison reads beside those that it made.

Draws of another sampler say nothing of the examples, of chi-square or of predictions; all that is
computed here from the problem. What they cost is not known and stays out of the tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import xarray as xr
from numpyro.infer import MCMC

from ppl_memprior._arrays import real_array
from ppl_memprior.comparison.methods.registry import alternatives
from ppl_memprior.comparison.returned_draws import LEAST_DRAWS
from ppl_memprior.comparison.trees.datatree import tree_of_draws
from ppl_memprior.comparison.trees.dims import NUMBERED, datum_dim, is_numbered
from ppl_memprior.comparison.trees.labels import labelled, site_shapes
from ppl_memprior.comparison.trees.observed_sites import some_latents
from ppl_memprior.inference.draws import Cost, Draws
from ppl_memprior.problem._fingerprint import problem_fingerprint
from ppl_memprior.problem.inverse_problem import InverseProblem, require_problem

#: The attribute `method` of trees that are made here.
FOREIGN = "foreign"
_LEAD = ("chain", "draw")
# what NumPyro makes of a site with `obs_mask=`: the data, and a latent site of those left out
_OBS_MASK = ("_observed", "_unobserved")


def as_tree(name: str, draws: Any, problem: InverseProblem | None = None) -> xr.DataTree:
    """A posterior as a tree like those of `run`.

    Foreign draws are taken as Markov chains. Deterministic sites among them are computed again, and
    groups besides `posterior` and `sample_stats` are made anew from the problem, with one forward
    solve for each distinct draw.

    Args:
        name: of the posterior, for messages.
        draws: a tree of `run`, which is returned as it is; or a `DataTree` or ArviZ
            `InferenceData` with the group `posterior`; a NumPyro `MCMC` that has run; or arrays by
            the latent site's name, shape (chains, draws, *event_shape).
        problem: whose posterior the draws are from; needed for all but trees of `run`.

    Returns:
        A tree with the groups of `datatree.tree_of_draws`. Its attribute `method` is "foreign";
        `seconds` and the method's evaluations are left out. Statistics are those of the draws that
        have one number for each draw.

    Raises:
        TypeError: draws of another type, that are no real numbers, or no `InverseProblem`.
        ValueError: no problem; a latent site that is missing; a site that the model does not have;
            fewer than two dimensions; another event shape; another number of chains or draws than
            another site has; draws that are not finite (how many).
    """
    return draws if _is_of_run(draws) else _made(_foreign_draws(name, draws, problem), problem)


def _foreign_draws(name: str, draws: Any, problem: InverseProblem | None) -> Draws:
    """Foreign draws, read and checked."""
    values, stats = _read(name, draws)
    if problem is None:
        raise ValueError(
            f"the posterior {name!r} was not made by run: give the problem that its draws belong "
            "to, problem=InverseProblem(model, data=...)"
        )
    require_problem(problem, f"the posterior {name!r}")
    latents = _checked(name, values, problem)
    chains, length = latents[problem.prior_name].shape[:2]
    return Draws(
        latents=latents,
        cost=Cost(),
        sample_stats={n: v for n, v in stats.items() if np.shape(v) == (chains, length)},
    )


def _made(draws: Draws, problem: InverseProblem | None) -> xr.DataTree:
    """The tree of foreign draws, which have been checked."""
    assert problem is not None
    tree = tree_of_draws(problem, draws)
    tree.attrs.update(
        {
            "method": FOREIGN,
            "problem": problem_fingerprint(problem),
            "precision": str(jax.dtypes.canonicalize_dtype(float)),
            "methods_that_apply": alternatives(problem),
        }
    )
    return tree


def as_trees(
    runs: Mapping[str, Any], problem: InverseProblem | None = None
) -> dict[str, xr.DataTree]:
    """Posteriors by name, each as a tree like those of `run`; see `as_tree`.

    Where `run` made a tree of the same problem, foreign ones take its names of dimensions,
    coordinates, units and truth.

    Args:
        runs: posteriors by name.
        problem: whose posteriors they are; needed where `run` did not make one of them.

    Raises:
        TypeError, ValueError: as `as_tree`, before any draws are worked on.
    """
    foreign = {n: _foreign_draws(n, d, problem) for n, d in runs.items() if not _is_of_run(d)}
    trees = {n: _made(foreign[n], problem) if n in foreign else d for n, d in runs.items()}
    made = [tree for name, tree in trees.items() if tree is runs[name]]
    for name, tree in trees.items():
        alike = [other for other in made if other.attrs.get("problem") == tree.attrs.get("problem")]
        if tree is not runs[name] and alike:
            trees[name] = _labelled_as(tree, alike[0])
    return trees


def _is_of_run(draws: Any) -> bool:
    return (
        isinstance(draws, xr.DataTree)
        and "prior_site" in draws.attrs
        and {"posterior", "examples"} <= set(draws.children)
    )


def _read(name: str, draws: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The draws by site and their statistics, as arrays (chains, draws, ...)."""
    if isinstance(draws, MCMC):
        return _of_mcmc(name, draws)
    if hasattr(draws, "posterior"):  # a DataTree, or ArviZ's InferenceData
        stats = getattr(draws, "sample_stats", None)
        return _arrays(name, _variables(draws.posterior)), _statistics(stats)
    if isinstance(draws, xr.DataTree):
        raise ValueError(
            f"the posterior {name!r} is a DataTree without the group 'posterior'; its groups are "
            f"{list(draws.children)}"
        )
    if isinstance(draws, Mapping):
        return _arrays(name, dict(draws)), {}
    raise TypeError(
        f"the posterior {name!r} is a {type(draws).__name__}; give a DataTree, an InferenceData, "
        "an MCMC that has run, or a dict {site: array of shape (chains, draws, ...)}"
    )


def _of_mcmc(name: str, mcmc: MCMC) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        samples = mcmc.get_samples(group_by_chain=True)
        return samples, mcmc.get_extra_fields(group_by_chain=True)
    except (AssertionError, AttributeError, TypeError):  # how NumPyro says that nothing was run
        raise ValueError(
            f"the posterior {name!r} is an MCMC without draws; call mcmc.run(rng_key, ...)"
        ) from None


def _variables(group: Any) -> dict[Any, Any]:
    """The variables of a group, of a DataTree or an InferenceData."""
    return {key: group[key] for key in group.data_vars}


def _arrays(name: str, values: dict[Any, Any]) -> dict[str, Any]:
    """Labelled arrays with chain and draw in front; other arrays as they are."""
    found = {}
    for site, value in values.items():
        if isinstance(value, xr.DataArray):
            missing = [dim for dim in _LEAD if dim not in value.dims]
            if missing:
                raise ValueError(
                    f"the posterior {name!r} has draws of {site!r} with the dimensions "
                    f"{value.dims}; {missing[0]!r} is missing, value.expand_dims({missing[0]!r}) "
                    f"or value.rename({{...: {missing[0]!r}}})"
                )
            value = value.transpose(*_LEAD, ...)
        found[str(site)] = value
    return found


def _statistics(group: Any) -> dict[str, np.ndarray]:
    if group is None:
        return {}
    return {
        str(key): value.transpose(*_LEAD).to_numpy()
        for key, value in _variables(group).items()
        if set(value.dims) == set(_LEAD)
    }


def _checked(name: str, values: Mapping[str, Any], problem: InverseProblem) -> dict[str, Any]:
    """The draws of the latent sites as arrays in the precision of the problem."""
    x, others = some_latents(problem)
    wanted: dict[str, Any] = {problem.prior_name: x, **others}
    shapes = site_shapes(problem)
    derived = {*problem.deterministic_names, *problem.observed}
    derived |= {f"{site}{suffix}" for site in problem.observed for suffix in _OBS_MASK}
    unknown = [site for site in values if site not in wanted and site not in derived]
    missing = [site for site in wanted if site not in values]
    if unknown or missing:
        found = f"draws of {unknown}, which are" if unknown else f"no draws of {missing}, which are"
        raise ValueError(
            f"the posterior {name!r} has {found} {'no sites' if unknown else 'latent sites'} of "
            f"the model; its latent sites are {list(wanted)}, its deterministic sites "
            f"{list(problem.deterministic_names)}"
        )
    latents: dict[str, np.ndarray] = {}
    for site, like in wanted.items():
        what = f"the draws of {site!r} in the posterior {name!r}"
        array = np.asarray(real_array(what, values[site]))
        if array.ndim < 2 or array.shape[1:] == shapes[site] != array.shape[2:]:
            raise ValueError(
                f"{what} have the shape {array.shape}; the first two dimensions must be chains and "
                "draws: values[None] for one chain, get_samples(group_by_chain=True) of an MCMC"
            )
        if array.shape[2:] != shapes[site]:
            raise ValueError(
                f"{what} have the event shape {array.shape[2:]} after chains and draws, and the "
                f"site has {shapes[site]}"
            )
        counts = np.shape(latents.get(problem.prior_name, array))[:2]
        if array.size == 0 or array.shape[:2] != counts:
            raise ValueError(
                f"{what} are {array.shape[0]} chains of {array.shape[1]} draws; all sites must "
                "have as many, and at least one"
            )
        if array.shape[1] < LEAST_DRAWS:
            raise ValueError(
                f"{what} are {array.shape[0]} chains of {array.shape[1]} draws; diagnostics of "
                f"chains need at least {LEAST_DRAWS} draws of each"
            )
        array = array.astype(like.dtype)
        bad = int(np.sum(~np.isfinite(array)))
        if bad:
            raise ValueError(
                f"{what} hold {bad} of {array.size} numbers that are NaN or infinite; leave these "
                "draws out"
            )
        latents[site] = array
    return latents


def _labelled_as(tree: xr.DataTree, other: xr.DataTree) -> xr.DataTree:
    """The tree with the dimensions, coordinates, units and truth of another one."""
    dims: dict[str, tuple[str, ...]] = {}
    units: dict[str, str] = {}
    coords: dict[str, np.ndarray] = {}
    for group in ("posterior", "observed_data"):
        if group not in other.children:
            continue
        dataset = other[group].to_dataset()
        for key, values in dataset.data_vars.items():
            axes = tuple(str(dim) for dim in values.dims if dim not in NUMBERED)
            if datum_dim(str(key)) not in axes:
                dims[str(key)] = axes
            if "units" in values.attrs:
                units[str(key)] = values.attrs["units"]
        coords |= {
            str(dim): dataset[dim].to_numpy()
            for dim in dataset.dims
            if dim in dataset.coords and not (dim in NUMBERED or is_numbered(dataset[dim]))
        }
    found = labelled(tree, coords, units, dims)
    if "truth" in other.children:
        found["truth"] = xr.DataTree(other["truth"].to_dataset())
    return found


__all__ = ["as_tree", "as_trees"]
