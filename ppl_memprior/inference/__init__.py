"""From an inverse problem to its posterior: closed forms and Markov chain Monte Carlo."""

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

__all__ = [
    "ComponentReport",
    "JumpProposal",
    "LinearizedPosterior",
    "LookupPosterior",
    "ModeJump",
    "ModeJumpResult",
    "ModeJumpState",
    "NutsResult",
    "check_finite_examples",
    "check_linearize",
    "check_lookup",
    "check_mode_jump",
    "check_nuts",
    "default_proposal",
    "linearize",
    "lookup",
    "mode_jump",
    "nuts",
]
