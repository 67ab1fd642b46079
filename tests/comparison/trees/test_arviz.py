"""ArviZ works on the trees as they are, on both of its interfaces."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from ppl_memprior import DiffusionMixturePrior, InverseProblem
from ppl_memprior._arviz import az
from ppl_memprior.comparison.trees.datatree import to_datatree
from ppl_memprior.inference.draws import Cost, Draws

SCALE = 0.5


def tree_around(problem, center, seed):
    """Two chains of 200 draws, narrow enough for importance weights that are finite."""
    noise = np.random.default_rng(seed).normal(size=(2, 200, 3))
    latents = {"x": (center + 0.02 * noise).astype(np.float32)}
    return to_datatree(problem, Draws(latents=latents, cost=Cost()))


@pytest.fixture(scope="module")
def tree(kinds_problem):
    return tree_around(kinds_problem, 0.1, 2)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def test_summary_reads_the_posterior(tree):
    table = az.summary(tree)
    assert {"x[0]", "x[1]", "x[2]", "field[2, 1]"} <= set(table.index)
    assert "ess_bulk" in table.columns
    # a summary is rounded to a few digits
    assert float(table.loc["x[1]", "mean"]) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("plot", ["plot_forest", "plot_pair", "plot_rank"])
def test_figures_of_the_posterior(tree, plot):
    assert getattr(az, plot)(tree, var_names=["x"], backend="matplotlib") is not None


@pytest.mark.parametrize("site", ["grid", "gappy"])
def test_figures_of_the_predictions(tree, site):
    assert az.plot_ppc_dist(tree, var_names=[site], num_samples=5, backend="matplotlib") is not None


def importance_weighted(log_likelihood):
    """Leave-one-out density by raw importance sampling, in NumPy."""
    flat = log_likelihood.reshape(-1, *log_likelihood.shape[2:])
    return -np.log(np.mean(np.exp(-flat.astype(float)), axis=0)).sum()


@pytest.mark.parametrize(("site", "count"), [("grid", 6), ("gappy", 4), ("pairs", 3), ("count", 3)])
def test_leaving_one_out(tree, site, count):
    found = az.loo(tree, var_name=site)
    assert found.n_data_points == count, "masked data do not count"
    # the draws are so narrow that smoothing the weights changes little
    expected = importance_weighted(tree["log_likelihood"][site].to_numpy())
    assert float(found.elpd) == pytest.approx(expected, abs=0.05)


def test_comparing_runs(kinds_problem, tree):
    far = tree_around(kinds_problem, 3.0, 3)
    table = az.compare({"near": tree, "far": far}, var_name="grid")
    assert list(table.index) == ["near", "far"]


def test_probability_integral_transform(tree, kinds_problem):
    found = az.loo_pit(tree, var_names=["grid"])["grid"].to_numpy()
    x = np.full(3, 0.1)
    field = 2.0 * np.stack([x, 2 * x + np.array([0.1, 0.2, 0.3])], axis=-1)
    expected = stats.norm.cdf(kinds_problem.data["grid"], field, SCALE)
    # five standard errors of a share among 400 draws, and the draws' own spread
    np.testing.assert_allclose(found, expected, atol=0.5 * 5 / 20 + 0.05)


def test_figures_of_a_single_datum():
    """ArviZ's figures of data need a dimension."""

    def model(y=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([0.0, 1.0]), 0.5))
        numpyro.sample("y", dist.Normal(x, SCALE), obs=y)

    problem = InverseProblem(model, y=0.3)
    x = np.random.default_rng(0).normal(0.3, 0.1, size=(2, 100)).astype(np.float32)
    single = to_datatree(problem, Draws(latents={"x": x}, cost=Cost()))
    assert az.plot_ppc_dist(single, num_samples=5, backend="matplotlib") is not None
    assert np.isfinite(az.loo(single).elpd)
