"""Mode mixing on chains whose behaviour is known by construction."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from ppl_memprior.diagnostics import mode_mixing


def labelled(values):
    values = np.asarray(values)
    coords = {
        dim: np.arange(size) for dim, size in zip(("chain", "draw"), values.shape, strict=True)
    }
    return xr.DataArray(values, dims=("chain", "draw"), coords=coords)


def two_state_chains(stay, num_draws=20_000, num_chains=4):
    """Markov chains on the modes 2 and 7 that stay with the given probability."""
    rng = np.random.default_rng(0)
    changes = rng.random((num_chains, num_draws)) > stay
    return np.where(np.cumsum(changes, axis=1) % 2, 7, 2)


def test_independent_draws_mix():
    rng = np.random.default_rng(1)
    mixing = mode_mixing(labelled(rng.choice([0, 3, 5], p=[0.6, 0.3, 0.1], size=(4, 2000))))
    assert mixing.rhat < 1.01 and 1 <= mixing.nested_rhat < 1.01
    assert mixing.ess == pytest.approx(8000, rel=0.15)  # its standard error at 8000 draws is 5 %
    np.testing.assert_array_equal(mixing.occupancy["example"], [0, 3, 5])
    np.testing.assert_allclose(mixing.occupancy.sum("example"), 1)
    # 2000 draws: a share's standard error is 0.011
    np.testing.assert_allclose(mixing.occupancy.mean("chain"), [0.6, 0.3, 0.1], atol=0.02)
    assert mixing.between_chain_tv < 0.04


def test_the_indicators_effective_size_is_that_of_a_two_state_chain():
    """A symmetric two-state chain has autocorrelations (2 stay - 1)^k: n (1 - r) / (1 + r)."""
    stay = 0.95
    mixing = mode_mixing(labelled(two_state_chains(stay)))
    correlation = 2 * stay - 1
    expected = 80_000 * (1 - correlation) / (1 + correlation)
    assert mixing.ess == pytest.approx(expected, rel=0.1)  # 4000 effective draws
    # a trip out and back takes two changes, each with probability 0.05; 1000 trips a chain
    assert mixing.round_trips == pytest.approx(80_000 * 0.05 / 2, rel=0.05)


def test_chains_that_never_leave_their_modes():
    values = np.repeat([[0], [0], [0], [4]], 500, axis=1)
    mixing = mode_mixing(labelled(values))
    assert mixing.rhat == np.inf and mixing.nested_rhat == np.inf and mixing.round_trips == 0
    assert mixing.ess < 5  # one draw a chain
    assert mixing.between_chain_tv == pytest.approx(0.75)  # all in 4, where a quarter is
    # the mean of the modes' numbers would be the same here, their indicators are not
    assert mode_mixing(labelled([[1, 1, 1, 1], [0, 2, 0, 2]])).rhat > 1.5


def test_superchains_are_judged_by_their_means():
    """Two chains stuck apart in each superchain: their means agree, the chains do not."""
    values = np.repeat([[0], [4], [0], [4]], 500, axis=1)
    apart = mode_mixing(labelled(values))
    paired = mode_mixing(labelled(values), superchain_ids=[0, 0, 1, 1])
    assert apart.nested_rhat == np.inf and paired.nested_rhat == pytest.approx(1)


def test_one_mode_one_chain_and_rare_modes_have_nothing_to_disagree_on():
    single = mode_mixing(labelled(np.full((4, 10), 3)))
    assert np.isnan(single.rhat) and np.isnan(single.ess)
    assert single.between_chain_tv == 0 and single.round_trips == 0
    rare = np.zeros((4, 1000), int)
    rare[0, :20] = 1  # half a percent of all draws
    assert np.isnan(mode_mixing(labelled(rare)).rhat)
    one_chain = mode_mixing(labelled(two_state_chains(0.5, 100, 1)))
    assert np.isnan(one_chain.rhat) and np.isnan(one_chain.between_chain_tv) and one_chain.ess > 0


def test_a_visit_elsewhere_does_not_end_a_trip():
    assert mode_mixing(labelled([[0, 0, 5, 1, 1, 0, 2, 1, 0, 1]])).round_trips == 2


def test_bad_modes_are_refused():
    with pytest.raises(ValueError, match=r"dims \('draw',\), expected"):
        mode_mixing(xr.DataArray(np.zeros(9, int), dims="draw"))
    with pytest.raises(ValueError, match="at least 4 draws of each chain, got 3"):
        mode_mixing(labelled(np.zeros((2, 3), int)))
    for values in (np.zeros((2, 4)), np.full((2, 4), -1)):
        with pytest.raises(ValueError, match="non-negative integers"):
            mode_mixing(labelled(values))
