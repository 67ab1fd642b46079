"""From an inverse problem to its posterior: closed forms and Markov chain Monte Carlo."""

from ppl_memprior.inference.evidence import EvidenceCurve, evidence
from ppl_memprior.inference.importance import PsisPosterior, check_psis, psis
from ppl_memprior.inference.linearize import (
    ComponentReport,
    LinearizedPosterior,
    check_linearize,
    linearize,
)
from ppl_memprior.inference.lookup import (
    LookupPosterior,
    check_finite_examples,
    check_lookup,
    lookup,
)
from ppl_memprior.inference.nuts import NutsResult, check_nuts, nuts

__all__ = [
    "ComponentReport",
    "EvidenceCurve",
    "LinearizedPosterior",
    "LookupPosterior",
    "NutsResult",
    "PsisPosterior",
    "check_finite_examples",
    "check_linearize",
    "check_lookup",
    "check_nuts",
    "check_psis",
    "evidence",
    "linearize",
    "lookup",
    "nuts",
    "psis",
]
