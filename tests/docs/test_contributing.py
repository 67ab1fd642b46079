"""What CONTRIBUTING.md says of the repository is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_path_exists():
    paths = re.findall(r"`((?:ppl_memprior|tests|docs|\.ci)/[^`\s]*|\w+\.(?:md|toml))`", PAGE)
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_commands_are_those_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make ([\w-]+)", PAGE, re.M)
    assert len(targets) >= 5
    assert [name for name in targets if not re.search(rf"^{name}:", makefile, re.M)] == []


def test_the_picture_shows_the_layers_of_the_import_contract():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "layers")
    picture = PAGE.split("## The house in one picture")[1].split("```")[1].strip().splitlines()
    # The names end where two spaces begin.
    shown = [line.split("  ")[0] for line in picture]
    assert shown == [re.sub(r"[()]", "", layer) for layer in layers]
