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

from ppl_memprior.problem import InverseProblem


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
        raise ValueError(f"there is no model file {path}")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise ValueError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickles look their module up
    sys.path.insert(0, str(path.resolve().parent))  # what lies beside the file may be imported
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} fails on import: {_one_line(error)}") from error
    model = getattr(module, name, None)
    if not callable(model):
        functions = [n for n, v in vars(module).items() if inspect.isfunction(v)]
        raise ValueError(f"{path} has no function {name!r}; it has {functions}")
    return model


def load_data(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, by name; nothing pickled is read.

    Raises:
        ValueError: no such file, not an `.npz` file, damaged, or holding Python objects.
    """
    if not path.is_file():
        raise ValueError(f"there is no data file {path}")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array, not named ones (numpy.savez)")
        with archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a readable .npz file: {_one_line(error)}") from error


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
            f"{inspect.signature(model)}: {error}"
        ) from error
    try:
        return InverseProblem(model, **arrays)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{spec} fails: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
