"""What a column of the table may read: one posterior, its draws, its summary and the reference."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

from ppl_memprior.diagnostics import PosteriorSummary


@dataclass(frozen=True)
class Posterior:
    """One posterior of a comparison, as `Column.compute` gets it.

    Attributes:
        name: its name in the comparison.
        tree: its draws, as `ppl_memprior.run` returns them.
        summary: the numbers that the built-in columns show.
        reference: the draws that distances are measured to, or None. The reference's own
            `reference` is its own tree.
    """

    name: str
    tree: xr.DataTree
    summary: PosteriorSummary
    reference: xr.DataTree | None
