"""The built-in figures of the report, in reading order, one file each."""

from ppl_memprior.comparison.report.figures.chains import CHAINS
from ppl_memprior.comparison.report.figures.fields import FIELDS
from ppl_memprior.comparison.report.figures.marginals import MARGINALS
from ppl_memprior.comparison.report.figures.misfit import MISFIT
from ppl_memprior.comparison.report.figures.occupancy import OCCUPANCY
from ppl_memprior.comparison.report.figures.ranks import RANKS
from ppl_memprior.comparison.report.figures.weights import WEIGHTS

FIGURES = (MISFIT, FIELDS, WEIGHTS, MARGINALS, CHAINS, OCCUPANCY, RANKS)

__all__ = ["FIGURES"]
