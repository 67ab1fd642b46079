"""Examples to learn priors from."""

from .openfwi import load_openfwi

__all__ = ["load_openfwi"]
