"""Posterior draws by reversing a diffusion under a denoiser and the data."""

from ppl_memprior.diffusion.samplers import DpsResult, check_dps, dps

__all__ = ["DpsResult", "check_dps", "dps"]
