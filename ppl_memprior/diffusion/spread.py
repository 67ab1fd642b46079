"""How far the examples lie from one another, read batch by batch.

The noise levels begin beyond the farthest example, and the steps are measured in the spread. For a
memorized prior they end below the smallest distance.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ppl_memprior.problem._example_batches import example_batches
from ppl_memprior.problem.inverse_problem import InverseProblem


class Spread(NamedTuple):
    """The examples around their unweighted mean.

    Attributes:
        mean: shape `event_shape`.
        root_mean_square: of the distances from the mean, scalar.
        largest: of them, scalar.
    """

    mean: jax.Array
    root_mean_square: jax.Array
    largest: jax.Array


def example_spread(problem: InverseProblem) -> Spread:
    """The spread of a problem's examples, which are read twice."""
    sums = [jnp.sum(rows, axis=0) for rows in example_batches(problem)]
    mean = jnp.sum(jnp.stack(sums), axis=0) / problem.num_examples
    squared = jnp.concatenate(
        [
            jnp.sum((rows - mean).reshape(len(rows), -1) ** 2, axis=1)
            for rows in example_batches(problem)
        ]
    )
    return Spread(mean, jnp.sqrt(jnp.mean(squared)), jnp.sqrt(jnp.max(squared)))


def smallest_distance(problem: InverseProblem) -> float:
    """The smallest distance between two examples that differ; infinity without any.

    Two batches of examples are in memory at once. Each batch is read together with all later ones.
    """
    smallest, start = math.inf, 0
    for rows in example_batches(problem):
        flat = rows.reshape(len(rows), -1)
        for others in example_batches(problem, start):
            found = _smallest_between(flat, others.reshape(len(others), -1))
            smallest = min(smallest, float(found))
        start += len(rows)
    return smallest


@jax.jit
def _smallest_between(rows: jax.Array, others: jax.Array) -> jax.Array:
    """The smallest distance that is not zero from one of `rows` (K, d) to one of `others`."""

    def from_row(row: jax.Array) -> jax.Array:
        distances = jnp.linalg.norm(others - row, axis=1)
        return jnp.min(jnp.where(distances > 0, distances, jnp.inf))

    return jnp.min(jax.lax.map(from_row, rows))
