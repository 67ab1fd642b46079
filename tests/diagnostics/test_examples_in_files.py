"""Diagnostics of examples in a file, against distances between all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ppl_memprior import MemorizedPrior, _batches
from ppl_memprior.diagnostics import (
    distinct_examples,
    leave_one_out_ratios,
    memorization,
    nearest_examples,
)
from ppl_memprior.diagnostics.modes import same_within

from ..counted_file import CountedFile

pytestmark = pytest.mark.arithmetic  # another Python computes the same

NUM, EVENT = 150, (4, 5)
TWENTY = 20  # examples in a batch
NOISE = np.float32(5e-4)


@pytest.fixture
def rows():
    """Examples of which some are nearly copies of one another, batches apart."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(NUM, *EVENT)).astype(np.float32)
    for group in ([2, 50, 149], [7, 8], [30, 90]):
        rows[group] = rows[group[0]] + NOISE * rng.normal(size=(len(group), *EVENT))
    return rows


@pytest.fixture
def file(rows, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", rows)
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", TWENTY * 20)
    return CountedFile(tmp_path / "x.npy")


@pytest.fixture
def prior(file):
    prior = MemorizedPrior(file)
    file.forget()
    return prior


def flat(rows):
    return rows.reshape(len(rows), -1).astype(np.float64)


def centres(rows, groups):
    """Numbers of the first examples, and the mean of each group."""
    first = np.unique(groups)
    return first, np.stack([flat(rows)[groups == number].mean(axis=0) for number in first])


def test_groups_are_those_of_all_distances(rows, prior, file):
    found = distinct_examples(prior, 1e-3)
    assert file.largest <= TWENTY
    near = cdist(flat(rows), flat(rows)) <= same_within(rows, 1e-3)
    alike = (near[:, None] == near).all(axis=-1)  # the same neighbours
    np.testing.assert_array_equal(found, alike.argmax(axis=1))
    np.testing.assert_array_equal(np.flatnonzero(found != np.arange(NUM)), [8, 50, 90, 149])
    np.testing.assert_array_equal(distinct_examples(prior), np.arange(NUM))


def test_the_nearest_are_those_of_all_distances(rows, prior, file):
    groups = distinct_examples(rows, 1e-3)
    x = np.concatenate([rows[[149, 90, 60]], rows[:5] + np.float32(0.3)])
    index, ratio = nearest_examples(x, prior, groups)
    assert file.largest <= TWENTY
    first, means = centres(rows, groups)
    distances = cdist(flat(x), means)
    order = np.sort(distances, axis=1)
    np.testing.assert_array_equal(index, first[distances.argmin(axis=1)])
    # float32: distances of 1e-3 between numbers near one have four digits
    np.testing.assert_allclose(ratio, order[:, 0] / order[:, 1:50].mean(1), rtol=1e-3, atol=1e-7)


def test_the_null_is_that_of_all_distances(rows, prior, file, monkeypatch):
    groups = distinct_examples(rows, 1e-3)
    first, means = centres(rows, groups)
    order = np.sort(cdist(means, means), axis=1)[:, 1:]
    expected = order[:, 0] / order[:, 1:50].mean(axis=1)
    np.testing.assert_allclose(leave_one_out_ratios(prior, groups), expected, rtol=1e-5)
    monkeypatch.setattr(memorization, "SOME", 50)
    some = memorization.some_leave_one_out_ratios(prior, groups)
    assert file.largest <= TWENTY
    known = np.isfinite(some)
    assert some.shape == (NUM,) and known.sum() == 50 and known[first].sum() == 50
    np.testing.assert_allclose(some[known], expected[known[first]], rtol=1e-5)
