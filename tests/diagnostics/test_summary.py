"""A posterior's row reads what its tree says, and leaves open what it does not say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from ppl_memprior.diagnostics import Alternative, summarize


@pytest.fixture
def tree():
    """Four chains next to three examples, with the attributes that no summary can do without."""
    rng = np.random.default_rng(0)
    dims = ("chain", "draw")
    groups = {
        "/posterior": xr.Dataset({"x": (dims, rng.normal(size=(4, 50)))}),
        "/sample_stats": xr.Dataset(
            {
                "nearest_example": (dims, rng.integers(3, size=(4, 50))),
                "nearest_ratio": (dims, rng.uniform(size=(4, 50))),
            }
        ),
        "/examples": xr.Dataset(
            {
                "x": ("example", np.array([-1.0, 0.0, 2.0])),
                "mean_responsibility": ("example", np.full(3, 1 / 3)),
            }
        ),
    }
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {
        "prior_site": "x",
        "num_data": 1,
        "latent_sites": '["x"]',
        "independent_draws": 0,
    }
    return tree


def test_foreign_draws_say_neither_their_cost_nor_their_method(tree):
    summary = summarize("stan", tree, None)
    costs = (summary.seconds, summary.forward_evaluations, summary.gradient_evaluations)
    assert np.isnan(costs).all()
    assert summary.method == summary.kind == "stan"
    assert summary.alternatives == () and summary.remedy == ""
    assert summary.ess > 50 and summary.mode_ess > 50  # everything else is there


def test_what_a_tree_says_of_its_method_is_read(tree):
    methods = {"nuts": {"moves_between_modes": "", "diagnosed": True}}
    tree.attrs |= {
        "method": "nuts",
        "remedy": "run it longer",
        "methods_that_apply": json.dumps(methods),
        "seconds": 1.5,
        "num_forward_evaluations": 10,
        "num_gradient_evaluations": 20,
    }
    summary = summarize("my chains", tree, None)
    assert (summary.method, summary.kind) == ("my chains", "nuts")
    assert summary.remedy == "run it longer"
    assert summary.alternatives == (Alternative(name="nuts", diagnosed=True),)
    costs = (summary.seconds, summary.forward_evaluations, summary.gradient_evaluations)
    assert costs == (1.5, 10, 20)
