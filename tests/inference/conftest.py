"""What tests of interrupted work have in common."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Killed(NamedTuple):
    """What a killed program left behind.

    Attributes:
        script: the program.
        store: its folder.
        stored: the first example of each batch in it.
    """

    script: Path
    store: Path
    stored: set[int]


@pytest.fixture
def killed_run(tmp_path: Path) -> Callable[[str, str, int], Killed]:
    """Run a program in a process of its own, and kill it once it has stored some batches.

    The program takes the path of a log and that of its store.
    """

    def run(source: str, batches: str, least: int) -> Killed:
        script, store = tmp_path / "script.py", tmp_path / "killed"
        script.write_text(source)
        process = subprocess.Popen(
            [sys.executable, script, tmp_path / "first", store],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        deadline = time.monotonic() + 120
        while len(list(store.glob(batches))) < least:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return Killed(script, store, {int(path.name[:8]) for path in store.glob(batches)})

    return run
