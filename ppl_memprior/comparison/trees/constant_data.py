"""What the model was given besides its data: the group `constant_data` of a tree."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ppl_memprior.comparison.trees.dims import RESERVED, dataset, event_dims, numbered
from ppl_memprior.problem.inverse_problem import InverseProblem


def examples_name(prior_site: str) -> str:
    """Name of the variable that holds the examples."""
    return f"{prior_site}_examples"


def constant_data(problem: InverseProblem, most: int) -> xr.Dataset:
    """The examples, and the arrays among the model's arguments that are not observed.

    Args:
        problem: the inverse problem.
        most: numbers that an array may have; the attribute `left_out` names larger ones.

    Returns:
        The examples under the name `<prior's site>_examples`, the arguments under theirs.
    """
    name = examples_name(problem.prior_name)
    examples = problem.examples
    values: dict[str, Any] = {name: examples}
    for argument, value in _arrays(problem).items():
        known = (examples, *problem.data.values())
        if not any(_equal(value, other) for other in known):
            taken = argument in RESERVED or argument in values or "/" in argument
            values[f"{argument.replace('/', '_')}_argument" if taken else argument] = value
    large = [key for key, value in values.items() if np.size(value) > most]
    kept = {key: np.asarray(value) for key, value in values.items() if key not in large}
    found = dataset({key: value for key, value in kept.items() if key != name}, ())
    if name in kept:
        dims = ("example", *event_dims(problem.prior_name, problem.event_shape, None))
        found = numbered(found.assign({name: (dims, kept[name])}))
    if large:
        found.attrs["left_out"] = f"{', '.join(large)}: of more than {most} numbers"
    return found


def _arrays(problem: InverseProblem) -> dict[str, Any]:
    """The model's arguments that are arrays of numbers, by name."""
    try:
        bound = inspect.signature(problem.model).bind(*problem.args, **problem.kwargs).arguments
    except (TypeError, ValueError):  # a callable without a signature
        bound = {f"argument_{i}": value for i, value in enumerate(problem.args)} | problem.kwargs
    flat: dict[str, Any] = {}
    for name, value in bound.items():
        if isinstance(value, dict):  # **kwargs of the model, or a table of its own
            flat.update({str(key): item for key, item in value.items()})
        else:
            flat[name] = value
    return {name: value for name, value in flat.items() if _is_numeric(value)}


def _is_numeric(value: Any) -> bool:
    if not isinstance(value, np.ndarray | jax.Array):
        return False
    return bool(
        jnp.issubdtype(value.dtype, jnp.integer)
        or jnp.issubdtype(value.dtype, jnp.floating)
        or jnp.issubdtype(value.dtype, jnp.bool_)
    )


def _equal(value: Any, other: Any) -> bool:
    return np.shape(value) == np.shape(other) and bool(
        np.array_equal(np.asarray(value, dtype=np.float32), np.asarray(other, dtype=np.float32))
    )
