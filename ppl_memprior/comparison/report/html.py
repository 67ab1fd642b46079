"""The report as one page of HTML: verdict, table and figures, with nothing to fetch."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from matplotlib.figure import Figure

from ppl_memprior.comparison.latents import NUISANCE_COLUMNS
from ppl_memprior.comparison.report.table import Table
from ppl_memprior.diagnostics import Verdict


def page(
    *,
    title: str,
    verdicts: Sequence[Verdict],
    table: Table,
    nuisances: Sequence[Sequence[str]],
    reference: str | None,
    figures: Sequence[tuple[Figure, str]],
    notes: Mapping[str, Any],
) -> str:
    """Render the page.

    Args:
        title: heading of the page.
        verdicts: the sentences, in order.
        table: the numbers, whose columns are explained below them.
        nuisances: rows under `NUISANCE_COLUMNS`; none where the prior's site is the only unknown.
        reference: posterior that distances are measured to, or None.
        figures: each with its caption. The Matplotlib label of a figure says in words what the
            figure shows.
        notes: provenance, name and value.

    Returns:
        The page's text.
    """
    template = resources.files(__package__).joinpath("templates/report.html")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        title=title,
        verdicts=verdicts,
        header=table.header,
        rows=table.cells(),
        columns=table.shown,
        nuisance_header=NUISANCE_COLUMNS,
        nuisances=nuisances,
        reference=reference,
        figures=[
            {"alt": figure.get_label(), "caption": caption, "png": _png(figure)}
            for figure, caption in figures
        ],
        notes=notes,
    )


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
