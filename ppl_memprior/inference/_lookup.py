"""The exact posterior under a memorized prior: the training examples with other weights.

Under p(x) = sum_n pi_n delta(x - x_n) Bayes' rule leaves the examples where they are. It multiplies
their weights by their likelihoods, for any forward operator and any noise (Siahkoohi & Sabeddu,
arXiv:2603.19629). The posterior takes N forward solves and no approximation.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppl_memprior._execution.map_examples import examples_in_batch, map_examples
from ppl_memprior._failures import has_failed, tell_failures, zero_where_failed
from ppl_memprior.distributions import MemorizedPrior
from ppl_memprior.distributions._mixture.weights import Weights, log_mean, reweighted
from ppl_memprior.distributions._weighted_examples import stored_examples
from ppl_memprior.inference._method_checks import method_check
from ppl_memprior.problem.inverse_problem import InverseProblem


class LookupPosterior(MemorizedPrior):
    """A `MemorizedPrior` with posterior weights, the evidence and the likelihoods.

    Attributes:
        log_evidence: log p(data) under the memorized prior (scalar).
        log_likelihoods: log p(data | x_n), shape (N,).
        num_failed: examples at which the simulation failed; their likelihood is zero.
        num_forward_evaluations: forward solves made.
        num_gradient_evaluations: none.
    """

    pytree_data_fields = ("log_evidence", "log_likelihoods")
    pytree_aux_fields = ("num_failed", "num_forward_evaluations", "num_gradient_evaluations")

    num_failed = 0

    def __init__(
        self,
        examples: Any,
        weights: Weights,
        log_likelihoods: jax.Array,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.log_evidence = log_mean(weights, log_likelihoods)
        self.log_likelihoods = log_likelihoods
        self.num_forward_evaluations = len(log_likelihoods)
        self.num_gradient_evaluations = 0
        super().__init__(examples, validate_args=validate_args)
        # not the logarithm of rounded weights: the next data may favour an example that these put
        # hundreds of nats below the others
        self.log_weights, self._zero_weights = reweighted(weights, log_likelihoods)


@jax.jit
def _log_likelihoods(problem: InverseProblem, x: jax.Array) -> jax.Array:
    return jax.vmap(problem.log_likelihood)(x)


@dataclass(frozen=True)
class LogLikelihoodTask:
    """The log-likelihood at each example, as work for `map_examples`."""

    name: ClassVar[str] = "log_likelihood"

    def prepare(self, problem: InverseProblem) -> Callable[[np.ndarray], list[Any]]:
        """Return a function from a batch's indices to one scalar `log_likelihood` for each."""

        def solve(indices: np.ndarray) -> list[dict[str, np.ndarray]]:
            values = np.asarray(_log_likelihoods(problem, problem.take(indices)))
            return [{"log_likelihood": value} for value in values]

        return solve


def lookup(
    problem: InverseProblem,
    *,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> LookupPosterior:
    """Reweight the training examples by their likelihoods.

    For a `DiffusionMixturePrior` the result is the posterior of its memorized limit: bandwidth
    zero, the same examples and weights.

    A simulation fails where its log-likelihood is NaN or plus infinity. There the likelihood is
    zero, and a warning names the examples.

    Args:
        problem: any inverse problem without extra latent sites. Where JAX traces it
            (`InverseProblem.with_data`), failures are not counted.
        executor: runs the forward solves: any `concurrent.futures.Executor`, Dask's
            `client.get_executor()` included. Without an executor they run in this process.
        store: folder that keeps finished forward solves. After an interruption, call `lookup` again
            with the same problem and store; finished forward solves are not repeated.
        progress: show a bar over the forward solves, on stderr.

    Returns:
        A `MemorizedPrior` over the same examples with weights
        softmax_n(log pi_n + log p(data | x_n)). It also has `log_evidence` and `log_likelihoods`.

    Raises:
        ValueError: extra latent sites; a simulation that fails at all examples; data with zero
            likelihood at all examples; a store of another problem.
        RuntimeError: a forward solve failed in a worker. The message names the examples.

    Example::

        posterior = mp.lookup(mp.InverseProblem(model, y=y))
        print(posterior.weights, posterior.log_evidence)
    """
    check_lookup(problem)
    if problem.is_traced:
        values = _log_likelihoods(problem, problem.examples)
        return _reweighted(problem, zero_where_failed(values))
    num = problem.num_examples
    elements = problem.num_data + math.prod(problem.event_shape)
    records = map_examples(
        problem,
        LogLikelihoodTask(),
        np.arange(num),
        batch_size=examples_in_batch(num, elements, executor=executor, store=store),
        executor=executor,
        store=store,
        description="lookup: forward solves",
        progress=progress,
    )
    found = np.stack([record["log_likelihood"] for record in records])
    num_failed = tell_failures("lookup", has_failed(found), "examples")
    log_likelihoods = zero_where_failed(jnp.asarray(found))
    if not np.isfinite(log_likelihoods).any():
        raise ValueError(
            f"the likelihood is zero at all {len(log_likelihoods)} examples: the posterior under "
            "the memorized prior does not exist; check the data and the noise"
        )
    posterior = _reweighted(problem, log_likelihoods)
    posterior.num_failed = num_failed
    return posterior


def _reweighted(problem: InverseProblem, log_likelihoods: jax.Array) -> LookupPosterior:
    # only priors over examples keep what a weight of zero is differentiated by
    zeros = getattr(problem.prior, "_zero_weights", None)
    weights = Weights(problem.prior.log_weights, zeros)
    return LookupPosterior(stored_examples(problem.prior), weights, log_likelihoods)


@method_check("lookup")
def check_lookup(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a problem that `lookup` cannot take."""
    problem.require_no_extra_latents("lookup")
