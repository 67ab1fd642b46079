"""The approximation that methods propose from, worked out once a run."""

from __future__ import annotations

from ppl_memprior.comparison.resources import Resources
from ppl_memprior.inference import JumpProposal, default_proposal
from ppl_memprior.problem.inverse_problem import InverseProblem


def shared_proposal(problem: InverseProblem, resources: Resources) -> JumpProposal:
    """`default_proposal` of the problem, the same object for every method of the run."""
    what = "default proposal"
    return resources.once(
        problem, what, lambda: default_proposal(problem, **resources.for_examples(what))
    )
