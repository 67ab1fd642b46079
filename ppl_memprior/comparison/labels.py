"""Labels of draws: names of dimensions, coordinates, units and the truth, checked before any work.

Coordinates and units do not enter any draw, so stored trees take new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import xarray as xr

from ppl_memprior._arrays import real_array
from ppl_memprior.problem import InverseProblem

FIELD_DIMS = ("depth", "distance")
#: Dimensions that `run` numbers itself.
_NUMBERED = ("chain", "draw", "example")


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


def event_dims(name: str, shape: tuple[int, ...], field: tuple[int, ...] | None) -> tuple[str, ...]:
    """Names of a site's dimensions: `depth` and `distance` for fields on the problem's grid."""
    return FIELD_DIMS if shape == field else tuple(f"{name}_dim_{i}" for i in range(len(shape)))


def checked_coords(problem: InverseProblem, coords: Any) -> dict[str, np.ndarray]:
    """Coordinate values by dimension, as arrays.

    Raises:
        TypeError: no mapping, or coordinates that are not numbers.
        ValueError: an unknown dimension, another length, or coordinates that are not finite.
    """
    shapes = site_shapes(problem)
    coords = _mapping("coords", coords, "{'depth': [0.0, 10.0, ...]}")
    field = field_shape(shapes, coords)
    sizes = {
        dim: size
        for name, shape in shapes.items()
        for dim, size in zip(event_dims(name, shape, field), shape, strict=True)
    }
    checked = {}
    for dim, values in coords.items():
        if dim not in sizes:
            known = ", ".join(f"{name!r} ({size})" for name, size in sizes.items())
            raise ValueError(
                f"coords names the dimension {dim!r}, which no site has; dimensions and their "
                f"sizes: {known or 'none, all sites are scalars'}; 'depth' and 'distance' name "
                "those of a site of two dimensions"
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


def checked_units(problem: InverseProblem, units: Any) -> dict[str, str]:
    """Units by site.

    Raises:
        TypeError: no mapping, or a unit that is no text.
        ValueError: an unknown site.
    """
    checked = _mapping("units", units, "{'velocity': 'm/s'}")
    for name, unit in checked.items():
        _require_site("units", name, problem)
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
    tree: xr.DataTree, coords: Mapping[str, np.ndarray], units: Mapping[str, str]
) -> xr.DataTree:
    """A copy of the tree with these coordinates and units in place of its own.

    Coordinates of `depth` or `distance` give these names to the dimensions of the fields.
    """
    posterior = tree["posterior"].to_dataset()
    shapes = {str(name): _event_shape(values) for name, values in posterior.data_vars.items()}
    field = field_shape(shapes, coords)
    groups = {}
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        numbers = {name: values for name, values in dataset.coords.items() if name in _NUMBERED}
        variables = {}
        for name, values in dataset.data_vars.items():
            lead = [dim for dim in values.dims if dim in _NUMBERED]
            dims = (*lead, *event_dims(str(name), _event_shape(values), field))
            attrs = {key: value for key, value in values.attrs.items() if key != "units"}
            if name in units:
                attrs["units"] = units[str(name)]
            variables[name] = (dims, values.to_numpy(), attrs)
        relabelled = xr.Dataset(variables, coords=numbers, attrs=dataset.attrs)
        known = {dim: values for dim, values in coords.items() if dim in relabelled.dims}
        groups[node.path] = relabelled.assign_coords(known)
    copy = xr.DataTree.from_dict(groups)
    copy.attrs.update(tree.attrs)
    return copy


def _event_shape(values: xr.DataArray) -> tuple[int, ...]:
    return tuple(size for dim, size in values.sizes.items() if dim not in _NUMBERED)


def _mapping(name: str, values: Any, example: str) -> dict[Any, Any]:
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise TypeError(f"{name} must be a dict such as {example}, got {type(values).__name__}")
    return dict(values)


def _require_site(argument: str, name: Any, problem: InverseProblem) -> None:
    sites = (problem.prior_name, *problem.extra_latents, *problem.deterministic_names)
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
