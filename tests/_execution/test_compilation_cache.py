"""Compiled programs on disk: where, how many, and who decides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import platformdirs
import pytest

from ppl_memprior._execution import compilation_cache
from ppl_memprior._execution.compilation_cache import (
    default_folder,
    prepare_folder,
    use_folder,
)

COUNT_COMPILATIONS = """
import sys
import jax

counts = {"/jax/compilation_cache/cache_hits": 0, "/jax/compilation_cache/cache_misses": 0}

def count(event, **_):
    if event in counts:
        counts[event] += 1

jax.monitoring.register_event_listener(count)
from ppl_memprior._execution.compilation_cache import prepare_folder, use_folder

use_folder(prepare_folder(__import__("pathlib").Path(sys.argv[1])))
jax.jit(lambda x: x**2 + 1)(jax.numpy.arange(3.0)).block_until_ready()
print(*counts.values())
"""


@pytest.fixture
def unconfigured():
    """JAX as a user finds it, who has configured no cache; afterwards as it was."""
    names = ("jax_compilation_cache_dir", *compilation_cache._THRESHOLDS)
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def environment(**more):
    """Of a process in which no cache is configured."""
    kept = {k: v for k, v in os.environ.items() if "CACHE" not in k}
    return {**kept, "PYTHONPATH": os.pathsep.join(sys.path), **more}


def compilations(folder: Path, **more: str) -> tuple[int, int]:
    """Hits and misses of a new process that compiles something."""
    command = [sys.executable, "-c", COUNT_COMPILATIONS, folder]
    result = subprocess.run(
        command, env=environment(**more), capture_output=True, text=True, check=True
    )
    assert not result.stderr
    hits, misses = map(int, result.stdout.split())
    return hits, misses


def test_the_second_process_compiles_nothing(tmp_path):
    hits, misses = compilations(tmp_path / "compiled")
    assert misses > 0
    assert compilations(tmp_path / "compiled") == (hits + misses, 0)


def test_a_threshold_from_the_environment_stays(tmp_path):
    more = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1000"}
    assert compilations(tmp_path / "compiled", **more) == (0, 0)


def test_the_default_folder_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = Path(platformdirs.user_cache_path())
    assert cache in default_folder().parents
    assert "ppl_memprior" in default_folder().parts
    if sys.platform == "linux":
        assert default_folder().is_relative_to(tmp_path / "ppl_memprior")


def test_a_folder_that_the_user_has_chosen_stays(unconfigured, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    threshold = jax.config.jax_persistent_cache_min_compile_time_secs
    use_folder(tmp_path / "ours")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    assert jax.config.jax_persistent_cache_min_compile_time_secs == threshold


def test_a_cache_that_the_user_has_switched_off_stays_off(unconfigured, tmp_path):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        use_folder(tmp_path)
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert jax.config.jax_compilation_cache_dir is None


def test_the_folder_is_for_the_user_alone(tmp_path):
    folder = prepare_folder(tmp_path / "above" / "compiled")
    assert folder.parent == tmp_path / "above" / "compiled"
    assert folder.parent.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        prepare_folder(tmp_path / "file" / "compiled")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    folder = tmp_path / "compiled"
    folder.mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        prepare_folder(folder)


def test_without_a_home_folder_nothing_is_made(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="no home folder"):
        prepare_folder(Path("~/.cache/ppl_memprior/compiled"))
    assert not list(tmp_path.iterdir())


def test_what_has_not_been_used_for_longest_is_removed_first(tmp_path):
    """Written and read: (10, 0), (20, 0), (5, 30) seconds after the epoch."""
    folder = prepare_folder(tmp_path / "compiled")
    folder.mkdir()
    for name, times in {"first": (0, 10), "second": (0, 20), "read": (30, 5)}.items():
        (folder / name).write_bytes(bytes(1000))
        os.utime(folder / name, times)
    prepare_folder(folder.parent, max_bytes=3000)
    assert len(list(folder.iterdir())) == 3
    prepare_folder(folder.parent, max_bytes=2999)
    assert {path.name for path in folder.iterdir()} == {"second", "read"}
    prepare_folder(folder.parent, max_bytes=1000)
    assert {path.name for path in folder.iterdir()} == {"read"}
