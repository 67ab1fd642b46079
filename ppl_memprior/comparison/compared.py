"""Many posteriors in one table with a verdict: what `ppl_memprior.compare` returns.

Numbers and sentences come from `ppl_memprior.diagnostics`, columns, figures and the page from
`report/`; this module puts them together.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from ppl_memprior._execution.files import check_writable_file, write_text
from ppl_memprior.comparison.latents import NUISANCE_COLUMNS, nuisance_rows
from ppl_memprior.comparison.report import (
    COLUMNS,
    FIGURES,
    Column,
    Posterior,
    ReportFigure,
    html,
)
from ppl_memprior.comparison.report.table import INDEX, Table, tabulate
from ppl_memprior.comparison.report.texts import added
from ppl_memprior.comparison.same_problem import check_names, check_posteriors
from ppl_memprior.comparison.trees.foreign import as_trees
from ppl_memprior.diagnostics import (
    PosteriorSummary,
    Reading,
    Rule,
    Verdict,
    judge,
    summarize_all,
)
from ppl_memprior.problem.inverse_problem import InverseProblem

_MARKS = {"conflict": "!!", "warning": "! ", "good": "ok", "note": "- "}


@dataclass(frozen=True)
class Comparison:
    """A comparison of posteriors of one problem.

    Attributes:
        runs: the posteriors, by name, as `ppl_memprior.run` returned them.
        reference: name of the posterior that distances are measured to, or None.
        summaries: one `PosteriorSummary` for each posterior.
        verdicts: sentences, the most important first, the advice last.
        numbers: the numbers of all columns for all posteriors.
        report_figures: what `figures` draws, in reading order.
    """

    runs: Mapping[str, xr.DataTree]
    reference: str | None
    summaries: tuple[PosteriorSummary, ...]
    verdicts: tuple[Verdict, ...]
    numbers: Table
    report_figures: tuple[ReportFigure, ...] = FIGURES

    @property
    def columns(self) -> list[str]:
        """Names of the table's columns, without the optional columns that would be empty."""
        return [column.name for column in self.numbers.shown]

    @property
    def table(self) -> pd.DataFrame:
        """One row a posterior, indexed by its name; numbers, NaN where one does not apply."""
        return self.numbers.frame()

    def formatted_rows(self) -> list[list[str]]:
        """The table's cells as text, each row beginning with the posterior's name."""
        return self.numbers.cells()

    def to_text(self) -> str:
        """The table, the table of the latent sites beside the prior's, and the verdict."""
        lines = _aligned([self.numbers.header, *self.formatted_rows()])
        if self.reference is not None:
            lines.append(f"distance: scaled energy distance to {self.reference}, between 0 and 1")
        if nuisances := nuisance_rows(self.runs):
            lines += ["", "Other latent sites", *_aligned([list(NUISANCE_COLUMNS), *nuisances])]
        lines += ["", "Verdict", *(f"{_MARKS[v.severity]} {v.text}" for v in self.verdicts)]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Summaries, columns and verdicts for machines; numbers that do not apply are null."""
        content = {
            "reference": self.reference,
            "posteriors": [
                {**_finite(asdict(s)), "columns": _finite(self.numbers.rows[s.method])}
                for s in self.summaries
            ],
            "verdicts": [v.as_dict() for v in self.verdicts],
        }
        return json.dumps(content, indent=2, allow_nan=False)

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write the table's numbers as CSV, in full precision.

        Args:
            path: where to; replaced only by a complete file.

        Returns:
            The path. The file has a row for each posterior; cells that do not apply are empty.

        Raises:
            TypeError: no path.
            ValueError: a path that is a folder or cannot be written.
        """
        check_writable_file("the table", path)
        return write_text(path, self.table.to_csv())

    def figures(self) -> dict[str, Figure]:
        """Draw the figures of the report.

        Returns:
            The figures by name, in reading order. Figures that have nothing to show are left out.
            The Matplotlib label of each, `figure.get_label()`, says in words what it shows.

        Raises:
            RuntimeError: a figure that cannot be drawn.
            TypeError: a figure whose function returns something else than a Matplotlib figure.
        """
        made = {f.name: f.drawn(self.runs, self.reference) for f in self.report_figures}
        return {name: figure for name, figure in made.items() if figure is not None}

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
        captions = {figure.name: figure.caption for figure in self.report_figures}
        page = html.page(
            title=title,
            verdicts=self.verdicts,
            table=self.numbers,
            nuisances=nuisance_rows(self.runs),
            reference=self.reference,
            figures=[(figure, captions[name]) for name, figure in self.figures().items()],
            notes=notes or {},
        )
        return write_text(path, page)


def compare(
    runs: Mapping[str, Any],
    reference: str | None = None,
    *,
    problem: InverseProblem | None = None,
    columns: Sequence[Column] = (),
    figures: Sequence[ReportFigure] = (),
    rules: Sequence[Rule] = (),
) -> Comparison:
    """Compare posteriors of one problem.

    Args:
        runs: posteriors by name: trees as `ppl_memprior.run` returns them, or draws made
            elsewhere. These are a `DataTree` or an ArviZ `InferenceData` with the group
            `posterior`, a NumPyro `MCMC` that has run, or a dictionary of arrays by the latent
            site's name, shape (chains, draws, *event_shape). They are taken as Markov chains.
        reference: name of the one that distances are measured to; None leaves them out.
        problem: whose posteriors they are, needed for draws made elsewhere. What these lack
            (chi-square, responsibilities, predictions) is computed from it, by one forward solve
            for each distinct draw.
        columns: columns of the table in addition to the built-in ones.
        figures: figures of the report in addition to the built-in ones.
        rules: rules of the verdict in addition to the built-in ones.

    Returns:
        The comparison: table, verdict, figures and page.

    Raises:
        TypeError: something else than posteriors by name; draws that are no array of real numbers;
            a column, figure or rule of another type; a column that computes no number.
        ValueError: draws made elsewhere without a problem, of another shape, with a latent site
            that is missing or unknown, or that are not finite; no posterior, a reference that is
            not among them, or posteriors of problems that differ: in the fingerprint that `run`
            stores with the draws, in their latent sites, the shape of the unknown or the number of
            examples, in units or in the truth (which). Draws without a fingerprint are compared by
            the others. A column or a figure whose name is taken.
        RuntimeError: a column that cannot be computed for a posterior (which).
    """
    check_names(runs)
    if reference is not None and (not isinstance(reference, str) or reference not in runs):
        raise ValueError(f"reference {reference!r} is not among the posteriors {list(runs)}")
    more_columns = added("columns", columns, Column, (INDEX, *(c.name for c in COLUMNS)))
    more_figures = added("figures", figures, ReportFigure, (f.name for f in FIGURES))
    runs = as_trees(runs, problem)
    check_posteriors(runs)
    summaries = summarize_all(runs, reference)
    base = None if reference is None else runs[reference]
    posteriors = (Posterior(s.method, runs[s.method], s, base) for s in summaries)
    return Comparison(
        runs,
        reference,
        summaries,
        tuple(judge(Reading(summaries, reference, runs), extra_rules=rules)),
        tabulate((*COLUMNS, *more_columns), posteriors),
        (*FIGURES, *more_figures),
    )


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


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values by name, with None for numbers that JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
