"""The folder of finished examples: what comes back, what is refused, what is damaged."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from ppl_memprior._execution.example_store import LEFTOVER_SECONDS, ExampleStore


@dataclass(frozen=True)
class Settings:
    rank: int = 3
    name: ClassVar[str] = "toy"


def some_records(indices):
    """Records whose fields have shapes of their own, or the same."""
    return [
        {
            "number": np.float32(index),
            "zeros": np.full(3, -0.0),
            "ragged": np.arange(2 * index, dtype=np.float64).reshape(index, 2),
            "flag": np.asarray(index % 2 == 0),
            "axes": np.full((1,) * (index % 3), index),
        }
        for index in indices
    ]


def assert_identical(found, expected):
    assert found.keys() == expected.keys()
    for name in found:
        ours, theirs = np.asarray(found[name]), np.asarray(expected[name])
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()


def filled(folder, *batches):
    store = ExampleStore(folder, "abc", Settings())
    for batch in batches:
        store.add(batch, some_records(batch))
    return store


def test_records_come_back_by_example_bit_for_bit(tmp_path):
    filled(tmp_path, [4, 0, 2], [1], [7, 5])
    found = ExampleStore(tmp_path, "abc", Settings()).load([5, 4, 1, 6])
    assert sorted(found) == [1, 4, 5]
    for index, record in found.items():
        assert_identical(record, some_records([index])[0])


def test_one_file_for_a_batch(tmp_path):
    filled(tmp_path, range(100))
    assert len(list((tmp_path / "toy").iterdir())) == 2  # and what they are of


def test_another_problem_and_other_settings_are_refused(tmp_path):
    filled(tmp_path, [0])
    with pytest.raises(ValueError, match="setting rank 3 there, 4 here.*another folder, or remove"):
        ExampleStore(tmp_path, "abc", Settings(rank=4))
    with pytest.raises(ValueError, match="fingerprint of the problem abc there, xyz here"):
        ExampleStore(tmp_path, "xyz", Settings())
    (tmp_path / "toy" / "store.json").write_text("{")
    with pytest.raises(ValueError, match="no store of finished examples"):
        ExampleStore(tmp_path, "abc", Settings())


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_files_are_named_and_not_trusted(tmp_path, damage):
    store = filled(tmp_path, [0, 1], [2, 3])
    path = next((tmp_path / "toy").glob("00000000-*.npz"))
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[content.index(np.float32(1.0).tobytes())] ^= 1 << 3
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b""}.get(damage, content))
    with pytest.warns(UserWarning, match=path.name):
        assert sorted(store.load(range(4))) == [2, 3]
    store.add([0, 1], some_records([0, 1]))
    assert sorted(store.load(range(4))) == [0, 1, 2, 3]


def test_no_flipped_bit_changes_what_comes_back(tmp_path):
    """Bytes of a file in turn: each is damage, or nothing that is read (a time of the archive)."""
    (path,) = filled(tmp_path, [1, 2]).folder.glob("*.npz")
    content = path.read_bytes()
    expected = some_records([1, 2])
    harmless = 0
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = ExampleStore(tmp_path, "abc", Settings()).load([1, 2])
        harmless += bool(found)
        for index, record in found.items():
            assert_identical(record, expected[index - 1])
    assert harmless < len(content) / 10  # half of those looked at; most of a file is read


def test_python_objects_are_refused_and_leave_no_file(tmp_path):
    store = filled(tmp_path)
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        store.add([0], [{"what": np.asarray([{}], dtype=object)}])
    assert not list(store.folder.glob("*.npz")) and not list(store.folder.glob(".*"))


def test_leftovers_of_a_kill_are_removed_and_never_read(tmp_path):
    filled(tmp_path, [0])
    old, young = (tmp_path / "toy" / f".00000001-{name}.npz.1.part" for name in ("a", "b"))
    for path in (old, young):
        path.write_bytes(b"PK")
    past = time.time() - LEFTOVER_SECONDS - 1
    os.utime(old, (past, past))
    assert sorted(ExampleStore(tmp_path, "abc", Settings()).load(range(3))) == [0]
    assert young.exists() and not old.exists()  # the young one may be somebody's work


def test_two_processes_at_once_are_harmless(tmp_path):
    """Two that do the same work: whole files, whoever was last."""
    one, two = (ExampleStore(tmp_path, "abc", Settings()) for _ in range(2))
    for store in (one, two):
        store.add([0, 1], some_records([0, 1]))
    two.add([1, 2], some_records([1, 2]))
    assert sorted(one.load(range(3))) == [0, 1, 2]
