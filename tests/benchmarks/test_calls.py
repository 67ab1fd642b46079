"""`benchmarks/calls.py` runs at a small size, and later calls compile nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "calls.py"
OURS = {"lookup", "linearize", "psis", "dps", "nuts", "mode-jump", "smc", "gibbs", "evidence"}


def tables(*options):
    """The cells of each table that the script prints, without the header and its rule."""
    printed = subprocess.run(
        [sys.executable, SCRIPT, "--quick", *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    found, before = [], ""
    for line in printed.splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append([])
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        before = line
    assert "- met: later calls compile nothing (0 programs)" in printed
    return [rows[2:] for rows in found]


def check_calls(rows):
    """Every method compiles something at first, or shares what another one compiled."""
    for name, first, median, worst, compiled, other_data, made_anew in rows:
        assert float(first) > 0 and 0 < float(median) <= float(worst)
        assert (int(other_data), int(made_anew)) == (0, 0), name
        # whatever comes first has nothing to share, and shows that compilations are counted
        assert int(compiled) > 0 or name != rows[0][0]


def test_closed_forms():
    (rows,) = tables("--only", "lookup", "linearize", "--calibration", "0")
    assert [row[0] for row in rows] == ["lookup", "linearize"]
    check_calls(rows)


@pytest.mark.slow
def test_everything():
    rows, ((repetitions, *numbers, first, later, pvalue),) = tables()
    assert {row[0] for row in rows[:-3]} == OURS
    check_calls(rows[:-3])
    assert int(repetitions) == 3 and min(map(float, numbers)) > 0
    assert int(first) > 0 and int(later) == 0 and 0 <= float(pvalue) <= 1
