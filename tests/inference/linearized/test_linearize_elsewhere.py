"""`linearize` interrupted and taken up again, and with its work done by other processes."""

from __future__ import annotations

import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import distributed
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import DiffusionMixturePrior, InverseProblem, linearize

# eight unknowns, twelve data and at most four directions: without Jacobians
SCRIPT = """
import functools, sys, time
import jax.numpy as jnp, numpy as np, numpyro, numpyro.distributions as dist
from ppl_memprior import DiffusionMixturePrior, InverseProblem, linearize
from ppl_memprior.inference.linearized._tasks import LowRankTask

rng = np.random.default_rng(0)
matrix = jnp.asarray(3.0 * rng.normal(size=(12, 8)) * 0.5 ** np.arange(8), jnp.float32)
prior = DiffusionMixturePrior(jnp.asarray(rng.normal(size=(6, 8)), jnp.float32), 0.3)

def model(data=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(matrix @ (x + 0.02 * x**3), 1.0).to_event(1), obs=data)

@functools.cache
def problem(shift):
    return InverseProblem(model, data=matrix @ prior.examples[2] + shift)

prepare = LowRankTask.prepare

def logged(task, problem):
    work = prepare(task, problem)

    def solve(indices):
        time.sleep(pause)
        with open(log, "a") as file:
            file.write(f"{int(indices[0])}\\n")
        return work(indices)

    return solve

def run(store, shift=0.0, **settings):
    LowRankTask.prepare = logged
    try:
        return linearize(problem(shift), **{"max_rank": 4, "neglect": 0.0, **settings}, store=store)
    finally:
        LowRankTask.prepare = prepare

if __name__ == "__main__":
    log, pause = sys.argv[1], 0.3
    run(sys.argv[2])
"""


def examples_in(log):
    return [int(line) for line in Path(log).read_text().splitlines()]


def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(tmp_path, killed_run):
    script, killed, stored = killed_run(SCRIPT, "linearize-low-rank/*.npz", 1)
    assert 1 <= len(stored) < 6

    program = runpy.run_path(str(script), {"pause": 0.0, "log": str(tmp_path / "resumed")})
    resumed = program["run"](killed)
    assert sorted(examples_in(tmp_path / "resumed")) == sorted(set(range(6)) - stored)
    assert np.all(resumed.report.rank == 4)  # without Jacobians
    uninterrupted = program["run"](tmp_path / "fresh")
    for there, here in zip(
        jax.tree.leaves(vars(resumed)), jax.tree.leaves(vars(uninterrupted)), strict=True
    ):
        assert np.asarray(there).tobytes() == np.asarray(here).tobytes()
    assert resumed.num_gradient_evaluations == uninterrupted.num_gradient_evaluations

    with pytest.raises(ValueError, match="fingerprint of the problem"):
        program["run"](killed, shift=0.5)
    for settings, difference in [
        ({"accuracy": 0.2}, "setting accuracy 0.1 there, 0.2 here"),
        ({"iterations": 3}, "setting iterations 0 there, 3 here"),
        ({"max_rank": 3}, "setting max_rank 4 there, 3 here"),
    ]:
        with pytest.raises(ValueError, match=difference):
            program["run"](killed, **settings)


@pytest.fixture(scope="module")
def problem():
    """40 components of which many matter, so that several workers have several each."""
    rng = np.random.default_rng(1)
    matrix = jnp.asarray(rng.normal(size=(12, 8)) * 0.5 ** np.arange(8), jnp.float32)
    prior = DiffusionMixturePrior(jnp.asarray(rng.normal(size=(40, 8)), jnp.float32), 0.3)

    def model(data=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(matrix @ (x + 0.02 * x**3), 0.7).to_event(1), obs=data)

    return InverseProblem(model, data=matrix @ prior.examples[2])


def assert_same(found, expected, tolerance):
    for there, here in zip(
        jax.tree.leaves(vars(found)), jax.tree.leaves(vars(expected)), strict=True
    ):
        np.testing.assert_allclose(there, here, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def dask():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"iterations": 10}, {"max_rank": 5}], ids=str)
def test_executors_give_what_a_loop_gives(problem, dask, tmp_path, settings):
    everything = {"neglect": 0.0, **settings}
    expected = linearize(problem, **everything)
    # Products are made one component at a time, by the same program: the same bits. Jacobians are
    # made in batches, whose size depends on who works: float32 rounding.
    tolerance = 0.0 if "max_rank" in settings else 2e-5
    with ThreadPoolExecutor(3) as threads:
        assert_same(linearize(problem, executor=threads, **everything), expected, tolerance)
    elsewhere = linearize(problem, executor=dask.get_executor(), store=tmp_path, **everything)
    assert_same(elsewhere, expected, tolerance)
    (components,) = tmp_path.glob("linearize-*")
    assert len(list(components.glob("*.npz"))) == 40
    assert_same(linearize(problem, store=tmp_path, **everything), expected, tolerance)


@pytest.mark.slow
def test_workers_neglect_as_little_as_a_loop(problem, dask):
    """They bound and begin several components at once: other ones, to the same end."""
    settings = {"max_rank": 5, "neglect": 0.05}
    alone = linearize(problem, **settings)
    together = linearize(problem, executor=dask.get_executor(), **settings)
    done, also = np.asarray(alone.report.linearized), np.asarray(together.report.linearized)
    assert max(done.sum(), also.sum()) < 40
    assert max(together.neglected_mass, alone.neglected_mass) <= 0.05
    np.testing.assert_array_equal(together.locs[done & also], alone.locs[done & also])
    # the shares differ by what the other neglected: log(1 + 0.05)
    np.testing.assert_allclose(together.log_evidence, alone.log_evidence, atol=0.05)
