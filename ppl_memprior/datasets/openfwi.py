"""Velocity models from OpenFWI's own files.

OpenFWI (C. Deng et al., NeurIPS 2022) stores velocity models as `.npy` arrays of shape
(n, 1, 70, 70) in m/s, hundreds of models a file. The Vel and Style families have a folder for
models and a folder for seismic data (`model/model1.npy`, `data/data1.npy`). The Fault families have
both in one folder (`vel2_1_0.npy`, `seis2_1_0.npy`). Files are read in place, never downloaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Velocities of rock and water, generously: outside of this the unit is not m/s.
_SLOWEST, _FASTEST = 100.0, 15000.0

# How OpenFWI names its files: a word and numbers.
_VELOCITY_NAME = re.compile(r"(model|vel)[\d_]*")
_SEISMIC_NAME = re.compile(r"(data|seis)[\d_]*")


def load_openfwi(
    path: str | os.PathLike[str], *, max_models: int | None = None
) -> NDArray[np.float32]:
    """Load velocity models from one of OpenFWI's files, or from a folder of them.

    A folder of one or several families is searched for `.npy` files at any depth. OpenFWI's file
    names tell velocity models from seismic data. Where a name says nothing, the shape of the array
    does. Files of seismic data are left out. Files of velocity models are read in natural order
    (model2 before model10), until `max_models` is reached.

    Args:
        path: a `.npy` file of velocity models, or a folder.
        max_models: largest number of models to load; None loads all.

    Returns:
        Velocities, m/s, float32 of shape (n, nz, nx): model, depth, distance.

    Raises:
        FileNotFoundError: the path does not exist, or the folder holds no file of velocity models.
        ValueError: a file that is no array, cut short, of another shape, or of seismic data; values
            that are not finite or cannot be m/s; files of different grids; or `max_models` less
            than one.

    Example::

        velocities = mp.datasets.load_openfwi("CurveFault_B", max_models=1000)
        prior = mp.DiffusionMixturePrior(jnp.asarray(velocities), sigma=100.0)
    """
    if max_models is not None and max_models < 1:
        raise ValueError(f"max_models must be at least 1 or None, got {max_models}.")
    parts: list[NDArray[np.float32]] = []
    count = 0
    for file in _files(Path(path)):
        wanted = None if max_models is None else max_models - count
        part = _read(file, wanted)
        if parts and part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(
                f"{file}: models of {part.shape[1:]} cells, where the files before it have "
                f"{parts[0].shape[1:]}. Load one family at a time."
            )
        parts.append(part)
        count += len(part)
        if count == max_models:
            break
    return np.concatenate(parts)


def _files(path: Path) -> Iterator[Path]:
    """The files of velocity models, in natural order."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a .npy file or a folder of them.")
    if path.is_file():
        yield path
        return
    found = sorted((file for file in path.rglob("*.npy") if file.is_file()), key=_natural)
    if not found:
        packed = sum(1 for _ in path.rglob("*.npz"))
        other = f" Its {packed} .npz files are not read; numpy.load reads them." if packed else ""
        raise FileNotFoundError(f"{path} holds no .npy file, at any depth.{other}")
    # Other arrays may lie about where some names say which files are models.
    named = any(_named_velocity(file) for file in found)
    seismic = []
    for file in found:
        if _SEISMIC_NAME.fullmatch(file.stem) or _has_shape(file, _is_seismic):
            seismic.append(file)
        elif not named or _named_velocity(file) or _has_shape(file, _is_velocity):
            yield file
    if len(seismic) == len(found):
        raise FileNotFoundError(
            f"{path} holds no velocity models: all its {len(found)} .npy files, {found[0].name} "
            "among them, are seismic data. OpenFWI's models are files such as model/model1.npy or "
            "vel2_1_0.npy."
        )


def _named_velocity(file: Path) -> bool:
    """Whether the name of a file, or of its folder, is that of velocity models."""
    return bool(_VELOCITY_NAME.fullmatch(file.stem)) or (
        file.parent.name == "model" and not _SEISMIC_NAME.fullmatch(file.stem)
    )


def _has_shape(file: Path, wanted: Callable[[tuple[int, ...]], bool]) -> bool:
    """Whether the array in a file whose name says nothing has a certain shape."""
    return not _named_velocity(file) and wanted(_open(file).shape)


def _is_seismic(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[1] != 1


def _is_velocity(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)


def _models_beside(file: Path) -> str:
    """Where the velocity models of a file of seismic data are."""
    numbers = re.sub(r"^\D+", "", file.stem)
    for beside in (
        file.parent.parent / "model" / f"model{numbers}.npy",
        file.with_name(f"vel{numbers}.npy"),
    ):
        if beside.exists():
            return f"Its models are in {beside}."
    return "OpenFWI's models are files such as model/model1.npy or vel2_1_0.npy."


def _natural(file: Path) -> list[tuple[int, int, str]]:
    """Sort key by which numbers inside names compare as numbers."""
    pieces = re.split(r"(\d+)", str(file))
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in pieces]


def _read(file: Path, wanted: int | None) -> NDArray[np.float32]:
    """The first `wanted` models of one file, checked."""
    stored = _open(file)
    shape = stored.shape
    if _is_seismic(shape):
        raise ValueError(
            f"{file}: shape {shape} is that of seismic data (sample, shot, time, receiver), not "
            f"of velocity models (sample, 1, depth, distance). {_models_beside(file)}"
        )
    if not _is_velocity(shape) or 0 in shape:
        raise ValueError(
            f"{file}: shape {shape}, where velocity models are (sample, 1, depth, distance) or "
            "(sample, depth, distance)."
        )
    if stored.dtype.kind not in "fiu":
        raise ValueError(f"{file}: dtype {stored.dtype}, where velocities are real numbers.")
    models = np.array(stored[:wanted], dtype=np.float32)
    models = models[:, 0] if stored.ndim == 4 else models
    if not np.all(np.isfinite(models)):
        first = int(np.argwhere(~np.isfinite(models))[0][0])
        raise ValueError(
            f"{file}: {np.count_nonzero(~np.isfinite(models))} values are not finite, the first "
            f"of them in model {first}."
        )
    lowest, highest = float(models.min()), float(models.max())
    if lowest < _SLOWEST or highest > _FASTEST:
        raise ValueError(
            f"{file}: values from {lowest:g} to {highest:g} cannot be velocities in m/s "
            f"({_SLOWEST:g} to {_FASTEST:g}); is this seismic data, or normalized, or in km/s?"
        )
    return models


def _open(file: Path) -> NDArray[np.generic]:
    """Memory-map one `.npy` file."""
    try:
        with open(file, "rb") as stream:
            magic = stream.read(6)
        if magic != b"\x93NUMPY":
            raise ValueError("it does not begin like a NumPy array")
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{file} cannot be read as a .npy array: {error}.") from error
