"""What leaves a linear problem's posteriors as they are: order, copies, the origin and units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl_memprior import DiffusionMixturePrior, InverseProblem, linearize, lookup

pytestmark = pytest.mark.arithmetic

NUM, DIM, DATA = 5, 2, 3
# Double precision, a dozen operations on numbers up to 1e4 (the shift).
CLOSE = {"rtol": 1e-8, "atol": 1e-8}
POINT = np.array([0.3, -0.6])


@dataclass(frozen=True)
class Linear:
    """Data of a linear operator with independent noise, and the prior's examples."""

    examples: np.ndarray
    weights: np.ndarray
    bandwidth: float
    operator: np.ndarray
    data: np.ndarray
    noise: float


class Found(NamedTuple):
    """What the two closed forms say: weights (N,), log-evidences, and a density at a point."""

    lookup_weights: np.ndarray
    lookup_evidence: float
    linearized_weights: np.ndarray
    linearized_evidence: float
    means: np.ndarray
    log_density: float


def solve(linear, point=POINT):
    with jax.enable_x64(True):
        operator = jnp.asarray(linear.operator)
        prior = DiffusionMixturePrior(linear.examples, linear.bandwidth, weights=linear.weights)

        def model(data: Any = None) -> None:
            x = numpyro.sample("x", prior)
            numpyro.sample("y", dist.Normal(operator @ x, linear.noise).to_event(1), obs=data)

        problem = InverseProblem(model, data=linear.data)
        examples, mixture = lookup(problem), linearize(problem)
        return Found(
            np.exp(examples.log_weights),
            float(examples.log_evidence),
            np.exp(mixture.log_weights),
            float(mixture.log_evidence),
            np.asarray(mixture.component_means),
            float(mixture.log_prob(point)),
        )


@pytest.fixture(scope="module")
def linear():
    """Data between examples, so that several weigh."""
    rng = np.random.default_rng(0)
    examples, operator = rng.normal(size=(NUM, DIM)), rng.normal(size=(DATA, DIM))
    data = operator @ examples[:3].mean(axis=0) + 0.3 * rng.normal(size=DATA)
    return Linear(examples, rng.uniform(0.5, 2.0, NUM), 0.4, operator, data, 0.8)


@pytest.fixture(scope="module")
def solved(linear):
    found = solve(linear)
    for weights in (found.lookup_weights, found.linearized_weights):
        assert np.sum(weights > 0.02) >= 3
    return found


@settings(max_examples=6, deadline=None, derandomize=True)  # each is traced and compiled anew
@given(
    order=st.permutations(range(NUM)),
    n=st.integers(0, NUM - 1),
    share=st.floats(0.01, 0.99),
    shift=st.tuples(*[st.floats(-100, 100)] * DIM).map(np.array),
    of_x=st.floats(1e-2, 1e2),
    of_data=st.floats(1e-2, 1e2),
)
def test_order_copies_origin_and_units_change_nothing_else(
    linear, solved, order, n, share, shift, of_x, of_data
):
    """All at once; what Hypothesis reports has them at rest but for those that matter."""
    indices = [*order, n]  # in another order, and one of them twice
    split = np.ones(NUM + 1)
    split[order.index(n)], split[NUM] = share, 1 - share
    moved = Linear(
        examples=of_x * (linear.examples[indices] + shift),
        weights=linear.weights[indices] * split,
        bandwidth=of_x * linear.bandwidth,
        operator=of_data / of_x * linear.operator,
        data=of_data * (linear.data + linear.operator @ shift),
        noise=of_data * linear.noise,
    )
    found = solve(moved, of_x * (POINT + shift))
    expected = Found(
        lookup_weights=solved.lookup_weights[indices] * split,
        lookup_evidence=solved.lookup_evidence - DATA * np.log(of_data),
        linearized_weights=solved.linearized_weights[indices] * split,
        linearized_evidence=solved.linearized_evidence - DATA * np.log(of_data),
        means=of_x * (solved.means[indices] + shift),
        log_density=solved.log_density - DIM * np.log(of_x),
    )
    for name, ours, theirs in zip(Found._fields, found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, **CLOSE, err_msg=name)
