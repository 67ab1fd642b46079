"""Work at single examples in other threads, processes and machines."""

from __future__ import annotations

import sys
import time
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from multiprocessing import current_process, get_context

import distributed
import jax
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

from .powers import NUM, PicklingExecutor, Powers, assert_powers, batches_in

pytestmark = pytest.mark.arithmetic  # another Python computes the same


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
