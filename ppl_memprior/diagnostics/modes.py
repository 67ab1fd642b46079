"""Groups of examples that are one mode of the prior: copies and near copies.

A training set often holds an example twice, or twice with a little noise. Diagnostics that count
examples, or compare distances between examples, use the groups of this module instead.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from ppl_memprior._batches import BATCH_ITEMS, batch_slices, items_that_fit
from ppl_memprior.diagnostics._example_rows import ExampleRows, example_rows
from ppl_memprior.distributions import LearnedPrior

# Two Gaussians N(x_1, s^2 I) and N(x_2, s^2 I) of equal weight have one mode, and not two, if and
# only if |x_1 - x_2| <= 2 s, whatever the dimension.
ONE_MODE = 2.0  # bandwidths
# Noise of one bandwidth in every coordinate takes a copy further away than that in many dimensions.
# But no further than this share of the usual distance between examples: a wide bandwidth makes no
# copies of examples that have little in common.
COPY = 0.25
_SAMPLE = 256  # examples whose mutual distances say what is usual
_ROUNDING = float(np.finfo(np.float32).eps)
_DIRECTIONS = 32  # of the projection that finds candidates; distances in it are lower bounds


def distinct_examples(
    examples: ArrayLike | LearnedPrior, bandwidth: float = 0.0
) -> NDArray[np.intp]:
    """Group examples that are the same mode of a mixture with this bandwidth.

    Two examples are the same if they have the same neighbours, themselves included, within a fixed
    distance. In d dimensions the distance is 2 + sqrt(2 (d - 1)) bandwidths. Beyond two bandwidths
    it is at most a quarter of the median distance between examples. All examples of a group are
    this close to one another. A chain of examples, each near the next example only, does not become
    one group.

    Args:
        examples: shape (N, *event_shape). Or a prior, whose component means are read in batches.
        bandwidth: standard deviation of the components, in the unit of the examples. With 0, only
            examples that coincide up to rounding in float32 are the same.

    Returns:
        For each example the number of the first example of its group, shape (N,). An example has
        its own number if no earlier example is the same.

    Raises:
        TypeError: if `examples` is not an array of real numbers.
        ValueError: if `bandwidth` is negative or not finite.

    Example::

        distinct_examples([[0.0], [1.0], [0.0]])  # [0, 1, 0]
    """
    if not 0 <= bandwidth < np.inf:
        raise ValueError(f"bandwidth must be finite and not negative, got {bandwidth}")
    rows = example_rows(examples)
    everything = np.arange(len(rows))
    # A group is known by the sum of its neighbours' random numbers, so no list of them is kept.
    rng = np.random.default_rng(0)
    numbers = rng.integers(2**64, size=len(rows), dtype=np.uint64)
    size = min(_DIRECTIONS, rows.size)
    directions = np.linalg.qr(rng.normal(size=(rows.size, size)))[0]
    projected, squares = np.empty((len(rows), size)), np.empty(len(rows))
    for batch in rows.batches(everything):
        values = rows.flat(batch)
        projected[batch], squares[batch] = values @ directions, np.sum(values**2, axis=1)
    rounding = _ROUNDING**2 * squares
    # the slack keeps examples at exactly this distance, on a grid say, from being told apart
    closest = (1 + 1e-6) * same_within(examples, bandwidth) ** 2
    signature = np.zeros(len(rows), dtype=np.uint64)
    at_once = min(BATCH_ITEMS, items_that_fit(max(rows.size, len(rows))))
    for items in batch_slices(len(rows), at_once):
        batch = everything[items]
        limit = np.maximum(closest, rounding[batch].max() + rounding)
        candidates = cdist(projected[batch], projected, "sqeuclidean") <= limit
        values = rows.flat(batch)
        for columns in rows.batches(np.flatnonzero(candidates.any(axis=0))):
            limit = np.maximum(closest, rounding[batch, None] + rounding[columns])
            near = _squared_distances(values, rows.flat(columns)) <= limit
            signature[batch] += near @ numbers[columns]
    _, first, group = np.unique(signature, return_index=True, return_inverse=True)
    return first[group.ravel()]


def same_within(examples: ArrayLike | LearnedPrior, bandwidth: float) -> float:
    """Return the distance up to which examples are the same at the scale of a bandwidth.

    It is 2 + sqrt(2 (d - 1)) bandwidths in d dimensions. Within 2 bandwidths two Gaussian
    components become one mode along the line that joins them. Noise of one bandwidth takes two
    copies sqrt(2 (d - 1)) bandwidths apart in the other directions. Beyond two bandwidths the
    distance is at most a quarter of the median distance between examples.

    Args:
        examples: shape (N, *event_shape). Or a prior, of which 256 components are read.
        bandwidth: standard deviation of the components, in the unit of the examples.

    Returns:
        A distance in the unit of the examples.
    """
    rows = example_rows(examples)
    some = np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(int)
    usual = float(np.median(_distances_between(rows, some))) if len(some) > 1 else 0.0
    noise = (ONE_MODE + np.sqrt(2 * max(rows.size - 1, 0))) * bandwidth
    return float(max(ONE_MODE * bandwidth, min(noise, COPY * usual)))


def example_groups(tree: xr.DataTree) -> NDArray[np.intp]:
    """Read the groups of a stored posterior's examples.

    Args:
        tree: draws as `ppl_memprior.run` returns them. Draws of earlier versions hold no groups;
            the groups are then computed.

    Returns:
        The groups as `distinct_examples` returns them, shape (N,).
    """
    examples = tree["examples"].to_dataset()
    if "representative" in examples:
        return examples["representative"].to_numpy()
    site = str(tree.attrs["prior_site"])
    return distinct_examples(examples[site].to_numpy(), float(tree.attrs.get("bandwidth", 0.0)))


def visited_modes(tree: xr.DataTree, groups: NDArray[np.intp] | None = None) -> xr.DataArray:
    """Return the mode of each draw: the first example in the group of the nearest example.

    Args:
        tree: draws as `ppl_memprior.run` returns them.
        groups: groups of the tree's examples, if they are already known.

    Returns:
        Integers, dims `chain`, `draw`.
    """
    nearest = tree["sample_stats"].to_dataset()["nearest_example"]
    groups = example_groups(tree) if groups is None else groups
    return nearest.copy(data=groups[nearest.to_numpy()])


def weights_of_groups(weights: ArrayLike, groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """Sum weights over groups, shape (N,): at a group's first example, zero at the others."""
    total = np.zeros(len(groups))
    np.add.at(total, groups, np.asarray(weights, dtype=np.float64))
    return total


def _distances_between(rows: ExampleRows, which: NDArray[np.intp]) -> NDArray[np.float64]:
    """The distance of each pair of some examples, once, shape (K (K - 1) / 2,)."""
    distances = [
        np.concatenate([cdist(values, rows.flat(b)) for b in rows.batches(which)], axis=1)
        for values in map(rows.flat, rows.batches(which))
    ]
    return np.concatenate(distances)[np.triu_indices(len(which), 1)]


def _squared_distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2 * (x @ y.T)
