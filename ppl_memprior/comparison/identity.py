"""What stored draws come from, part by part, so that a difference can be named.

A run's identity and a method's options are kept in the attributes of its trees. Draws of one
identity, one method and the same options are the same draws.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ppl_memprior.comparison.methods import Method
from ppl_memprior.comparison.methods.options import default_options, options_of
from ppl_memprior.problem._fingerprint import hash_of, problem_fingerprint
from ppl_memprior.problem.inverse_problem import InverseProblem

#: Why fingerprints of what a user takes for one problem may differ.
FINGERPRINT_HINT = (
    "the fingerprint covers the prior, the data, the names of the sites and the model's values at "
    "the first, middle and last example, in the numbers of its precision; another processor or "
    "version of JAX rounds differently, and then the fingerprint is different"
)


def identity_of(
    problem: InverseProblem,
    rng_key: jax.Array,
    truth: Mapping[str, np.ndarray] | None = None,
) -> dict[str, str]:
    """What all draws of a run come from, as texts by the part's name.

    Args:
        problem: seen through its fingerprint.
        rng_key: JAX random key.
        truth: true values by site, or None.

    Returns:
        `problem` (64 hexadecimal digits), `precision`, `key` and `truth`.
    """
    key = np.asarray(jax.random.key_data(rng_key)).ravel()
    return {
        "problem": problem_fingerprint(problem),
        "precision": str(jax.dtypes.canonicalize_dtype(float)),
        "key": " ".join(map(str, key)),
        "truth": "; ".join(f"{n} = {value_text(v)}" for n, v in (truth or {}).items()) or "unknown",
    }


def method_identity(method: Method) -> dict[str, str]:
    """The method that draws come from: its name, and its options as a JSON object."""
    return {"method": method.name, "options": json.dumps(options_of(method))}


def differences(there: Mapping[Any, Any], here: Mapping[str, str]) -> str:
    """How a stored identity differs from the one of now, in words; empty if it does not.

    Args:
        there: attributes of stored draws.
        here: `identity_of`.
    """
    if not set(here) <= set(there) or "settings" in there:
        return (
            "an earlier version of ppl_memprior stored it, and this one cannot go on from there "
            "(ppl-memprior report still shows it)"
        )
    found = []
    if there["problem"] != here["problem"]:
        short = f"{str(there['problem'])[:8]} there, {here['problem'][:8]} here"
        found.append(f"the problem has the fingerprint {short} ({FINGERPRINT_HINT})")
    for part in ("precision", "key", "truth"):
        found += _difference(part, there[part], here[part])
    return "; ".join(found)


def method_differences(there: Mapping[Any, Any], method: Method) -> str:
    """How the method that stored draws come from differs from another one, in words.

    An option that the stored draws do not know had its default.

    Args:
        there: attributes of stored draws.
        method: that would draw now.
    """
    if "options" not in there:
        return "an earlier version stored it, without the options of its method"
    stored = json.loads(str(there["options"]))
    asked, defaults = options_of(method), default_options(method)
    found = _difference("method", there.get("method"), method.name)
    for name in dict.fromkeys((*stored, *asked)):
        values = (options.get(name, defaults.get(name)) for options in (stored, asked))
        found += _difference(f"option {name}", *values)
    return "; ".join(found)


def _difference(what: str, there: Any, here: Any) -> list[str]:
    return [] if there == here else [f"{what} {there} there, {here} here"]


def value_text(values: np.ndarray) -> str:
    """A few numbers as they are, more as their shape and the beginning of their hash."""
    if values.size <= 4:
        return str(values.tolist())
    return f"{'x'.join(map(str, values.shape))} numbers {hash_of(values)[:8]}"
