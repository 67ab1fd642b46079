"""Work at single examples: in batches, through executors, interrupted and taken up again."""

from __future__ import annotations

import pickle
import runpy
import sys
import time
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from dataclasses import dataclass
from multiprocessing import current_process, get_context
from pathlib import Path
from typing import ClassVar

import distributed
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from ppl_memprior import InverseProblem, MemorizedPrior, _batches, lookup
from ppl_memprior._execution import workers as _workers
from ppl_memprior._execution.map_examples import map_examples
from ppl_memprior.distributions._mixture import examples as _examples
from ppl_memprior.forward import ScalarWave, Survey

NUM = 11


@pytest.fixture(scope="module")
def problem():
    examples = np.random.default_rng(0).normal(size=(NUM, 3)).astype(np.float32)
    prior = MemorizedPrior(examples)

    def model(data=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(jnp.sin(x), 0.3).to_event(1), obs=data)

    return InverseProblem(model, data=np.asarray([0.1, -0.2, 0.3], np.float32))


@dataclass(frozen=True)
class Powers:
    """x^power of each example; keeps a log of the batches, and fails where it is told to."""

    log: str
    power: int = 2
    fails_at: int = -1
    failure: type[BaseException] = FloatingPointError
    name: ClassVar[str] = "powers"

    def prepare(self, problem):
        powers = jax.jit(lambda x: x**self.power)

        def solve(indices):
            if self.fails_at in indices:
                raise self.failure("as asked")
            with open(self.log, "a") as log:
                log.write(f"{indices.tolist()}\n")
            values = np.asarray(powers(problem.examples[indices]))
            return [
                {"powers": value, "ragged": np.arange(index)}
                for index, value in zip(indices, values, strict=True)
            ]

        return solve


class PicklingExecutor(Executor):
    """What an executor of other processes does to its arguments, in this one."""

    def submit(self, fn, /, *args):
        future = Future()
        try:
            future.set_result(pickle.loads(pickle.dumps(fn(*pickle.loads(pickle.dumps(args))))))
        except Exception as error:
            future.set_exception(error)
        return future


def batches_in(log):
    return [eval(line) for line in Path(log).read_text().splitlines()]


def assert_powers(records, problem, indices, power=2):
    expected = np.asarray(problem.examples)[indices] ** power
    np.testing.assert_array_equal(np.stack([r["powers"] for r in records]), expected)
    assert [len(r["ragged"]) for r in records] == list(indices)


def test_batches_of_one_size_in_the_order_asked_for(problem, tmp_path):
    log = str(tmp_path / "log")
    indices = np.asarray([7, 0, 3, 10, 4, 1, 2])
    records = map_examples(problem, Powers(log), indices, batch_size=3)
    assert_powers(records, problem, indices)
    assert batches_in(log) == [[7, 0, 3], [10, 4, 1], [2, 2, 2]]


def test_what_is_stored_is_found_whatever_the_batches_were(problem, tmp_path):
    log, store = str(tmp_path / "log"), tmp_path / "store"
    map_examples(problem, Powers(log), np.asarray([5, 2, 8]), batch_size=2, store=store)
    records = map_examples(problem, Powers(log), np.arange(NUM), batch_size=4, store=store)
    assert_powers(records, problem, np.arange(NUM))
    fresh = batches_in(log)[2:]
    assert sorted(set(sum(fresh, []))) == [0, 1, 3, 4, 6, 7, 9, 10]
    map_examples(problem, Powers(log), np.arange(NUM), batch_size=3, store=store)
    assert batches_in(log)[2:] == fresh
    with pytest.raises(ValueError, match="setting power 2 there, 3 here"):
        map_examples(problem, Powers(log, power=3), np.arange(3), batch_size=3, store=store)


def test_what_is_not_a_number_is_kept_like_any_result(problem, tmp_path):
    tried = []

    @dataclass(frozen=True)
    class Sometimes:
        name: ClassVar[str] = "sometimes"

        def prepare(self, problem):
            def solve(indices):
                tried.append(indices.tolist())
                return [{"value": np.float32(np.nan if n == 5 else n)} for n in indices]

            return solve

    for _ in range(2):
        records = map_examples(problem, Sometimes(), np.arange(6), batch_size=2, store=tmp_path)
        values = [record["value"] for record in records]
        np.testing.assert_array_equal(values, [0, 1, 2, 3, 4, np.nan])
    assert tried == [[0, 1], [2, 3], [4, 5]]


def test_a_function_is_prepared_once(problem, tmp_path, monkeypatch):
    calls = []
    prepare = Powers.prepare
    monkeypatch.setattr(Powers, "prepare", lambda *a: calls.append(1) or prepare(*a))
    task = Powers(str(tmp_path / "log"), power=5)
    for executor in (None, None, PicklingExecutor(), PicklingExecutor()):
        map_examples(problem, task, np.arange(4), batch_size=2, executor=executor)
    with ThreadPoolExecutor(2) as threads:
        map_examples(problem, task, np.arange(4), batch_size=2, executor=threads)
    assert len(calls) == 2  # here, and where it came pickled


@pytest.mark.parametrize("make", [lambda: ThreadPoolExecutor(3), PicklingExecutor])
def test_executors_give_what_a_loop_gives(problem, tmp_path, monkeypatch, make):
    monkeypatch.setattr(_workers, "MAX_IN_FLIGHT", 2)
    log = str(tmp_path / "log")
    indices = np.asarray([7, 0, 3, 10, 4, 1, 2])
    with make() as executor:
        records = map_examples(problem, Powers(log), indices, batch_size=2, executor=executor)
    assert_powers(records, problem, indices)
    assert sorted(batches_in(log)) == [[2, 2], [3, 10], [4, 1], [7, 0]]


@pytest.mark.parametrize("make", [lambda: ThreadPoolExecutor(1), PicklingExecutor])
def test_a_failure_names_the_examples_and_keeps_what_is_finished(problem, tmp_path, make):
    log, store = str(tmp_path / "log"), tmp_path / "store"
    with make() as executor, pytest.raises(RuntimeError, match="examples 8, 9.*FloatingPointError"):
        map_examples(
            problem,
            Powers(log, fails_at=8),
            np.arange(NUM),
            batch_size=2,
            executor=executor,
            store=store,
        )
    # all four before it; the cancelled one too where it ran before the failure was seen
    assert len(list((store / "powers").glob("*.npz"))) >= 4


def test_ctrl_c_keeps_what_is_finished(problem, tmp_path):
    log, store = str(tmp_path / "log"), tmp_path / "store"
    interrupted = Powers(log, fails_at=8, failure=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        map_examples(problem, interrupted, np.arange(NUM), batch_size=2, store=store)
    assert len(list((store / "powers").glob("*.npz"))) == 4
    threads = tmp_path / "threads"
    with ThreadPoolExecutor(1) as executor, pytest.raises(KeyboardInterrupt):
        map_examples(
            problem, interrupted, np.arange(NUM), batch_size=2, executor=executor, store=threads
        )
    assert len(list((threads / "powers").glob("*.npz"))) >= 4


def test_a_failure_here_keeps_its_type_and_gets_a_note(problem, tmp_path):
    task = Powers(str(tmp_path / "log"), fails_at=1)
    with pytest.raises(FloatingPointError) as caught:
        map_examples(problem, task, np.arange(NUM), batch_size=2)
    assert "powers at examples 0, 1" in caught.value.__notes__[0]


@pytest.mark.parametrize("indices", [[[0]], [0.5], [0, NUM], [-1]], ids=str)
def test_indices_are_checked(problem, tmp_path, indices):
    with pytest.raises(ValueError, match="indices must be"):
        map_examples(problem, Powers("no log"), np.asarray(indices), batch_size=1)


def test_executors_that_cannot_work_are_refused_first(problem, monkeypatch):
    with pytest.raises(TypeError, match="concurrent.futures.Executor, got str"):
        lookup(problem, executor="threads")
    with (
        ProcessPoolExecutor(1, mp_context=get_context("fork")) as forks,
        pytest.raises(ValueError, match="spawn"),
    ):
        lookup(problem, executor=forks)
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(ImportError, match="pip install cloudpickle"):
        lookup(problem, executor=PicklingExecutor())


def test_a_script_without_the_main_guard_is_told_of_it(problem, monkeypatch):
    """In the worker that imports the script, and where the dead worker is missed."""
    monkeypatch.setattr(current_process(), "_inheriting", True, raising=False)
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes,
        pytest.raises(RuntimeError, match="work under `if __name__ == '__main__':`"),
    ):
        lookup(problem, executor=processes)
    monkeypatch.undo()

    class Dead(Executor):
        at_once: bool

        def submit(self, *_):
            if self.at_once:
                raise BrokenExecutor("terminated abruptly.")
            future = Future()
            future.set_exception(BrokenExecutor("terminated abruptly."))
            return future

    for Dead.at_once in (True, False):
        with pytest.raises(RuntimeError, match="abruptly. Where workers die at once, .*__main__"):
            lookup(problem, executor=Dead())


def test_double_precision_reaches_every_worker():
    """The setting of one thread: neither the threads nor the processes have it of themselves."""

    def model(data=None):
        x = numpyro.sample("x", MemorizedPrior(np.linspace(0, 1, 4)))
        numpyro.sample("y", dist.Normal(x, 0.3), obs=data)

    with jax.enable_x64(True):
        problem = InverseProblem(model, data=np.float64(1 / 3))
        expected = lookup(problem).log_likelihoods
        assert expected.dtype == np.float64
        for make in (lambda: ThreadPoolExecutor(1), PicklingExecutor):
            with make() as executor:
                found = lookup(problem, executor=executor)
            assert found.log_likelihoods.dtype == np.float64
            # another batch size is another program: the last bits may differ
            np.testing.assert_allclose(found.log_likelihoods, expected, rtol=1e-14)


def test_examples_in_a_file_stay_there(tmp_path, monkeypatch):
    """Other processes map the file themselves."""
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 1000)
    values = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    prior = MemorizedPrior(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert isinstance(prior.examples, _examples.HostRows)

    def model(data=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=data)

    found = lookup(InverseProblem(model, data=values[7]), executor=PicklingExecutor())
    expected = stats.norm(values.astype(float), 0.5).logpdf(values[7]).sum(axis=1)
    np.testing.assert_allclose(found.log_likelihoods, expected, rtol=1e-5)  # sums in float32


def test_threads_do_not_see_each_others_models():
    """NumPyro has one stack of handlers for all threads."""

    def model(data=None):
        x = numpyro.sample("x", MemorizedPrior(np.arange(3.0, dtype=np.float32)))
        time.sleep(0.005)  # another thread's turn
        numpyro.sample("y", dist.Normal(x, 1.0), obs=data)

    problem = InverseProblem(model, data=1.0)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(problem.log_likelihood, [1.0, 2.0] * 8))
    np.testing.assert_array_equal(found, stats.norm(1.0).logpdf([1.0, 2.0] * 8).astype("f4"))


@pytest.mark.parametrize("make", [lambda: None, lambda: ThreadPoolExecutor(1)])
def test_progress_starts_with_what_is_stored(problem, tmp_path, capsys, make):
    task = Powers(str(tmp_path / "log"))
    map_examples(problem, task, np.arange(4), batch_size=2, store=tmp_path)
    map_examples(
        problem,
        task,
        np.arange(8),
        batch_size=2,
        executor=make(),
        store=tmp_path,
        description="powers",
        progress=True,
    )
    assert "powers:  50%" in capsys.readouterr().err


def test_a_task_must_return_one_record_an_example(problem):
    @dataclass(frozen=True)
    class Wrong:
        name: ClassVar[str] = "wrong"

        def prepare(self, problem):
            return lambda indices: [{}]

    with pytest.raises(TypeError, match="list of 2 dicts, got 1"):
        map_examples(problem, Wrong(), np.arange(4), batch_size=2)


SCRIPT = """
import sys, time
from dataclasses import dataclass
from typing import ClassVar
import jax.numpy as jnp, numpy as np, numpyro, numpyro.distributions as dist
from ppl_memprior import InverseProblem, MemorizedPrior
from ppl_memprior._execution.map_examples import map_examples
from ppl_memprior.inference._lookup import LogLikelihoodTask

prior = MemorizedPrior(np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32))

def model(data=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(jnp.sin(x), 0.3).to_event(1), obs=data)

problem = InverseProblem(model, data=np.asarray([0.1, -0.2, 0.3], np.float32))

@dataclass(frozen=True)
class Logged:
    name: ClassVar[str] = "logged"

    def prepare(self, problem):
        solve = LogLikelihoodTask().prepare(problem)

        def logged(indices):
            time.sleep(pause)
            with open(log, "a") as file:
                file.write(f"{indices.tolist()}\\n")
            return solve(indices)

        return logged

def run(store):
    records = map_examples(problem, Logged(), np.arange(40), batch_size=3, store=store)
    return np.stack([record["log_likelihood"] for record in records])

if __name__ == "__main__":
    log, pause = sys.argv[1], 0.2
    run(sys.argv[2])
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(tmp_path, killed_run):
    script, killed, stored = killed_run(SCRIPT, "logged/*.npz", 3)
    assert 3 <= len(stored) < 14

    program = runpy.run_path(str(script), {"pause": 0.0, "log": str(tmp_path / "resumed")})
    resumed = program["run"](killed)
    assert {batch[0] for batch in batches_in(tmp_path / "resumed")} == (
        set(range(0, 40, 3)) - stored
    )
    uninterrupted = program["run"](tmp_path / "fresh")
    assert resumed.tobytes() == uninterrupted.tobytes()


@pytest.mark.slow
def test_dask_gives_what_a_loop_gives(problem, tmp_path):
    expected = lookup(problem)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        found = lookup(problem, executor=client.get_executor(), store=tmp_path)
    # another batch size is another program: the last bits may differ
    np.testing.assert_allclose(found.log_likelihoods, expected.log_likelihoods, rtol=1e-6)
    again = lookup(problem, store=tmp_path)
    np.testing.assert_array_equal(again.log_likelihoods, found.log_likelihoods)


@pytest.mark.slow
@pytest.mark.torch
def test_a_wave_equation_in_other_processes():
    """Deepwave's operators go along with the model that calls them."""
    pytest.importorskip("deepwave")
    survey = Survey.surface((12, 14), 2, 5, peak_frequency=10.0, dt=0.002, num_times=160)
    wave = ScalarWave(survey, 10.0, pml_width=5)
    velocities = np.random.default_rng(0).uniform(1500, 2500, size=(6, 12, 14))
    prior = MemorizedPrior(velocities.astype(np.float32))

    def model(data=None):
        v = numpyro.sample("v", prior)
        numpyro.sample("data", dist.Normal(wave(v), 0.01).to_event(3), obs=data)

    waves = InverseProblem(model, data=np.asarray(wave(prior.examples[2])))
    expected = lookup(waves)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        found = lookup(waves, executor=executor)
    np.testing.assert_allclose(found.log_likelihoods, expected.log_likelihoods, rtol=1e-5)
    assert found.weights[2] > 0.999
