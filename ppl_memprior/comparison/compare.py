"""Many posteriors in one table with a verdict: what `ppl_memprior.compare` returns.

Numbers and sentences come from `ppl_memprior.diagnostics`, figures from `plots.py`, the page
from `html.py`; this module puts them together.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from ppl_memprior._files import check_writable_file
from ppl_memprior._numbers import written
from ppl_memprior.comparison import html, plots
from ppl_memprior.comparison.identity import FINGERPRINT_HINT, value_text
from ppl_memprior.comparison.latents import NUISANCE_COLUMNS, nuisance_rows
from ppl_memprior.diagnostics import PosteriorSummary, Reading, Verdict, judge, summarize_all

# column of the table: attribute of the summary, how it is written
COLUMNS: dict[str, tuple[str, str]] = {
    "draws": ("draws", "d"),
    "ESS": ("ess", ".0f"),
    "R-hat": ("rhat", ".3f"),
    "MCSE/sd": ("relative_mcse", ".3f"),
    "mode ESS": ("mode_ess", ".0f"),
    "mode TV": ("between_chain_tv", ".3f"),
    "log evidence": ("log_evidence", ".2f"),
    "± se": ("log_evidence_error", ".3f"),
    "k-hat": ("khat", ".2f"),
    "chi2/m": ("reduced_chi_square", ".3f"),
    "misfit z": ("misfit_z", "+.1f"),
    "examples": ("effective_examples", ".2f"),
    "NN ratio": ("nearest_ratio", ".2f"),
    "distance": ("distance", ".3f"),
    "seconds": ("seconds", ".1f"),
    "forwards": ("forward_evaluations", ",.0f"),
    "gradients": ("gradient_evaluations", ",.0f"),
}
_REMEDY = (
    "Compare them separately; where they are one problem nevertheless, delete the attribute "
    "'problem' of each tree"
)
# shown only where some posterior has them
OPTIONAL = ("± se", "k-hat")


@dataclass(frozen=True)
class Comparison:
    """A comparison of posteriors of one problem.

    Attributes:
        runs: the posteriors, by name, as `ppl_memprior.run` returned them.
        reference: name of the posterior that distances are measured to, or None.
        summaries: one `PosteriorSummary` for each posterior.
        verdicts: sentences, the most important first, the advice last.
    """

    runs: Mapping[str, xr.DataTree]
    reference: str | None
    summaries: tuple[PosteriorSummary, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def columns(self) -> list[str]:
        """The table's columns: all of `COLUMNS`, less optional ones that would be empty."""
        return [
            column
            for column, (name, _) in COLUMNS.items()
            if column not in OPTIONAL
            or any(not math.isnan(getattr(s, name)) for s in self.summaries)
        ]

    @property
    def table(self) -> pd.DataFrame:
        """One row a posterior, indexed by its name; numbers, NaN where one does not apply."""
        rows = {
            s.method: {column: getattr(s, COLUMNS[column][0]) for column in self.columns}
            for s in self.summaries
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("posterior")

    def to_text(self) -> str:
        """The table, that of the latent sites beside the prior's, and the verdict."""
        lines = _aligned([["posterior", *self.columns], *self.formatted_rows()])
        if self.reference is not None:
            lines.append(f"distance: scaled energy distance to {self.reference}, between 0 and 1")
        if nuisances := nuisance_rows(self.runs):
            lines += ["", "Other latent sites", *_aligned([list(NUISANCE_COLUMNS), *nuisances])]
        marks = {"conflict": "!!", "warning": "! ", "good": "ok", "note": "- "}
        lines += ["", "Verdict", *(f"{marks[v.severity]} {v.text}" for v in self.verdicts)]
        return "\n".join(lines)

    def formatted_rows(self) -> list[list[str]]:
        """The table's cells as text, each row beginning with the posterior's name."""
        formats = [COLUMNS[column] for column in self.columns]
        return [
            [s.method, *(written(getattr(s, name), how) for name, how in formats)]
            for s in self.summaries
        ]

    def to_json(self) -> str:
        """Summaries and verdicts for machines; numbers that do not apply are null."""
        content = {
            "reference": self.reference,
            "posteriors": [
                {key: _json_value(value) for key, value in asdict(s).items()}
                for s in self.summaries
            ],
            "verdicts": [v.as_dict() for v in self.verdicts],
        }
        return json.dumps(content, indent=2)

    def figures(self) -> dict[str, Figure]:
        """The figures of the report, by name; those that have nothing to show are left out."""
        return plots.figures(self.runs, self.reference)

    def to_html(
        self,
        path: str | os.PathLike[str],
        *,
        title: str = "Posterior comparison",
        notes: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the report as one self-contained HTML file.

        Args:
            path: where to; replaced only by a complete file.
            title: its heading.
            notes: provenance to print at its end, name and value.

        Returns:
            The path.

        Raises:
            TypeError: a path, title or notes of another type, before any figure is drawn.
            ValueError: a path that is a folder or cannot be written.
        """
        check_writable_file("the report", path)
        if not isinstance(title, str):
            raise TypeError(f"title must be text, got {type(title).__name__} {title!r}")
        if notes is not None and not isinstance(notes, Mapping):
            raise TypeError(
                "notes must be a dict of names and values, {'seed': 0}, got "
                f"{type(notes).__name__} {notes!r}"
            )
        return html.write(
            path,
            title=title,
            verdicts=self.verdicts,
            header=["posterior", *self.columns],
            rows=self.formatted_rows(),
            nuisances=nuisance_rows(self.runs),
            reference=self.reference,
            figures=self.figures(),
            notes=notes or {},
        )


def compare(runs: Mapping[str, xr.DataTree], reference: str | None = None) -> Comparison:
    """Compare posteriors of one problem.

    Args:
        runs: posteriors by name, as `ppl_memprior.run` returns them.
        reference: name of the one that distances are measured to; None leaves them out.

    Raises:
        TypeError: something else than posteriors by name.
        ValueError: no posterior, a reference that is not among them, or posteriors of problems
            that differ: in the fingerprint that `run` stores with the draws, in their latent sites,
            the shape of the unknown or the number of examples, in units or in the truth (which).
            Draws without a fingerprint are compared by the others.
    """
    _check_runs(runs)
    if reference is not None and (not isinstance(reference, str) or reference not in runs):
        raise ValueError(f"reference {reference!r} is not among the posteriors {list(runs)}")
    summaries = summarize_all(runs, reference)
    verdicts = tuple(judge(Reading(summaries, reference, runs)))
    return Comparison(runs, reference, summaries, verdicts)


def _check_runs(runs: Any) -> None:
    if not isinstance(runs, Mapping):
        raise TypeError(
            "compare takes posteriors by name, {'nuts': ..., ...}, as run returns them; got a "
            f"{type(runs).__name__}"
        )
    if not runs:
        raise ValueError("compare needs at least one posterior; got none")
    unknowns: dict[tuple[Any, ...], str] = {}
    for name, tree in runs.items():
        if not isinstance(name, str):
            raise TypeError(f"the posteriors' names must be text, got {name!r}")
        if not isinstance(tree, xr.DataTree) or "prior_site" not in tree.attrs:
            raise TypeError(
                f"the posterior {name!r} is no DataTree as run returns it, but a "
                f"{type(tree).__name__} without the attribute 'prior_site'"
            )
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
    if "problem" not in tree.attrs:
        return None
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


def _aligned(rows: list[list[str]]) -> list[str]:
    """Lines of a table for a terminal, names to the left and numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
