"""Forward models: JAX functions from a model of the subsurface, or its latent, to predicted data.

Importing this package needs no PyTorch; making a `torch_function` or a wave equation does.
"""

from ppl_memprior.forward import stylized
from ppl_memprior.forward.fields import (
    KarhunenLoeve,
    PrincipalComponents,
    matern32,
    squared_exponential,
)
from ppl_memprior.forward.survey import Survey, ricker
from ppl_memprior.forward.torch_bridge._torch_function import torch_function
from ppl_memprior.forward.waves._operators import AcousticWave, ElasticWave, ScalarBorn, ScalarWave
from ppl_memprior.forward.waves._wave_equation import WaveEquation

__all__ = [
    "AcousticWave",
    "ElasticWave",
    "KarhunenLoeve",
    "PrincipalComponents",
    "ScalarBorn",
    "ScalarWave",
    "Survey",
    "WaveEquation",
    "matern32",
    "ricker",
    "squared_exponential",
    "stylized",
    "torch_function",
]
