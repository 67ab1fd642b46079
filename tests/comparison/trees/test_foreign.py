"""Draws that `run` did not make."""

from __future__ import annotations

import json

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.infer import HMC, MCMC

from ppl_memprior import DiffusionMixturePrior, InverseProblem, compare
from ppl_memprior.comparison.trees.datatree import to_datatree
from ppl_memprior.comparison.trees.foreign import as_tree, as_trees
from ppl_memprior.comparison.trees.labels import checked_coords, checked_dims, labelled
from ppl_memprior.diagnostics import summarize
from ppl_memprior.inference.draws import Cost, Draws

EXAMPLES = np.array([[0.0, 0.0], [1.0, 1.0], [4.0, 2.0]], np.float32)
DATA = np.array([1.0, 0.5], np.float32)
X = np.random.default_rng(0).normal(size=(2, 20, 2)).astype(np.float32)
NOISE = np.random.default_rng(1).uniform(0.5, 1.0, size=(2, 20)).astype(np.float32)


def model(data):
    x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray(EXAMPLES), 0.5))
    noise = numpyro.sample("noise", dist.LogNormal(0.0, 0.5))
    numpyro.deterministic("total", x.sum())
    numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=data)


@pytest.fixture(scope="module")
def problem():
    return InverseProblem(model, DATA)


@pytest.fixture(scope="module")
def tree(problem):
    return as_tree("mine", {"x": X, "noise": NOISE}, problem)


def test_arrays_become_a_tree_with_all_that_a_comparison_reads(tree, problem):
    groups = {"posterior", "sample_stats", "examples", "observed_data", "constant_data"}
    assert set(tree.children) == groups | {"log_likelihood", "posterior_predictive"}
    np.testing.assert_array_equal(tree["posterior"]["x"], X)
    np.testing.assert_allclose(tree["posterior"]["total"], X.sum(-1), rtol=1e-5, atol=1e-6)
    expected = (((X - DATA) / NOISE[..., None]) ** 2).sum(-1)
    np.testing.assert_allclose(tree["sample_stats"]["chi_square"], expected, rtol=1e-4)
    assert tree.attrs["method"] == "foreign" and tree.attrs["independent_draws"] == 0
    assert json.loads(tree.attrs["latent_sites"]) == ["x", "noise"]
    unknown = {"seconds", "num_forward_evaluations", "num_gradient_evaluations", "num_failed"}
    assert not unknown & set(tree.attrs), "nobody knows what foreign draws cost"
    assert tree.attrs["num_predictive_evaluations"] == 40


def with_costs(tree):
    found = tree.copy()
    found.attrs.update(seconds=1.0, num_forward_evaluations=1, num_gradient_evaluations=1)
    return found


def test_diagnostics_read_foreign_trees(tree):
    summary = summarize("mine", with_costs(tree), None)
    assert summary.draws == 40 and not summary.independent and summary.num_examples == 3
    assert np.isfinite(summary.rhat) and np.isfinite(summary.reduced_chi_square)


def test_labelled_and_arviz_draws_are_the_same_as_arrays(tree, problem):
    # dimensions in another order, a deterministic site that is computed again
    posterior = xr.Dataset(
        {
            "x": (("place", "draw", "chain"), X.T),
            "noise": (("chain", "draw"), NOISE),
            "total": (("chain", "draw"), np.zeros((2, 20))),
        }
    )
    stats = xr.Dataset(
        {
            "lp": (("draw", "chain"), NOISE.T),
            "diverging": (("chain", "draw"), NOISE > 0.9),
            "matrix": (("chain", "draw", "k"), np.zeros((2, 20, 3))),
        }
    )
    groups = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats})
    found = as_tree("mine", groups, problem)
    xr.testing.assert_equal(found["posterior"].to_dataset(), tree["posterior"].to_dataset())
    np.testing.assert_array_equal(found["sample_stats"]["lp"], NOISE)
    np.testing.assert_array_equal(found["sample_stats"]["diverging"], NOISE > 0.9)
    assert "matrix" not in found["sample_stats"]
    for other in (posterior, dict(posterior[["x", "noise"]])):
        again = as_tree("mine", other, problem)
        xr.testing.assert_equal(again["posterior"].to_dataset(), tree["posterior"].to_dataset())


def test_inference_data_of_arviz(tree, problem):
    if arviz.__version__.startswith("0."):  # whose class is not a DataTree
        data = arviz.from_dict(posterior={"x": X, "noise": NOISE}, sample_stats={"lp": NOISE})
    else:
        data = arviz.from_dict(
            {"posterior": {"x": X, "noise": NOISE}, "sample_stats": {"lp": NOISE}}
        )
    found = as_tree("mine", data, problem)
    xr.testing.assert_equal(found["posterior"].to_dataset(), tree["posterior"].to_dataset())
    np.testing.assert_array_equal(found["sample_stats"]["lp"], NOISE)


def test_chains_of_numpyro(problem):
    kernel = HMC(model, trajectory_length=1.0, step_size=0.1, adapt_step_size=False)
    mcmc = MCMC(kernel, num_warmup=5, num_samples=10, num_chains=2, progress_bar=False)
    with pytest.raises(ValueError, match="'mine' is an MCMC without draws"):
        as_tree("mine", mcmc, problem)
    fields = ("potential_energy", "num_steps", "adapt_state.step_size")
    mcmc.run(jax.random.key(0), DATA, extra_fields=fields)
    tree = as_tree("mine", mcmc, problem)
    samples = mcmc.get_samples(group_by_chain=True)
    np.testing.assert_array_equal(tree["posterior"]["x"], samples["x"])
    stats = tree["sample_stats"].to_dataset()
    assert {"lp", "n_steps", "tree_depth", "step_size", "diverging"} <= set(stats)
    energy = mcmc.get_extra_fields(group_by_chain=True)["potential_energy"]
    np.testing.assert_array_equal(stats["lp"], -energy)


def test_trees_of_run_pass_through_and_lend_their_names(problem):
    latents = {"x": X, "noise": NOISE}
    draws = Draws(latents=latents, cost=Cost())
    dims = checked_dims(problem, {"x": ["place"], "y": ["place"]})
    coords = checked_coords(problem, {"place": [10.0, 20.0]}, dims)
    made = to_datatree(problem, draws, truth={"x": np.zeros(2, np.float32)})
    mine = as_tree("mine", latents, problem)
    made.attrs.update({name: mine.attrs[name] for name in ("problem", "precision")})
    made = labelled(made, coords, {"x": "m"}, dims)
    trees = as_trees({"mine": latents, "run": made}, problem)
    assert trees["run"] is made and list(trees) == ["mine", "run"]
    mine = trees["mine"]
    assert mine["posterior"]["x"].dims == ("chain", "draw", "place")
    np.testing.assert_array_equal(mine["posterior_predictive"]["y"]["place"], [10, 20])
    assert mine["examples"]["x"].attrs["units"] == "m"
    xr.testing.assert_identical(mine["truth"].to_dataset(), made["truth"].to_dataset())
    costs = {name: with_costs(tree) for name, tree in trees.items()}
    assert list(compare(costs, reference="run").table.index) == ["mine", "run"]
    assert as_trees({"run": made})["run"] is made, "which needs no problem"


NAN = np.where(np.arange(20) == 3, np.nan, NOISE)


@pytest.mark.parametrize(
    ("draws", "error", "message"),
    [
        (3.0, TypeError, "'mine' is a float; give a DataTree, an InferenceData, an MCMC"),
        ([X, NOISE], TypeError, "'mine' is a list"),
        (xr.DataTree.from_dict({"prior": xr.Dataset()}), ValueError, r"groups are \['prior'\]"),
        ({"x": X}, ValueError, r"no draws of \['noise'\], which are latent sites of the model"),
        ({"x": X, "noise": NOISE, "z": NOISE}, ValueError, r"draws of \['z'\], .*are \['x', 'noi"),
        (
            {"x": X[0], "noise": NOISE},
            ValueError,
            r"shape \(20, 2\); .* values\[None\] for one chain",
        ),
        ({"x": X[:, :3], "noise": NOISE[:, :3]}, ValueError, "2 chains of 3 draws; .* at least 4"),
        (
            {"x": xr.DataArray(X, dims=("a", "b", "c")), "noise": NOISE},
            ValueError,
            r"dimensions \('a', 'b', 'c'\); 'chain' is missing",
        ),
        ({"x": X[..., :1], "noise": NOISE}, ValueError, r"event shape \(1,\) .* has \(2,\)"),
        ({"x": X[0, 0], "noise": NOISE}, ValueError, r"have the shape \(2,\); the first two"),
        ({"x": X, "noise": NOISE[:, :5]}, ValueError, "'noise' .* are 2 chains of 5 draws; all"),
        ({"x": X[:, :0], "noise": NOISE[:, :0]}, ValueError, "2 chains of 0 draws"),
        ({"x": X, "noise": NAN}, ValueError, "'noise' .* hold 2 of 40 numbers that are NaN"),
        ({"x": X + 0j, "noise": NOISE}, TypeError, "the draws of 'x' in .* must be real"),
        (
            {"x": xr.DataArray(X[0], dims=("draw", "k")), "noise": NOISE},
            ValueError,
            "'chain' is missing",
        ),
    ],
    ids=str,
)
def test_draws_are_checked_before_any_work(problem, monkeypatch, draws, error, message):
    def work(*_, **__):
        raise AssertionError("work was done")

    monkeypatch.setattr("ppl_memprior.comparison.trees.foreign.tree_of_draws", work)
    with pytest.raises(error, match=message):
        as_tree("mine", draws, problem)


def test_foreign_draws_need_their_problem():
    with pytest.raises(ValueError, match="'mine' was not made by run: give the problem"):
        as_tree("mine", {"x": X, "noise": NOISE})
    with pytest.raises(TypeError, match="takes an InverseProblem, got a function"):
        as_tree("mine", {"x": X, "noise": NOISE}, model)


def test_the_data_that_obs_mask_makes_up_are_no_unknowns():
    def gappy(data, mask):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray(EXAMPLES), 0.5))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=data, obs_mask=mask)

    problem = InverseProblem(gappy, DATA, np.array([True, False]))
    tree = as_tree("mine", {"x": X, "y_unobserved": X, "y": X}, problem)
    assert set(tree["posterior"].to_dataset()) == {"x"}
    assert tree["log_likelihood"]["y"].shape == (2, 20, 1)
