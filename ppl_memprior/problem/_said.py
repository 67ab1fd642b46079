"""What the sites of a model's trace say: by it one model is told from another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import biject_to

from ppl_memprior.distributions import LearnedPrior
from ppl_memprior.problem._gaussian_site import gaussian_site


def said(trace: Mapping[str, Any]) -> dict[str, Any]:
    """All that the sites of a trace say, as arrays."""
    found: dict[str, Any] = {}
    for name, site in trace.items():
        if site["type"] == "deterministic" and _is_array(site["value"]):
            found[name] = site["value"]
        elif site["type"] == "sample":
            fn, value = site["fn"], site["value"]
            gaussian = gaussian_site(site) if site["is_observed"] else None
            found[name] = [value, site["scale"]]
            if isinstance(fn, LearnedPrior):
                found[name] += jax.tree.leaves(fn)  # of one in a file there may be no density
            elif site["is_observed"]:
                found[name].append(fn.log_prob(value))
            else:
                found[name] += _of_a_latent(fn, value)
            if gaussian is not None:
                found[name] += [gaussian.residual(), gaussian.log_normalizer()]
    return found


def _of_a_latent(fn: Any, value: Any) -> list[Any]:
    """Its density and its value without constraints; some distributions can only be sampled."""
    found = []
    for say in (lambda: fn.log_prob(value), lambda: biject_to(fn.support).inv(value)):
        try:
            found.append(say())
        except Exception:
            found.append(None)
    return found


def _is_array(value: Any) -> bool:
    try:
        jnp.result_type(value)
    except TypeError:
        return False
    return True


def types(trace: Mapping[str, Any]) -> list[Any]:
    """What the sites of a trace say that is no array."""
    found: list[Any] = []
    for name, site in trace.items():
        found.append((name, site["type"]))
        if site["type"] == "sample":
            fn = site["fn"]
            found.append((type(fn), type(fn.support), repr(site.get("infer"))))
            while hasattr(fn, "base_dist"):
                fn = fn.base_dist
                found.append(type(fn))
        elif site["type"] == "deterministic" and not _is_array(site["value"]):
            found.append(repr(site["value"]))
    return found
