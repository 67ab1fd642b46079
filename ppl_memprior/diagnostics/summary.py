"""One posterior in numbers: everything that its row in a comparison says.

Reads a labelled tree as `ppl_memprior.run` returns it; computes nothing about the model anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ppl_memprior.diagnostics.calibration import misfit
from ppl_memprior.diagnostics.convergence import convergence
from ppl_memprior.diagnostics.distances import energy_distance, total_variation
from ppl_memprior.diagnostics.memorization import effective_examples, leave_one_out_ratios
from ppl_memprior.diagnostics.multimodality import mode_mixing

NAN = float("nan")


@dataclass(frozen=True)
class PosteriorSummary:
    """A posterior's row; NaN where a number does not apply.

    Attributes:
        method: name of the method.
        independent: the draws are independent, not chains.
        draws: number of draws, all chains together.
        ess, rhat, relative_mcse: of the worst coordinate of the worst latent site; independent
            draws have an ESS of their number, or of what their weights leave of it, and no R-hat.
        log_evidence, log_evidence_error: log p(data) and its standard error, of methods that have
            them.
        khat: Pareto shape of the importance weights; see `ppl_memprior.inference.PsisPosterior`.
        importance_draws, importance_ess: number of weighted draws (0 without any), and their
            effective sample size.
        reduced_chi_square, misfit_z: see `ppl_memprior.diagnostics.misfit`.
        effective_examples: exp(entropy) of the mean responsibilities.
        top_example, top_share: the example with the largest mean responsibility, and that.
        nearest_ratio: median nearest-neighbour ratio of the draws.
        null_share: share of the examples whose leave-one-out ratio is smaller than that.
        distance, distance_noise: scaled energy distance to the reference, and the value that
            two sets of draws of one law would not exceed in 95 of 100 cases.
        weights_distance: total variation to the reference's mean responsibilities.
        linearization_error: in nats, of a linearized posterior.
        divergences: of Hamiltonian chains.
        seconds, forward_evaluations, gradient_evaluations: what it cost.
        mode_ess, mode_rhat, between_chain_tv: of the nearest example, see
            `ppl_memprior.diagnostics.ModeMixing`; of chains only.
        round_trips: between the two examples most visited, of chains whose draws have an order.
    """

    method: str
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
    forward_evaluations: int
    gradient_evaluations: int
    mode_ess: float = NAN
    mode_rhat: float = NAN
    between_chain_tv: float = NAN
    round_trips: float = NAN


def summarize(name: str, tree: xr.DataTree, reference: xr.DataTree | None) -> PosteriorSummary:
    """Summarize one posterior.

    Args:
        name: the method's name.
        tree: its draws.
        reference: draws to measure the distance to, or None.
    """
    site = str(tree.attrs["prior_site"])
    posterior, stats, examples = (
        tree[group].to_dataset() for group in ("posterior", "sample_stats", "examples")
    )
    chains = posterior.sizes["chain"]
    draws = chains * posterior.sizes["draw"]
    independent = bool(tree.attrs["independent_draws"])
    if independent:
        ess = float(tree.attrs.get("ess", draws))
        rhat, mcse = NAN, 1 / np.sqrt(ess)
    else:
        ess, rhat, mcse = _worst_site(tree, chains)
    chi_square = stats["chi_square"] if "chi_square" in stats else np.array([])
    reduced, z = misfit(chi_square, int(tree.attrs["num_data"]))
    responsibility = examples["mean_responsibility"].to_numpy()
    ratio = float(stats["nearest_ratio"].median())
    null = leave_one_out_ratios(examples[site].to_numpy())
    distance, noise, weights_distance = NAN, NAN, NAN
    if reference is not None and reference is not tree:
        distance, noise = energy_distance(_flat(tree, site), _flat(reference, site))
        weights_distance = total_variation(
            responsibility, reference["examples"]["mean_responsibility"]
        )
    return PosteriorSummary(
        method=name,
        independent=independent,
        draws=draws,
        ess=ess,
        rhat=rhat,
        relative_mcse=mcse,
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
        null_share=float(np.mean(null < ratio)) if np.isfinite(null).any() else NAN,
        distance=distance,
        distance_noise=noise,
        weights_distance=weights_distance,
        linearization_error=float(tree.attrs.get("linearization_error", NAN)),
        divergences=int(stats["diverging"].sum()) if "diverging" in stats else 0,
        seconds=float(tree.attrs["seconds"]),
        forward_evaluations=int(tree.attrs["num_forward_evaluations"]),
        gradient_evaluations=int(tree.attrs["num_gradient_evaluations"]),
        **({} if independent else _modes(tree)),
    )


def _worst_site(tree: xr.DataTree, chains: int) -> tuple[float, float, float]:
    latents = json.loads(str(tree.attrs["latent_sites"]))
    found = [convergence(tree["posterior"].to_dataset()[name]) for name in latents]
    rhat = float(np.nanmax([c.rhat for c in found])) if chains > 1 else NAN
    mcse = float(np.nanmax([c.relative_mcse for c in found]))
    return float(np.nanmin([c.ess for c in found])), rhat, mcse


def _modes(tree: xr.DataTree) -> dict[str, float]:
    """The fields of the summary that say how chains mix between the examples."""
    mixing = mode_mixing(tree["sample_stats"].to_dataset()["nearest_example"])
    found = {
        "mode_ess": mixing.ess,
        "mode_rhat": mixing.rhat,
        "between_chain_tv": mixing.between_chain_tv,
    }
    if not tree.attrs.get("exchangeable_draws", 0):
        found["round_trips"] = float(mixing.round_trips)
    return found


def _flat(tree: xr.DataTree, site: str) -> np.ndarray[Any, np.dtype[Any]]:
    values = tree["posterior"][site].to_numpy()
    return values.reshape(-1, *values.shape[2:])
