"""NumPyro's `kl_divergence` between our distributions."""

import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import kl_divergence
from scipy.stats import entropy

from ppl_memprior.distributions import (
    DiffusionMixturePrior,
    LowRankGaussianMixture,
    MemorizedPrior,
)

EXAMPLES = np.array([[0.0, 1.0], [2.0, 0.0], [3.0, 3.0]])
MEMORIZED = MemorizedPrior(EXAMPLES, [0.2, 0.8, 0.0])
MIXTURE = DiffusionMixturePrior(EXAMPLES, 0.5)
LOW_RANK = LowRankGaussianMixture(EXAMPLES, 0.5, np.zeros((3, 0, 2)), np.zeros((3, 0)))


def test_memorized_priors_against_scipy():
    other = MemorizedPrior(EXAMPLES[[1, 0, 2, 1]], [0.1, 0.5, 0.2, 0.2])  # another order, a copy
    expected = entropy([0.2, 0.8, 0.0], [0.5, 0.3, 0.2])
    np.testing.assert_allclose(kl_divergence(MEMORIZED, other), expected, rtol=1e-6)
    assert kl_divergence(other, MEMORIZED) == np.inf
    assert kl_divergence(MEMORIZED, MEMORIZED) == 0
    wide = kl_divergence(MEMORIZED.expand((3, 2)), other.expand((2,)))
    np.testing.assert_allclose(wide, np.full((3, 2), expected), rtol=1e-6)
    independent = (p.expand((3,)).to_event(1) for p in (MEMORIZED, other))
    np.testing.assert_allclose(kl_divergence(*independent), 3 * expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("p", "q", "advice"),
    [
        (MIXTURE, MIXTURE, "kl_bounds"),
        (MIXTURE.expand((2,)), MIXTURE.expand((2,)), "kl_bounds"),
        (MEMORIZED, MIXTURE, "diffuse.*kl_bounds"),
        (MIXTURE, MEMORIZED, "diffuse.*kl_bounds"),
        (LOW_RANK, LOW_RANK, "mean of p.log_prob"),
        (LOW_RANK, MIXTURE, "mean of p.log_prob"),
    ],
)
def test_where_there_is_no_closed_form_another_way_is_named(p, q, advice):
    with pytest.raises(NotImplementedError, match=advice):
        kl_divergence(p, q)


def test_events_must_have_one_shape():
    with pytest.raises(ValueError, match=r"event shape \(2,\), q has \(\)"):
        kl_divergence(MEMORIZED, MemorizedPrior([1.0, 2.0]))
    with pytest.raises(NotImplementedError):
        kl_divergence(MIXTURE, dist.Normal())
