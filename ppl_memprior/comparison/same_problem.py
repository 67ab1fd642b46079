"""Whether posteriors are of one problem: what a comparison asks of them before any work."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from ppl_memprior.comparison.identity import FINGERPRINT_HINT, value_text

_REMEDY = (
    "Compare them separately; where they are one problem nevertheless, delete the attribute "
    "'problem' of each tree"
)


def check_names(runs: Any) -> None:
    """Raise for what is no collection of posteriors by name.

    Raises:
        TypeError: something else than posteriors by name.
        ValueError: no posterior.
    """
    if not isinstance(runs, Mapping):
        raise TypeError(
            "compare takes posteriors by name, {'nuts': ..., ...}, as run returns them; got a "
            f"{type(runs).__name__}"
        )
    if not runs:
        raise ValueError("compare needs at least one posterior; got none")
    for name in runs:
        if not isinstance(name, str):
            raise TypeError(f"the posteriors' names must be text, got {name!r}")


def check_posteriors(runs: Mapping[str, xr.DataTree]) -> None:
    """Raise a `ValueError` for posteriors of problems that differ; the message says in what.

    Args:
        runs: posteriors by name, as `ppl_memprior.run` returns them.
    """
    unknowns: dict[tuple[Any, ...], str] = {}
    for name, tree in runs.items():
        site = str(tree.attrs["prior_site"])
        shape = tree["posterior"][site].shape[2:]
        unknowns.setdefault((site, shape, tree["examples"].sizes["example"]), name)
    if len(unknowns) > 1:
        described = "; ".join(
            f"{name!r} has the unknown {site!r} of shape {shape} and {num} examples"
            for (site, shape, num), name in unknowns.items()
        )
        raise ValueError(f"compare takes posteriors of one problem: {described}")
    _require_one("fingerprint of the problem", runs, _problem, f" ({FINGERPRINT_HINT}). {_REMEDY}")
    _require_one("latent sites", runs, _latent_sites)
    for site in dict.fromkeys(str(name) for tree in runs.values() for name in tree["posterior"]):
        _require_one(f"units of {site!r}", runs, partial(_units, site=site))
        _require_one(f"truth of {site!r}", runs, partial(_truth, site=site))


def _require_one(
    what: str,
    runs: Mapping[str, xr.DataTree],
    value: Callable[[xr.DataTree], str | None],
    explanation: str = "",
) -> None:
    """Raise where the trees that have a value have several, naming which trees have which."""
    owners: dict[str, list[str]] = {}
    for name, tree in runs.items():
        found = value(tree)
        if found is not None:
            owners.setdefault(found, []).append(name)
    if len(owners) > 1:
        described = "; ".join(f"{found} of {names}" for found, names in owners.items())
        raise ValueError(
            f"compare takes posteriors of one problem, and these differ in the {what}: {described}"
            f"{explanation}"
        )


def _problem(tree: xr.DataTree) -> str | None:
    if "problem" not in tree.attrs or "settings" in tree.attrs:
        return None  # earlier versions had no fingerprint, or another one
    precision = tree.attrs.get("precision")
    return str(tree.attrs["problem"])[:8] + (f" ({precision})" if precision else "")


def _latent_sites(tree: xr.DataTree) -> str | None:
    names = tree.attrs.get("latent_sites")
    return None if names is None else str(sorted(json.loads(names)))


def _units(tree: xr.DataTree, *, site: str) -> str | None:
    variables = tree["posterior"].data_vars
    unit = variables[site].attrs.get("units") if site in variables else None
    return None if unit is None else repr(unit)


def _truth(tree: xr.DataTree, *, site: str) -> str | None:
    if "truth" not in tree.children or site not in tree["truth"].data_vars:
        return None
    # whether it was handed over in single or in double precision is no difference
    return value_text(tree["truth"][site].to_numpy().astype(np.float32))
