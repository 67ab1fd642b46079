"""Running methods by name: what their trees carry, and where the work is done."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

from ppl_memprior import (
    DiffusionMixturePrior,
    InverseProblem,
    MemorizedPrior,
    compare,
    methods,
    run,
)
from ppl_memprior.comparison.trees.labels import field_shape
from ppl_memprior.diagnostics import summarize

KEY = jax.random.key(0)


def test_trees_carry_draws_statistics_and_costs(cubic_runs, cubic_problem):
    assert list(cubic_runs) == ["lookup", "linearized", "psis", "mode-jump", "nuts", "dps"]
    problem = cubic_problem(0.0, 0.3)
    for name, tree in cubic_runs.items():
        posterior, stats = tree["posterior"].to_dataset(), tree["sample_stats"].to_dataset()
        assert {"chain", "draw"} == set(posterior.sizes)
        image = posterior["x"] + 0.3 * posterior["x"] ** 3
        np.testing.assert_allclose(posterior["image"], image, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(stats["chi_square"], (image / 0.3) ** 2, rtol=1e-3, atol=1e-4)
        responsibility = jax.vmap(problem.prior.responsibilities)(posterior["x"].to_numpy().ravel())
        np.testing.assert_allclose(
            tree["examples"]["mean_responsibility"], responsibility.mean(axis=0), atol=1e-5
        )
        assert tree.attrs["seconds"] > 0 and tree.attrs["method"] == name
        assert float(tree["truth"]["x"]) == pytest.approx(0.1)
    assert cubic_runs["nuts"]["posterior"].sizes == {"chain": 2, "draw": 100}
    jumps = cubic_runs["mode-jump"]
    assert jumps["posterior"].sizes == {"chain": 2, "draw": 100}
    evaluations = jumps["sample_stats"]["num_forward_evaluations"]
    np.testing.assert_array_equal(evaluations, jumps["sample_stats"]["n_steps"] + 1)
    # warmup and the proposal are counted as well: at least one step and one jump in each iteration
    total = jumps.attrs["num_forward_evaluations"]
    assert total >= int(evaluations.sum()) + 2 * 2 * 50 + 5
    assert jumps["sample_stats"]["jump_accept_prob"].mean() > 0.7
    assert jumps["sample_stats"]["component"].dims == ("chain", "draw")
    assert cubic_runs["lookup"].attrs["num_forward_evaluations"] == 5
    assert cubic_runs["dps"].attrs["num_gradient_evaluations"] == 20 * 20
    assert np.isfinite(cubic_runs["linearized"].attrs["log_evidence"])
    corrected = cubic_runs["psis"]
    assert corrected["posterior"].sizes == {"chain": 1, "draw": 100}
    # five examples whose components are iterated to their modes, in a few steps each
    assert 400 + 4 * 5 < corrected.attrs["num_forward_evaluations"] < 400 + 20 * 5
    assert 2 * 5 < corrected.attrs["num_gradient_evaluations"] <= 11 * 5
    assert corrected.attrs["khat"] < 0.7 and 300 < corrected.attrs["importance_ess"] <= 400


def test_same_key_same_draws_whichever_other_methods_run(cubic_runs, cubic_problem, short):
    again = run(cubic_problem(0.0, 0.3), short("linearized"), KEY, progress=False)["linearized"]
    xr.testing.assert_equal(
        again["posterior"].to_dataset(), cubic_runs["linearized"]["posterior"].to_dataset()
    )


def test_field_labels_and_units(short):
    examples = jax.random.normal(KEY, (4, 2, 3))

    def model(data=None):
        v = numpyro.sample("v", DiffusionMixturePrior(examples, 0.2))
        numpyro.sample("y", dist.Normal(v.sum(0), 0.3).to_event(1), obs=data)

    tree = run(
        InverseProblem(model, data=jnp.zeros(3)),
        short("lookup"),
        KEY,
        coords={"depth": [0.0, 10.0], "distance": [0.0, 10.0, 20.0]},
        units={"v": "m/s"},
        progress=False,
    )["lookup"]
    v = tree["posterior"].to_dataset()["v"]
    assert v.dims == ("chain", "draw", "depth", "distance") and v.attrs["units"] == "m/s"
    np.testing.assert_array_equal(v["depth"], [0.0, 10.0])


def test_coordinates_alone_make_a_site_a_field():
    shapes = {"factor": (3, 3), "v": (2, 3), "z": (4,)}
    assert field_shape(shapes, {}) is None
    assert field_shape(shapes, {"z_dim_0": range(4)}) is None
    assert field_shape(shapes, {"depth": [0.0, 10.0], "distance": [0.0, 1.0, 2.0]}) == (2, 3)
    assert field_shape(shapes, {"depth": [0.0, 10.0]}) == (2, 3)
    with pytest.raises(ValueError, match=r"4 values of 'depth', which fit no site.*'v' has shape"):
        field_shape(shapes, {"depth": range(4)})


def test_repeats_of_smc_are_chains_without_an_order(cubic_problem, short):
    tree = run(cubic_problem(0.0, 0.3), short("smc"), KEY, progress=False)["smc"]
    assert tree["posterior"].sizes == {"chain": 2, "draw": 50}
    assert 0 < tree.attrs["log_evidence_error"] < 1 and np.isfinite(tree.attrs["log_evidence"])
    summary = summarize("smc", tree, None)
    assert np.isfinite(summary.rhat) and np.isfinite(summary.mode_rhat)
    assert np.isnan(summary.round_trips)
    figures = compare({"smc": tree}).figures()
    assert "occupancy" in figures and "chains" not in figures


@pytest.mark.slow
def test_gibbs_carries_extra_latents(short):
    def model(data=None):
        noise = numpyro.sample("noise", dist.LogNormal(-1.0, 0.3))
        x = numpyro.sample("x", MemorizedPrior(jnp.asarray([-1.0, 0.5, 0.7])))
        numpyro.sample("y", dist.Normal(x, noise), obs=data)

    problem = InverseProblem(model, data=0.4)
    tiny = methods.Gibbs(num_samples=20, num_warmup=10, num_chains=2)
    tree = run(problem, [tiny], KEY, progress=False)["gibbs"]
    assert {"x", "noise"} <= set(tree["posterior"].data_vars)
    assert set(np.unique(tree["sample_stats"]["nearest_example"])) <= {0, 1, 2}
    assert float(tree["sample_stats"]["nearest_ratio"].max()) == 0.0  # always on an example
    assert tree.attrs["num_forward_evaluations"] >= 2 * 30 * 3
    assert summarize("gibbs", tree, None).round_trips >= 0


@pytest.mark.slow
def test_nuts_carries_extra_latents(short):
    def model(data=None):
        sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 0.3))
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([-1.0, 0.5]), sigma))
        numpyro.sample("y", dist.Normal(x, 0.3), obs=data)

    problem = InverseProblem(model, data=0.4)
    with pytest.raises(ValueError, match="lookup takes a model whose only latent site is 'x'"):
        run(problem, ["nuts", "lookup"], KEY)
    tree = run(problem, short("nuts"), KEY, progress=False)["nuts"]
    assert {"x", "sigma"} <= set(tree["posterior"].data_vars)
    assert tree["examples"]["mean_responsibility"].sum() == pytest.approx(1, abs=1e-5)


def test_work_goes_through_an_executor(cubic_problem, short):
    problem = cubic_problem(0.0, 0.3)
    with pytest.raises(TypeError, match=r"executor must be a concurrent.futures.Executor, got int"):
        run(problem, ["dps"], KEY, executor=3)
    with ThreadPoolExecutor(1) as threads:
        submitted = []
        submit = threads.submit
        threads.submit = lambda *a: submitted.append(a) or submit(*a)
        runs = run(
            problem,
            short("lookup", "psis"),
            KEY,
            executor=threads,
            progress=False,
        )
    assert len(submitted) == 2 * 5 and list(runs) == ["lookup", "psis"]
