"""Agreement of chains on the weights of the modes, and their moves between modes.

A mode holds the values nearest to one example. Diagnostics of a coordinate can miss chains that
disagree on modes with the same mean of the coordinate. Diagnostics of the mode's indicator cannot.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from ppl_memprior._arviz import az
from ppl_memprior.diagnostics.distances import total_variation

# A mode with less, or all but less, of the draws is left out: it cannot move a weight by more.
NOTICEABLE_SHARE = 0.01


class ModeMixing(NamedTuple):
    """Mixing of chains between modes; NaN where fewer than two modes have a noticeable share.

    Attributes:
        occupancy: share of each chain's draws in each mode, dims `chain`, `example`.
        rhat: split R-hat of the modes' indicators, the largest over the noticeable modes. Infinite
            where no chain ever leaves its mode; NaN for one chain.
        nested_rhat: nested split R-hat of the modes' indicators over superchains, at least 1.
        ess: effective sample size of a mode's indicator, the smallest over the noticeable modes.
        between_chain_tv: the largest total variation between the occupancy of a chain and the
            occupancy of all chains together. NaN for one chain.
        round_trips: passages from the most occupied mode to the second and back, summed over the
            chains. A chain may visit other modes on the way.
    """

    occupancy: xr.DataArray
    rhat: float
    nested_rhat: float
    ess: float
    between_chain_tv: float
    round_trips: int


def mode_mixing(
    modes: xr.DataArray, superchain_ids: Sequence[Hashable] | None = None
) -> ModeMixing:
    """Diagnose how chains mix between modes.

    Args:
        modes: number of the example that is each draw's mode, dims `chain`, `draw`; at least four
            draws.
        superchain_ids: superchain of each chain. Chains of one superchain started at the same
            place, and all superchains have the same size. By default each chain is a superchain.

    Returns:
        The diagnostics of the modes' indicators.

    Raises:
        ValueError: other dims; too few draws; or numbers that are not non-negative integers.

    Source: Vehtari et al. (2021), "Rank-normalization, folding, and localization: an improved
    R-hat"; Margossian et al. (2024), "Nested R-hat".
    """
    modes = _checked(modes)
    shares = occupancy(modes)
    pooled = shares.mean("chain")
    noticeable = (pooled >= NOTICEABLE_SHARE) & (pooled <= 1 - NOTICEABLE_SHARE)
    several_chains = modes.sizes["chain"] > 1
    rhat, nested_rhat, ess = np.nan, np.nan, np.nan
    if noticeable.any():
        indicators = (modes == shares["example"][noticeable]).astype(float)
        # chains that never leave their modes have no variance within, and an infinite R-hat
        with np.errstate(divide="ignore", invalid="ignore"):
            ess = float(az.ess(indicators, method="mean").min())
            if several_chains:
                ids = superchain_ids or list(range(modes.sizes["chain"]))
                rhat = float(az.rhat(indicators, method="split").max())
                nested = az.rhat_nested(indicators, method="split", superchain_ids=ids)
                nested_rhat = float(nested.max())
    return ModeMixing(
        occupancy=shares,
        rhat=rhat,
        nested_rhat=nested_rhat,
        ess=ess,
        between_chain_tv=between_chain_variation(shares) if several_chains else np.nan,
        round_trips=round_trips(modes),
    )


def occupancy(modes: xr.DataArray) -> xr.DataArray:
    """Return the share of each chain's draws in each mode that any chain visits.

    Args:
        modes: the mode of each draw, dims `chain`, `draw`.

    Returns:
        Dims `chain`, `example`; the coordinate `example` holds the modes' numbers, ascending.
    """
    visited = np.unique(modes)
    examples = xr.DataArray(visited, dims="example", coords={"example": visited})
    return (modes == examples).mean("draw").transpose("chain", "example")


def between_chain_variation(shares: xr.DataArray) -> float:
    """Return the largest total variation between a chain's occupancy and the chains' mean.

    Args:
        shares: shares as `occupancy` returns them.

    Returns:
        A number from 0 to 1.
    """
    pooled = shares.mean("chain").to_numpy()
    return max(total_variation(chain, pooled) for chain in shares.to_numpy())


def round_trips(modes: xr.DataArray) -> int:
    """Count passages from the most occupied mode to the second and back, over all chains.

    Args:
        modes: the mode of each draw, dims `chain`, `draw`.

    Returns:
        The number of round trips; zero with fewer than two modes.
    """
    numbers, counts = np.unique(modes, return_counts=True)
    if len(numbers) < 2:
        return 0
    first, second = numbers[np.argsort(-counts, kind="stable")[:2]]
    total = 0
    for chain in modes.transpose("chain", "draw").to_numpy():
        between = chain[(chain == first) | (chain == second)]
        total += int(np.sum(between[1:] != between[:-1])) // 2
    return total


def _checked(modes: xr.DataArray) -> xr.DataArray:
    if set(modes.dims) != {"chain", "draw"}:
        raise ValueError(f"modes has dims {modes.dims}, expected ('chain', 'draw')")
    if modes.sizes["draw"] < 4:
        raise ValueError(f"modes needs at least 4 draws of each chain, got {modes.sizes['draw']}")
    if not np.issubdtype(modes.dtype, np.integer) or int(modes.min()) < 0:
        raise ValueError(
            "modes holds the numbers of examples, non-negative integers; got values of "
            f"{modes.dtype} from {float(modes.min()):g}"
        )
    return modes.transpose("chain", "draw")
