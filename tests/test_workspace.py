"""The folder of a comparison that was interrupted before its first method was done."""

from __future__ import annotations

import copy
import dataclasses

import pytest

from ppl_memprior import lookup
from ppl_memprior.comparison import load_trees
from ppl_memprior.demos import Study
from ppl_memprior.inference._lookup import LogLikelihoodTask
from ppl_memprior.workspace import check_folder, execute


@pytest.fixture
def study(cubic_problem, short):
    return Study("A study", cubic_problem(0.0, 0.3), short("lookup"), None)


def names(folder):
    return {path.name for path in folder.iterdir()}


def interrupt(monkeypatch, study, at):
    """The study with nothing compiled; the forward solve at one example ends in Ctrl-C."""
    prepare = LogLikelihoodTask.prepare

    def patched(task, problem):
        solve = prepare(task, problem)

        def interrupted(indices):
            if at in indices:
                raise KeyboardInterrupt
            return solve(indices)

        return interrupted

    monkeypatch.setattr(LogLikelihoodTask, "prepare", patched)
    return dataclasses.replace(study, problem=copy.copy(study.problem))


def test_work_at_examples_is_kept_and_removed_when_all_is_done(study, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        execute(interrupt(patched, study, 2), 0, out, progress=False)
    assert names(out) == {"run.json", "unfinished"}
    assert len(list(out.rglob("*.npz"))) == 2
    check_folder(out)
    with monkeypatch.context() as patched:
        # example 1 is there, and not solved again
        execute(interrupt(patched, study, 1), 0, out, progress=False)
    assert names(out) == {"run.json", "draws.nc", "report.html"}
    stored = load_trees(out / "draws.nc")["lookup"]
    assert stored.attrs["log_evidence"] == pytest.approx(lookup(study.problem).log_evidence)


def test_nothing_is_left_where_nothing_was_done(study, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        execute(interrupt(patched, study, 0), 0, out, progress=False)
    assert not out.exists()
