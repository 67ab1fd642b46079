"""What was computed at single examples, kept in a folder while a long run goes on.

A folder holds the files of one task. `store.json` says of which problem and with which settings.
Each finished batch is one NumPy archive (`.npz`), which is written under another name and renamed:
it is there whole or not at all, and the checksums of the archive tell later damage. What is
computed is left to `map_examples`.

Several processes may write to one folder: each file is somebody's finished batch, and two of the
same name hold the same.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro

from ppl_memprior._execution.files import complete_or_nothing

Record = dict[str, np.ndarray]

FORMAT = 2  # 1 were Zarr groups
LEFTOVER_SECONDS = 600.0  # far longer than a file is being written
_IDENTITY, _BATCHES = "store.json", "*.npz"
# Members of an archive: the examples' indices, the fields' names with their shapes as JSON (null
# where all are the same), and the values of each field.
_INDICES, _FIELDS, _VALUES = "example", "fields", "values/"


class ExampleStore:
    """Records by the index of their example, in the folder of one problem, task and settings.

    Args:
        folder: the folder of all tasks; made if it is not there.
        problem: fingerprint of the problem.
        task: a frozen dataclass with a `name`; its other fields are the settings.

    Raises:
        ValueError: the folder holds records of another problem or of other settings, or was
            written in another format.
    """

    def __init__(self, folder: str | os.PathLike[str], problem: str, task: Any) -> None:
        self.folder = Path(folder) / task.name
        identity = {
            "format": FORMAT,
            "task": task.name,
            "problem": problem,
            "settings": _settings(task),
            "versions": {package.__name__: package.__version__ for package in (jax, numpyro, np)},
        }
        if not self.folder.exists():
            _create_folder(self.folder, identity)
        self._require(identity)
        self._remove_leftovers()

    def load(self, indices: Iterable[int]) -> dict[int, Record]:
        """The records there are for these examples; damaged files are removed with a warning."""
        wanted = set(indices)
        found: dict[int, Record] = {}
        for path in sorted(self.folder.glob(_BATCHES)):
            try:
                stat = path.stat()
                here = _read_indices(path, stat.st_mtime_ns, stat.st_size)
                if not wanted.isdisjoint(here):
                    records = zip(here, _read(path), strict=True)
                    found.update((index, record) for index, record in records if index in wanted)
            except Exception as error:  # of zipfile or NumPy: all mean damage here
                warnings.warn(
                    f"{path} is damaged ({type(error).__name__}: {error}); it is removed and its "
                    "examples are computed again",
                    stacklevel=2,
                )
                path.unlink(missing_ok=True)
        return found

    def add(self, indices: Sequence[int], records: Sequence[Record]) -> None:
        """Keep the records of one batch, in one file.

        Raises:
            ValueError: a value is an array of Python objects.
        """
        members, shapes = {_INDICES: np.asarray(indices)}, {}
        for field in records[0]:
            values = [np.asarray(record[field]) for record in records]
            members[_VALUES + field], shapes[field] = _packed(values)
        members[_FIELDS] = np.asarray(json.dumps(shapes))
        name = hashlib.sha256(repr(list(indices)).encode()).hexdigest()[:8]
        path = self.folder / f"{min(indices):08d}-{name}.npz"
        with complete_or_nothing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for member, array in members.items():
                with archive.open(f"{member}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)

    def _require(self, identity: dict[str, Any]) -> None:
        try:
            stored: dict[str, Any] = dict(json.loads((self.folder / _IDENTITY).read_text("utf-8")))
        except Exception as error:
            raise ValueError(
                f"{self.folder} is no store of finished examples ({type(error).__name__}: {error});"
                " choose another folder or remove that one"
            ) from error
        differences = [
            *_difference("format", stored.get("format"), identity["format"]),
            *_difference("fingerprint of the problem", stored.get("problem"), identity["problem"]),
            *_differing_settings(stored.get("settings") or {}, identity["settings"]),
        ]
        if not differences:
            return
        versions = [
            line
            for package, here in identity["versions"].items()
            for line in _difference(package, (stored.get("versions") or {}).get(package), here)
        ]
        also = f" (written with other versions: {'; '.join(versions)})" if versions else ""
        raise ValueError(
            f"{self.folder} holds results of another problem or other settings: "
            f"{'; '.join(differences)}{also}. Choose another folder, or remove that one to start "
            "again"
        )

    def _remove_leftovers(self) -> None:
        """Remove what a killed process was writing; what another one writes now is younger."""
        for path in self.folder.glob(".*.part"):
            try:
                if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                pass  # finished, or removed by another process


def holds_records(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder of tasks holds a finished batch of any of them."""
    return any(Path(folder).rglob(_BATCHES))


def _settings(task: Any) -> dict[str, str]:
    fields = [field.name for field in dataclasses.fields(task) if field.name != "name"]
    return {name: repr(getattr(task, name)) for name in fields}


def _create_folder(folder: Path, identity: dict[str, Any]) -> None:
    """Make the folder with its identity, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / "store"
        made.mkdir()
        (made / _IDENTITY).write_text(json.dumps(identity, indent=1), encoding="utf-8")
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():  # another process was faster: fine
                raise


def _difference(what: str, there: Any, here: Any) -> list[str]:
    return [] if there == here else [f"{what} {there} there, {here} here"]


def _differing_settings(there: dict[str, str], here: dict[str, str]) -> list[str]:
    return [
        line
        for name in sorted({*there, *here})
        for line in _difference(f"setting {name}", there.get(name), here.get(name))
    ]


def _packed(values: Sequence[np.ndarray]) -> tuple[np.ndarray, list[Any] | None]:
    """One array of the values of a field: stacked, or end to end if their shapes differ."""
    shapes = [value.shape for value in values]
    if len(set(shapes)) == 1:
        return np.stack(values), None
    return np.concatenate([value.reshape(-1) for value in values]), shapes


def _unpacked(array: np.ndarray, shapes: list[Any] | None) -> list[np.ndarray]:
    if shapes is None:
        return list(array)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    flat = np.split(array, ends[:-1])
    return [part.reshape(shape) for part, shape in zip(flat, shapes, strict=True)]


def _read(path: Path) -> list[Record]:
    with np.load(path, allow_pickle=False) as archive:
        shapes = json.loads(str(archive[_FIELDS]))
        fields = {name: _unpacked(archive[_VALUES + name], shapes[name]) for name in shapes}
    columns = zip(*fields.values(), strict=True)
    return [dict(zip(fields, row, strict=True)) for row in columns]


@functools.lru_cache(maxsize=2**14)
def _read_indices(path: Path, mtime_ns: int, size: int) -> tuple[int, ...]:
    """The examples of a file, read once while its time and size stay the same."""
    with np.load(path, allow_pickle=False) as archive:
        indices = archive[_INDICES]
    return tuple(int(index) for index in indices)
