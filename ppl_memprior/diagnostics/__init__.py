"""From draws to verdicts: memorization, distances, data fit, convergence."""

from ppl_memprior.diagnostics.alternatives import Alternative
from ppl_memprior.diagnostics.calibration import Misfit, misfit
from ppl_memprior.diagnostics.convergence import Convergence, convergence
from ppl_memprior.diagnostics.distances import (
    EnergyDistance,
    energy_distance,
    nearly_independent,
    thinned,
    total_variation,
)
from ppl_memprior.diagnostics.memorization import (
    effective_examples,
    leave_one_out_ratios,
    nearest_examples,
)
from ppl_memprior.diagnostics.modes import distinct_examples
from ppl_memprior.diagnostics.multimodality import ModeMixing, mode_mixing
from ppl_memprior.diagnostics.summary import PosteriorSummary, summarize, summarize_all
from ppl_memprior.diagnostics.verdicts import RULES, Reading, Rule, Severity, Verdict, judge

__all__ = [
    "RULES",
    "Alternative",
    "Convergence",
    "EnergyDistance",
    "Misfit",
    "ModeMixing",
    "PosteriorSummary",
    "Reading",
    "Rule",
    "Severity",
    "Verdict",
    "convergence",
    "distinct_examples",
    "effective_examples",
    "energy_distance",
    "judge",
    "leave_one_out_ratios",
    "misfit",
    "mode_mixing",
    "nearest_examples",
    "nearly_independent",
    "summarize",
    "summarize_all",
    "thinned",
    "total_variation",
]
