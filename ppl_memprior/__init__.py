"""Bayesian inverse problems with memorized and diffusion-mixture priors, on NumPyro.

Names are imported when they are first used: the command line answers Ctrl-C, and prints its help,
before JAX and NumPyro are loaded.
"""

import importlib

TYPE_CHECKING = False  # type checkers take it as true; `typing` itself takes time to import
if TYPE_CHECKING:
    from ppl_memprior import datasets, diagnostics, diffusion, forward
    from ppl_memprior.comparison import methods
    from ppl_memprior.comparison.compared import Comparison, compare
    from ppl_memprior.comparison.running import run
    from ppl_memprior.distributions import (
        DiffusionMixturePrior,
        LowRankGaussianMixture,
        MemorizedPrior,
    )
    from ppl_memprior.inference import ModeJump, evidence, linearize, lookup, psis
    from ppl_memprior.problem.inverse_problem import InverseProblem

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "DiffusionMixturePrior",
    "InverseProblem",
    "LowRankGaussianMixture",
    "MemorizedPrior",
    "ModeJump",
    "compare",
    "datasets",
    "diagnostics",
    "diffusion",
    "evidence",
    "forward",
    "linearize",
    "lookup",
    "methods",
    "psis",
    "run",
]

_HOMES = {
    **dict.fromkeys(("Comparison", "compare", "methods", "run"), "comparison"),
    **dict.fromkeys(
        ("DiffusionMixturePrior", "LowRankGaussianMixture", "MemorizedPrior"), "distributions"
    ),
    **dict.fromkeys(("ModeJump", "evidence", "linearize", "lookup", "psis"), "inference"),
    "InverseProblem": "problem",
}
_SUBPACKAGES = (
    *("comparison", "datasets", "diagnostics", "diffusion", "distributions", "forward"),
    *("inference", "problem"),
)


if not TYPE_CHECKING:  # type checkers would take every name for known

    def __getattr__(name: str) -> object:
        if name in _HOMES:
            value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
            globals()[name] = value
            return value
        if name in _SUBPACKAGES:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
