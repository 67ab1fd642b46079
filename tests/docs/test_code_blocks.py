"""Every block of Python in the README and the documentation runs as it is printed, on its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TORCH = ("import torch", "forward.ScalarWave", "forward.ElasticWave")
#: What makes a block run for long: nothing but its numbers of draws is changed.
SHORTER = {
    "num_warmup=500, num_samples=2500": "num_warmup=20, num_samples=20",
    '["nuts"], jax.random.key(0)': 'SHORT("nuts"), jax.random.key(0)',
    "chosen, jax.random.key(4)": "SHORT(*chosen[:-1]), jax.random.key(4)",
}


def blocks() -> list:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M):
            line = text.count("\n", 0, match.start()) + 1
            code = match[1]
            marks = [pytest.mark.torch] if any(word in code for word in TORCH) else []
            if any(word in code for word in ("__main__", "mode-jump", "ModeJump", '["nuts"]')):
                marks.append(pytest.mark.slow)
            found.append(pytest.param(page, line, code, marks=marks, id=f"{page.stem}-{line}"))
    return found


@pytest.mark.parametrize(("page", "line", "code"), blocks())
def test_the_block_runs_as_it_is_printed(page, line, code, short, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "__main__" in code:  # it starts processes, which read the file again
        script = tmp_path / "block.py"
        script.write_text(code, encoding="utf-8")
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return
    for long, shorter in SHORTER.items():
        code = code.replace(long, shorter)
    # in front of the code as many empty lines as on the page, so that errors name its line
    compiled = compile("\n" * line + code, page.name, "exec")
    exec(compiled, {"__name__": "__main__", "SHORT": short})


def test_every_shortened_call_still_stands_on_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [call for call in SHORTER if call not in text] == []
