"""What stored draws come from, part by part, so that a difference can be named.

A run's identity is kept in the attributes of its trees. Draws of one identity are the same draws.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import jax
import numpy as np

from ppl_memprior._fingerprint import hash_of, problem_fingerprint
from ppl_memprior.comparison.methods import Settings
from ppl_memprior.problem import InverseProblem

#: Why fingerprints of what a user takes for one problem may differ.
FINGERPRINT_HINT = (
    "the fingerprint covers the prior, the data, the names of the sites and the model's values at "
    "the first and last example, in the numbers of its precision; another processor or version of "
    "JAX rounds differently, and then it is another one too"
)


def identity_of(
    problem: InverseProblem,
    rng_key: jax.Array,
    settings: Settings,
    truth: Mapping[str, np.ndarray] | None = None,
) -> dict[str, str]:
    """What a run's draws come from, as texts by the part's name.

    Args:
        problem: seen through its fingerprint.
        rng_key: JAX random key.
        settings: how long the methods work.
        truth: true values by site, or None.

    Returns:
        `problem` (64 hexadecimal digits), `precision`, `key`, `settings` (JSON) and `truth`.
    """
    key = np.asarray(jax.random.key_data(rng_key)).ravel()
    return {
        "problem": problem_fingerprint(problem),
        "precision": str(jax.dtypes.canonicalize_dtype(float)),
        "key": " ".join(map(str, key)),
        "settings": json.dumps(asdict(settings), default=int),  # NumPy's integers
        "truth": "; ".join(f"{n} = {value_text(v)}" for n, v in (truth or {}).items()) or "unknown",
    }


def differences(there: Mapping[Any, Any], here: Mapping[str, str]) -> str:
    """What differs between a stored identity and one of now, in words; empty if nothing does."""
    if not set(here) <= set(there):
        return "an earlier version stored it, without what its draws come from"
    found = []
    if there["problem"] != here["problem"]:
        short = f"{str(there['problem'])[:8]} there, {here['problem'][:8]} here"
        found.append(f"the problem has the fingerprint {short} ({FINGERPRINT_HINT})")
    for part in ("precision", "key", "truth"):
        found += _difference(part, there[part], here[part])
    stored, asked = _settings(there["settings"]), _settings(here["settings"])
    for name in dict.fromkeys((*stored, *asked)):
        found += _difference(f"setting {name}", stored.get(name), asked.get(name))
    return "; ".join(found)


def _difference(what: str, there: Any, here: Any) -> list[str]:
    return [] if there == here else [f"{what} {there} there, {here} here"]


def _settings(text: Any) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (TypeError, ValueError):
        content = None
    return content if isinstance(content, dict) else {"text": text}


def value_text(values: np.ndarray) -> str:
    """A few numbers as they are, more as their shape and the beginning of their hash."""
    if values.size <= 4:
        return str(values.tolist())
    return f"{'x'.join(map(str, values.shape))} numbers {hash_of(values)[:8]}"
