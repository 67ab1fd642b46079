"""What is known of each example: the group `examples` of a tree.

Values at the examples are kept as long as they are few enough, and else left out by name. Examples
are read batch by batch. What the draws say of the examples is left to `at_draws`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.tree_util import Partial
from numpy.typing import NDArray

from ppl_memprior import _batches
from ppl_memprior._execution.progress import map_in_batches, map_taken_in_batches
from ppl_memprior.comparison.trees.at_draws import AtDraws
from ppl_memprior.comparison.trees.constant_data import left_out
from ppl_memprior.comparison.trees.dims import dataset
from ppl_memprior.diagnostics import distinct_examples
from ppl_memprior.diagnostics.memorization import some_leave_one_out_ratios
from ppl_memprior.inference.draws import Draws
from ppl_memprior.problem._cache import remembered
from ppl_memprior.problem.inverse_problem import InverseProblem


def at_examples(
    problem: InverseProblem, draws: Draws, found: AtDraws, bandwidth: float
) -> xr.Dataset:
    """The group `examples` of a tree; see `datatree.tree_of_draws`.

    Args:
        problem: the inverse problem.
        draws: a method's result.
        found: what the model says at the draws.
        bandwidth: at which examples are the same.
    """
    names = _kept_sites(problem)
    values: dict[str, Any] = {}
    if problem.prior_name in names:
        values[problem.prior_name] = problem.examples
    else:
        values["leave_one_out_ratio"] = _null(problem, bandwidth)
    values.update(_deterministics(problem))
    values["prior_weight"] = np.exp(np.asarray(problem.prior.log_weights))
    values["mean_responsibility"] = found.mean_responsibility
    values["representative"] = same_examples(problem, bandwidth)
    if draws.example_weights is not None:
        values["posterior_weight"] = draws.example_weights
    group = dataset(values, ("example",))
    too_large = [name for name in _sizes(problem) if name not in names]
    group.attrs.update(left_out(too_large, _batches.BATCH_ELEMENTS))
    return group


def same_examples(problem: InverseProblem, bandwidth: float) -> NDArray[np.intp]:
    """The groups of examples that are the same at a bandwidth; see `distinct_examples`."""
    key = ("distinct examples", bandwidth)
    return remembered(problem, key, lambda: distinct_examples(problem.prior, bandwidth))


def deterministics_at(
    problem: InverseProblem, latents: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The deterministic sites that the prior's site alone decides, at one value of it.

    Args:
        problem: the inverse problem.
        latents: values by site, that of the prior's site among them.
    """
    if not _has_deterministics(problem):
        return {}
    x = jnp.asarray(latents[problem.prior_name])[None]
    found = map_in_batches(
        Partial(InverseProblem.deterministics, problem), x, elements_per_item=problem.num_data
    )
    return {name: values[0] for name, values in found.items()}


def num_example_evaluations(problem: InverseProblem, with_truth: bool) -> int:
    """Forward solves that the deterministic sites may take, at the examples and at the truth."""
    if not _has_deterministics(problem):
        return 0
    at_each = any(name != problem.prior_name for name in _kept_sites(problem))
    return (problem.num_examples if at_each else 0) + with_truth


def _null(problem: InverseProblem, bandwidth: float) -> NDArray[np.float64]:
    """The null of the nearest-neighbour ratio at some examples; made once for each bandwidth."""

    def make() -> NDArray[np.float64]:
        return some_leave_one_out_ratios(problem.prior, same_examples(problem, bandwidth))

    return remembered(problem, ("leave-one-out ratios", bandwidth), make)


def _deterministics(problem: InverseProblem) -> dict[str, np.ndarray]:
    """The deterministic sites that are kept, at each example; made once."""
    names = [name for name in _kept_sites(problem) if name != problem.prior_name]
    if not names:
        return {}

    def some(x: jax.Array) -> dict[str, jax.Array]:
        values = problem.deterministics(x)
        return {name: values[name] for name in names}

    everything = len(names) == len(problem.deterministic_names)
    kept = Partial(InverseProblem.deterministics, problem) if everything else some

    def solve() -> dict[str, np.ndarray]:
        return map_taken_in_batches(
            kept,
            problem.take,
            problem.num_examples,
            elements_per_item=problem.num_data + math.prod(problem.event_shape),
        )

    return remembered(problem, ("deterministic sites at the examples", *names), solve)


def _has_deterministics(problem: InverseProblem) -> bool:
    """Whether the model has deterministic sites that the prior's site alone decides."""
    return bool(problem.deterministic_names) and not problem.extra_latents


def _kept_sites(problem: InverseProblem) -> list[str]:
    """The sites whose values at all examples are few enough for a tree to hold them."""
    num = problem.num_examples
    return [name for name, size in _sizes(problem).items() if _batches.fits(num * size)]


def _sizes(problem: InverseProblem) -> dict[str, int]:
    """How many numbers one example is, and each deterministic site that it alone decides."""

    def measure() -> dict[str, int]:
        sizes = {problem.prior_name: math.prod(problem.event_shape)}
        if _has_deterministics(problem):
            shapes = jax.eval_shape(problem.deterministics, problem.take(0))
            sizes |= {name: shapes[name].size for name in problem.deterministic_names}
        return sizes

    return remembered(problem, "numbers at one example", measure)
