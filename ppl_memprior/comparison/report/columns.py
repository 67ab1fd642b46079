"""The built-in columns of the table, in its order.

The numbers come from `PosteriorSummary`; this module names, formats and explains them.
"""

from __future__ import annotations

import math
from operator import attrgetter

from ppl_memprior.comparison.report.column import Column
from ppl_memprior.comparison.report.posterior import Posterior


def predictions(posterior: Posterior) -> float:
    """Forward solves that describe the draws; NaN where the draws do not say how many.

    Args:
        posterior: whose draws.

    Returns:
        Their number.
    """
    return float(posterior.tree.attrs.get("num_predictive_evaluations", math.nan))


COLUMNS = (
    Column(
        name="draws",
        compute=attrgetter("summary.draws"),
        format="d",
        help="Number of draws, all chains together.",
    ),
    Column(
        name="ESS",
        compute=attrgetter("summary.ess"),
        format=".0f",
        help="Bulk effective sample size of the worst coordinate. For weighted draws: what their "
        "weights and drawing among them leave.",
    ),
    Column(
        name="R-hat",
        compute=attrgetter("summary.rhat"),
        format=".3f",
        help="Rank-normalised split R-hat of the worst coordinate. Independent draws have none.",
    ),
    Column(
        name="MCSE/sd",
        compute=attrgetter("summary.relative_mcse"),
        format=".3f",
        help="Monte Carlo error of the mean of the worst coordinate, in its posterior standard "
        "deviations.",
    ),
    Column(
        name="mode ESS",
        compute=attrgetter("summary.mode_ess"),
        format=".0f",
        help="Effective sample size of the indicators of the nearest example. It is the smallest "
        "over the examples that hold between 1 and 99 % of the draws; a chain at one example has "
        "none.",
    ),
    Column(
        name="mode TV",
        compute=attrgetter("summary.between_chain_tv"),
        format=".3f",
        help="Whether the chains agree on the nearest example: the largest total variation "
        "between one chain and all chains together.",
    ),
    Column(
        name="log evidence",
        compute=attrgetter("summary.log_evidence"),
        format=".2f",
        help="Logarithm of the probability density of the data, where the method estimates it.",
        unit="nat",
    ),
    Column(
        name="± se",
        compute=attrgetter("summary.log_evidence_error"),
        format=".3f",
        help="Standard error of the log evidence.",
        unit="nat",
        optional=True,
    ),
    Column(
        name="k-hat",
        compute=attrgetter("summary.khat"),
        format=".2f",
        help="Shape of the generalized Pareto distribution that fits the largest importance "
        "weights. Below 0.7 (less for few draws) the corrected draws can be believed.",
        optional=True,
    ),
    Column(
        name="chi2/m",
        compute=attrgetter("summary.reduced_chi_square"),
        format=".3f",
        help="Mean chi-square of the draws over the number m of data.",
    ),
    Column(
        name="misfit z",
        compute=attrgetter("summary.misfit_z"),
        format="+.1f",
        help="Mean chi-square of the draws less m, over the standard deviation sqrt(2m) that "
        "the noise gives it.",
    ),
    Column(
        name="examples",
        compute=attrgetter("summary.effective_examples"),
        format=".2f",
        help="Effective number of distinct training examples: exp of the entropy of the draws' "
        "mean responsibilities.",
    ),
    Column(
        name="NN ratio",
        compute=attrgetter("summary.nearest_ratio"),
        format=".2f",
        help="Distance of a draw to the nearest distinct example over its mean distance to the "
        "next 49, median over the draws. It is 0 on an example.",
    ),
    Column(
        name="distance",
        compute=attrgetter("summary.distance"),
        format=".3f",
        help="Energy distance to the reference, scaled to lie between 0 and 1.",
    ),
    Column(
        name="seconds",
        compute=attrgetter("summary.seconds"),
        format=".1f",
        help="Wall time of the method, with compilation.",
        unit="s",
    ),
    Column(
        name="forwards",
        compute=attrgetter("summary.forward_evaluations"),
        format=",d",
        help="Forward solves that the method made.",
    ),
    Column(
        name="gradients",
        compute=attrgetter("summary.gradient_evaluations"),
        format=",d",
        help="Gradients, or products with the Jacobian, that the method made.",
    ),
    Column(
        name="predictions",
        compute=predictions,
        format=",d",
        help="Forward solves that describe the finished draws: their chi-square and predictions.",
        optional=True,
    ),
)
