"""Trees in a file, those of earlier versions included."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import xarray as xr

from ppl_memprior import compare
from ppl_memprior.comparison.trees.datatree import to_datatree
from ppl_memprior.comparison.trees.labels import labelled
from ppl_memprior.comparison.trees.prior_groups import prior_groups
from ppl_memprior.comparison.trees.storage import load_trees, save_trees


@pytest.fixture(scope="module")
def tree(kinds_problem, kinds_draws):
    prior = prior_groups(kinds_problem, jax.random.key(5), 20)
    tree = to_datatree(kinds_problem, kinds_draws, prior=prior)
    tree.attrs["seconds"] = 1.0
    return tree


def earlier(tree):
    """The tree as the first version stored it: fewer groups, NumPyro's names, fewer attributes."""
    stats = tree["sample_stats"].to_dataset().drop_vars("tree_depth")
    stats = stats.rename(
        {"n_steps": "num_steps", "acceptance_rate": "accept_prob", "lp": "potential_energy"}
    )
    groups = {name: tree[name].to_dataset() for name in ("posterior", "examples")}
    old = xr.DataTree.from_dict({**groups, "sample_stats": stats})
    new = ("num_predictive_evaluations", "num_prior_evaluations")
    old.attrs.update({key: value for key, value in tree.attrs.items() if key not in new})
    return old


def test_every_group_comes_back(tree, tmp_path):
    loaded = load_trees(save_trees({"nuts": tree}, tmp_path / "draws.nc"))["nuts"]
    groups = {"posterior", "sample_stats", "examples", "constant_data", "observed_data", "prior"}
    groups |= {"log_likelihood", "posterior_predictive", "prior_predictive"}
    assert set(loaded.children) == groups
    assert loaded.identical(tree) and loaded.attrs == tree.attrs


def test_files_of_earlier_versions_are_read(tree, tmp_path):
    path = tmp_path / "draws.nc"
    save_trees({"nuts": earlier(tree)}, path)
    loaded = load_trees(path)["nuts"]
    assert set(loaded.children) == {"posterior", "sample_stats", "examples"}
    named = labelled(loaded, {"place": np.arange(3.0)}, {"x": "m"}, {"x": ("place",)})
    assert named["examples"]["x"].dims == ("example", "place")
    table = compare({"old": loaded, "new": tree}).table
    np.testing.assert_array_equal(table.loc["old", "chi2/m"], table.loc["new", "chi2/m"])


def test_files_without_draws_are_refused(tmp_path):
    path = tmp_path / "draws.nc"
    xr.DataTree.from_dict({"nuts": xr.Dataset({"x": 1.0})}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match="holds no posterior draws .* its groups are"):
        load_trees(path)
    with pytest.raises(ValueError, match="is a folder"):
        load_trees(tmp_path)
