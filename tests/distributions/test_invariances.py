"""What leaves a mixture over examples as it is: their order, copies, the origin and the unit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ppl_memprior.distributions import (
    DiffusionMixturePrior,
    LowRankGaussianMixture,
    MemorizedPrior,
)

pytestmark = pytest.mark.arithmetic

NUM, DIM, QUERIES = 5, 2, 4
# Double precision. A logarithm of a component's density reaches 1e4 at the smallest bandwidth, and
# loses 1e-12 there; the responsibilities lose as much of themselves.
CLOSE = {"rtol": 1e-9, "atol": 1e-9}

few = settings(max_examples=15, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Parts:
    """What a mixture is made of: `examples` (N, d), and for each of them what is (N,)."""

    examples: np.ndarray
    weights: np.ndarray
    angles: np.ndarray
    spreads: np.ndarray
    bandwidth: float

    def take(self, indices):
        arrays = ("examples", "weights", "angles", "spreads")
        return replace(self, **{name: getattr(self, name)[indices] for name in arrays})


def low_rank(parts):
    """One direction for each component, at an angle, with a spread in units of the bandwidth."""
    return LowRankGaussianMixture(
        parts.examples,
        parts.bandwidth,
        np.stack([np.cos(parts.angles), np.sin(parts.angles)], axis=-1)[:, None],
        parts.bandwidth * parts.spreads[:, None],
        np.log(parts.weights),
    )


MIXTURES = {
    "memorized": lambda parts: MemorizedPrior(parts.examples, weights=parts.weights),
    "diffusion": lambda parts: DiffusionMixturePrior(
        parts.examples, parts.bandwidth, weights=parts.weights
    ),
    "low rank": low_rank,
}
every_mixture = pytest.mark.parametrize("make", MIXTURES.values(), ids=MIXTURES.keys())


def grid_points(*shape):
    """Multiples of 1/8: sums of them are exact, so equal distances stay equal."""
    return hnp.arrays(np.float64, shape, elements=st.integers(-16, 16).map(lambda k: k / 8))


def positive(low, high, *shape):
    return hnp.arrays(np.float64, shape, elements=st.floats(low, high))


mixtures = st.builds(
    Parts,
    examples=grid_points(NUM, DIM),
    weights=positive(0.1, 10.0, NUM),
    angles=positive(0.0, 3.0, NUM),
    spreads=positive(0.1, 0.9, NUM),
    bandwidth=st.floats(0.05, 2.0),
)
queries = grid_points(QUERIES, DIM)

evaluated = jax.jit(lambda prior, x: (prior.log_prob(x), prior.responsibilities(x)))


def evaluate(prior, points, examples):
    """Log-density and responsibilities at points and at the examples, in double precision."""
    return tuple(map(np.asarray, evaluated(prior, np.concatenate([points, examples[:NUM]]))))


@every_mixture
@few
@given(parts=mixtures, points=queries, order=st.permutations(range(NUM)))
def test_permuting_examples_permutes_the_responsibilities_alone(make, parts, points, order):
    with jax.enable_x64(True):
        density, shares = evaluate(make(parts), points, parts.examples)
        again, permuted = evaluate(make(parts.take(order)), points, parts.examples)
    np.testing.assert_allclose(again, density, **CLOSE)
    np.testing.assert_allclose(permuted, shares[:, order], **CLOSE)


@every_mixture
@few
@given(parts=mixtures, points=queries, n=st.integers(0, NUM - 1), share=st.floats(0.01, 0.99))
def test_two_copies_of_an_example_share_its_responsibility(make, parts, points, n, share):
    split = parts.take([*range(NUM), n])
    split.weights[n] *= share
    split.weights[NUM] *= 1 - share
    with jax.enable_x64(True):
        density, shares = evaluate(make(parts), points, parts.examples)
        again, copies = evaluate(make(split), points, parts.examples)
    np.testing.assert_allclose(again, density, **CLOSE)
    np.testing.assert_allclose(copies[:, n], share * shares[:, n], **CLOSE)
    together = copies[:, :NUM] + copies[:, NUM:] * np.eye(NUM)[n]
    np.testing.assert_allclose(together, shares, **CLOSE)


@every_mixture
@few
@given(parts=mixtures, points=queries, shift=grid_points(DIM).map(lambda c: 64 * c))
def test_shifting_everything_by_a_constant_changes_nothing(make, parts, points, shift):
    moved = replace(parts, examples=parts.examples + shift)
    with jax.enable_x64(True):
        expected = evaluate(make(parts), points, parts.examples)
        found = evaluate(make(moved), points + shift, moved.examples)
    # Differences of examples and points are exact: 128 + 1/8 has 11 of a double's 53 bits.
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, **CLOSE)


@every_mixture
@few
@given(parts=mixtures, points=queries, power=st.integers(-12, 12))
def test_another_unit_changes_the_density_by_its_volume_alone(make, parts, points, power):
    unit = 2.0**power  # a power of two: equal distances stay equal
    scaled = replace(parts, examples=unit * parts.examples, bandwidth=unit * parts.bandwidth)
    with jax.enable_x64(True):
        prior = make(parts)
        density, shares = evaluate(prior, points, parts.examples)
        found, again = evaluate(make(scaled), unit * points, scaled.examples)
    volume = DIM * np.log(unit) if prior.has_density else 0.0
    np.testing.assert_allclose(found, density - volume, **CLOSE)
    np.testing.assert_allclose(again, shares, **CLOSE)
