"""What a method must return, checked before anything is made of it."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from ppl_memprior.comparison.trees.dims import RESERVED
from ppl_memprior.comparison.trees.labels import site_shapes
from ppl_memprior.inference import Cost, Draws
from ppl_memprior.problem.inverse_problem import InverseProblem

#: Draws of a chain that R-hat needs, which splits it.
LEAST_DRAWS = 4
#: Single numbers that a method may keep with its draws under no other meaning.
_ATTRIBUTES = (
    *("prior_site", "num_data", "latent_sites", "independent_draws", "exchangeable_draws"),
    *("problem", "precision", "key", "truth", "method", "options", "seconds", "remedy"),
    *("methods_that_apply", "bandwidth", "num_failed", "num_failed_draws"),
)


def check_draws(label: str, draws: Any, problem: InverseProblem) -> None:
    """Raise for what a method returned that is no draws from the problem's posterior.

    Raises:
        TypeError: no `Draws`, no `Cost`, or numbers that are none.
        ValueError: draws of other sites, of another shape or too few; statistics or weights of
            another shape; a number under a name that is taken.
    """
    what = f"the method {label!r} must return"
    if not isinstance(draws, Draws):
        raise TypeError(f"{what} inference.Draws, got {type(draws).__name__}")
    if not isinstance(draws.cost, Cost):
        raise TypeError(f"{what} its cost as inference.Cost, got {type(draws.cost).__name__}")
    wanted = {problem.prior_name, *problem.extra_latents}
    if set(draws.latents) != wanted:
        raise ValueError(
            f"{what} draws of the latent sites {sorted(wanted)}, got those of "
            f"{sorted(draws.latents)}"
        )
    chains = np.shape(draws.latents[problem.prior_name])[:2]
    least = 1 if draws.independent else LEAST_DRAWS
    if len(chains) < 2 or chains[0] < 1 or chains[1] < least:
        raise ValueError(
            f"{what} at least one chain of at least {least} draws, shape (chains, draws, *event); "
            f"got the shape {np.shape(draws.latents[problem.prior_name])} of "
            f"{problem.prior_name!r}. Draws that are independent say so, Draws(independent=True)"
        )
    shapes = site_shapes(problem)
    for name, values in draws.latents.items():
        _require_shape(f"{what} draws of {name!r}", values, (*chains, *shapes[name]))
    for name, values in draws.sample_stats.items():
        _require_shape(f"{what} the statistic {name!r}", values, chains)
    if draws.example_weights is not None:
        _require_shape(f"{what} example_weights", draws.example_weights, (problem.num_examples,))
    for name, number in draws.numbers.items():
        if name in _ATTRIBUTES or name in RESERVED:
            raise ValueError(f"{what} its number {name!r} under another name, which is taken")
        if not isinstance(number, numbers.Real):
            raise TypeError(
                f"{what} single numbers, got {name!r} = {type(number).__name__} {number!r}; "
                "arrays stand in details"
            )


def _require_shape(what: str, values: Any, shape: tuple[int, ...]) -> None:
    if np.shape(values) != tuple(shape):
        raise ValueError(f"{what} of shape {tuple(shape)}, got {np.shape(values)}")
