"""Bayesian inverse problems with memorized and diffusion-mixture priors, on NumPyro."""

from ppl_memprior import datasets, diagnostics, diffusion, forward
from ppl_memprior.comparison import Comparison, Settings, compare, run
from ppl_memprior.distributions import (
    DiffusionMixturePrior,
    LowRankGaussianMixture,
    MemorizedPrior,
)
from ppl_memprior.inference import ModeJump, evidence, linearize, lookup, psis
from ppl_memprior.problem import InverseProblem

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "DiffusionMixturePrior",
    "InverseProblem",
    "LowRankGaussianMixture",
    "MemorizedPrior",
    "ModeJump",
    "Settings",
    "compare",
    "datasets",
    "diagnostics",
    "diffusion",
    "evidence",
    "forward",
    "linearize",
    "lookup",
    "psis",
    "run",
]
