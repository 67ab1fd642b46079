"""Names of dimensions: those that trees use themselves, and those of a site's axes.

What a user may name, and errors, are left to `labels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

_COUNTED = "numbered"
FIELD_DIMS = ("depth", "distance")
#: Dimensions that trees number themselves.
NUMBERED = ("chain", "draw", "example")
#: Dimensions and variables of the trees: no site, and no other dimension, can have such a name.
RESERVED = (
    *(*NUMBERED, "chi_square", "responsibilities"),
    *("prior_weight", "mean_responsibility", "posterior_weight", "representative"),
    "leave_one_out_ratio",
)


def event_dims(name: str, shape: tuple[int, ...], field: tuple[int, ...] | None) -> tuple[str, ...]:
    """Names of a site's dimensions: `depth` and `distance` for fields on the problem's grid."""
    return FIELD_DIMS if shape == field else tuple(f"{name}_dim_{i}" for i in range(len(shape)))


def datum_dim(site: str) -> str:
    """The one dimension of a site's data where some are masked, or where there is one number."""
    return f"{site}_datum"


def datum_index(site: str, axis: int) -> str:
    """The coordinate of `datum_dim` that says where in the data's axis a datum stands."""
    return f"{site}_index_{axis}"


def dataset(
    values: Mapping[str, Any],
    lead: Sequence[str],
    masks: Mapping[str, np.ndarray] | None = None,
    draws: np.ndarray | None = None,
) -> xr.Dataset:
    """Arrays with named dimensions, `<site>_dim_<i>` after the leading ones.

    Args:
        values: arrays by the site's name, shape (*lead, *event_shape).
        lead: names of the leading dimensions, which are numbered.
        masks: of observed sites: which data count, by site, shape of the first axes of the event.
            The sites named keep these data only. A single number stands along a dimension of
            length one, which ArviZ's figures of data need. None for other sites.
        draws: numbers of the draws, where they are not 0, 1, ...
    """
    arrays: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    for name, value in values.items():
        array = np.asarray(value)
        outer, event = array.shape[: len(lead)], array.shape[len(lead) :]
        dims = event_dims(name, event, None)
        if masks is not None and name in masks:
            mask = masks[name]
            array = array.reshape(*outer, mask.size, *event[mask.ndim :])
            array = np.compress(mask.ravel(), array, axis=len(lead))
            dims = (datum_dim(name), *dims[mask.ndim :])
            for axis, places in enumerate(np.nonzero(mask)):
                coords[datum_index(name, axis)] = (datum_dim(name), places)
        elif masks is not None and not event:
            array, dims = array[..., None], (datum_dim(name),)
        arrays[name] = ((*lead, *dims), array)
    if draws is not None:
        coords["draw"] = draws
    return numbered(xr.Dataset(arrays, coords=coords if arrays else None))


def numbered(found: xr.Dataset) -> xr.Dataset:
    """The dataset with coordinates 0, 1, ... of the dimensions that have none.

    Some figures of ArviZ need a coordinate of every dimension. The attribute `numbered` tells these
    from coordinates that somebody gave.
    """
    missing = {
        dim: (dim, np.arange(size), {_COUNTED: 1})
        for dim, size in found.sizes.items()
        if dim not in found.coords
    }
    return found.assign_coords(missing)


def is_numbered(coordinate: xr.DataArray) -> bool:
    """Whether a coordinate does nothing but count."""
    return _COUNTED in coordinate.attrs
