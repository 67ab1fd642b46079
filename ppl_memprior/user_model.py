"""A user's own model: a function in a Python file, and its data in an `.npz` file."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ppl_memprior.problem.inverse_problem import InverseProblem


def load_model(spec: str) -> Callable[..., Any]:
    """The function that `FILE.py:MODEL` names.

    Raises:
        ValueError: not of that form, no such file or function, or a file that fails on import.
    """
    file, separator, name = spec.rpartition(":")
    path = Path(file)
    if not separator or not name or path.suffix != ".py":
        raise ValueError(f"a model is given as FILE.py:MODEL, got {spec!r}")
    if not path.is_file():
        raise ValueError(
            f"{path} is a folder; give the .py file"
            if path.is_dir()
            else f"there is no model file {path}"
        )
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise ValueError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickles look their module up
    sys.path.insert(0, str(path.resolve().parent))  # what lies beside the file may be imported
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path} fails on import: {_one_line(error)}") from error
    model = getattr(module, name, None)
    if not callable(model):
        functions = [n for n, v in vars(module).items() if inspect.isfunction(v)]
        raise ValueError(f"{path} has no function {name!r}; it has {functions}")
    return model


def load_data(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, by name; nothing pickled is read.

    Raises:
        ValueError: no such file, a file of another kind (which), damaged, empty, or holding Python
            objects.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the .npz file")
    if not path.is_file():
        raise ValueError(f"there is no data file {path}")
    try:
        with path.open("rb") as file:
            start = file.read(_LONGEST_SIGNATURE)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {_one_line(error)}") from error
    if not start.startswith(_ZIP):
        kind = next((kind for signature, kind in _KINDS.items() if start.startswith(signature)), "")
        raise ValueError(
            f"{path} is no .npz file, but {kind or _UNKNOWN_KIND}, and write its arrays with "
            "numpy.savez(file, name=array)"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: _array(archive, name) for name in archive.files}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ValueError(
            f"{path} is truncated or damaged ({_one_line(error)}); copy or write it again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from error
    if not arrays:
        raise ValueError(f"{path} holds no arrays; write them with numpy.savez(file, name=array)")
    return arrays


def _array(archive: Any, name: str) -> np.ndarray:
    """One array of an opened `.npz` file."""
    try:
        array = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise zipfile.BadZipFile(f"array {name!r}: {error}") from error
        raise ValueError(
            f"its array {name!r} holds Python objects, which are not read because they can run "
            "code; write it as an array of numbers, numpy.asarray(values, dtype=float)"
        ) from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"its member {name!r} is no array; write arrays with numpy.savez")
    return array


# first bytes of files: what they are, and how to read them
_KINDS = {
    b"MATLAB 7.3 MAT-file": "a MATLAB v7.3 (HDF5) file; read it with h5py.File(file)",
    b"MATLAB 5.0 MAT-file": "a MATLAB v5 file; read it with scipy.io.loadmat(file)",
    b"\x89HDF\r\n\x1a\n": "an HDF5 (or NetCDF 4) file; read it with h5py.File(file)",
    b"CDF": "a NetCDF 3 file; read it with scipy.io.netcdf_file(file)",
    b"\x93NUMPY": "a .npy file, which holds a single array without a name; read it with "
    "numpy.load(file)",
    b"\x80": "a pickle, which can run code and is not read; load it where you trust it",
}
_UNKNOWN_KIND = "of a kind that its first bytes do not name; read it with the program that wrote it"
_LONGEST_SIGNATURE = max(map(len, _KINDS))
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # with members, and empty


def read_problem(spec: str, data: Path) -> InverseProblem:
    """The inverse problem of a user's model and data file.

    Each array of the data file is passed to the model's argument of its name.

    Raises:
        ValueError: a file that cannot be used, names that do not fit, or a model that is no
            supported inverse problem.
    """
    model = load_model(spec)
    arrays = load_data(data)
    try:
        inspect.signature(model).bind(**arrays)
    except TypeError as error:
        raise ValueError(
            f"{data} holds the arrays {sorted(arrays)}, and {spec} takes "
            f"{inspect.signature(model)}: {error}. Name the arrays as the arguments: "
            f"numpy.savez(file, {_first_argument(model)}=array)"
        ) from error
    try:
        return InverseProblem(model, **arrays)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{spec} fails: {_one_line(error)}") from error


def _first_argument(model: Callable[..., Any]) -> str:
    return next(iter(inspect.signature(model).parameters), "name")


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
