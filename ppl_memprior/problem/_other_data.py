"""Other data for a problem, checked against those that it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from ppl_memprior.problem._model_data import numeric
from ppl_memprior.problem._model_sites import check_finite


class HasData(Protocol):
    """What is asked of a problem."""

    data: dict[str, Any]
    fixed_data: tuple[str, ...]


def other_data(
    problem: HasData, only: tuple[Any, ...], by_site: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """The data as arrays of the type that they have now, by observed site.

    Args:
        problem: the problem.
        only: the data of its only observed site, or nothing.
        by_site: the data by observed site.

    Raises:
        TypeError: data that do not hold real numbers.
        ValueError: see `InverseProblem.with_data`.
    """
    sites = [name for name, value in problem.data.items() if value.size]
    given = dict(by_site)
    if only:
        if given or len(only) > 1 or len(sites) > 1:
            raise ValueError(
                f"with_data takes the data by site: {', '.join(f'{n}=...' for n in sites)}; "
                "without a name only where there is one site"
            )
        given = {sites[0]: only[0]}
    new = {}
    for name, value in given.items():
        if name not in sites:
            raise ValueError(f"the model has no observed site {name!r} with data; it has {sites}")
        if name not in problem.fixed_data:
            raise ValueError(
                f"the data of site {name!r} are computed inside the model: make another "
                "InverseProblem with other arguments"
            )
        old = problem.data[name]
        traced = isinstance(value, jax.core.Tracer)
        array = value if traced else numeric(f"the data of site {name!r}", value)
        if jnp.shape(array) != old.shape:
            raise ValueError(
                f"the data of site {name!r} have shape {old.shape}, the new ones "
                f"{jnp.shape(array)}; for several data sets use jax.vmap over with_data, or a loop"
            )
        if not traced:
            check_finite({name: array})
        new[name] = jnp.asarray(array, old.dtype)
    return new
