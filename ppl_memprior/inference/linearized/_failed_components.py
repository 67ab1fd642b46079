"""Components whose simulation failed: how they are known, and what is said of them."""

from __future__ import annotations

import jax
import numpy as np

from ppl_memprior._execution.map_examples import Record
from ppl_memprior._failures import tell_failures
from ppl_memprior.problem.inverse_problem import InverseProblem


def simulated(record: Record) -> bool:
    """Whether forward output and Jacobian are finite; the posterior's own mean is not asked."""
    return all(np.isfinite(v).all() for name, v in record.items() if name != "misfit_at_mean")


def require_some(problem: InverseProblem, failed: set[int]) -> None:
    """Raise a `ValueError` that says what is not finite, where that is so at all examples."""
    if len(failed) < problem.num_examples:
        return
    # compiled, as everywhere: a direct call may raise where the operator fails
    predicted, residual = _both(problem, problem.take(0))
    if np.isfinite(residual).all() or not all(
        np.isfinite(np.asarray(data)).all() for data in predicted.values()
    ):
        say_failed(problem, failed)  # which is an error
    raise ValueError(
        f"the whitened residual is not finite at any of {len(failed)} examples, though the "
        "forward operator is: the noise's scale is zero or its covariance singular; give every "
        "datum noise of positive variance"
    )


@jax.jit
def _both(problem: InverseProblem, x: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
    return problem.predict(x), problem.residual(x)


def say_failed(problem: InverseProblem, failed: set[int]) -> None:
    which = np.isin(np.arange(problem.num_examples), list(failed))
    consequence = "these components are left out, and the evidence lacks what is around them"
    tell_failures("linearize", which, "examples", consequence)
