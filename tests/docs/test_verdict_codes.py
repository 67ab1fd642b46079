"""The page on reports lists every code that a rule can give."""

from __future__ import annotations

import re
from pathlib import Path

import ppl_memprior.diagnostics.verdicts as package

ROOT = Path(__file__).parents[2]


def test_every_code_of_a_verdict_stands_on_the_page():
    folder = Path(package.__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("[a-z]*.py")]
    # codes are the only texts in kebab-case, but for a few of one word
    quoted = {word for text in texts for word in re.findall(r'"([a-z]+(?:-[a-z]+)*)"', text)}
    page = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    table = page[page.index("| question | codes |") : page.index("## The latent sites")]
    listed = set(re.findall(r"`([a-z-]+)`", table))
    assert {word for word in quoted if "-" in word} <= listed <= quoted
