"""What the rules measure posteriors by: thresholds with their reasons, and tests on a summary.

A NaN number is one that a posterior does not have, and passes no test.
"""

from __future__ import annotations

import math

from ppl_memprior.diagnostics.summary import PosteriorSummary

MISFIT_Z = 3.0  # standard deviations of the noise that a misfit may lie from its expectation
ONE_EXAMPLE = 1.5  # effective number of examples below which a posterior is one example
MEMORIZED_SHARE = 0.05  # share of the null below which a nearest-neighbour ratio is a copy's
FEW_DRAWS = 50  # nearly independent draws with which only large differences can be seen
RHAT = 1.01  # Vehtari et al. (2021)
ESS_PER_RUN = 400.0  # Vehtari et al. (2021): 100 for each of four chains
# total variation of a chain's occupancy of the examples: weights that differ by less leave a
# posterior's conclusions as they are, and a few hundred effective draws scatter by as much
MODE_TV = 0.05
LINEARIZATION_NATS = 0.5  # log-likelihood error that a linearized posterior may have
KHAT = 0.7  # Vehtari et al. (2024): least reliable shape of importance weights, many draws
IMPORTANCE_ESS = 100.0  # weighted draws whose mean is known to a tenth of a standard deviation
EVIDENCE_NATS = 0.1  # difference of log evidences that matters
# standard errors that two log evidences must differ by before the difference means anything
EVIDENCE_ERRORS = 3.0


def knows_misfit(s: PosteriorSummary) -> bool:
    """Whether a chi-square says how well a posterior explains the data."""
    return not math.isnan(s.misfit_z)


def is_next_to_examples(s: PosteriorSummary) -> bool:
    """Whether the draws stay closer to their nearest example than examples do to one another."""
    return s.nearest_ratio <= 0 or s.null_share < MEMORIZED_SHARE


def is_one_example(s: PosteriorSummary) -> bool:
    """Whether a posterior rests on a single example."""
    return s.effective_examples < ONE_EXAMPLE


def has_rhat(s: PosteriorSummary) -> bool:
    """Whether a posterior has several chains to compare."""
    return not math.isnan(s.rhat)


def modes_disagree(s: PosteriorSummary) -> bool:
    """Whether the chains disagree on how much weight each mode has."""
    return s.mode_rhat > RHAT and s.between_chain_tv > MODE_TV


def chains_disagree(s: PosteriorSummary) -> bool:
    """Whether the chains disagree on a coordinate or on the weights of the modes."""
    return s.rhat > RHAT or modes_disagree(s)


def is_converged(s: PosteriorSummary) -> bool:
    """Whether the chains agree, are long enough and have no divergent transition."""
    agree = s.rhat <= RHAT and s.ess >= ESS_PER_RUN
    return agree and not s.divergences and not modes_disagree(s)


def is_linearized(s: PosteriorSummary) -> bool:
    """Whether a posterior rests on a linearization whose error is known."""
    return not math.isnan(s.linearization_error)


def khat_limit(num_draws: int) -> float:
    """The k-hat below which `num_draws` weighted draws can be believed (Vehtari et al., 2024)."""
    return min(1 - 1 / math.log10(num_draws), KHAT)


def is_corrected(s: PosteriorSummary) -> bool:
    """Whether a posterior is an importance correction whose k-hat is low enough."""
    return s.importance_draws > 0 and s.khat < khat_limit(s.importance_draws)


def correction_fails(s: PosteriorSummary) -> bool:
    """Whether a posterior is an importance correction that cannot be believed."""
    return s.importance_draws > 0 and not is_corrected(s)


def evidence_differs(base: PosteriorSummary, corrected: PosteriorSummary) -> bool:
    """Whether two log evidences are further apart than the second one's error explains."""
    difference = abs(base.log_evidence - corrected.log_evidence)
    return difference > max(EVIDENCE_ERRORS * corrected.log_evidence_error, EVIDENCE_NATS)
