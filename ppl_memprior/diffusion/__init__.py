"""Posterior draws by reversing a diffusion under a denoiser and the data."""

from ppl_memprior.diffusion.samplers import check_dps, dps

__all__ = ["check_dps", "dps"]
