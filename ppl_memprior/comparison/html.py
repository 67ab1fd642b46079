"""The report as one HTML file: table, verdict and figures, with nothing to fetch."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from ppl_memprior._files import complete_or_nothing
from ppl_memprior.comparison.latents import NUISANCE_COLUMNS
from ppl_memprior.diagnostics import Verdict

CAPTIONS = {
    "misfit": "Does each posterior explain the data? Inside the grey band the misfit is what the "
    "noise allows; to the right of it no draw explains the data (prior-data conflict).",
    "fields": "Posterior mean (top) and standard deviation (bottom) of each method, beside the "
    "truth and the training example nearest to it; where the truth is not known, beside the "
    "example nearest to the posterior mean and the standard deviation of the examples.",
    "weights": "Weight of each training example: mean responsibility of the draws. One bar at "
    "one is a lookup.",
    "marginals": "Marginals of every latent site, of arrays the coordinates that vary most, each "
    "scaled to the same height; stems are draws that repeat single values.",
    "occupancy": "Share of each chain's draws next to each example, for the examples visited most. "
    "Rows that look alike are chains that agree on the weights.",
    "ranks": "Ranks of each chain's draws among those of all chains, for the coordinate with the "
    "largest R-hat. Chains of one distribution have flat histograms within the band, if their "
    "draws are nearly independent.",
    "chains": "Nearest training example of each draw, a panel for each chain and a row for each "
    "example that a chain visits. Chains that stay with different "
    "examples have not mixed: their weights are those of the starting points.",
}


def write(
    path: str | os.PathLike[str],
    *,
    title: str,
    verdicts: Sequence[Verdict],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    nuisances: Sequence[Sequence[str]],
    reference: str | None,
    figures: Mapping[str, Figure],
    notes: Mapping[str, Any],
) -> Path:
    """Render the page and put it in place only when it is complete.

    Args:
        path: the file.
        title: heading of the page.
        verdicts: the sentences, in order.
        header, rows: the table, as text.
        nuisances: rows under `NUISANCE_COLUMNS`; none where the prior's site is the only unknown.
        reference: posterior that distances are measured to, or None.
        figures: by name; `CAPTIONS` has their captions, and their Matplotlib labels say in words
            what they show.
        notes: provenance, name and value.

    Returns:
        The path.
    """
    template = resources.files("ppl_memprior.comparison").joinpath("templates/report.html")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(template.read_text(encoding="utf-8")).render(
        title=title,
        verdicts=verdicts,
        header=header,
        rows=rows,
        nuisance_header=NUISANCE_COLUMNS,
        nuisances=nuisances,
        reference=reference,
        figures=[
            {"alt": figure.get_label(), "caption": CAPTIONS[name], "png": _png(figure)}
            for name, figure in figures.items()
        ],
        notes=notes,
    )
    return write_text(path, page)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file, whole or not at all."""
    with complete_or_nothing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
