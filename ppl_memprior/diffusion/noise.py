"""Noise levels of the reverse diffusion: from far wider than the examples down to none.

The process is variance exploding: x_t = x_0 + sigma_t e with alpha = 1, so x_t keeps the unit of
the examples. `samplers` makes the steps between two levels.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ppl_memprior.diffusion.spread import example_spread, smallest_distance
from ppl_memprior.problem.inverse_problem import InverseProblem


def polynomial_levels(
    largest: float, smallest: float, num_steps: int, *, rho: float = 7.0
) -> jax.Array:
    """Return decreasing noise levels, evenly spaced in the power 1/rho, that end at zero.

    Args:
        largest: first level, in the unit of the examples.
        smallest: last positive level, in the unit of the examples.
        num_steps: number of steps between levels, at least 2.
        rho: larger values put more levels near the smallest level.

    Returns:
        The levels, shape (num_steps + 1,); the last level is 0.

    Source: Karras, Aittala, Aila & Laine (2022), "Elucidating the Design Space of
    Diffusion-Based Generative Models", equation 5.
    """
    if num_steps < 2 or not largest > smallest > 0:
        raise ValueError(
            f"noise levels need largest > smallest > 0 and at least 2 steps, got largest "
            f"{largest}, smallest {smallest}, {num_steps} steps"
        )
    ramp = jnp.linspace(0.0, 1.0, num_steps)
    ends = largest ** (1 / rho), smallest ** (1 / rho)
    return jnp.append((ends[0] + ramp * (ends[1] - ends[0])) ** rho, 0.0)


def levels_for(problem: InverseProblem, num_steps: int) -> jax.Array:
    """Return levels from far wider than the examples to well below the bandwidth.

    Args:
        problem: an inverse problem. For a memorized prior the last positive level is a hundredth
            of the smallest distance between examples, for which each pair is compared.
        num_steps: number of steps between levels.

    Returns:
        The levels, shape (num_steps + 1,).
    """
    bandwidth = float(problem.prior.bandwidth)
    radius = float(example_spread(problem).largest)
    radius = radius or bandwidth or 1.0  # one example, or all alike
    if bandwidth > 0:
        smallest = 0.03 * bandwidth
    else:
        gap = smallest_distance(problem)
        smallest = 0.01 * (gap if math.isfinite(gap) else radius)
    return polynomial_levels(2.0 * max(radius, bandwidth), smallest, num_steps)
