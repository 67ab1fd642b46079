"""What tells one inverse problem from another: a hash of its numbers.

Whatever is stored for a problem carries the hash, and is refused by a problem with another one. A
model's code is not looked at, only what it computes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from ppl_memprior.problem._cache import remembered
from ppl_memprior.problem._example_batches import example_batches
from ppl_memprior.problem.inverse_problem import InverseProblem


def problem_fingerprint(problem: InverseProblem) -> str:
    """A hash of everything that a posterior of the problem depends on.

    The hash covers the prior's parameters, the data, the names of the sites, and the log-likelihood
    and the deterministic sites at the first, middle and last example. Forward operator and noise
    enter the log-likelihood. At these examples the extra latent sites have the values that NumPyro
    draws with seed 0, so their own distributions enter too. It takes three forward solves, once for
    each problem.

    The hash is the same in every process on one kind of machine. Another processor or another
    version of JAX may round differently, and then the hash is different.

    Args:
        problem: any inverse problem.

    Returns:
        64 hexadecimal digits.
    """
    # the numbers, and so the hash, are others in double precision
    key = ("fingerprint", jax.dtypes.canonicalize_dtype(float))
    return remembered(problem, key, lambda: _digest(problem))


def _digest(problem: InverseProblem) -> str:
    parts: list[Any] = [Rows.of(problem), problem.prior.log_weights]
    for name in ("bandwidth", "component_directions", "component_direction_scales"):
        parts += [name, getattr(problem.prior, name)]
    for name, value in problem.data.items():
        parts += [name, value]
    names = (problem.prior_name, problem.observed, problem.extra_latents)
    parts.append(repr((*names, problem.deterministic_names)))
    for index in (0, problem.num_examples // 2, -1):
        parts += jax.tree.leaves(_probe(problem, problem.take(index)))
    return hash_of(*parts)


@jax.jit
def _probe(problem: InverseProblem, x: jax.Array) -> Any:
    # one trace, one forward solve: a callback is not made twice
    trace = problem._run({problem.prior_name: x}, 0)
    sites = (*problem.deterministic_names, *problem.extra_latents)
    log_likelihood = problem._sum_log_likelihood(trace)
    return log_likelihood, {name: trace[name]["value"] for name in sites}


class Rows(NamedTuple):
    """An array that is read part by part.

    Attributes:
        shape, dtype: of the whole.
        parts: of it along its first axis, in their order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: Iterable[np.ndarray]

    @classmethod
    def of(cls, problem: InverseProblem) -> Rows:
        """The examples of a problem."""
        num = problem.num_examples
        read = (np.asarray(rows) for rows in example_batches(problem))
        return cls((num, *problem.event_shape), np.dtype(problem.take(0).dtype), read)


def hash_of(*parts: Any) -> str:
    """SHA-256 of strings and arrays in their order, shapes and dtypes included, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(f"text {len(part)} {part}".encode())
            continue
        rows = part
        if not isinstance(part, Rows):
            array = np.asarray(part)
            rows = Rows(array.shape, array.dtype, [array])
        digest.update(f"array {rows.dtype.str} {rows.shape} ".encode())
        for read in rows.parts:
            digest.update(read.tobytes())
    return digest.hexdigest()
