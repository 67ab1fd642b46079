"""The numbers behind a verdict, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import signal, stats

from ppl_memprior.diagnostics import (
    convergence,
    effective_examples,
    energy_distance,
    leave_one_out_ratios,
    misfit,
    mode_mixing,
    nearest_examples,
    nearly_independent,
    thinned,
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


@pytest.mark.parametrize("distinct", [[0.0], [0.0, 1.0]])
def test_ratio_needs_three_distinct_examples(distinct):
    for copies in (1, 4):
        examples = np.repeat(distinct, copies)
        assert np.isnan(leave_one_out_ratios(examples)).all()
        assert np.isnan(nearest_examples(np.array([0.3]), examples)[1]).all()
    assert np.isfinite(leave_one_out_ratios([0.0, 1.0, 3.0])).all()


def test_copies_do_not_hide_the_ratio():
    """All of the 50 nearest examples are copies of one here."""
    others = np.arange(1.0, 60.0)
    index, ratio = nearest_examples(np.array([0.01]), np.concatenate([others, np.zeros(200)]))
    assert index == [59]  # the first of the copies
    np.testing.assert_allclose(ratio, 0.01 / (np.arange(1, 50) - 0.01).mean(), rtol=1e-6)


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


def chains(kind, rng, num_chains=4, num_draws=500):
    """Stationary chains, and as many independent draws of their distribution as are compared."""
    shape = (num_chains, num_draws)
    if kind == "AR(1)":
        noise = rng.normal(size=shape) * np.sqrt(1 - 0.95**2)
        noise[:, 0] /= np.sqrt(1 - 0.95**2)
        return signal.lfilter([1], [1, -0.95], noise, axis=1), rng.normal(size=200)
    start = rng.random((num_chains, 1)) < 0.3  # two modes of weights 0.7 and 0.3
    modes, stay = [start[:, 0]], rng.random(shape) < 0.95
    fresh = rng.random(shape) < 0.3
    for i in range(1, num_draws):
        modes.append(np.where(stay[:, i], modes[-1], fresh[:, i]))
    within = 0.1 * rng.normal(size=shape)
    exact = (rng.random(200) < 0.3) + 0.1 * rng.normal(size=200)
    return np.stack(modes, axis=1) + within, exact


@pytest.mark.parametrize("kind", ["AR(1)", "two modes"])
def test_chains_of_the_right_distribution_are_rarely_told_apart(kind):
    """The nominal level is 5 %; without thinning a quarter of these chains are told apart."""
    rng = np.random.default_rng(4)
    repeats, thinned_alarms, plain_alarms = 60, 0, 0
    for _ in range(repeats):
        draws, exact = chains(kind, rng)
        labelled = xr.DataArray(draws, dims=("chain", "draw"))
        ess = convergence(labelled).ess
        if kind == "two modes":
            ess = min(ess, mode_mixing((labelled > 0.5).astype(int)).ess)
        kept = thinned(draws.ravel(), nearly_independent(draws.size, ess))
        found = energy_distance(kept, exact, permutations=99)
        thinned_alarms += found.value > found.noise
        found = energy_distance(draws.ravel(), exact, permutations=99)
        plain_alarms += found.value > found.noise
    # 99.9 % of the binomial distribution at the level of 7 % that an estimated ESS leaves
    assert thinned_alarms <= stats.binom(repeats, 0.07).ppf(0.999)
    assert plain_alarms > stats.binom(repeats, 0.07).ppf(0.99)


def test_thinned_draws_are_evenly_spaced():
    np.testing.assert_array_equal(thinned(np.arange(100.0), 4.9).ravel(), [12, 37, 62, 87])
    assert thinned(np.zeros((5, 2, 3)), 400).shape == (5, 6)
    assert thinned(np.arange(3.0), 0.2).tolist() == [[1.0]]
    assert nearly_independent(1000, np.nan) == 1000 == nearly_independent(1000, 1200.0)
    assert nearly_independent(1000, 101.0) == 50 and nearly_independent(1000, 1.2) == 1


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
