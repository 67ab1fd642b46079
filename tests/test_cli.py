"""The command line as a user meets it: exit codes, one-line errors, what is left on disk."""

from __future__ import annotations

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import typer
from typer.testing import CliRunner

from ppl_memprior.cli import commands
from ppl_memprior.cli.commands import app
from ppl_memprior.comparison import load_trees

MODEL = """
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import ppl_memprior as mp

prior = mp.DiffusionMixturePrior(jnp.asarray([-1.5, -0.4, 0.4, 1.2, 2.5]), 0.3)

def model(y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x + 0.3 * x**3, 0.3), obs=y)

def no_prior(y=None):
    numpyro.sample("y", dist.Normal(numpyro.sample("x", dist.Normal(0, 1)), 0.3), obs=y)

def two_priors(y=None):
    x = numpyro.sample("x", prior) + numpyro.sample("z", prior)
    numpyro.sample("y", dist.Normal(x, 0.3), obs=y)

def failing(y=None):
    raise RuntimeError("the simulator is not installed")
"""
SHORT = ["--num-samples", "50", "--num-warmup", "20", "--num-chains", "2", "--quiet"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODEL)
    np.savez(tmp_path / "data.npz", y=np.float32(0.2))
    return tmp_path


@pytest.fixture(scope="module")
def stored_run(tmp_path_factory):
    """The folder of a finished lookup."""
    folder = tmp_path_factory.mktemp("stored")
    (folder / "mine.py").write_text(MODEL)
    np.savez(folder / "data.npz", y=np.float32(0.2))
    model, data = f"{folder / 'mine.py'}:model", folder / "data.npz"
    arguments = ["compare", model, "--data", data, "--methods", "lookup", *SHORT]
    result = invoke(*arguments, "--out", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_options_labels_and_truth_reach_the_draws(here):
    np.savez(here / "truth.npz", x=np.float32(0.1))
    chosen = [
        "--methods",
        "lookup,dps,five=dps",
        "--set",
        "dps.num_steps=7",
        "--truth",
        "truth.npz",
    ]
    more = ["--set", "five.num_steps=5", "--set", "dps.num_samples=4", "--units", "x=km"]
    more += ["--title", "Mine", "--out", "out", *SHORT]
    result = invoke("compare", "mine.py:model", "--data", "data.npz", *chosen, *more)
    assert result.exit_code == 0, result.output
    trees = load_trees(here / "out" / "draws.nc")
    assert list(trees) == ["lookup", "dps", "five"]
    options = {name: json.loads(tree.attrs["options"]) for name, tree in trees.items()}
    assert options["lookup"] == {"num_samples": 50}
    assert options["dps"] == {"num_samples": 4, "num_steps": 7, "step_size": None}
    assert options["five"] == {"num_samples": 50, "num_steps": 5, "step_size": None}
    assert float(trees["five"]["truth"]["x"]) == pytest.approx(0.1)
    assert trees["five"]["posterior"]["x"].attrs["units"] == "km"
    page = (here / "out" / "report.html").read_text()
    assert "<h1>Mine</h1>" in page and "num_samples 4, num_steps 7" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "dps.num_step=7"], "Dps has no option 'num_step'. Did you mean 'num_steps'?"),
        (["--set", "dsp.num_steps=7"], "options are given for 'dsp', which is not among"),
        (["--set", "num_steps=7"], "--set takes METHOD.OPTION=VALUE, dps.num_steps=1000 say"),
        (["--set", "dps.num_steps=some"], "must be a whole number of at least 2, got 'some'"),
        (["--set", "dps.num_steps=7", "--set", "dps.num_steps=8"], "dps.num_steps two values"),
        (["--units", "x"], "--units takes NAME=VALUE, velocity=m/s say"),
        (["--units", "z=m"], "units names the site 'z'"),
        (["--truth", "none.npz"], "there is no data file none.npz"),
        (["--coords", "data.npz"], "coords names the dimension 'y'"),
        (["--num-samples", "2"], "num_samples must be a whole number of at least 4, got 2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_end_in_one_line_before_any_work(here, arguments, message):
    begin = ["compare", "mine.py:model", "--data", "data.npz", "--methods", "dps", "--out", "out"]
    result = invoke(*begin, *arguments)
    assert result.exit_code == 2 and message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr and not (here / "out").exists()


@pytest.mark.slow
def test_workers_share_the_work_at_single_examples(here):
    begin = ["compare", "mine.py:model", "--data", "data.npz", "--methods", "lookup", *SHORT]
    for out, workers in (("alone", "0"), ("shared", "2")):
        result = invoke(*begin, "--out", out, "--workers", workers)
        assert result.exit_code == 0, result.output
    one, other = (load_trees(here / out / "draws.nc")["lookup"] for out in ("alone", "shared"))
    np.testing.assert_array_equal(one["posterior"]["x"], other["posterior"]["x"])


def test_compare_prints_stores_and_goes_on(here):
    arguments = ["compare", "mine.py:model", "--data", "data.npz", "--out", "out", *SHORT]
    first = invoke(*arguments, "--methods", "lookup,linearized")
    assert first.exit_code == 0, first.output
    assert "lookup" in first.stdout and "Verdict" in first.stdout
    assert {p.name for p in (here / "out").iterdir()} == {"draws.nc", "run.json", "report.html"}
    stored = json.loads((here / "out" / "run.json").read_text())
    assert stored["seed"] == 0 and "numpyro" in stored["notes"]["versions"]

    more = invoke(*arguments, "--methods", "lookup,linearized,nuts", "--json")
    assert more.exit_code == 0, more.output
    content = json.loads(more.stdout)
    assert [p["method"] for p in content["posteriors"]] == ["lookup", "linearized", "nuts"]
    assert content["reference"] == "nuts"

    (here / "out" / "report.html").unlink()
    again = invoke("report", "out")
    assert again.exit_code == 0 and "nuts" in again.stdout
    assert (here / "out" / "report.html").exists()

    other = invoke(*arguments, "--methods", "lookup", "--seed", "5")
    assert other.exit_code == 2
    assert "out holds another run, 'Posteriors of mine.py:model': key 0 0 there, 0 5 here" in (
        other.stderr
    )
    other = invoke(*arguments, "--methods", "lookup", "--num-samples", "60")
    assert other.exit_code == 2 and "option num_samples 50 there, 60 here" in other.stderr

    few = invoke(*arguments, "--methods", "linearized", "--json")
    assert few.exit_code == 0, few.output
    assert few.stdout == more.stdout  # what is stored stays in the table, and the reference too
    stored = json.loads((here / "out" / "run.json").read_text())
    assert stored["methods"] == ["lookup", "linearized", "nuts"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "absent.py:model"}, "there is no model file absent.py"),
        ({"model": "mine.py"}, "FILE.py:MODEL"),
        ({"model": "mine.py:absent"}, "has no function 'absent'; it has"),
        ({"model": "mine.py:no_prior"}, "no latent site with a MemorizedPrior"),
        ({"model": "mine.py:two_priors"}, "has 2 sites"),
        ({"model": "mine.py:failing"}, "RuntimeError: the simulator is not installed"),
        ({"model": "broken.py:model"}, "broken.py fails on import: SyntaxError"),
        ({"data": "absent.npz"}, "there is no data file absent.npz"),
        ({"data": "taken"}, "taken is a folder; give the .npz file"),
        ({"data": "corrupt.npz"}, "corrupt.npz is truncated or damaged"),
        ({"data": "truncated.npz"}, "truncated.npz is truncated or damaged"),
        ({"data": "pickled.npz"}, "array 'y' holds Python objects, which are not read"),
        ({"data": "single.npy"}, "a .npy file, which holds a single array without a name"),
        ({"data": "matlab5.npz"}, "a MATLAB v5 file; read it with scipy.io.loadmat(file), and"),
        ({"data": "matlab7.npz"}, "a MATLAB v7.3 (HDF5) file; read it with h5py.File(file), and"),
        ({"data": "hdf5.npz"}, "an HDF5 (or NetCDF 4) file"),
        ({"data": "pickle.npz"}, "a pickle, which can run code and is not read"),
        ({"data": "text.npz"}, "text.npz is no .npz file, but of a kind that its first bytes do"),
        ({"data": "nothing.npz"}, "nothing.npz is no .npz file"),
        ({"data": "empty.npz"}, "empty.npz holds no arrays; write them with numpy.savez"),
        ({"data": "letter.npz"}, "its member 'letter.xml' is no array"),
        ({"data": "other.npz"}, r"arrays ['q'], and mine.py:model takes (y=None)"),
        ({"data": "unnamed.npz"}, "Name the arrays as the arguments: numpy.savez(file, y=array)"),
        ({"model": "leaving.py:model"}, "leaving.py fails on import: SystemExit: 3"),
        ({"model": "binary.py:model"}, "binary.py fails on import: "),
        ({"out": "mine.py/below"}, "mine.py is a file; give another path"),
        ({"data": "nan.npz"}, "NaN or infinite"),
        ({"methods": "lookup,magic"}, "unknown method 'magic'"),
        ({"reference": "dps"}, "'dps' is not among"),
        ({"out": "taken"}, "taken holds other files"),
        ({"out": "mine.py"}, "mine.py is a file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(here, changes, message):
    (here / "broken.py").write_text("def model(:\n")
    (here / "corrupt.npz").write_bytes(b"PK\x03\x04 and then nothing")
    np.savez(here / "pickled.npz", y=np.array([{}], dtype=object))
    np.save(here / "single.npy", np.zeros(3))
    np.savez(here / "other.npz", q=np.zeros(1))
    np.savez(here / "unnamed.npz", np.zeros(1))
    np.savez(here / "empty.npz")
    whole = (here / "other.npz").read_bytes()
    (here / "truncated.npz").write_bytes(whole[: len(whole) // 2])
    scipy.io.savemat(here / "matlab5.npz", {"y": np.zeros(3)}, appendmat=False)
    (here / "matlab7.npz").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
    h5py.File(here / "hdf5.npz", "w").close()
    (here / "pickle.npz").write_bytes(pickle.dumps({"y": 0.2}))
    (here / "text.npz").write_text("0.2, 0.3\n")
    (here / "nothing.npz").write_bytes(b"")
    with zipfile.ZipFile(here / "letter.npz", "w") as archive:
        archive.writestr("letter.xml", "<letter/>")
    (here / "leaving.py").write_text("raise SystemExit(3)\n")
    (here / "binary.py").write_bytes(b"\x89HDF\r\n\x00\xff")
    np.savez(here / "nan.npz", y=np.float32(np.nan))
    (here / "taken").mkdir()
    (here / "taken" / "thesis.tex").write_text("years of work")
    given = {"model": "mine.py:model", "data": "data.npz", "out": "out", "methods": "lookup"}
    given |= changes
    options = [f"--{name}={value}" for name, value in given.items() if name != "model"]
    result = invoke("compare", given["model"], *options, *SHORT)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (here / "out").exists() and result.stdout == ""
    assert [p.name for p in (here / "taken").iterdir()] == ["thesis.tex"]


def test_report_of_something_else(here):
    (here / "empty").mkdir()
    for folder in ("absent", "empty"):
        result = invoke("report", folder)
        assert result.exit_code == 2 and "not the folder of a stored run" in result.stderr
    (here / "empty" / "run.json").write_text("{")
    assert "cannot be read" in invoke("report", "empty").stderr
    result = invoke("report", "data.npz")
    assert result.exit_code == 2 and "data.npz is a file; give the folder" in result.stderr


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("title", 3, "'title' must be text"),
        ("methods", "lookup", "'methods' must be a list of names"),
        ("methods", [1], "'methods' must be a list of names"),
        ("methods", ["nuts"], "names the methods ['nuts'], and draws.nc holds draws of ['lookup']"),
        ("reference", ["lookup"], "'reference' must be a name or null"),
        ("notes", None, "'notes' must be an object of names and values"),
        ("notes", [1], "'notes' must be an object of names and values"),
        ("identity", "abc", "'identity' must be an object of names and texts"),
    ],
)
def test_a_run_file_changed_by_hand_is_one_line(here, stored_run, field, value, message):
    content = json.loads((stored_run / "run.json").read_text())
    (here / "run").mkdir()
    (here / "run" / "run.json").write_text(json.dumps({**content, field: value}))
    (here / "run" / "draws.nc").write_bytes((stored_run / "draws.nc").read_bytes())
    result = invoke("report", "run")
    assert result.exit_code == 2 and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_demo_of_absent_examples(here):
    pytest.importorskip("deepwave")
    result = invoke("demo", "fwi", "--examples", "absent", "--out", "out")
    assert result.exit_code == 2 and "absent" in result.stderr
    assert not (here / "out").exists()


def test_ctrl_c_keeps_what_is_finished(here):
    """A real process, interrupted while its second method works; the next call goes on."""
    (here / "slow.py").write_text(
        MODEL.replace("x + 0.3 * x**3", "slow(x)")
        + """
import jax, numpy as np, time

@jax.custom_jvp
def slow(x):
    return jax.pure_callback(lambda v: (time.sleep(0.05), np.asarray(v))[1], x, x,
                             vmap_method="sequential")

@slow.defjvp
def _(primals, tangents):
    return slow(primals[0]), tangents[0]
"""
    )
    command = [
        sys.executable,
        *("-c", "from ppl_memprior.cli import main; main()"),
        *("compare", "slow.py:model", "--data", "data.npz", "--out", "out"),
        *("--methods", "lookup,dps", "--num-samples", "20"),
    ]
    draws = here / "out" / "draws.nc"
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    deadline = time.monotonic() + 120
    while not draws.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors.decode()
    assert b"what is finished is kept in out" in errors
    again = invoke(
        *("compare", "slow.py:model", "--data", "data.npz", "--out", "out"),
        *("--methods", "lookup", "--num-samples", "20", "--quiet"),
    )
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize("module", ["typer", "jax._src.lax"])
def test_ctrl_c_during_start_up_is_one_line(module):
    """A real process that is interrupted when the import of a module begins."""
    code = f"""
import os, signal, sys
from ppl_memprior.cli import main

class Interrupt:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

assert {module!r} not in sys.modules
sys.meta_path.insert(0, Interrupt)
sys.argv = ["ppl-memprior", "demo", "stylized", "--out", "absent"]
main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 130
    assert ended.stderr == "\nppl-memprior: interrupted\n" and ended.stdout == ""


def test_ctrl_c_is_heard_whatever_becomes_of_the_exception(capsys):
    """Callbacks of compiled functions turn it into a RuntimeError."""

    def work():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("INTERNAL: Traceback (most recent call last): ...") from None

    with pytest.raises(typer.Exit) as stopped:
        commands._guarded(work, Path("out"), as_json=False, keep_compiled=False)
    assert stopped.value.exit_code == 130
    errors = capsys.readouterr().err
    assert "interrupted; nothing was finished" in errors and len(errors.splitlines()) == 2


def test_ctrl_c_is_heard_even_where_python_drops_exceptions(capsys, monkeypatch):
    """In a callback of the garbage collector, of which JAX has one; nothing is printed of it."""
    dropped, reported = [], []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)

    def interrupt_once(phase, info):
        if not dropped:
            dropped.append(phase)
            signal.raise_signal(signal.SIGINT)

    def work():
        gc.callbacks.append(interrupt_once)
        gc.collect()
        gc.callbacks.remove(interrupt_once)
        time.sleep(60)
        raise AssertionError("Ctrl-C was lost")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(typer.Exit) as stopped:
        commands._guarded(work, Path("out"), as_json=False, keep_compiled=False)
    assert dropped and not reported and stopped.value.exit_code == 130
    assert "interrupted; nothing was finished" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


LOOKUP = ["compare", "mine.py:model", "--data", "data.npz", "--methods", "lookup", *SHORT]


def stored_programs(here, *arguments, **more):
    """Programs in the user's cache folder after a command in a process of its own."""
    kept = {k: v for k, v in os.environ.items() if "CACHE" not in k}
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(here / "cache")}
    command = [sys.executable, "-c", "from ppl_memprior.cli import main; main()", *arguments]
    result = subprocess.run(
        command, env={**kept, **paths, **more}, cwd=here, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return len(list((here / "cache").glob("ppl_memprior/**/*-cache"))), result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other cache folders")
def test_commands_keep_compiled_programs_unless_told_otherwise(here):
    assert stored_programs(here, *LOOKUP, "--out", "no", "--no-compilation-cache")[0] == 0
    off = {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    assert stored_programs(here, *LOOKUP, "--out", "off", **off)[0] == 0
    assert stored_programs(here, *LOOKUP, "--out", "kept")[0] > 5


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other cache folders")
def test_a_cache_folder_that_cannot_be_written_costs_one_line(here):
    (here / "cache").write_text("a file where the folder should be")
    _, messages = stored_programs(here, *LOOKUP, "--out", "out")
    lines = [line for line in messages.splitlines() if "compiled programs are not kept" in line]
    assert len(lines) == 1 and str(here / "cache") in lines[0]
    assert "Warning" not in messages and "Traceback" not in messages
