"""The columns and figures as Markdown tables, which the documentation holds word for word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ppl_memprior.comparison.report.column import Column
from ppl_memprior.comparison.report.columns import COLUMNS
from ppl_memprior.comparison.report.figure import ReportFigure
from ppl_memprior.comparison.report.figures import FIGURES


def columns_as_markdown(columns: Iterable[Column] = COLUMNS) -> str:
    """Explain columns in a Markdown table, as docs/reports.md does.

    Args:
        columns: the columns; all built-in ones where none are given.

    Returns:
        One line a column with its name, unit and help, and no line break at the end.
    """
    rows = ((column.name, column.unit or "-", column.help) for column in columns)
    return _markdown(("column", "unit", "meaning"), rows)


def figures_as_markdown(figures: Iterable[ReportFigure] = FIGURES) -> str:
    """Explain figures in a Markdown table, as docs/reports.md does.

    Args:
        figures: the figures; all built-in ones where none are given.

    Returns:
        One line a figure with its name and caption, and no line break at the end.
    """
    return _markdown(("figure", "what it shows"), ((f.name, f.caption) for f in figures))


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
        for cells in (header, *rows)
    ]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])
