"""The Gaussian-mixture posterior in closed form, with Jacobians or with products alone."""

from ppl_memprior.inference.linearized._linearize import check_linearize, linearize
from ppl_memprior.inference.linearized._posterior import ComponentReport, LinearizedPosterior

__all__ = ["ComponentReport", "LinearizedPosterior", "check_linearize", "linearize"]
