"""What the model was given besides its data: the group `constant_data` of a tree."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ppl_memprior.comparison.trees.dims import RESERVED, dataset, event_dims, numbered
from ppl_memprior.problem._example_batches import example_batches
from ppl_memprior.problem.inverse_problem import InverseProblem


def examples_name(prior_site: str) -> str:
    """Name of the variable that holds the examples."""
    return f"{prior_site}_examples"


def constant_data(problem: InverseProblem, most: int) -> xr.Dataset:
    """The examples, and the arrays among the model's arguments that are not observed.

    Args:
        problem: the inverse problem.
        most: numbers that an array may have; the attribute `left_out` names larger ones. Examples
            that are left out are not read, except to compare them with an argument of their shape.

    Returns:
        The examples under the name `<prior's site>_examples`, the arguments under theirs.
    """
    name = examples_name(problem.prior_name)
    sizes = {name: problem.num_examples * math.prod(problem.event_shape)}
    kept: dict[str, np.ndarray] = {}
    for argument, value in _arrays(problem).items():
        known = any(_equal(value, other) for other in problem.data.values())
        if known or _are_the_examples(value, problem):
            continue
        taken = argument in RESERVED or argument in sizes or "/" in argument
        key = f"{argument.replace('/', '_')}_argument" if taken else argument
        sizes[key] = value.size
        if value.size <= most:
            kept[key] = np.asarray(value)
    found = dataset(kept, ())
    if sizes[name] <= most:
        dims = ("example", *event_dims(problem.prior_name, problem.event_shape, None))
        found = numbered(found.assign({name: (dims, np.asarray(problem.examples))}))
    large = [key for key, size in sizes.items() if size > most]
    found.attrs.update(left_out(large, most))
    return found


def left_out(names: Sequence[str], most: int) -> dict[str, str]:
    """The attribute `left_out` of a group: what it does not hold, and why; none without names."""
    return {"left_out": f"{', '.join(names)}: of more than {most} numbers"} if names else {}


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


def _are_the_examples(value: Any, problem: InverseProblem) -> bool:
    """Whether an array holds the examples, of which a batch is in memory at a time."""
    if np.shape(value) != (problem.num_examples, *problem.event_shape):
        return False
    start = 0
    for rows in example_batches(problem):
        if not _equal(value[start : start + len(rows)], rows):
            return False
        start += len(rows)
    return True


def _equal(value: Any, other: Any) -> bool:
    return np.shape(value) == np.shape(other) and bool(
        np.array_equal(np.asarray(value, dtype=np.float32), np.asarray(other, dtype=np.float32))
    )
