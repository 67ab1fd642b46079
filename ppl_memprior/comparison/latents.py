"""The latent sites in numbers: which coordinates a report shows, and a table of the nuisances.

The nuisances are the latent sites beside the prior's: a noise scale, an offset.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ppl_memprior._arviz import az
from ppl_memprior._numbers import written

Runs = Mapping[str, xr.DataTree]

MOST_OF_THE_PRIOR = 6  # coordinates of the prior's site that are shown
MOST_OF_A_NUISANCE = 3  # coordinates of every other latent site
NUISANCE_COLUMNS = ("posterior", "latent", "mean", "sd", "5 %", "95 %", "ESS", "R-hat", "truth")


class Coordinate(NamedTuple):
    """A number among the unknowns: the site, and the position in it."""

    site: str
    position: tuple[int, ...] = ()

    def __str__(self) -> str:
        index = ", ".join(map(str, self.position))
        return f"{self.site}[{index}]" if index else self.site

    def of(self, tree: xr.DataTree, group: str) -> xr.DataArray:
        """Its values in a group of a posterior's tree."""
        values = tree[group].to_dataset()[self.site]
        event = values.dims[values.ndim - len(self.position) :]
        return values.isel(dict(zip(event, self.position, strict=True)))

    def is_in(self, tree: xr.DataTree, group: str) -> bool:
        """Whether a group of a posterior's tree has values of the site."""
        return group in tree.children and self.site in tree[group].data_vars

    def draws(self, tree: xr.DataTree) -> xr.DataArray:
        """Dims `chain`, `draw`."""
        return self.of(tree, "posterior").transpose("chain", "draw")

    def truth(self, runs: Runs) -> float | None:
        """The true value, where it is known."""
        for tree in runs.values():
            if self.is_in(tree, "truth"):
                return float(self.of(tree, "truth"))
        return None


def shown_coordinates(runs: Runs) -> list[Coordinate]:
    """The coordinates of all latent sites whose draws spread most, the prior's site first."""
    prior_site = str(next(iter(runs.values())).attrs["prior_site"])
    found = _widest(runs, prior_site, MOST_OF_THE_PRIOR)
    for site in _nuisances(runs, prior_site):
        found += _widest(runs, site, MOST_OF_A_NUISANCE)
    return found


def having(runs: Runs, site: str) -> dict[str, xr.DataTree]:
    """The posteriors that have draws of the site."""
    return {name: tree for name, tree in runs.items() if site in tree["posterior"].data_vars}


def nuisance_rows(runs: Runs) -> list[list[str]]:
    """The cells under `NUISANCE_COLUMNS`: a row for each posterior and each shown coordinate.

    No rows where the prior's site is the only latent one.
    """
    prior_site = str(next(iter(runs.values())).attrs["prior_site"])
    rows = []
    for coordinate in shown_coordinates(runs):
        if coordinate.site == prior_site:
            continue
        truth = coordinate.truth(runs)
        for name, tree in having(runs, coordinate.site).items():
            draws = coordinate.draws(tree)
            low, high = np.quantile(draws, [0.05, 0.95])
            chains = not tree.attrs["independent_draws"]
            with np.errstate(divide="ignore", invalid="ignore"):
                ess = float(az.ess(draws)) if chains else np.nan
                rhat = float(az.rhat(draws)) if chains and draws.sizes["chain"] > 1 else np.nan
            numbers = (float(draws.mean()), float(draws.std()), low, high)
            rows.append(
                [
                    *(name, str(coordinate)),
                    *(written(number, ".4g") for number in numbers),
                    *(written(ess, ".0f"), written(rhat, ".3f")),
                    "-" if truth is None else written(truth, ".4g"),
                ]
            )
    return rows


def _nuisances(runs: Runs, prior_site: str) -> list[str]:
    sites = [s for tree in runs.values() for s in json.loads(str(tree.attrs["latent_sites"]))]
    return [site for site in dict.fromkeys(sites) if site != prior_site]


def _widest(runs: Runs, site: str, most: int) -> list[Coordinate]:
    """Coordinates whose draws spread most, constant ones left out; at least one."""
    trees = having(runs, site).values()
    values = [tree["posterior"][site].transpose("chain", "draw", ...).to_numpy() for tree in trees]
    spread = np.max([value.std(axis=(0, 1)) for value in values], axis=0)
    examples = next(iter(runs.values()))["examples"].to_dataset().get(site)
    if not np.any(spread) and examples is not None:
        spread = examples.to_numpy().std(axis=0)
    order = np.argsort(-np.ravel(spread), kind="stable")[:most]
    moving: NDArray[np.integer] = order[np.ravel(spread)[order] > 0]
    chosen = np.sort(moving) if len(moving) else order[:1]
    return [
        Coordinate(site, tuple(int(i) for i in np.unravel_index(number, np.shape(spread))))
        for number in chosen
    ]
