"""From an inverse problem to its posterior: closed forms and Markov chain Monte Carlo."""

from ppl_memprior._execution.workers import check_executor
from ppl_memprior.inference._evidence import EvidenceCurve, evidence
from ppl_memprior.inference._lookup import LookupPosterior, check_lookup, lookup
from ppl_memprior.inference._psis import (
    PsisPosterior,
    check_correctable,
    check_psis,
    psis,
)
from ppl_memprior.inference._tempered_smc import check_tempered_smc, tempered_smc
from ppl_memprior.inference.draws import Cost, Draws
from ppl_memprior.inference.linearized._linearize import check_linearize, linearize
from ppl_memprior.inference.linearized._posterior import ComponentReport, LinearizedPosterior
from ppl_memprior.inference.mcmc._gibbs import ExampleGibbs, check_gibbs, gibbs
from ppl_memprior.inference.mcmc._nuts import check_nuts, nuts
from ppl_memprior.inference.mcmc.mode_jump._checks import (
    check_mode_jump,
    check_proposal,
    check_proposal_fits,
)
from ppl_memprior.inference.mcmc.mode_jump._kernel import ModeJump, ModeJumpState
from ppl_memprior.inference.mcmc.mode_jump._proposal import JumpProposal, default_proposal
from ppl_memprior.inference.mcmc.mode_jump._sampler import mode_jump

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
