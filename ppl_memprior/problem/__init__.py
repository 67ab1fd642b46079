"""The inverse problem: a NumPyro model read as prior, prediction, noise and log-likelihood."""

from ppl_memprior.problem.inverse_problem import InverseProblem, require_problem

__all__ = ["InverseProblem", "require_problem"]
