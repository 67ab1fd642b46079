"""Examples to learn priors from."""

from ppl_memprior.datasets.openfwi import load_openfwi

__all__ = ["load_openfwi"]
