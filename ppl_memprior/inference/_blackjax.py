"""BlackJAX, imported when it is first needed.

The import computes with JAX, which starts JAX's backend; after that a user can no longer choose
the platform or the number of devices.
"""

from __future__ import annotations

import importlib
from typing import Any

import jax


def load_blackjax() -> Any:
    """Import BlackJAX, its tempered SMC included, and return it."""
    # the first call may come while a function is being traced
    with jax.ensure_compile_time_eval():
        importlib.import_module("blackjax.smc.adaptive_tempered")
        return importlib.import_module("blackjax")
