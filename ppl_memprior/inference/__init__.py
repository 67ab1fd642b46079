"""From an inverse problem to its posterior: closed forms and Markov chain Monte Carlo."""

from ppl_memprior.inference._workers import check_executor
from ppl_memprior.inference.draws import Cost, Draws
from ppl_memprior.inference.evidence import EvidenceCurve, evidence
from ppl_memprior.inference.gibbs import ExampleGibbs, check_gibbs, gibbs
from ppl_memprior.inference.importance import (
    PsisPosterior,
    check_correctable,
    check_psis,
    psis,
)
from ppl_memprior.inference.jump_chains import mode_jump
from ppl_memprior.inference.jump_checks import (
    check_mode_jump,
    check_proposal,
    check_proposal_fits,
)
from ppl_memprior.inference.jump_proposal import JumpProposal, default_proposal
from ppl_memprior.inference.linearize import check_linearize, linearize
from ppl_memprior.inference.linearized_posterior import ComponentReport, LinearizedPosterior
from ppl_memprior.inference.lookup import LookupPosterior, check_lookup, lookup
from ppl_memprior.inference.mode_jump import ModeJump, ModeJumpState
from ppl_memprior.inference.nuts import check_nuts, nuts
from ppl_memprior.inference.tempered_smc import check_tempered_smc, tempered_smc

__all__ = [
    "ComponentReport",
    "Cost",
    "Draws",
    "EvidenceCurve",
    "ExampleGibbs",
    "JumpProposal",
    "LinearizedPosterior",
    "LookupPosterior",
    "ModeJump",
    "ModeJumpState",
    "PsisPosterior",
    "check_correctable",
    "check_executor",
    "check_gibbs",
    "check_linearize",
    "check_lookup",
    "check_mode_jump",
    "check_nuts",
    "check_proposal",
    "check_proposal_fits",
    "check_psis",
    "check_tempered_smc",
    "default_proposal",
    "evidence",
    "gibbs",
    "linearize",
    "lookup",
    "mode_jump",
    "nuts",
    "psis",
    "tempered_smc",
]
