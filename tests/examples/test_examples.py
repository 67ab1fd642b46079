"""The scripts in examples/ run, at a small size."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load():
    def module(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    return module


@pytest.mark.slow
def test_stylized(load, short, tmp_path):
    comparisons = load("stylized").main(
        tmp_path, short("lookup", "linearized", "nuts", "dps"), bandwidths=(0.05,)
    )
    assert (tmp_path / "stylized-0.05.html").exists()
    # in the memorized regime chains stay where they started, and the report must say so
    narrow = comparisons[0.05]
    assert narrow.table.loc["nuts", "R-hat"] > 1.1
    assert any("its chains disagree" in v.text for v in narrow.verdicts)
    assert "Believe linearized" in narrow.verdicts[-1].text


@pytest.mark.slow
def test_hierarchy(load, capsys):
    draws = load("hierarchy").main(num_unknowns=30, num_warmup=100, num_samples=60, num_chains=2)
    assert draws["weights"].shape == (2, 60, 3) and draws["sigma"].shape == (2, 60)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[1:]] == [
        *("sigma", "noise", "weights[0]", "weights[1]", "weights[2]")
    ]
    # with 30 unknowns the posteriors are wide, but the truth lies within them
    for name, truth in (("sigma", 0.2), ("noise", 0.1), ("weights", [0.5, 0.3, 0.2])):
        low, high = np.quantile(draws[name], [0.005, 0.995], axis=(0, 1))
        assert (low < truth).all() and (truth < high).all()


@pytest.mark.slow
def test_mode_jump(load, tmp_path):
    example = load("mode_jump")
    draws = example.main(tmp_path / "ranks.png", num_warmup=50, num_samples=100, dpi=40)
    assert (tmp_path / "ranks.png").stat().st_size > 1000
    # blocks of ranks for NUTS alone; with jumps every chain reaches both ends
    ranks = {name: example.ranks_among_all(chains) for name, chains in draws.items()}
    assert np.ptp(ranks["NUTS"], axis=1).max() < 250
    assert np.ptp(ranks["ModeJump(NUTS)"], axis=1).min() > 350


def test_survey_picture(load, tmp_path):
    survey = load("survey_picture").main(tmp_path / "survey.png", (12, 14), 5, dpi=40)
    assert survey.num_receivers == 5 and (tmp_path / "survey.png").stat().st_size > 1000
