"""The methods that `run` takes by name or as objects: one file each.

A method is a frozen dataclass on `Method`. Its fields are its options. `registry` knows the methods
that have a name.
"""

from ppl_memprior.comparison.methods.dps import Dps
from ppl_memprior.comparison.methods.gibbs import Gibbs
from ppl_memprior.comparison.methods.linearized import Linearized
from ppl_memprior.comparison.methods.lookup import Lookup
from ppl_memprior.comparison.methods.method import Method
from ppl_memprior.comparison.methods.mode_jump import ModeJump
from ppl_memprior.comparison.methods.nuts import Nuts
from ppl_memprior.comparison.methods.options import instance, real, whole
from ppl_memprior.comparison.methods.psis import Psis
from ppl_memprior.comparison.methods.registry import METHODS, by_name, configured, overridden
from ppl_memprior.comparison.methods.smc import Smc

__all__ = [
    "METHODS",
    "Dps",
    "Gibbs",
    "Linearized",
    "Lookup",
    "Method",
    "ModeJump",
    "Nuts",
    "Psis",
    "Smc",
    "by_name",
    "configured",
    "instance",
    "overridden",
    "real",
    "whole",
]
