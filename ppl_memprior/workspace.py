"""The folder that a comparison leaves: draws, provenance and report, safe against interruption.

`draws.nc` holds every finished method's draws, `run.json` what they came from, `report.html` the
page; until all methods are done, `unfinished` holds the work of the others at single examples. A
folder that holds anything else is never written to.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from ppl_memprior.comparison import Comparison, compare, load_trees, run
from ppl_memprior.comparison.html import write_text
from ppl_memprior.comparison.run import DRAWS_FILE, UNFINISHED, check_methods, fingerprint
from ppl_memprior.demos import Study

RUN_FILE = "run.json"
REPORT_FILE = "report.html"
PACKAGES = ("ppl_memprior", "numpyro", "jax", "arviz", "numpy", "torch", "deepwave")


def check_folder(out: str | os.PathLike[str]) -> Path:
    """The folder, if it may be written to: new, empty, or one of ours.

    Raises:
        ValueError: it is a file, or holds something else.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder with --out")
    ours = (folder / RUN_FILE).exists()
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise ValueError(
            f"{folder} holds other files and no {RUN_FILE}; give a new or empty folder with --out"
        )
    return folder


def execute(study: Study, seed: int, out: Path, *, progress: bool) -> Comparison:
    """Run a study's methods, store each as it finishes, and write the report.

    Started again with the same study and seed, finished methods are not run again, and an
    interrupted one goes on.

    Args:
        study: what to run.
        seed: of the methods' random keys.
        out: the folder, already checked.
        progress: show bars on stderr.

    Raises:
        ValueError: a method that cannot take the problem, or a folder that holds the draws of
            another study.
    """
    key = jax.random.key(seed)
    check_methods(study.problem, study.methods)
    identity = fingerprint(study.problem, key, study.settings, study.truth)
    _claim(out, study, identity, seed)
    try:
        runs = run(
            study.problem,
            study.methods,
            key,
            settings=study.settings,
            truth=study.truth,
            coords=study.coords,
            units=study.units,
            store=out,
            progress=progress,
        )
    finally:
        _release_if_empty(out)
    comparison = compare(runs, reference=study.reference)
    comparison.to_html(out / REPORT_FILE, title=study.title, notes=_read(out)["notes"])
    return comparison


def render(out: str | os.PathLike[str]) -> Comparison:
    """Write the report of a folder again, from what was stored.

    Raises:
        ValueError: the folder holds no stored run.
    """
    folder = Path(out)
    if not (folder / RUN_FILE).exists():
        raise ValueError(f"{folder} holds no {RUN_FILE}: it is not the folder of a stored run")
    stored = _read(folder)
    trees = load_trees(folder / DRAWS_FILE)
    methods: Sequence[str] = stored["methods"]
    runs = {name: trees[name] for name in methods if name in trees}
    reference = stored["reference"] if stored["reference"] in runs else None
    comparison = compare(runs, reference=reference)
    comparison.to_html(folder / REPORT_FILE, title=stored["title"], notes=stored["notes"])
    return comparison


def _claim(out: Path, study: Study, identity: str, seed: int) -> None:
    if (out / RUN_FILE).exists() and _read(out)["fingerprint"] != identity:
        raise ValueError(
            f"{out} holds the run {_read(out)['title']!r} of another problem, seed or settings; "
            "give another folder with --out, or remove that one"
        )
    content = {
        "title": study.title,
        "methods": list(study.methods),
        "reference": study.reference,
        "seed": seed,
        "settings": asdict(study.settings),
        "fingerprint": identity,
        "notes": {
            **study.notes,
            "settings": ", ".join(f"{k} {v}" for k, v in asdict(study.settings).items()),
            "versions": ", ".join(f"{k} {v}" for k, v in _versions().items()),
        },
    }
    write_text(out / RUN_FILE, json.dumps(content, indent=2, default=str))


def _release_if_empty(out: Path) -> None:
    """Leave nothing behind if no method finished, nor any work at an example."""
    if not (out / DRAWS_FILE).exists() and not any((out / UNFINISHED).rglob("*.zip")):
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)
        (out / RUN_FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            out.rmdir()


def _versions() -> Mapping[str, str]:
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        missing = {"title", "methods", "reference", "notes", "fingerprint"} - set(content)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / RUN_FILE} cannot be read: {error}") from error
    if missing:
        raise ValueError(f"{folder / RUN_FILE} is not of a stored run: it lacks {sorted(missing)}")
    return content
