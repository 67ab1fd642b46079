"""The numbers behind a verdict, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from ppl_memprior.diagnostics import (
    convergence,
    effective_examples,
    energy_distance,
    leave_one_out_ratios,
    misfit,
    nearest_examples,
    total_variation,
)


def test_effective_examples_at_its_ends_and_between():
    assert effective_examples([0, 1, 0]) == pytest.approx(1)
    assert effective_examples(np.ones(7)) == pytest.approx(7)
    p = np.array([0.5, 0.3, 0.2])
    assert effective_examples(p) == pytest.approx(np.exp(stats.entropy(p)))


def test_nearest_example_and_ratio_by_hand():
    examples = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 10.0]])
    index, ratio = nearest_examples(np.array([[0.0, 1.0], [3.0, 4.0]]), examples)
    np.testing.assert_array_equal(index, [0, 1])
    second = (np.hypot(3, 3) + 9) / 2  # mean distance to the two others
    np.testing.assert_allclose(ratio, [1 / second, 0.0])
    np.testing.assert_allclose(
        leave_one_out_ratios(examples)[0], 5 / 10
    )  # nearest of the others is 5 away, the next 10


def test_ratio_needs_two_different_neighbours():
    assert np.isnan(leave_one_out_ratios(np.zeros((1, 2)))).all()
    assert np.isnan(leave_one_out_ratios(np.zeros((4, 2)))).all()


def test_energy_distance_tells_laws_apart_and_only_those():
    rng = np.random.default_rng(0)
    x, same, other = rng.normal(size=(3, 300, 2)) + np.array([0, 0, 1])[:, None, None]
    equal, different = energy_distance(x, same), energy_distance(x, other)
    assert equal.value < 2 * equal.noise
    assert different.value > 5 * different.noise
    point = np.zeros((10, 2))
    assert energy_distance(point, point).value == 0
    assert energy_distance(point, point + 1).value == pytest.approx(1)


def test_energy_distance_against_the_integral_of_distribution_functions():
    """In one dimension 2 E|X-Y| - E|X-X'| - E|Y-Y'| is twice the integral of (F - G)^2."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=200), rng.normal(0.7, 1.3, size=150)
    grid = np.sort(np.concatenate([x, y]))
    f = np.searchsorted(np.sort(x), grid[:-1], side="right") / 200
    g = np.searchsorted(np.sort(y), grid[:-1], side="right") / 150
    integral = 2 * np.sum((f - g) ** 2 * np.diff(grid))
    between = 2 * np.abs(x[:, None] - y).mean()
    assert energy_distance(x, y).value == pytest.approx(integral / between, rel=1e-9)


def test_total_variation():
    assert total_variation([1, 0], [0, 1]) == 1
    assert total_variation([0.5, 0.5], [0.25, 0.75]) == 0.25


def test_misfit_of_the_truth_is_standard_normal():
    rng = np.random.default_rng(2)
    z = [misfit(np.sum(rng.normal(size=2000) ** 2), 2000).z for _ in range(400)]
    assert abs(np.mean(z)) < 4 / np.sqrt(400)
    assert abs(np.std(z) - 1) < 4 / np.sqrt(800)
    assert misfit(1.2 * 52_500, 52_500).z == pytest.approx(0.2 * 52_500 / np.sqrt(2 * 52_500))
    assert np.isnan(misfit([], 10).z)
    assert misfit([np.nan, 10.0], 10).reduced == 1


def test_convergence_sees_chains_that_disagree():
    rng = np.random.default_rng(3)
    mixed = xr.DataArray(rng.normal(size=(4, 500, 2)), dims=("chain", "draw", "x"))
    good, bad = convergence(mixed), convergence(mixed + np.arange(4)[:, None, None])
    assert good.rhat < 1.01 < 1.5 < bad.rhat
    assert good.ess > 1500 and bad.ess < 20
    # the mean of 2,000 independent draws has a standard error of sd / sqrt(2000)
    assert good.relative_mcse == pytest.approx(1 / np.sqrt(2000), rel=0.15)
