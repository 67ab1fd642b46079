"""The data of a model: arrays of any kind converted at the border, `obs_mask=` read as a mask.

`InverseProblem` runs models inside `ObservedData`, so that every method sees the same data. What
the sites must be like is left to `_model_sites`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.primitives import Messenger

from ppl_memprior._arrays import real_array

_OBSERVED, _UNOBSERVED = "_observed", "_unobserved"  # what NumPyro makes of a site with `obs_mask=`


def model_argument(name: str, value: Any) -> Any:
    """A model's argument, as an array where it can only be data.

    Arrays of NumPy, PyTorch, pandas (a Series) and xarray, and lists of numbers, also nested, are
    converted; tuples, tables, JAX arrays and everything else are settings and stay what they are.

    Raises:
        TypeError: an array that does not hold numbers, or a ragged list.
    """
    if isinstance(value, list):
        leaves = jax.tree.leaves(value)
        numbers = leaves and all(isinstance(leaf, complex | float | int) for leaf in leaves)
        return real_array(name, value) if numbers or any(map(_is_tensor, leaves)) else value
    is_array = isinstance(value, np.ndarray) or _is_tensor(value) or hasattr(value, "to_numpy")
    # a complex array may be an operator: it is refused where it turns out to be data
    if not is_array or hasattr(value, "columns") or "complex" in str(value.dtype):
        return value
    array = real_array(name, value)
    # the problem keeps the data it was made with, whatever happens to the array later
    shared = isinstance(array, np.ndarray) and not isinstance(array, np.memmap)
    return array.copy() if shared else array


def numeric(name: str, value: Any) -> Any:
    """A number as it is, anything else as an array of real numbers; see `real_array`."""
    return value if isinstance(value, float | int) else real_array(name, value)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") and hasattr(value, "cpu")


class ObservedData(Messenger):
    """Run a model with its data as arrays, and without what `obs_mask=` makes up for missing data.

    NumPyro splits a site with `obs_mask=` in two: the data under the mask, and a latent site of
    values for those left out. Nothing but the data is left here, under the name of the site.
    A plate that shows the model a part of the data is refused.

    Args:
        fn: the model.
        masked: the sites with `obs_mask=`.
    """

    def __init__(self, fn: Callable[..., Any], masked: tuple[str, ...] = ()) -> None:
        super().__init__(fn)
        self.masked = masked

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "deterministic" and msg["name"] in self.masked:
            msg["stop"] = True
        if msg["type"] == "plate":
            _require_whole(msg["name"], *msg["args"])
        if msg["type"] != "sample":
            return
        site = msg["name"].removesuffix(_UNOBSERVED)
        if site != msg["name"] and site in self.masked and not msg["is_observed"]:
            msg["value"] = jnp.zeros(msg["fn"].shape())
            msg["stop"] = True  # no handler outside of this one sees it
            return
        site = msg["name"].removesuffix(_OBSERVED)
        if site != msg["name"] and site in self.masked:
            msg["name"] = site
        if msg["is_observed"]:
            msg["value"] = numeric(f"the data of site {msg['name']!r}", msg["value"])


def _require_whole(plate: str, size: int, subsample_size: int | None) -> None:
    if subsample_size is not None and subsample_size != size:
        raise ValueError(
            f"the plate {plate!r} shows the model {subsample_size} of its {size} elements at a "
            "time, and the posterior wants them all: leave out subsample_size"
        )


def unobserved(site: str) -> str:
    """Name of the latent site of what `obs_mask=` makes up for missing data of a site."""
    return site + _UNOBSERVED


def masked_sites(trace: dict[str, Any]) -> tuple[str, ...]:
    """The sites with `obs_mask=` of a model's trace."""
    return tuple(name for name in trace if _has_obs_mask(trace, name))


def with_masks(trace: dict[str, Any], masked: tuple[str, ...]) -> dict[str, Any]:
    """The trace as `ObservedData(model, masked)` would leave it: `obs_mask=` read as a mask."""
    names = {name + _OBSERVED: name for name in masked}
    left_out = {*masked, *map(unobserved, masked)}
    return {names.get(name, name): site for name, site in trace.items() if name not in left_out}


def _has_obs_mask(structure: dict[str, Any], name: str) -> bool:
    data, invented = (structure.get(name + suffix, {}) for suffix in (_OBSERVED, _UNOBSERVED))
    return (
        structure[name]["type"] == "deterministic"
        and data.get("type") == invented.get("type") == "sample"
        and data["is_observed"]
        and not invented["is_observed"]
        # NumPyro hands the same distribution to both
        and innermost(data["fn"]) is innermost(invented["fn"])
    )


def innermost(fn: Any) -> Any:
    """A distribution without its masks, plates, transformations and event dimensions."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn
