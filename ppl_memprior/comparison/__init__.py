"""Many posteriors of one problem: run them, compare them, report."""

from ppl_memprior.comparison import methods
from ppl_memprior.comparison.compared import Comparison, compare
from ppl_memprior.comparison.methods import METHODS
from ppl_memprior.comparison.report import Column, Posterior, ReportFigure
from ppl_memprior.comparison.resources import Resources
from ppl_memprior.comparison.running import check_methods, run
from ppl_memprior.comparison.trees.storage import load_trees, save_trees

__all__ = [
    "METHODS",
    "Column",
    "Comparison",
    "Posterior",
    "ReportFigure",
    "Resources",
    "check_methods",
    "compare",
    "load_trees",
    "methods",
    "run",
    "save_trees",
]
