"""From draws to verdicts: memorization, distances, data fit, convergence."""

from ppl_memprior.diagnostics.calibration import Misfit, misfit
from ppl_memprior.diagnostics.convergence import Convergence, convergence
from ppl_memprior.diagnostics.distances import EnergyDistance, energy_distance, total_variation
from ppl_memprior.diagnostics.memorization import (
    effective_examples,
    leave_one_out_ratios,
    nearest_examples,
)
from ppl_memprior.diagnostics.multimodality import ModeMixing, mode_mixing
from ppl_memprior.diagnostics.summary import PosteriorSummary, summarize
from ppl_memprior.diagnostics.verdict import Verdict, verdicts

__all__ = [
    "Convergence",
    "EnergyDistance",
    "Misfit",
    "ModeMixing",
    "PosteriorSummary",
    "Verdict",
    "convergence",
    "effective_examples",
    "energy_distance",
    "leave_one_out_ratios",
    "misfit",
    "mode_mixing",
    "nearest_examples",
    "summarize",
    "total_variation",
    "verdicts",
]
