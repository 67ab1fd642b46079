"""`linearize` through Deepwave: by Jacobians, by batches of products, and against long NUTS."""

from __future__ import annotations

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import DiffusionMixturePrior, InverseProblem, linearize
from ppl_memprior.diagnostics import energy_distance
from ppl_memprior.forward import ScalarBorn, ScalarWave, Survey
from ppl_memprior.inference import nuts

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.slow]


def test_products_of_waves_give_what_jacobians_give(monkeypatch):
    survey = Survey.surface((5, 6), 1, 3, peak_frequency=10.0, dt=0.002, num_times=150)
    wave = ScalarWave(survey, 10.0, pml_width=5)
    rng = np.random.default_rng(0)
    fast = np.arange(5)[:, None] > rng.integers(1, 5, size=(2, 1, 1))
    prior = DiffusionMixturePrior(jnp.asarray(2000 + 500 * fast + np.zeros(6), jnp.float32), 20.0)
    largest = float(jnp.abs(wave(prior.examples[0])).max())

    def model(data=None):
        v = numpyro.sample("v", prior)
        numpyro.sample("data", dist.Normal(wave(v), 0.02 * largest).to_event(3), obs=data)

    truth = prior.examples[0] + 20 * jnp.asarray(rng.normal(size=(5, 6)), jnp.float32)
    problem = InverseProblem(model, data=wave(truth))
    formed = linearize(problem)
    monkeypatch.setattr(
        importlib.import_module("ppl_memprior.inference.linearized._linearize"), "DENSE_ELEMENTS", 0
    )
    products = linearize(problem, accuracy=1e-2, neglect=0.0)
    assert np.all(products.report.truncation_error <= 1e-2)
    found = products.log_weights + products.log_evidence
    expected = formed.log_weights + formed.log_evidence
    # 1e-2 nats left out, and float32 misfits of up to 1e5
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=3e-2)
    np.testing.assert_allclose(products.locs, formed.locs, atol=0.05)


def test_draws_of_scattered_waves_are_those_of_long_nuts():
    """Born's operator is linear, so that the closed form is exact."""
    shape, terms = (5, 6), 4
    survey = Survey.surface(shape, 1, 4, peak_frequency=12.0, dt=0.002, num_times=130)
    born = ScalarBorn(survey, 10.0, pml_width=5, velocity=np.full(shape, 2000.0), max_velocity=2500)
    rng = np.random.default_rng(0)
    basis = jnp.asarray(30.0 * rng.normal(size=(terms, *shape)), jnp.float32)

    def scattered(z):
        return born(jnp.tensordot(z, basis, 1))

    # less than two bandwidths apart: NUTS moves between them
    examples = jnp.asarray([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, -0.5, 0.5]])
    prior = DiffusionMixturePrior(examples, 1.0)
    clean = scattered(examples.mean(axis=0))
    noise = 4.0 * float(jnp.abs(clean).max())

    def model(data=None):
        z = numpyro.sample("z", prior)
        numpyro.sample("data", dist.Normal(scattered(z), noise).to_event(3), obs=data)

    data = clean + noise * jnp.asarray(rng.normal(size=clean.shape), jnp.float32)
    problem = InverseProblem(model, data=data)
    posterior = linearize(problem)
    assert posterior.linearization_error < 1e-2  # linear, to float32 rounding of the misfit
    weights = np.exp(posterior.log_weights)
    assert weights.min() > 0.05, "both components count"
    informed = weights @ np.asarray(posterior.report.informed_directions)
    assert 0.5 < informed < 3.5, "the data say something, and not everything"
    chains = nuts(problem, jax.random.key(0), num_samples=400, num_warmup=100, max_tree_depth=3)
    draws = chains.latents["z"].reshape(-1, terms)
    exact = np.asarray(posterior.sample(jax.random.key(1), (1600,)))
    found = energy_distance(draws, exact)
    # of two sets of one law, 95 of 100 are closer; the seeds are fixed
    assert found.value <= found.noise
    # 1,600 draws of NUTS, at least 400 of them effective: four standard errors
    deviation = (draws.mean(axis=0) - np.asarray(posterior.mean)) / np.asarray(posterior.stddev)
    assert np.abs(deviation).max() < 4 / np.sqrt(400)
    np.testing.assert_allclose(draws.std(axis=0), posterior.stddev, rtol=4 / np.sqrt(2 * 400))
