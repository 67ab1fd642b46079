"""What the sites of a traced model must be like to make an inverse problem of it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpyro.distributions import TransformedDistribution

from ppl_memprior.distributions import LearnedPrior
from ppl_memprior.problem._model_data import innermost


def known_data(structure: dict[str, Any]) -> dict[str, np.ndarray]:
    """The values of the observed sites, where tracing the model left them as they were."""
    return {
        name: np.asarray(site["value"])
        for name, site in structure.items()
        if site["type"] == "sample"
        and site["is_observed"]
        and not isinstance(site["value"], jax.core.Tracer)
    }


def check_finite(data: dict[str, np.ndarray]) -> None:
    """Raise a `ValueError` for data, by site, that are NaN or infinite."""
    for name, value in data.items():
        bad = int(np.sum(~np.isfinite(np.asarray(value))))
        if bad:
            raise ValueError(
                f"the data of site {name!r} (shape {np.shape(value)}) hold {bad} NaN or "
                "infinite values; drop those data, or mask them (obs_mask=, or "
                "numpyro.handlers.mask) and set the masked values to 0"
            )


def check_shapes(structure: dict[str, Any]) -> None:
    """Raise a `ValueError` for data of another shape than their distribution."""
    for name, site in structure.items():
        if site["type"] != "sample" or not site["is_observed"] or site["fn"].event_shape == (0,):
            continue
        wanted = (*site["fn"].batch_shape, *site["fn"].event_shape)
        if np.shape(site["value"]) != wanted:
            raise ValueError(
                f"the data of site {name!r} have shape {np.shape(site['value'])}, its distribution "
                f"({describe(site['fn'])}) has shape {wanted}; give data of that shape, or expand "
                "the distribution (a plate, .expand)"
            )


def the_prior_site(structure: dict[str, Any]) -> str:
    """Name of the one latent site with a `LearnedPrior`.

    Raises:
        ValueError: no such site, several, or one in a plate or under a mask.
    """
    latents = {
        name: site["fn"]
        for name, site in structure.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    supported = [name for name, fn in latents.items() if isinstance(innermost(fn), LearnedPrior)]
    if len(supported) == 1 and isinstance(latents[supported[0]], LearnedPrior):
        return supported[0]
    listed = ", ".join(f"{name!r} ({describe(fn)})" for name, fn in latents.items()) or "none"
    if len(supported) > 1:
        raise ValueError(
            f"the model has {len(supported)} sites with a memorized or Gaussian-mixture prior, "
            f"{', '.join(map(repr, supported))}; one is supported: condition on the others with "
            "numpyro.handlers.condition"
        )
    if supported:
        name, fn = supported[0], latents[supported[0]]
        advice = "use the prior itself, outside plates and handlers.mask"
        if isinstance(fn, TransformedDistribution) and isinstance(fn.base_dist, LearnedPrior):
            advice = (
                "let the prior be the latent site, numpyro.handlers.reparam(model, "
                f"config={{{name!r}: numpyro.infer.reparam.TransformReparam()}})"
            )
        raise ValueError(f"the prior's site {name!r} is a {describe(fn)}; {advice}")
    raise ValueError(
        "the model has no latent site with a MemorizedPrior, DiffusionMixturePrior or "
        f"LowRankGaussianMixture; its latent sites are: {listed}"
    )


def describe(fn: Any) -> str:
    """What a user calls the distribution."""
    inner = innermost(fn)
    name = type(inner).__name__
    if name == "Unit":
        return "numpyro.factor"
    return name if inner is fn else f"{type(fn).__name__} of {name}"
