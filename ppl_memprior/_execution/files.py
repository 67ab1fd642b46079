"""Files that are there whole or not at all, and paths that are checked before any work."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def complete_or_nothing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without error.

    An interruption or an exception leaves `path` as it was and no temporary file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # random: two machines that share a folder may have processes of one number
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file, whole or not at all.

    Args:
        path: the file; folders above it are made.
        text: its content, written as UTF-8.

    Returns:
        The path.
    """
    with complete_or_nothing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def check_writable_folder(name: str, path: Any) -> None:
    """Raise for a folder that cannot be made, or nothing can be written to.

    Args:
        name: what the folder is called in messages.
        path: the folder; it may not be there yet.

    Raises:
        TypeError: no path.
        ValueError: a file, or permissions that are missing.
    """
    folder = _as_path(name, path)
    nearest = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    if not nearest.is_dir():
        raise ValueError(
            f"{name} {path} cannot be a folder: {nearest} is a file; give another path"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(
            f"{name} {path} cannot be written to: no permission to write into {nearest}; give "
            "another path"
        )


def check_writable_file(name: str, path: Any) -> None:
    """Raise for a file that cannot be written: a folder, or one in a folder that cannot be made.

    Raises:
        TypeError: no path.
        ValueError: a folder, or a folder above that cannot be written to.
    """
    file = _as_path(name, path)
    if file.is_dir():
        raise ValueError(f"{name} {path} is a folder; give a file's path")
    check_writable_folder(f"the folder of {name}", file.parent)


def _as_path(name: str, path: Any) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise TypeError(f"{name} must be a path, got {type(path).__name__} {path!r}") from None
