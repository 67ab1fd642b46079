"""Forward models: JAX functions from a model of the subsurface, or its latent, to predicted data.

Importing this package needs no PyTorch; making a `torch_function` or a `ScalarWave` does.
"""

from . import stylized
from .deepwave import ScalarWave
from .fields import KarhunenLoeve, PrincipalComponents, matern32, squared_exponential
from .survey import Survey, ricker
from .torch_call import torch_function

__all__ = [
    "KarhunenLoeve",
    "PrincipalComponents",
    "ScalarWave",
    "Survey",
    "matern32",
    "ricker",
    "squared_exponential",
    "stylized",
    "torch_function",
]
