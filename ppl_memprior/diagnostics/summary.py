"""One posterior in numbers: the numbers of its row in a comparison.

The module reads a labelled tree as `ppl_memprior.run` returns it. It never evaluates the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ppl_memprior.diagnostics.alternatives import Alternative, read_alternatives
from ppl_memprior.diagnostics.calibration import misfit
from ppl_memprior.diagnostics.convergence import convergence
from ppl_memprior.diagnostics.distances import (
    MAX_DRAWS,
    energy_distance,
    nearly_independent,
    thinned,
    total_variation,
)
from ppl_memprior.diagnostics.memorization import effective_examples, leave_one_out_ratios
from ppl_memprior.diagnostics.modes import example_groups, visited_modes, weights_of_groups
from ppl_memprior.diagnostics.multimodality import mode_mixing

NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class PosteriorSummary:
    """The numbers of one posterior. A number that does not apply is NaN.

    Attributes:
        method: name of the posterior, its label in the report.
        kind: registered name of the posterior's method; the posterior's name if the tree does not
            say.
        independent: whether the draws are independent, not chains.
        draws: number of draws in all chains.
        ess: smallest effective sample size over all coordinates of all latent sites. For
            independent draws it is their number, for weighted draws the effective sample size of
            the weights.
        rhat: largest R-hat over all coordinates of all latent sites; NaN for independent draws.
        relative_mcse: largest Monte Carlo standard error of a mean, in posterior standard
            deviations.
        log_evidence: log p(data), if the method estimates it.
        log_evidence_error: standard error of `log_evidence`, in nats.
        khat: Pareto shape of the importance weights; see `ppl_memprior.inference.PsisPosterior`.
        importance_draws: number of weighted draws; 0 without weights.
        importance_ess: effective sample size of the weighted draws.
        reduced_chi_square: see `ppl_memprior.diagnostics.Misfit`.
        misfit_z: see `ppl_memprior.diagnostics.Misfit`.
        effective_examples: exp(entropy) of the mean responsibilities of the distinct examples.
        top_example: number of the distinct example with the largest mean responsibility.
        top_share: mean responsibility of `top_example`.
        nearest_ratio: median nearest-neighbour ratio of the draws; NaN with fewer than three
            distinct examples.
        null_share: share of the distinct examples whose leave-one-out ratio is smaller than
            `nearest_ratio`.
        distance: scaled energy distance to the reference.
        distance_noise: value that `distance` does not exceed in 95 of 100 cases if both sets of
            draws have one distribution.
        weights_distance: total variation to the reference's mean responsibilities of the distinct
            examples.
        linearization_error: error of a linearized posterior, in nats.
        divergences: number of divergent transitions of Hamiltonian chains.
        num_failed: number of simulations that failed in the method and at its draws.
        seconds: wall time; NaN if the tree does not say.
        forward_evaluations: number of forward solves; NaN if the tree does not say.
        gradient_evaluations: number of gradients; NaN if the tree does not say.
        mode_ess: effective sample size of a mode's indicator, for chains; see
            `ppl_memprior.diagnostics.ModeMixing`.
        mode_rhat: R-hat of the modes' indicators, for chains.
        between_chain_tv: largest total variation between a chain's occupancy of the modes and the
            occupancy of all chains.
        round_trips: number of round trips between the two most visited modes, for chains whose
            draws have an order.
        num_examples: number of stored examples.
        distinct_examples: number of distinct examples; see
            `ppl_memprior.diagnostics.distinct_examples`.
        bandwidth: standard deviation of the prior's components, in the unit of the examples; 0 for
            a prior whose components are the examples themselves.
        thinned_draws: number of nearly independent draws that the energy distance uses.
        alternatives: methods that can take the problem, this posterior's method included, in order
            of preference; empty if the tree does not say.
        remedy: advice for chains that disagree; empty if the tree does not say.
    """

    method: str
    kind: str
    independent: bool
    draws: int
    ess: float
    rhat: float
    relative_mcse: float
    log_evidence: float
    log_evidence_error: float
    khat: float
    importance_draws: int
    importance_ess: float
    reduced_chi_square: float
    misfit_z: float
    effective_examples: float
    top_example: int
    top_share: float
    nearest_ratio: float
    null_share: float
    distance: float
    distance_noise: float
    weights_distance: float
    linearization_error: float
    divergences: int
    seconds: float
    forward_evaluations: float
    gradient_evaluations: float
    mode_ess: float = NAN
    mode_rhat: float = NAN
    between_chain_tv: float = NAN
    round_trips: float = NAN
    num_examples: int = 0
    distinct_examples: int = 0
    bandwidth: float = NAN
    thinned_draws: int = 0
    alternatives: tuple[Alternative, ...] = ()
    remedy: str = ""
    num_failed: int = 0


def summarize(name: str, tree: xr.DataTree, reference: xr.DataTree | None) -> PosteriorSummary:
    """Summarize one posterior.

    Args:
        name: name of the posterior.
        tree: draws of the posterior, as `ppl_memprior.run` returns them.
        reference: draws to measure the distance to, or None.

    Returns:
        The summary. Without a reference its distances are NaN.
    """
    summary = _alone(name, tree)
    if reference is None or reference is tree:
        return summary
    return _beside_reference(summary, tree, _alone("reference", reference), reference)


def summarize_all(
    runs: Mapping[str, xr.DataTree], reference: str | None
) -> tuple[PosteriorSummary, ...]:
    """Summarize posteriors of one problem.

    Args:
        runs: draws by the posterior's name, as `ppl_memprior.run` returns them.
        reference: name of the posterior to measure distances to, or None.

    Returns:
        One summary for each posterior, in the order of `runs`.
    """
    found = {name: _alone(name, tree) for name, tree in runs.items()}
    if reference is None:
        return tuple(found.values())
    return tuple(
        s
        if name == reference
        else _beside_reference(s, runs[name], found[reference], runs[reference])
        for name, s in found.items()
    )


def _alone(name: str, tree: xr.DataTree) -> PosteriorSummary:
    """Everything that can be said of one posterior without another."""
    site = str(tree.attrs["prior_site"])
    posterior, stats, examples = (
        tree[group].to_dataset() for group in ("posterior", "sample_stats", "examples")
    )
    draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    groups = example_groups(tree)
    independent = bool(tree.attrs["independent_draws"])
    if independent:
        ess = float(tree.attrs.get("ess", draws))
        sampler = {"ess": ess, "rhat": NAN, "relative_mcse": 1 / np.sqrt(ess)}
        sampler["thinned_draws"] = min(nearly_independent(draws, ess), MAX_DRAWS)
    else:
        sampler = _chains(tree, site, groups)
    chi_square = stats["chi_square"] if "chi_square" in stats else np.array([])
    reduced, z = misfit(chi_square, int(tree.attrs["num_data"]))
    responsibility = weights_of_groups(examples["mean_responsibility"], groups)
    null = _null(examples, site, groups)
    ratio = float(np.median(stats["nearest_ratio"])) if np.isfinite(null).any() else NAN
    return PosteriorSummary(
        method=name,
        kind=str(tree.attrs.get("method", name)),
        independent=independent,
        draws=draws,
        log_evidence=float(tree.attrs.get("log_evidence", NAN)),
        log_evidence_error=float(tree.attrs.get("log_evidence_error", NAN)),
        khat=float(tree.attrs.get("khat", NAN)),
        importance_draws=int(tree.attrs.get("num_importance_draws", 0)),
        importance_ess=float(tree.attrs.get("importance_ess", NAN)),
        reduced_chi_square=reduced,
        misfit_z=z,
        effective_examples=effective_examples(responsibility),
        top_example=int(np.argmax(responsibility)),
        top_share=float(np.max(responsibility)),
        nearest_ratio=ratio,
        null_share=NAN if ratio != ratio else float(np.mean(null < ratio)),
        distance=NAN,
        distance_noise=NAN,
        weights_distance=NAN,
        linearization_error=float(tree.attrs.get("linearization_error", NAN)),
        divergences=int(stats["diverging"].sum()) if "diverging" in stats else 0,
        num_failed=sum(int(tree.attrs.get(n, 0)) for n in ("num_failed", "num_failed_draws")),
        seconds=float(tree.attrs.get("seconds", NAN)),
        forward_evaluations=float(tree.attrs.get("num_forward_evaluations", NAN)),
        gradient_evaluations=float(tree.attrs.get("num_gradient_evaluations", NAN)),
        num_examples=len(groups),
        distinct_examples=len(np.unique(groups)),
        bandwidth=float(tree.attrs.get("bandwidth", NAN)),
        alternatives=read_alternatives(tree),
        remedy=str(tree.attrs.get("remedy", "")),
        **sampler,
    )


def _null(examples: xr.Dataset, site: str, groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """The null of the nearest-neighbour ratio: of all examples, or the stored one of some."""
    if site in examples:
        return leave_one_out_ratios(examples[site].to_numpy(), groups)
    stored = examples["leave_one_out_ratio"].to_numpy()
    return stored[np.isfinite(stored)]


def _beside_reference(
    summary: PosteriorSummary,
    tree: xr.DataTree,
    reference_summary: PosteriorSummary,
    reference: xr.DataTree,
) -> PosteriorSummary:
    """Add the distances to a reference."""
    site = str(tree.attrs["prior_site"])
    draws = thinned(_flat(tree, site), summary.thinned_draws)
    others = thinned(_flat(reference, site), reference_summary.thinned_draws)
    distance, noise = energy_distance(draws, others)
    groups = example_groups(reference)
    weights = (
        weights_of_groups(t["examples"]["mean_responsibility"], groups) for t in (tree, reference)
    )
    return replace(
        summary,
        distance=distance,
        distance_noise=noise,
        weights_distance=total_variation(*weights),
    )


def _chains(tree: xr.DataTree, site: str, groups: NDArray[np.intp]) -> dict[str, Any]:
    """The fields of the summary that say how chains mix, within and between the examples."""
    posterior = tree["posterior"].to_dataset()
    latents = json.loads(str(tree.attrs["latent_sites"]))
    found = {name: convergence(posterior[name]) for name in latents}
    mixing = mode_mixing(visited_modes(tree, groups))
    several = posterior.sizes["chain"] > 1
    draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    slowest = np.fmin(found[site].ess, mixing.ess)
    fields = {
        "ess": float(np.nanmin([c.ess for c in found.values()])),
        "rhat": float(np.nanmax([c.rhat for c in found.values()])) if several else NAN,
        "relative_mcse": float(np.nanmax([c.relative_mcse for c in found.values()])),
        "mode_ess": mixing.ess,
        "mode_rhat": mixing.rhat,
        "between_chain_tv": mixing.between_chain_tv,
        "thinned_draws": min(nearly_independent(draws, float(slowest)), MAX_DRAWS),
    }
    if not tree.attrs.get("exchangeable_draws", 0):
        fields["round_trips"] = float(mixing.round_trips)
    return fields


def _flat(tree: xr.DataTree, site: str) -> NDArray[np.floating]:
    values = tree["posterior"][site].to_numpy()
    return values.reshape(-1, *values.shape[2:])
