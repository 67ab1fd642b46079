"""How far the examples lie from one another, read batch by batch.

The noise levels begin beyond the farthest example, and the steps are measured in the spread.
"""

from __future__ import annotations

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
