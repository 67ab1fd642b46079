"""Forward models: JAX functions from a model of the subsurface, or its latent, to predicted data.

Importing this package needs no PyTorch; making a `torch_function` or a wave equation does.
"""

from . import stylized
from .deepwave import AcousticWave, ElasticWave, ScalarBorn, ScalarWave
from .fields import KarhunenLoeve, PrincipalComponents, matern32, squared_exponential
from .survey import Survey, ricker
from .torch_call import torch_function
from .wave_equation import WaveEquation

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
