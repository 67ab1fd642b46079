"""Distributions over stored examples, to stand in `numpyro.sample`."""

from ppl_memprior.distributions import _divergences as _divergences  # registers them with NumPyro
from ppl_memprior.distributions.diffusion_mixture import DiffusionMixturePrior
from ppl_memprior.distributions.gaussian_mixture import LowRankGaussianMixture
from ppl_memprior.distributions.learned_prior import LearnedPrior
from ppl_memprior.distributions.memorized import MemorizedPrior

__all__ = ["DiffusionMixturePrior", "LearnedPrior", "LowRankGaussianMixture", "MemorizedPrior"]
