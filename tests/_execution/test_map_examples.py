"""Work at single examples: in batches, stored, interrupted and taken up again."""

from __future__ import annotations

import runpy
from concurrent.futures import (
    ThreadPoolExecutor,
)
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from ppl_memprior._execution.map_examples import map_examples

from .powers import NUM, Powers, assert_powers, batches_in


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
