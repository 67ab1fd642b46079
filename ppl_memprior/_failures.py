"""Failed simulations: what counts as one, what follows from it, and how it is told.

One policy for all methods. Where the forward operator fails (the log-likelihood is NaN or plus
infinity, or a gradient that is needed is not finite) the likelihood is zero. Failures are counted
and told; they are an error only where nothing else is left.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

SHOWN = 5  # failures that a message names
LIMITS = "check the forward operator's limits (positivity, largest velocity, time step)"


def has_failed(log_likelihood: Any) -> Any:
    """Whether each log-likelihood is that of a failed simulation; NumPy or JAX, traced or not."""
    # NaN alone is not equal to itself
    return (log_likelihood != log_likelihood) | (log_likelihood == math.inf)


def zero_where_failed(log_likelihood: Any) -> Any:
    """The log-likelihoods, of NumPy or JAX, with minus infinity for failed simulations."""
    xp = log_likelihood.__array_namespace__()
    return xp.where(has_failed(log_likelihood), -math.inf, log_likelihood)


def tell_failures(method: str, failed: Any, things: str, consequence: str = "") -> int:
    """Count failed simulations, warn of them, and refuse to go on if there is nothing else.

    Args:
        method: who tells it.
        failed: whether the simulation failed at each of the things, shape (K,).
        things: what they are, "examples" say; a message names them by their numbers.
        consequence: what follows besides the likelihood of zero.

    Returns:
        How many there are.

    Raises:
        ValueError: the simulation failed at all of them.
    """
    which = np.flatnonzero(failed)
    require_some(method, which.size, np.size(failed), things)
    return tell_count(method, which.size, np.size(failed), things, first_few(which), consequence)


def first_few(numbers: Any) -> str:
    """The first few of some numbers, in words."""
    more = ", ..." if len(numbers) > SHOWN else ""
    return f"number {', '.join(map(str, numbers[:SHOWN]))}{more}"


def require_some(method: str, count: int, total: int, things: str) -> None:
    """Raise a `ValueError` if so many failed simulations are all there are."""
    if count and count == total:
        raise ValueError(
            f"{method}: the simulation failed at all {total} {things} (the log-likelihood or its "
            f"gradient is not finite); {LIMITS}"
        )


def tell_count(
    method: str, count: int, total: int, things: str, where: str = "", consequence: str = ""
) -> int:
    """Warn of failed simulations, if there are any.

    Args:
        method: see `tell_failures`.
        count: number of failed simulations.
        total: number of all simulations.
        things: see `tell_failures`.
        where: the first few of them, in words.
        consequence: see `tell_failures`.

    Returns:
        `count`.
    """
    if count:
        warnings.warn(
            f"{method}: the simulation failed at {count} of {total} {things}"
            f"{f' ({where})' if where else ''}, {100 * count / total:.2g} %: the likelihood is "
            f"zero there{f', {consequence}' if consequence else ''}. If these should be possible, "
            f"{LIMITS}",
            stacklevel=4,
        )
    return count


@contextmanager
def told_plainly(where: str) -> Iterator[None]:
    """Raise what fails inside of a compiled program as one sentence, without JAX's traceback.

    Args:
        where: what was being done.

    Raises:
        RuntimeError: the program failed; its cause is JAX's own error.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told = lines[-1].removeprefix("RuntimeError: ") if lines else "the program failed"
        raise RuntimeError(f"{where}: {told}") from error
