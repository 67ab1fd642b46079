"""Many posteriors of one problem: run them, compare them, report."""

from ppl_memprior.comparison.compare import Comparison, compare
from ppl_memprior.comparison.methods import METHODS, Settings
from ppl_memprior.comparison.run import check_methods, run
from ppl_memprior.comparison.storage import load_trees, save_trees

__all__ = [
    "METHODS",
    "Comparison",
    "Settings",
    "check_methods",
    "compare",
    "load_trees",
    "run",
    "save_trees",
]
