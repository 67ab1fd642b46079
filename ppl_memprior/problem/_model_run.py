"""Run a NumPyro model once, one thread at a time, and return its trace."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.typing import ArrayLike
from numpyro import handlers

# NumPyro's stack of effect handlers is one for all threads: two models that run at once would see
# each other's sites. Compiled functions do not come here any more.
RUNNING_A_MODEL = threading.RLock()


def trace_model(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    values: Mapping[str, ArrayLike],
    rng_seed: int | jax.Array,
) -> dict[str, Any]:
    """The model's trace with the given latent values; the others are drawn.

    Args:
        model: a NumPyro model.
        args: its positional arguments.
        kwargs: its arguments by name.
        values: of latent sites, by name.
        rng_seed: seed, or JAX random key, of the sites that are drawn.

    Returns:
        The sites by name, as `numpyro.handlers.trace` records them.
    """
    seeded = handlers.substitute(handlers.seed(model, rng_seed=rng_seed), data=values)
    with RUNNING_A_MODEL:
        return handlers.trace(seeded).get_trace(*args, **kwargs)
