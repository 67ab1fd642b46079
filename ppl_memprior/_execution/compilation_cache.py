"""Compiled programs kept on disk by JAX's persistent compilation cache, for later processes.

The command line and the processes that it starts switch the cache on. The library never does:
whoever calls it from Python decides about JAX's settings. When and how a program is stored is
JAX's work; here are the folder, its size and the settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import tempfile
from pathlib import Path

import jax
import platformdirs

#: Size of the folder, in bytes, to which `prepare_folder` reduces it. `demo stylized` needs two
#: million. JAX's own limit (`jax_compilation_cache_max_size`) is not used: whenever JAX stores a
#: program, it would read the times of all others, which takes longer than compiling most of them.
MAX_BYTES = 128_000_000

# By default JAX stores no program that compiles in less than 1 s: most programs do. Together they
# take a third of the time.
_THRESHOLDS: dict[str, float] = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def default_folder() -> Path:
    """Return the folder of compiled programs in the user's cache folder."""
    return Path(platformdirs.user_cache_dir("ppl_memprior", appauthor=False)) / "compiled"


def folder_in_use() -> str | None:
    """Return JAX's folder of compiled programs in this process, if it has one."""
    return jax.config.values["jax_compilation_cache_dir"]


def configured_by_user() -> bool:
    """Return whether JAX has a folder for compiled programs already, or its cache is off."""
    return bool(folder_in_use()) or not jax.config.values["jax_enable_compilation_cache"]


def prepare_folder(folder: Path, max_bytes: int = MAX_BYTES) -> Path:
    """Make the folder, readable for this user only, and remove what has not been used for longest.

    Several processes may do so at the same time. Each kind of processor has a subfolder: machines
    may share a home folder, and JAX's key of a program need not tell their processors apart.

    Args:
        folder: the folder of compiled programs.
        max_bytes: size to which the content is reduced.

    Returns:
        The subfolder for this machine, to be passed to `use_folder`.

    Raises:
        OSError: nothing can be written to the folder.
    """
    if not folder.is_absolute():
        raise OSError(f"{folder} is no absolute path: the user has no home folder")
    # Compiled programs are run as they are: nobody else may put any there.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    _remove_least_recently_used(folder, max_bytes)
    return folder / _processor()


def use_folder(folder: str | os.PathLike[str] | None) -> None:
    """Let JAX store compiled programs in a folder and take them from there, in this process.

    A cache that the user has configured stays as it is. So do thresholds from the environment.

    Args:
        folder: returned by `prepare_folder`, here or in another process; None changes nothing.
    """
    if folder is None or configured_by_user():
        return
    for name, value in _THRESHOLDS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))


def _remove_least_recently_used(folder: Path, max_bytes: int) -> None:
    """Remove files, the one first that was read or written longest ago."""
    files = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process has removed it
            if path.is_file():
                found = path.stat()
                files.append((max(found.st_atime_ns, found.st_mtime_ns), found.st_size, path))
    excess = sum(size for _, size, _ in files) - max_bytes
    for _, size, path in sorted(files):
        if excess <= 0:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            excess -= size


def _processor() -> str:
    """Return a name for this kind of processor and its instructions, fit for a folder."""
    lines: set[str] = set()
    with contextlib.suppress(OSError):  # Linux only
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "flags", "Features")):
                lines.add(line)
    described = "\n".join((platform.processor(), *sorted(lines)))
    return f"{platform.machine()}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
