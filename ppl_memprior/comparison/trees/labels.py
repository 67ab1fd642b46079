"""Labels of draws: names of dimensions, coordinates, units and the truth, checked before any work.

Coordinates and units do not enter any draw, so stored trees take new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr

from ppl_memprior._arrays import real_array
from ppl_memprior.comparison.trees.constant_data import examples_name
from ppl_memprior.comparison.trees.dims import (
    FIELD_DIMS,
    NUMBERED,
    RESERVED,
    datum_dim,
    datum_index,
    event_dims,
    numbered,
)
from ppl_memprior.comparison.trees.observed_sites import data_sites
from ppl_memprior.problem.inverse_problem import InverseProblem

Dims = Mapping[str, tuple[str, ...]]
#: Groups of a tree whose variables are sites.
_SITE_GROUPS = (
    *("posterior", "examples", "truth", "prior", "observed_data"),
    *("log_likelihood", "posterior_predictive", "prior_predictive"),
)


def site_shapes(problem: InverseProblem) -> dict[str, tuple[int, ...]]:
    """Shapes of the sites that a tree holds: the prior's first, then extra latents, deterministics.

    The model is traced abstractly: no forward solve is made.
    """

    def sites(x: jax.Array) -> dict[str, jax.Array]:
        others = problem.draw_extra_latents(x)
        return {**others, **problem.deterministics(x, **others)}

    x = jax.ShapeDtypeStruct(problem.event_shape, jax.dtypes.canonicalize_dtype(float))
    shapes = jax.eval_shape(sites, x)
    names = (*problem.extra_latents, *problem.deterministic_names)
    return {problem.prior_name: problem.event_shape, **{n: tuple(shapes[n].shape) for n in names}}


def field_shape(
    shapes: Mapping[str, tuple[int, ...]], coords: Mapping[str, Any]
) -> tuple[int, ...] | None:
    """Shape of the sites whose dimensions are `depth` and `distance`: what the coordinates say.

    Without their coordinates nothing tells a field from another array of two dimensions, such as
    an image or a matrix, and none is one.

    Args:
        shapes: event shapes of the sites, by name.
        coords: coordinate values of dimensions.

    Raises:
        ValueError: coordinates of `depth` or `distance` that fit no site.
    """
    lengths = {dim: np.size(coords[dim]) for dim in FIELD_DIMS if dim in coords}
    if not lengths:
        return None
    planes = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    for shape in planes.values():
        if all(lengths.get(dim, n) == n for dim, n in zip(FIELD_DIMS, shape, strict=True)):
            return shape
    given = " and ".join(f"{count} values of {dim!r}" for dim, count in lengths.items())
    raise ValueError(
        f"coords has {given}, which fit no site of two dimensions (depth, distance): "
        + (", ".join(f"{name!r} has shape {shape}" for name, shape in planes.items()) or "none")
    )


def data_shapes(problem: InverseProblem) -> dict[str, tuple[int, ...]]:
    """Shapes of the observed sites."""
    return {name: tuple(problem.data[name].shape) for name in data_sites(problem)}


def check_site_names(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a site whose draws could not be stored under its name."""
    latents = (problem.prior_name, *problem.extra_latents)
    for name in (*latents, *problem.deterministic_names, *problem.observed):
        if name in RESERVED or "/" in name:
            raise ValueError(
                f"the site {name!r} cannot be stored under that name, which "
                f"{'means a group of groups' if '/' in name else 'the comparison uses itself'}: "
                "rename it (numpyro.handlers.scope takes divider='.')"
            )


def checked_dims(problem: InverseProblem, dims: Any) -> dict[str, tuple[str, ...]]:
    """Names of dimensions by site: latent, deterministic or observed.

    Args:
        problem: whose sites they are.
        dims: by the site's name, a name for each axis of its event, `{"data": ["shot", "time"]}`;
            or None.

    Raises:
        TypeError: no mapping, or names that are no list of texts.
        ValueError: an unknown site, another number of names than axes, a name that is taken or
            given twice, or a name that stands for two sizes.
    """
    shapes = {**site_shapes(problem), **data_shapes(problem)}
    given = _mapping("dims", dims, "{'velocity': ['depth', 'distance']}")
    for site, names in given.items():
        if site not in shapes:
            raise ValueError(
                f"dims names the site {site!r}, which the model does not have; its sites are "
                f"{list(shapes)}"
            )
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise TypeError(
                f"dims[{site!r}] must be a list of {len(shapes[site])} names, got "
                f"{type(names).__name__} {names!r}"
            )
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"dims[{site!r}] must hold names, got {name!r}")
        if len(names) != len(shapes[site]):
            raise ValueError(
                f"dims[{site!r}] has {len(names)} names, {list(names)}, and the site has the shape "
                f"{shapes[site]}; give one name for each axis"
            )
        _check_dim_names(site, names, shapes)
    checked = {site: tuple(names) for site, names in given.items()}
    sizes: dict[str, tuple[int, str]] = {}
    for site, shape in shapes.items():
        for name, size in zip(checked.get(site, event_dims(site, shape, None)), shape, strict=True):
            other, owner = sizes.setdefault(name, (size, site))
            if other != size:
                raise ValueError(
                    f"dims gives the name {name!r} to an axis of {other} elements of {owner!r} and "
                    f"to one of {size} elements of {site!r}; give them two names"
                )
    return checked


def _check_dim_names(
    site: str, names: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    taken = {*RESERVED, *shapes, *(datum_dim(name) for name in shapes)}
    taken |= {datum_index(name, i) for name, shape in shapes.items() for i in range(len(shape))}
    for name in names:
        if name in taken or "/" in name or not name:
            raise ValueError(
                f"dims[{site!r}] names a dimension {name!r}, which "
                f"{'is taken' if name in taken else 'cannot be stored'}; choose another name"
            )
    if len(set(names)) < len(names):
        raise ValueError(
            f"dims[{site!r}] = {list(names)} gives a name twice; name each axis differently"
        )


def checked_coords(
    problem: InverseProblem, coords: Any, dims: Dims | None = None
) -> dict[str, np.ndarray]:
    """Coordinate values by dimension, as arrays.

    Args:
        problem: whose sites have the dimensions.
        coords: values by the dimension's name, or None.
        dims: names of dimensions by site, as `checked_dims` returns them.

    Raises:
        TypeError: no mapping, or coordinates that are not numbers.
        ValueError: an unknown dimension, another length, or coordinates that are not finite.
    """
    dims = dims or {}
    shapes = site_shapes(problem)
    coords = _mapping("coords", coords, "{'depth': [0.0, 10.0, ...]}")
    field = _field_shape(shapes, coords, dims)
    sizes: dict[str, int] = {}
    for name, shape in {**shapes, **data_shapes(problem)}.items():
        own = field if name in shapes else None
        sizes.update(zip(dims.get(name, event_dims(name, shape, own)), shape, strict=True))
    checked = {}
    for dim, values in coords.items():
        if dim not in sizes:
            known = ", ".join(f"{name!r} ({size})" for name, size in sizes.items())
            raise ValueError(
                f"coords names the dimension {dim!r}, which no site has; dimensions and their "
                f"sizes: {known or 'none, all sites are scalars'}; 'depth' and 'distance' name "
                "those of a site of two dimensions, and dims= gives other names"
            )
        array = np.asarray(real_array(f"coords[{dim!r}]", values))
        if array.shape != (sizes[dim],):
            raise ValueError(
                f"coords[{dim!r}] must have the shape ({sizes[dim]},), got {array.shape}; give one "
                "number for each cell"
            )
        _require_finite(f"coords[{dim!r}]", array)
        checked[dim] = array
    return checked


def _field_shape(
    shapes: Mapping[str, tuple[int, ...]], coords: Mapping[str, Any], dims: Dims
) -> tuple[int, ...] | None:
    """`field_shape` of the sites without names of their own; none where these use its names."""
    if any(set(FIELD_DIMS) & set(names) for names in dims.values()):
        return None
    return field_shape({n: shape for n, shape in shapes.items() if n not in dims}, coords)


def checked_units(problem: InverseProblem, units: Any) -> dict[str, str]:
    """Units by site.

    Raises:
        TypeError: no mapping, or a unit that is no text.
        ValueError: an unknown site.
    """
    checked = _mapping("units", units, "{'velocity': 'm/s'}")
    for name, unit in checked.items():
        _require_site("units", name, problem, data_sites(problem))
        if not isinstance(unit, str):
            raise TypeError(
                f"units[{name!r}] must be text such as 'm/s', got {type(unit).__name__} {unit!r}"
            )
    return checked


def checked_truth(problem: InverseProblem, truth: Any) -> dict[str, np.ndarray] | None:
    """True values by site, the prior's among them, as arrays; None where nothing is known.

    Raises:
        TypeError: values that are not real numbers.
        ValueError: an unknown site, no value of the prior's site, another shape, or values that
            are not finite.
    """
    if truth is None:
        return None
    values = dict(truth) if isinstance(truth, Mapping) else {problem.prior_name: truth}
    shapes = site_shapes(problem)
    for name in values:
        _require_site("truth", name, problem)
    if values.get(problem.prior_name) is None:
        raise ValueError(
            f"truth must give the prior's site {problem.prior_name!r} a value of event shape "
            f"{problem.event_shape}, got values of {list(values)} only"
        )
    checked = {}
    for name, value in values.items():
        array = np.asarray(real_array(f"truth of the site {name!r}", value))
        if array.shape != shapes[name]:
            raise ValueError(
                f"truth of the site {name!r} must have the event shape {shapes[name]}, got "
                f"{array.shape}"
            )
        _require_finite(f"truth of the site {name!r}", array)
        checked[name] = array
    return checked


def labelled(
    tree: xr.DataTree,
    coords: Mapping[str, np.ndarray],
    units: Mapping[str, str],
    dims: Dims | None = None,
) -> xr.DataTree:
    """A copy of the tree with these coordinates, units and dimensions in place of its own.

    Coordinates of `depth` or `distance` give these names to the dimensions of the fields.

    Args:
        tree: as `to_datatree` or an earlier call returns it.
        coords: as `checked_coords` returns them.
        units: as `checked_units` returns them.
        dims: as `checked_dims` returns them.
    """
    dims = dims or {}
    posterior = tree["posterior"].to_dataset()
    shapes = {str(name): _event_shape(values) for name, values in posterior.data_vars.items()}
    field = _field_shape(shapes, coords, dims)
    prior_site = str(tree.attrs["prior_site"])
    groups = {}
    axes = {*coords, *(dim for names in dims.values() for dim in names)}
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        variables = {}
        for name, values in dataset.data_vars.items():
            site = prior_site if name == examples_name(prior_site) else str(name)
            is_site = node.name in _SITE_GROUPS or site != name
            attrs = {key: value for key, value in values.attrs.items() if key != "units"}
            if is_site and site in units and node.name != "log_likelihood":
                attrs["units"] = units[site]
            named = values.dims
            if is_site:
                own = field if site in shapes else None
                named = _named_dims(values, site, dims.get(site), own)
            variables[_unlike(str(name), is_site, axes)] = (named, values.to_numpy(), attrs)
        kept = {
            name: values
            for name, values in dataset.coords.items()
            if {*NUMBERED, *(datum_dim(str(site)) for site in dataset.data_vars)} & set(values.dims)
        }
        relabelled = xr.Dataset(variables, coords=kept, attrs=dataset.attrs)
        known = {dim: values for dim, values in coords.items() if dim in relabelled.dims}
        groups[node.path] = numbered(relabelled.assign_coords(known))
    copy = xr.DataTree.from_dict(groups)
    copy.attrs.update(tree.attrs)
    return copy


def _unlike(name: str, is_site: bool, dims: set[str]) -> str:
    """The name of a variable; of an argument of the model, another one where a dimension has it."""
    return f"{name}_argument" if name in dims and not is_site else name


def _event_shape(values: xr.DataArray) -> tuple[int, ...]:
    return tuple(size for dim, size in values.sizes.items() if dim not in NUMBERED)


def _named_dims(
    values: xr.DataArray, site: str, names: tuple[str, ...] | None, field: tuple[int, ...] | None
) -> tuple[str, ...]:
    """The dimensions of a site's values: the leading ones, then those of its axes by position.

    A log-likelihood may have fewer axes than its site. Masked data stand along one dimension, and
    the axes behind it are the site's last ones.
    """
    lead = [str(dim) for dim in values.dims if dim in NUMBERED]
    axes = [str(dim) for dim in values.dims if dim not in NUMBERED]
    if datum_dim(site) in axes:
        last = axes[1:]
        return (*lead, axes[0], *(names[-len(last) :] if names and last else last))
    default = event_dims(site, _event_shape(values), field)
    return (*lead, *(default if names is None else names[: len(axes)]))


def _mapping(name: str, values: Any, example: str) -> dict[Any, Any]:
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise TypeError(f"{name} must be a dict such as {example}, got {type(values).__name__}")
    return dict(values)


def _require_site(
    argument: str, name: Any, problem: InverseProblem, others: tuple[str, ...] = ()
) -> None:
    sites = (problem.prior_name, *problem.extra_latents, *problem.deterministic_names, *others)
    if name not in sites:
        raise ValueError(
            f"{argument} names the site {name!r}, which the model's draws do not have; their sites "
            f"are {list(sites)}"
        )


def _require_finite(name: str, array: np.ndarray) -> None:
    if not np.all(np.isfinite(array)):
        count = int(np.sum(~np.isfinite(array)))
        raise ValueError(
            f"{name} must be finite, and {count} of {array.size} numbers are NaN or infinite"
        )
