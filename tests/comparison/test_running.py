"""Running methods by name, keeping what is finished, and refusing what does not belong."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

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
from ppl_memprior.comparison import load_trees, save_trees
from ppl_memprior.comparison.methods import Method
from ppl_memprior.comparison.trees.labels import field_shape
from ppl_memprior.diagnostics import summarize
from ppl_memprior.inference.linearized._tasks import DenseTask

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


def test_file_round_trip(cubic_runs, tmp_path):
    path = save_trees(cubic_runs, tmp_path / "draws.nc")
    loaded = load_trees(path)
    assert list(loaded) == list(cubic_runs)
    for name, tree in cubic_runs.items():
        for group in tree.children:
            xr.testing.assert_equal(loaded[name][group].to_dataset(), tree[group].to_dataset())
        assert loaded[name].attrs == tree.attrs
    with xr.open_datatree(path, engine="h5netcdf") as opened:  # no help from this package
        assert opened["nuts/posterior"].sizes["chain"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["draws.nc"]


@pytest.mark.parametrize("content", [b"", b"not NetCDF at all"])
def test_damaged_files_are_refused(tmp_path, content):
    path = tmp_path / "draws.nc"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as stored draws"):
        load_trees(path)


@dataclass(frozen=True, kw_only=True)
class Counted(Method):
    """A method that counts its calls, and draws what another one draws."""

    name: ClassVar[str] = "counted"
    calls: ClassVar[list[str]] = []
    interrupts: bool = False

    def check(self, problem):
        pass

    def draw(self, problem, key, resources):
        if self.interrupts:
            raise KeyboardInterrupt
        self.calls.append(self.label)
        return methods.Lookup(num_samples=4).draw(problem, key, resources)


def test_finished_methods_survive_an_interruption(cubic_problem, tmp_path):
    problem = cubic_problem(0.0, 0.3)
    Counted.calls.clear()
    done, last = Counted(label="done"), Counted(label="last", interrupts=True)
    with pytest.raises(KeyboardInterrupt):
        run(problem, [done, last], KEY, store=tmp_path, progress=False)
    assert list(load_trees(tmp_path / "draws.nc")) == ["done"]
    both = [done, Counted(label="last")]
    runs = run(problem, both, KEY, store=tmp_path, progress=False)
    assert Counted.calls == ["done", "last"] and list(runs) == ["done", "last"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data", r"the problem has the fingerprint \w{8} there, \w{8} here \("),
        ("seed", "key 0 0 there, 0 1 here. Choose"),
        ("options", "under the label 'lookup' .*: option num_samples 100 there, 50 here. Give"),
        ("method", "method lookup there, counted here; option num_samples 100 there, None here"),
        ("truth", "truth unknown there, x = 0.5 here. Choose"),
        ("version", "an earlier version stored it"),
    ],
)
def test_a_store_of_another_run_is_refused_and_says_why(
    cubic_problem, short, tmp_path, change, message
):
    problem = cubic_problem(0.0, 0.3)
    run(problem, short("lookup"), KEY, store=tmp_path, progress=False)
    if change == "version":
        trees = load_trees(tmp_path / "draws.nc")
        del trees["lookup"].attrs["problem"]
        save_trees(trees, tmp_path / "draws.nc")
    before = (tmp_path / "draws.nc").read_bytes()
    other = cubic_problem(0.1, 0.3) if change == "data" else problem
    key = jax.random.key(1) if change == "seed" else KEY
    again = {"options": methods.Lookup(num_samples=50), "method": Counted(label="lookup")}
    method = again.get(change, *short("lookup"))
    truth = 0.5 if change == "truth" else None
    with pytest.raises(ValueError, match=message):
        run(other, [method], key, truth=truth, store=tmp_path, progress=False)
    assert (tmp_path / "draws.nc").read_bytes() == before


def test_fingerprint_is_the_same_in_every_process():
    """NumPyro orders a distribution's leaves by string hashes, which differ between processes."""
    code = (
        "import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist\n"
        "import ppl_memprior as mp\n"
        "from ppl_memprior.problem._fingerprint import problem_fingerprint\n"
        "prior = mp.DiffusionMixturePrior(jnp.asarray([-1.0, 0.5]), 0.3)\n"
        "def model(data=None):\n"
        "    x = numpyro.sample('x', prior)\n"
        "    numpyro.sample('y', dist.Normal(x, 0.3), obs=data)\n"
        "problem = mp.InverseProblem(model, data=0.2)\n"
        "print(problem_fingerprint(problem))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1 and len(found.pop().strip()) == 64


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


def field_problem():
    """A field of 2 x 3 cells and a deterministic site of its rows."""

    def model(data=None):
        v = numpyro.sample("v", DiffusionMixturePrior(jnp.zeros((4, 2, 3)), 0.2))
        numpyro.deterministic("profile", v.mean(1))
        numpyro.sample("y", dist.Normal(v.sum(0), 0.3).to_event(1), obs=data)

    return InverseProblem(model, data=jnp.zeros(3))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"coords": {"depth": [0.0]}}, ValueError, "1 values of 'depth', which fit no site"),
        ({"coords": {"v_dim_0": [0.0]}}, ValueError, r"must have the shape \(2,\), got \(1,\)"),
        ({"coords": {"deep": [0.0]}}, ValueError, "'deep', which no site has; .*'v_dim_0' \\(2\\)"),
        (
            {"coords": {"depth": ["a", "b"]}},
            TypeError,
            r"coords\['depth'\] must be an array of real",
        ),
        ({"coords": {"depth": [0.0, np.nan]}}, ValueError, "1 of 2 numbers are NaN"),
        ({"coords": [0.0]}, TypeError, "coords must be a dict"),
        (
            {"units": {"w": "m/s"}},
            ValueError,
            r"units names the site 'w', .* \['v', 'profile', 'y'\]",
        ),
        ({"units": {"v": 3}}, TypeError, "must be text such as 'm/s', got int 3"),
        ({"truth": {"v": np.zeros((2, 3)), "w": 1.0}}, ValueError, "truth names the site 'w'"),
        ({"truth": {"profile": np.zeros(2)}}, ValueError, "the prior's site 'v' a value of event"),
        ({"truth": {"v": np.zeros((2, 3)), "profile": 1.0}}, ValueError, r"shape \(2,\), got \(\)"),
        ({"truth": np.full((2, 3), np.inf)}, ValueError, "6 of 6 numbers are NaN or infinite"),
        ({"truth": np.zeros((2, 3), complex)}, TypeError, "must be real, got dtype complex128"),
        ({"rng_key": 3}, TypeError, r"got 3: write jax.random.key\(3\)"),
        ({"rng_key": jax.random.split(KEY, 2)}, TypeError, r"got an array of shape \(2,\)"),
        ({"methods": [["lookup"]]}, TypeError, "is no method"),
        ({"methods": 3}, ValueError, "methods is a list of names"),
        ({"methods": [3]}, TypeError, "3 is no method: it has no name, check, draw"),
        ({"methods": [methods.Dps]}, TypeError, r"a class; give an object, methods.Dps\(\)"),
        ({"methods": [Counted(), Counted()]}, ValueError, "two methods have the label 'counted'"),
        ({"store": 3}, TypeError, "store must be a path, got int 3"),
        ({"store": __file__}, ValueError, "is a file; give another path"),
        ({"store": __file__ + "/below"}, ValueError, "is a file; give another path"),
    ],
    ids=str,
)
def test_arguments_are_checked_before_any_work(arguments, error, message):
    Counted.calls.clear()
    given = {"methods": [Counted()], "rng_key": KEY, "progress": False, **arguments}
    with pytest.raises(error, match=message):
        run(field_problem(), **given)
    assert not Counted.calls


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ValueError, match="cannot be written to: no permission to write into"):
        run(field_problem(), ["lookup"], KEY, store=tmp_path / "out")


def test_stored_draws_take_new_labels_and_no_other_names(short, tmp_path):
    options = {"store": tmp_path, "progress": False}
    first = run(field_problem(), short("lookup"), KEY, **options, units={"v": "km/s"})["lookup"]
    labels = {"units": {"profile": "m/s"}, "coords": {"depth": [0.0, 10.0]}}
    again = run(field_problem(), short("lookup"), KEY, **options, **labels)["lookup"]
    fresh = run(field_problem(), short("lookup"), KEY, progress=False, **labels)
    fresh["lookup"].attrs["seconds"] = first.attrs["seconds"]
    xr.testing.assert_identical(again, fresh["lookup"])
    stored = load_trees(tmp_path / "draws.nc")["lookup"]
    xr.testing.assert_identical(stored["posterior"], again["posterior"])
    np.testing.assert_array_equal(first["posterior"]["v"], again["posterior"]["v"])


def test_a_renamed_deterministic_is_another_problem(short, tmp_path):
    def model(name):
        def made(data=None):
            x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([-1.0, 0.5]), 0.3))
            numpyro.deterministic(name, 2 * x)
            numpyro.sample("y", dist.Normal(x, 0.3), obs=data)

        return InverseProblem(made, data=0.2)

    options = {"store": tmp_path, "progress": False}
    run(model("twice"), ["lookup"], KEY, **options)
    with pytest.raises(ValueError, match="the names of the sites"):
        run(model("double"), ["lookup"], KEY, **options)


def test_methods_that_are_not_asked_for_stay_in_the_store(cubic_problem, short, tmp_path):
    problem = cubic_problem(0.0, 0.3)
    options = {"store": tmp_path, "progress": False}
    run(problem, ["lookup"], KEY, **options)
    assert list(run(problem, ["linearized"], KEY, **options)) == ["linearized"]
    assert list(load_trees(tmp_path / "draws.nc")) == ["lookup", "linearized"]


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


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["lookup", "nut"],
            r"unknown method 'nut'. Did you mean 'nuts'\? There are: lookup, linearized, ",
        ),
        ([], "list of names"),
        ("nuts", "list of names"),
        (["nuts"], "nuts needs a prior with a density"),
        (["psis"], "psis needs a prior with a density"),
    ],
)
def test_bad_methods_are_refused_before_any_work(names, message):
    def model(data=None):
        x = numpyro.sample("x", MemorizedPrior(jnp.asarray([-1.0, 0.5])))
        numpyro.sample("y", dist.Normal(x, 0.3), obs=data)

    with pytest.raises(ValueError, match=message):
        run(InverseProblem(model, data=0.4), names, KEY)


@pytest.mark.parametrize("name", ["chain", "example", "chi_square", "earth/velocity"])
def test_names_that_cannot_be_stored_are_refused_before_any_work(name):
    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([0.0, 1.0]), 0.3))
        numpyro.deterministic(name, 2 * x)
        numpyro.sample("y", dist.Normal(x, 0.3), obs=data)

    with pytest.raises(ValueError, match=f"the site '{name}' cannot be stored under that name"):
        run(InverseProblem(model, data=0.3), ["lookup"], KEY)


def test_a_truth_of_another_shape_is_refused(cubic_problem):
    with pytest.raises(ValueError, match=r"event shape \(\), got \(3,\)"):
        run(cubic_problem(0.0, 0.3), ["lookup"], KEY, truth=jnp.zeros(3))


@pytest.mark.parametrize(
    "names",
    [["linearized"], pytest.param(["linearized", "mode-jump"], marks=pytest.mark.slow)],
    ids=str,
)
def test_an_interrupted_method_goes_on_example_by_example(
    cubic_problem, short, tmp_path, monkeypatch, names
):
    problem = cubic_problem(0.0, 0.3)
    prepare = DenseTask.prepare
    worked: list[int] = []

    def failing_at(last: int):
        def patched(task, problem):
            work = prepare(task, problem)

            def solve(indices):
                if indices[0] == last:
                    raise KeyboardInterrupt
                worked.extend(indices.tolist())
                return work(indices)

            return solve

        return patched

    arguments = (short(*names), KEY)
    options = {"store": tmp_path, "progress": False}
    monkeypatch.setattr(DenseTask, "prepare", failing_at(3))
    with pytest.raises(KeyboardInterrupt):
        run(problem, *arguments, **options)
    assert worked == [0, 1, 2] and {p.name for p in tmp_path.iterdir()} == {"unfinished"}
    with pytest.raises(ValueError, match="fingerprint of the problem"):
        run(cubic_problem(0.1, 0.3), *arguments, **options)

    problem = copy.copy(problem)  # which has nothing compiled
    monkeypatch.setattr(DenseTask, "prepare", failing_at(-1))
    runs = run(problem, *arguments, **options)
    assert worked == [0, 1, 2, 3, 4]  # that of the jumps is read from there
    assert {p.name for p in tmp_path.iterdir()} == {"draws.nc"}
    again = run(problem, short("linearized"), KEY, progress=False)["linearized"]
    xr.testing.assert_equal(
        runs["linearized"]["posterior"].to_dataset(), again["posterior"].to_dataset()
    )


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
