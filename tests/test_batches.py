"""How large batches are, and that working in batches changes no result."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_memprior import _batches
from ppl_memprior._batches import (
    batch_slices,
    filled_batches,
    fits,
    in_batches,
    items_in_batch,
    items_that_fit,
    over_batches,
    sum_over_batches,
)

pytestmark = pytest.mark.arithmetic  # another Python computes the same


@pytest.fixture
def hundred(monkeypatch):
    """A hundred numbers in a batch, and no more than seven items."""
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 100)
    monkeypatch.setattr(_batches, "BATCH_ITEMS", 7)


@pytest.mark.parametrize(("each", "expected"), [(0, 100), (1, 100), (33, 3), (100, 1), (101, 1)])
def test_an_item_that_is_too_large_is_a_batch_of_its_own(hundred, each, expected):
    assert items_that_fit(each) == expected


def test_what_is_exactly_as_large_as_a_batch_fits(hundred):
    assert fits(100) and not fits(101)


@pytest.mark.parametrize(
    ("count", "each", "at_least", "expected"),
    [
        (7, 1, 1, 7),  # one batch
        (8, 1, 1, 4),  # two as large as each other, not 7 and 1
        (10, 40, 1, 2),  # the memory decides
        (20, 1, 5, 4),  # the number of batches decides
        (3, 1, 64, 1),  # no batch is empty
    ],
)
def test_batches_are_about_as_large_as_each_other(hundred, count, each, at_least, expected):
    assert items_in_batch(count, each, at_least=at_least) == expected


@pytest.mark.parametrize("size", [1, 3, 4, 8, 9])
def test_every_item_is_in_one_batch(size):
    items = np.arange(8)
    np.testing.assert_array_equal(np.concatenate([items[s] for s in batch_slices(8, size)]), items)
    for batch, indices in filled_batches(8, size):
        kept = batch.stop - batch.start
        np.testing.assert_array_equal(items[indices][:kept], items[batch])
        assert len(indices) == size and np.all(indices[kept:] == 7)
    assert not list(batch_slices(0, 3))


@pytest.mark.parametrize("size", [1, 3, 4, 8, 9])
def test_batches_of_a_compiled_loop_change_nothing(size):
    rows = jnp.arange(16.0).reshape(8, 2)
    factors = jnp.asarray([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])

    def both(x, y):
        return jnp.sum(x, axis=1), x * y[:, None]

    # small whole numbers and halves: sums are exact in any order
    total, scaled = in_batches(both, size, rows, rows[:, 0])
    np.testing.assert_array_equal(total, rows.sum(axis=1))
    np.testing.assert_array_equal(scaled, rows * rows[:, :1])

    def products(factors, start, count):
        return factors @ jax.lax.dynamic_slice_in_dim(rows, start, count).T

    def beside(factors):
        return over_batches(lambda *batch: products(factors, *batch), 8, size)

    def added(factors):
        return sum_over_batches(lambda *batch: products(factors, *batch).sum(axis=1), 8, size)

    np.testing.assert_array_equal(beside(factors), factors @ rows.T)
    np.testing.assert_array_equal(added(factors), (factors @ rows.T).sum(axis=1))
    for loop in (beside, added):
        slope = jax.grad(lambda factors, loop=loop: loop(factors).sum())(factors)
        np.testing.assert_array_equal(slope, np.broadcast_to(rows.sum(axis=0), (3, 2)))
