"""`linearize` without Jacobians, against itself with them."""

from __future__ import annotations

import importlib
import re

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import DiffusionMixturePrior, InverseProblem, linearize
from ppl_memprior.inference.linearized._tasks import BoundTask

pytestmark = pytest.mark.arithmetic

D, M, NUM = 30, 40, 6


@pytest.fixture(scope="module")
def problem():
    """A bent operator with decaying singular values; the examples' weights differ widely."""
    rng = np.random.default_rng(0)
    left = np.linalg.qr(rng.normal(size=(M, D)))[0]
    right = np.linalg.qr(rng.normal(size=(D, D)))[0]
    matrix = jnp.asarray((left * 40.0 * 0.6 ** np.arange(D)) @ right, jnp.float32)
    examples = rng.normal(size=(NUM, D)).astype(np.float32)
    prior = DiffusionMixturePrior(jnp.asarray(examples), 0.3)
    data = np.asarray(matrix @ examples[2]) + rng.normal(size=M).astype(np.float32)

    def model(data=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(matrix @ (x + 0.02 * x**3), 1.0).to_event(1), obs=data)

    return InverseProblem(model, data=jnp.asarray(data))


@pytest.fixture
def matrix_free(monkeypatch):
    monkeypatch.setattr(
        importlib.import_module("ppl_memprior.inference.linearized._linearize"), "DENSE_ELEMENTS", 0
    )


@pytest.fixture(scope="module")
def dense(problem):
    return linearize(problem)


def test_all_components(problem, dense, matrix_free):
    found = linearize(problem, neglect=0.0, accuracy=1e-3)
    # 1e-3 nats left out of each, and float32
    np.testing.assert_allclose(
        found.log_weights + found.log_evidence, dense.log_weights + dense.log_evidence, atol=1e-2
    )
    # a move by z in prior standard deviations is worth z^2 / 2 nats
    np.testing.assert_allclose(found.locs, dense.locs, atol=0.3 * np.sqrt(2e-3))
    np.testing.assert_allclose(found.component_variances, dense.component_variances, atol=2e-4)
    np.testing.assert_allclose(found.report.misfit, dense.report.misfit, rtol=1e-4)
    assert np.all(found.report.truncation_error <= 1e-3) and np.all(found.report.rank <= D)
    assert np.all(found.report.linearized) and found.neglected_mass == 0
    again = linearize(problem, neglect=0.0, accuracy=1e-3)
    np.testing.assert_array_equal(again.log_weights, found.log_weights)


def test_the_rest_is_neglected(problem, dense, matrix_free):
    found = linearize(problem, neglect=1e-3)
    done = np.asarray(found.report.linearized)
    assert 1 <= done.sum() < NUM and done[2]
    assert np.exp(dense.log_weights)[~done].sum() <= found.neglected_mass <= 1e-3
    assert np.all(found.log_weights[~done] == -np.inf)
    np.testing.assert_array_equal(found.locs[~done], problem.examples[~done])
    assert np.all(found.report.rank[~done] == 0)
    np.testing.assert_allclose(found.component_variances[~done], 0.3**2, rtol=1e-5)
    np.testing.assert_allclose(found.log_evidence, dense.log_evidence, atol=0.15)
    assert np.isfinite(found.linearization_error)
    everything = linearize(problem, neglect=0.0)
    assert found.num_gradient_evaluations < everything.num_gradient_evaluations


def test_bounds_lie_above(problem, dense):
    """By no more than rounding below, and closer with more steps."""
    first = BoundTask(1).prepare(problem)(np.arange(NUM))
    found = BoundTask(4).prepare(problem)(np.arange(NUM))
    bounds = np.array([float(record["log_evidence"]) for record in found])
    assert np.all(bounds < [float(record["log_evidence"]) for record in first])
    exact = np.asarray(dense.log_weights) + float(dense.log_evidence - problem.log_normalizer())
    exact -= np.asarray(problem.prior.log_weights)
    assert np.all(bounds >= exact - 1e-5 * np.abs(exact))
    np.testing.assert_allclose([r["misfit"] for r in found], dense.report.misfit, rtol=1e-5)
    assert np.all(bounds - exact < 0.5 * np.abs(exact))


def test_iterated(problem, matrix_free, monkeypatch):
    free = linearize(problem, iterations=20, neglect=0.0, accuracy=1e-3)
    monkeypatch.undo()
    formed = linearize(problem, iterations=20)
    assert np.all(free.report.converged) and np.all(formed.report.converged)
    # both end within a hundredth of a posterior standard deviation of the mode
    np.testing.assert_allclose(
        free.log_weights + free.log_evidence, formed.log_weights + formed.log_evidence, atol=2e-2
    )
    deviation = (free.locs - formed.locs) / jnp.sqrt(formed.component_variances)
    assert np.max(np.abs(deviation)) < 0.05


def test_default_rank_says_what_it_leaves_out(problem, matrix_free, monkeypatch):
    module = importlib.import_module("ppl_memprior.inference.linearized._linearize")
    monkeypatch.setattr(module, "MAX_RANK", 4)
    with pytest.warns(UserWarning, match=r"4 directions leave an error of about .* nats"):
        found = linearize(problem, neglect=0.0)
    assert np.all(found.report.rank == 4) and np.all(found.report.truncation_error > 0.1)


def test_budget_ends_with_the_best_there_is(problem, dense, matrix_free, tmp_path):
    """Beside the bounds there is room for 16 probes, one round of 32 and a look at the next."""
    budget = 2 * NUM + 100
    with (
        pytest.warns(UserWarning, match="the budget ended after 1 of 6 components"),
        pytest.warns(UserWarning, match="larger max_rank or budget"),
    ):
        found = linearize(problem, accuracy=1e-9, max_evaluations=budget)
    assert np.flatnonzero(found.report.linearized).tolist() == [2]  # which made the data
    assert found.num_forward_evaluations + found.num_gradient_evaluations <= budget
    exact = float(dense.log_weights[2] + dense.log_evidence)
    error = abs(float(found.log_evidence) - exact)
    assert error <= found.report.truncation_error[2] + 1e-3 and found.report.rank[2] < D
    lost = float(np.sum(np.exp(dense.log_weights)) / np.exp(dense.log_weights[2]) - 1)
    assert found.neglected_mass >= lost
    with pytest.warns(UserWarning, match="the budget ended"):
        again = linearize(problem, accuracy=1e-9, max_evaluations=budget, store=tmp_path)
    np.testing.assert_array_equal(again.log_evidence, found.log_evidence)
    # what was cut short is not kept: more of a budget finds what it would have found at once
    settings = {"neglect": 0.0, "accuracy": 1e-9, "store": tmp_path}
    whole = linearize(problem, max_evaluations=10**6, **settings)
    assert np.all(whole.report.linearized) and whole.report.rank[2] > found.report.rank[2]
    with pytest.warns(UserWarning, match="the budget ended"):
        short = linearize(problem, max_minutes=1e-9)
    assert np.asarray(short.report.linearized).sum() == 1


def test_budget_where_jacobians_are_formed(problem, monkeypatch):
    monkeypatch.setattr(
        importlib.import_module("ppl_memprior.inference.linearized._by_importance"), "BLOCK", 2
    )
    with pytest.warns(UserWarning, match="the budget ended"):
        found = linearize(problem, max_evaluations=1, neglect=0.0)
    assert np.asarray(found.report.linearized).any()


@pytest.mark.parametrize(
    "setting",
    [{"max_evaluations": 0}, {"max_evaluations": 1.5}, {"max_minutes": 0}, {"max_minutes": "1"}],
)
def test_budgets_out_of_range(problem, setting):
    with pytest.raises(ValueError, match=next(iter(setting)) + " must be"):
        linearize(problem, **setting)


def test_bar_shows_the_work_inside_a_component(problem, matrix_free, capsys):
    linearize(problem, progress=True)
    shown = capsys.readouterr().err
    assert "linearize: directions of component 2" in shown
    assert re.search(r"\d+ products, error [\d.e+-]+ nats", shown)
    assert "linearize: closer bounds" in shown
