"""From an inverse problem to its posterior: closed forms and Markov chain Monte Carlo."""

from ppl_memprior.inference._workers import check_executor
from ppl_memprior.inference.evidence import EvidenceCurve, evidence
from ppl_memprior.inference.gibbs import ExampleGibbs, GibbsResult, check_gibbs, gibbs
from ppl_memprior.inference.importance import PsisPosterior, check_psis, psis
from ppl_memprior.inference.jump_chains import ModeJumpResult, check_mode_jump, mode_jump
from ppl_memprior.inference.jump_proposal import JumpProposal, default_proposal
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
from ppl_memprior.inference.mode_jump import ModeJump, ModeJumpState
from ppl_memprior.inference.nuts import NutsResult, check_nuts, nuts
from ppl_memprior.inference.tempered_smc import SmcResult, check_tempered_smc, tempered_smc

__all__ = [
    "ComponentReport",
    "EvidenceCurve",
    "JumpProposal",
    "LinearizedPosterior",
    "LookupPosterior",
    "ModeJump",
    "ModeJumpResult",
    "ModeJumpState",
    "NutsResult",
    "PsisPosterior",
    "ExampleGibbs",
    "GibbsResult",
    "SmcResult",
    "check_executor",
    "check_finite_examples",
    "check_gibbs",
    "check_linearize",
    "check_lookup",
    "check_mode_jump",
    "check_nuts",
    "check_psis",
    "evidence",
    "default_proposal",
    "linearize",
    "lookup",
    "mode_jump",
    "nuts",
    "psis",
    "check_tempered_smc",
    "gibbs",
    "tempered_smc",
]
