"""`linearize` through Deepwave, by Jacobians and by batches of products."""

from __future__ import annotations

import importlib

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import DiffusionMixturePrior, InverseProblem, linearize
from ppl_memprior.forward import ScalarWave, Survey

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
        importlib.import_module("ppl_memprior.inference.linearize"), "DENSE_ELEMENTS", 0
    )
    products = linearize(problem, accuracy=1e-2, neglect=0.0)
    assert np.all(products.report.truncation_error <= 1e-2)
    found = products.log_weights + products.log_evidence
    expected = formed.log_weights + formed.log_evidence
    # 1e-2 nats left out, and float32 misfits of up to 1e5
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=3e-2)
    np.testing.assert_allclose(products.locs, formed.locs, atol=0.05)
