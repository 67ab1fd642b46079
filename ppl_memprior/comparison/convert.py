"""Draws of a method into a labelled `DataTree`, and trees to and from one NetCDF file.

Every tree carries what its report needs: the draws, their statistics, the examples, the truth if
it is known, and where it came from. `compare.py` reads trees and never asks a method again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.typing import ArrayLike

from ppl_memprior._failures import first_few, tell_count
from ppl_memprior._files import complete_or_nothing
from ppl_memprior._method_checks import methods_that_take
from ppl_memprior._progress import map_in_batches
from ppl_memprior.comparison.labels import event_dims
from ppl_memprior.diagnostics import distinct_examples, nearest_examples
from ppl_memprior.problem import InverseProblem

#: Dimensions and variables of the trees: no site can have such a name.
RESERVED = (
    *("chain", "draw", "example", "chi_square", "responsibilities"),
    *("prior_weight", "mean_responsibility", "posterior_weight", "representative"),
)


@dataclass(frozen=True)
class Draws:
    """What a method hands over: draws of the latent sites, and what it knows of itself.

    Attributes:
        latents: each latent site's draws, shape (chains, draws, *event_shape).
        independent: the draws are independent, not a Markov chain.
        sample_stats: further numbers of each draw, shape (chains, draws).
        example_weights: exact or closed-form posterior weights of the examples, shape (N,).
        attrs: scalars to keep with the draws (log_evidence, evaluation counts, ...);
            `exchangeable_draws` is 1 where the draws of a chain have no order.
    """

    latents: Mapping[str, ArrayLike]
    independent: bool
    sample_stats: Mapping[str, ArrayLike] = field(default_factory=dict)
    example_weights: ArrayLike | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)


def to_datatree(
    problem: InverseProblem,
    draws: Draws,
    *,
    truth: Mapping[str, np.ndarray] | None = None,
    progress: bool = False,
) -> xr.DataTree:
    """Name the draws' dimensions and add what is derived from them.

    Args:
        problem: where the draws come from.
        draws: a method's result.
        truth: true values by site, as `labels.checked_truth` returns them, or None.
        progress: show a bar over the forward solves, on stderr.

    Returns:
        A tree with the groups `posterior` (the latent and deterministic sites), `sample_stats`
        (with `chi_square`, `nearest_example`, `nearest_ratio`, and the method's own),
        `examples` (the prior's site and deterministic sites at each example, `prior_weight`,
        `mean_responsibility`, `posterior_weight` where the method has it, and `representative`,
        the number of the first example that is the same at the scale of the bandwidth) and
        `truth`. `nearest_example` counts examples that are the same as their representative.
        The attribute `bandwidth` of a latent bandwidth is its mean over the draws.
        Draws at which the simulation fails have a `chi_square` that is not finite; the attribute
        `num_failed_draws` counts them.
    """
    latents = {name: np.asarray(value) for name, value in draws.latents.items()}
    x = latents[problem.prior_name]
    chains = x.shape[:2]
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in latents.items()}
    derived = _at_draws(problem, flat, progress)
    responsibility = derived.pop("responsibilities").mean(axis=0)
    bandwidth = _bandwidth(problem) or _mean_bandwidth(problem, flat)
    same = distinct_examples(problem.examples, _narrowest(problem, bandwidth["bandwidth"]))
    index, ratio = nearest_examples(flat[problem.prior_name], problem.examples, same)
    stats: dict[str, Any] = dict(draws.sample_stats)
    stats["nearest_example"], stats["nearest_ratio"] = index, ratio
    num_failed_draws = 0
    if "chi_square" in derived:
        stats["chi_square"] = derived.pop("chi_square")
        failed = np.flatnonzero(~np.isfinite(stats["chi_square"]))
        num_failed_draws = tell_count(
            "the posterior", len(failed), len(stats["chi_square"]), "draws", first_few(failed)
        )

    posterior = {**latents, **{n: v.reshape(*chains, *v.shape[1:]) for n, v in derived.items()}}

    def group(values: Mapping[str, Any], *lead: str) -> xr.Dataset:
        arrays = {
            name: (
                (*lead, *event_dims(name, np.shape(value)[len(lead) :], None)),
                np.asarray(value),
            )
            for name, value in values.items()
        }
        dataset = xr.Dataset(arrays)
        return dataset.assign_coords({dim: np.arange(dataset.sizes[dim]) for dim in lead})

    examples: dict[str, Any] = dict(_at_fields(problem, problem.examples))
    examples["prior_weight"] = np.exp(np.asarray(problem.prior.log_weights))
    examples["mean_responsibility"] = responsibility
    examples["representative"] = same
    if draws.example_weights is not None:
        examples["posterior_weight"] = draws.example_weights
    groups = {
        "/posterior": group(posterior, "chain", "draw"),
        "/sample_stats": group(
            {name: np.reshape(value, chains) for name, value in stats.items()}, "chain", "draw"
        ),
        "/examples": group(examples, "example"),
    }
    if truth is not None:
        at_truth = _at_fields(problem, jnp.asarray(truth[problem.prior_name])[None])
        groups["/truth"] = group({**{n: v[0] for n, v in at_truth.items()}, **truth})
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(
        {
            "prior_site": problem.prior_name,
            "num_data": problem.num_data,
            "latent_sites": json.dumps(list(latents)),
            "methods_that_apply": json.dumps(methods_that_take(problem)),
            "independent_draws": int(draws.independent),
            "num_failed_draws": num_failed_draws,
            **bandwidth,
            **draws.attrs,
        }
    )
    return tree


def check_site_names(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a site whose draws could not be stored under its name."""
    for name in (problem.prior_name, *problem.extra_latents, *problem.deterministic_names):
        if name in RESERVED or "/" in name:
            raise ValueError(
                f"the site {name!r} cannot be stored under that name, which "
                f"{'means a group of groups' if '/' in name else 'the comparison uses itself'}: "
                "rename it (numpyro.handlers.scope takes divider='.')"
            )


def _bandwidth(problem: InverseProblem) -> dict[str, float]:
    return {} if problem.extra_latents else {"bandwidth": float(problem.prior.bandwidth)}


def _mean_bandwidth(problem: InverseProblem, latents: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean over the draws of a bandwidth that other latent sites may decide."""
    others = {name: jnp.asarray(latents[name]) for name in problem.extra_latents}
    # compiled, so that the forward solves, whose results are not used, are not made
    read = jax.jit(jax.vmap(lambda given: problem.prior_given(**given).bandwidth))
    return {"bandwidth": float(np.mean(read(others), dtype=float))}


def _narrowest(problem: InverseProblem, bandwidth: float) -> float:
    """The smallest standard deviation that a component of the prior has in any direction."""
    scales = problem.prior.component_direction_scales
    return min(bandwidth, float(jnp.min(scales, initial=bandwidth)))


def _at_fields(problem: InverseProblem, x: jax.Array) -> dict[str, np.ndarray]:
    """The prior's site and the deterministic sites it alone decides, at each of x."""
    values = {problem.prior_name: np.asarray(x)}
    if problem.deterministic_names and not problem.extra_latents:
        values |= map_in_batches(problem.deterministics, x, elements_per_item=problem.num_data)
    return values


def _at_draws(
    problem: InverseProblem, latents: dict[str, np.ndarray], progress: bool
) -> dict[str, np.ndarray]:
    """Deterministic sites, responsibilities and chi-square of each draw.

    Draws that repeat an earlier one (every draw of a lookup does) are not solved for again.
    """
    names = list(latents)
    rows = np.concatenate([latents[name].reshape(len(latents[name]), -1) for name in names], 1)
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)

    def derive(values: dict[str, jax.Array]) -> dict[str, jax.Array]:
        others = {name: values[name] for name in problem.extra_latents}
        x = values[problem.prior_name]
        out = dict(problem.deterministics(x, **others))
        out["responsibilities"] = problem.prior_given(**others).responsibilities(x)
        if problem.has_residual:
            out["chi_square"] = problem.chi_square(x, **others)
        return out

    unique = {name: jnp.asarray(latents[name][first]) for name in names}
    derived = map_in_batches(
        derive,
        unique,
        elements_per_item=problem.num_data + rows.shape[1],
        description="forward solves at the draws",
        progress=progress,
    )
    return {name: value[inverse.ravel()] for name, value in derived.items()}


def save_trees(trees: Mapping[str, xr.DataTree], path: str | os.PathLike[str]) -> Path:
    """Write all trees as one NetCDF file, whole or not at all.

    Args:
        trees: by the method's name; each becomes a group of that name.
        path: where to; an existing file is replaced only by a complete one.

    Returns:
        The path.
    """
    with complete_or_nothing(path) as temporary:
        xr.DataTree.from_dict(dict(trees)).to_netcdf(temporary, engine="h5netcdf")
    return Path(path)


def load_trees(path: str | os.PathLike[str]) -> dict[str, xr.DataTree]:
    """Read what `save_trees` wrote.

    Raises:
        ValueError: the file is missing, not NetCDF, or holds no draws.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        found = "is a folder" if os.path.isdir(name) else "does not exist"
        raise ValueError(f"{name} cannot be read as stored draws: it {found}")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as root:
            root.load()
            trees = {
                name: xr.DataTree.from_dict(
                    {key.removeprefix(child.path) or "/": ds for key, ds in _datasets(child)}
                )
                for name, child in root.children.items()
            }
            for name, child in root.children.items():
                trees[name].attrs.update({k: _plain(v) for k, v in child.attrs.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} cannot be read as stored draws: {reason}") from error
    if not trees or any(
        not {"posterior", "examples"} <= set(tree.children) or "prior_site" not in tree.attrs
        for tree in trees.values()
    ):
        raise ValueError(
            f"{name} holds no posterior draws as ppl_memprior.run stores them; its groups are "
            f"{list(trees)}"
        )
    return trees


def _datasets(tree: xr.DataTree) -> list[tuple[str, xr.Dataset]]:
    return [(node.path, node.to_dataset(inherit=False)) for node in tree.subtree]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


__all__ = ["Draws", "load_trees", "save_trees", "to_datatree"]
