"""What is finished is kept, and found again by the same run alone."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

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
    methods,
    run,
)
from ppl_memprior.comparison import load_trees, save_trees
from ppl_memprior.comparison.trees.storage import add_tree
from ppl_memprior.inference.linearized._tasks import DenseTask

from .stand_ins import Counted, field_problem

pytestmark = pytest.mark.arithmetic  # another Python computes the same

KEY = jax.random.key(0)


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


def test_a_tree_is_added_to_a_file_or_replaced_in_it(cubic_runs, tmp_path):
    first, second, third = list(cubic_runs)[:3]
    path = save_trees({first: cubic_runs[first], second: cubic_runs[first]}, tmp_path / "draws.nc")
    add_tree(second, cubic_runs[second], path)
    add_tree(third, cubic_runs[third], path)
    loaded = load_trees(path)
    assert set(loaded) == {first, second, third}
    assert all(loaded[name].identical(cubic_runs[name]) for name in loaded)
    assert [p.name for p in tmp_path.iterdir()] == ["draws.nc"]


@pytest.mark.parametrize("content", [b"", b"not NetCDF at all"])
def test_damaged_files_are_refused(tmp_path, content):
    path = tmp_path / "draws.nc"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as stored draws"):
        load_trees(path)


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
        ("version", "an earlier version of ppl_memprior stored it"),
        ("settings", "an earlier version of ppl_memprior stored it, and this one cannot go on"),
    ],
)
def test_a_store_of_another_run_is_refused_and_says_why(
    cubic_problem, short, tmp_path, change, message
):
    problem = cubic_problem(0.0, 0.3)
    run(problem, short("lookup"), KEY, store=tmp_path, progress=False)
    if change in ("version", "settings"):
        trees = load_trees(tmp_path / "draws.nc")
        attrs = trees["lookup"].attrs
        if change == "version":
            del attrs["problem"]
        else:  # and another fingerprint, which is not what to complain of
            attrs.update(settings='{"num_samples": 100}', problem="0" * 64)
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
