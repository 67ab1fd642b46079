"""The report of a comparison: the columns of its table, its figures and its page.

A column or a figure is one object; the table, the page and the documentation are made from it.
"""

from ppl_memprior.comparison.report.column import Column
from ppl_memprior.comparison.report.columns import COLUMNS
from ppl_memprior.comparison.report.documentation import columns_as_markdown, figures_as_markdown
from ppl_memprior.comparison.report.figure import ReportFigure
from ppl_memprior.comparison.report.figures import FIGURES
from ppl_memprior.comparison.report.posterior import Posterior

__all__ = [
    "COLUMNS",
    "FIGURES",
    "Column",
    "Posterior",
    "ReportFigure",
    "columns_as_markdown",
    "figures_as_markdown",
]
