"""Hyperpriors on bandwidth, noise scale and weights at once, with every sampler that takes them.

The operator is the identity, so that everything but bandwidth and noise scale can be summed or
integrated by hand; those two are left to a grid in float64.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import DiffusionMixturePrior, InverseProblem, MemorizedPrior
from ppl_memprior._arviz import az
from ppl_memprior.inference import gibbs, mode_jump, nuts, tempered_smc

pytestmark = pytest.mark.arithmetic

EXAMPLES = np.array([-0.5, 0.6, 1.2])
DATA = np.array([0.1, 0.5, 0.9, 0.2])
CHAINS = {"num_samples": 2000, "num_warmup": 1000, "num_chains": 4}
SAMPLERS = {
    "nuts": (nuts, CHAINS),
    "mode-jump": (mode_jump, CHAINS),
    "smc": (tempered_smc, {"num_particles": 1000, "num_repeats": 8}),
}


def data_given(x, data):
    noise = numpyro.sample("noise", dist.LogNormal(-1.0, 0.5))
    with numpyro.plate("repeats", len(DATA)):
        numpyro.sample("y", dist.Normal(x, noise), obs=data)


def with_a_bandwidth(data=None):
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    prior = DiffusionMixturePrior(jnp.asarray(EXAMPLES), sigma, weights=weights)
    data_given(numpyro.sample("x", prior), data)


def memorized(data=None):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    data_given(numpyro.sample("x", MemorizedPrior(jnp.asarray(EXAMPLES), weights)), data)


def exact_means(bandwidth):
    """Posterior means of the unknown, the logarithms of both scales, and the weights."""
    log_sigma = np.linspace(-4, 2, 601)[:, None, None] if bandwidth else np.full((1, 1, 1), -20.0)
    log_noise = np.linspace(-4, 2, 601)[:, None]
    prior = -0.5 * ((log_noise + 1) / 0.5) ** 2
    if bandwidth:
        prior = prior - 0.5 * ((log_sigma + 1) / 0.5) ** 2
    variance, error = np.exp(2 * log_sigma), np.exp(2 * log_noise) / len(DATA)
    mean = DATA.mean()
    # the data's mean has variance sigma^2 + noise^2 / 4; what is left says the noise alone
    log_joint = prior - 0.5 * (mean - EXAMPLES) ** 2 / (variance + error)
    log_joint = log_joint - 0.5 * np.log(variance + error) - (len(DATA) - 1) * log_noise
    log_joint = log_joint - 0.5 * np.sum((DATA - mean) ** 2) * np.exp(-2 * log_noise)
    joint = np.exp(log_joint - log_joint.max())
    joint /= joint.sum()
    x = (EXAMPLES * error + mean * variance) / (variance + error)
    # a uniform prior on the simplex, and one example drawn from the weights
    weights = (1 + joint.sum(axis=(0, 1))) / 4
    means = {"x": np.sum(joint * x), "noise": np.sum(joint * log_noise), "weights": weights}
    return means | ({"sigma": np.sum(joint * log_sigma)} if bandwidth else {})


def check_means(latents, bandwidth, standard_error):
    """Every mean within four standard errors, which are small against what the data teach."""
    exact = exact_means(bandwidth)
    assert set(latents) == set(exact)
    for name, expected in exact.items():
        draws = np.asarray(latents[name], float)
        draws = np.log(draws) if name in ("sigma", "noise") else draws
        columns = draws.reshape(*draws.shape[:2], -1)
        for i, value in enumerate(np.atleast_1d(expected)):
            column = columns[..., i]
            error = standard_error(column)
            assert error < 0.03 and abs(column.mean() - value) < 4 * error, name


@pytest.mark.slow
def test_gibbs():
    result = gibbs(InverseProblem(memorized, data=jnp.asarray(DATA)), jax.random.key(0), **CHAINS)
    check_means(result.latents, False, lambda draws: float(az.mcse(draws, method="mean")))


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_of_densities(name):
    sampler, settings = SAMPLERS[name]
    problem = InverseProblem(with_a_bandwidth, data=jnp.asarray(DATA))
    result = sampler(problem, jax.random.key(0), **settings)

    def standard_error(draws):
        if name != "smc":
            return float(az.mcse(draws, method="mean"))
        return draws.mean(axis=1).std(ddof=1) / np.sqrt(len(draws))  # of independent repeats

    check_means(result.latents, True, standard_error)
