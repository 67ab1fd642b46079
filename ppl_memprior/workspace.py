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
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from ppl_memprior._execution.example_store import holds_records
from ppl_memprior._execution.files import check_writable_file, check_writable_folder, write_text
from ppl_memprior.comparison import Comparison, compare, load_trees, run
from ppl_memprior.comparison.identity import differences, identity_of
from ppl_memprior.comparison.methods.registry import label_of
from ppl_memprior.comparison.running import DRAWS_FILE, UNFINISHED, check_methods, stored_draws
from ppl_memprior.comparison.trees.labels import checked_truth
from ppl_memprior.demos import Study

RUN_FILE = "run.json"
REPORT_FILE = "report.html"
PACKAGES = ("ppl_memprior", "numpyro", "jax", "arviz", "numpy", "torch", "deepwave")


def check_folder(out: str | os.PathLike[str]) -> Path:
    """The folder, if it may be written to: new, empty, or one of ours.

    Raises:
        ValueError: it is a file, holds something else, or cannot be written to.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder with --out")
    ours = (folder / RUN_FILE).exists()
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise ValueError(
            f"{folder} holds other files and no {RUN_FILE}; give a new or empty folder with --out"
        )
    check_writable_folder("the folder", folder)
    check_writable_file("the report", folder / REPORT_FILE)
    return folder


def finished_methods(folder: Path) -> list[str]:
    """Names of the methods whose draws the folder holds."""
    path = folder / DRAWS_FILE
    return list(load_trees(path)) if path.exists() else []


def execute(
    study: Study, seed: int, out: Path, *, progress: bool, executor: Executor | None = None
) -> Comparison:
    """Run a study's methods, store each as it finishes, and write the report.

    Started again with the same study and seed, finished methods are not run again, and an
    interrupted one goes on. Methods that finished earlier and are not asked for stay in the folder
    and in its report.

    Args:
        study: what to run.
        seed: of the methods' random keys.
        out: the folder, already checked.
        progress: show bars on stderr.
        executor: where work at single examples is done; here, without one.

    Raises:
        ValueError: a method that cannot take the problem, or a folder that holds the draws of
            another study.
    """
    key = jax.random.key(seed)
    check_methods(study.problem, study.methods)
    truth = checked_truth(study.problem, study.truth)
    identity = identity_of(study.problem, key, truth)
    _claim(out, study, identity, seed)
    try:
        run(
            study.problem,
            study.methods,
            key,
            truth=truth,
            coords=study.coords,
            units=study.units,
            dims=study.dims,
            num_prior_draws=study.num_prior_draws,
            executor=executor,
            store=out,
            progress=progress,
        )
    finally:
        _release_if_empty(out)
    return render(out)


def render(out: str | os.PathLike[str]) -> Comparison:
    """Write the report of a folder again, from what was stored.

    Raises:
        ValueError: the folder holds no stored run.
    """
    folder = Path(out)
    if folder.is_file():
        raise ValueError(
            f"{folder} is a file; give the folder of a stored run, which it may lie in"
        )
    if not (folder / RUN_FILE).exists():
        raise ValueError(f"{folder} holds no {RUN_FILE}: it is not the folder of a stored run")
    stored = _read(folder)
    trees = load_trees(folder / DRAWS_FILE)
    runs = {name: trees[name] for name in stored["methods"] if name in trees}
    if not runs:
        raise ValueError(
            f"{folder / RUN_FILE} names the methods {stored['methods']}, and {DRAWS_FILE} holds "
            f"draws of {list(trees)}"
        )
    reference = stored["reference"] if stored["reference"] in runs else None
    comparison = compare(runs, reference=reference)
    options = {f"options of {name}": text for name, text in _options(runs).items()}
    notes = {**stored["notes"], **options}
    comparison.to_html(folder / REPORT_FILE, title=stored["title"], notes=notes)
    return comparison


def _options(runs: Mapping[str, xr.DataTree]) -> dict[str, str]:
    """The options that each posterior's draws were made with, as text."""
    found = {}
    for name, tree in runs.items():
        options = json.loads(str(tree.attrs.get("options", "{}")))
        said = [f"{option} {value}" for option, value in options.items() if value is not None]
        found[name] = ", ".join(said)
    return {name: text for name, text in found.items() if text}


def _claim(out: Path, study: Study, identity: Mapping[str, str], seed: int) -> None:
    """Make the folder that of the study, unless it is another's already."""
    if (out / RUN_FILE).exists():
        before = _read(out)
        found = differences(before["identity"], identity)
        if found:
            raise ValueError(
                f"{out} holds another run, {before['title']!r}: {found}. Give another folder with "
                "--out, or remove that one"
            )
    stored = stored_draws(out, identity, study.methods)
    content = {
        "title": study.title,
        "methods": list(dict.fromkeys((*stored, *map(label_of, study.methods)))),
        "reference": study.reference,
        "seed": seed,
        "identity": identity,
        "notes": {
            **study.notes,
            "versions": ", ".join(f"{k} {v}" for k, v in _versions().items()),
        },
    }
    write_text(out / RUN_FILE, json.dumps(content, indent=2, default=str))


def _release_if_empty(out: Path) -> None:
    """Leave nothing behind if no method finished, nor any work at an example."""
    if not (out / DRAWS_FILE).exists() and not holds_records(out / UNFINISHED):
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
    """What `run.json` says, each field of the type that is expected of it."""
    file = folder / RUN_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} cannot be read: it holds no JSON object")
    content.setdefault("identity", {})  # of an earlier version
    for name, (expected, fits) in _FIELDS.items():
        if name not in content:
            raise ValueError(f"{file} is not of a stored run: it lacks {name!r}")
        if not fits(content[name]):
            raise ValueError(f"{file} has been changed: {name!r} must be {expected}")
    return content


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


# the fields of run.json that are read again: what each must be, and whether it is
_FIELDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "title": ("text", _is_text),
    "methods": ("a list of names", _is_list_of_text),
    "reference": ("a name or null", lambda value: value is None or _is_text(value)),
    "notes": ("an object of names and values", _is_object),
    "identity": ("an object of names and texts", _is_object),
}
