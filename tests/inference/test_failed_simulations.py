"""Failed simulations have likelihood zero with every method: against quadrature, and counted.

The forward operator is log(x + 1.2), which fails below -1.2: a third of the first component.
"""

from __future__ import annotations

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import (
    DiffusionMixturePrior,
    InverseProblem,
    MemorizedPrior,
    evidence,
    linearize,
    lookup,
    methods,
    psis,
    run,
)
from ppl_memprior.comparison.trees.datatree import to_datatree
from ppl_memprior.diffusion import dps
from ppl_memprior.inference import Cost, Draws, gibbs, mode_jump, nuts, tempered_smc

pytestmark = pytest.mark.arithmetic

KEY = jax.random.key(0)
EXAMPLES, SIGMA, NOISE, DATUM = (-1.0, 0.2, 1.5), 0.5, 0.3, 0.3


def make(prior):
    def model(y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(jnp.log(x + 1.2), NOISE), obs=y)

    return InverseProblem(model, y=DATUM)


@pytest.fixture(scope="module")
def problem():
    return make(DiffusionMixturePrior(jnp.asarray(EXAMPLES), SIGMA))


def by_quadrature():
    """Log-evidence, mean and standard deviation of x, by the trapezoidal rule in float64."""
    x = np.linspace(-1.2 + 1e-9, 6, 200_001)
    prior = np.mean([np.exp(-0.5 * ((x - e) / SIGMA) ** 2) for e in EXAMPLES], axis=0)
    joint = prior * np.exp(-0.5 * ((DATUM - np.log(x + 1.2)) / NOISE) ** 2)
    joint /= 2 * np.pi * SIGMA * NOISE
    total = np.trapezoid(joint, x)
    mean = np.trapezoid(joint * x, x) / total
    return np.log(total), mean, np.sqrt(np.trapezoid(joint * (x - mean) ** 2, x) / total)


def test_evidences_are_those_of_quadrature(problem):
    exact, mean, deviation = by_quadrature()
    with pytest.warns(UserWarning, match=r"psis: the simulation failed at \d+ of 4000 draws"):
        corrected = psis(problem, linearize(problem), KEY)
    assert 0 < corrected.num_failed < 200
    assert abs(corrected.log_evidence - exact) < 4 * corrected.log_evidence_error < 0.05
    error = deviation / np.sqrt(corrected.effective_sample_size)
    assert abs(corrected.mean - mean) < 4 * error
    with pytest.warns(UserWarning, match="evidence: the simulation failed at") as told:
        curve = evidence(problem, [SIGMA], rng_key=KEY, num_draws=4000)
    assert len(told) == 1 and curve.num_failed > 0
    assert abs(curve.log_evidence[0] - exact) < 4 * curve.log_evidence_error[0] < 0.05


def test_particles_are_those_of_quadrature(problem):
    exact, _, _ = by_quadrature()
    with pytest.warns(UserWarning, match="smc: the simulation failed at .* draws from the prior"):
        particles = tempered_smc(problem, KEY)
    # 12 % of the prior lies below -1.2: 466 of 4,000, within four standard deviations of 20
    assert abs(particles.num_failed - 466) < 80
    numbers = particles.numbers
    assert abs(numbers["log_evidence"] - exact) < 4 * numbers["log_evidence_error"] < 0.1


@pytest.mark.slow
def test_chains_are_those_of_quadrature(problem):
    _, mean, deviation = by_quadrature()
    with pytest.warns(UserWarning, match="mode-jump: the simulation failed at .* of 1000 jumps"):
        jumped = mode_jump(problem, KEY, num_samples=500, num_warmup=200, num_chains=2)
    assert jumped.num_failed == jumped.sample_stats["num_failed"].sum() > 0
    chains = nuts(problem, KEY, num_samples=500, num_warmup=200, num_chains=2)
    for draws in (jumped.latents["x"], chains.latents["x"]):
        assert (draws > -1.2).all()
        # 1,000 draws, an effective sample size of at least 100
        assert abs(draws.mean() - mean) < 4 * deviation / 10


def test_chains_start_where_most_draws_of_the_prior_fail():
    """Only above -1.2 is there a likelihood: about a sixth of the prior."""
    most = make(DiffusionMixturePrior(jnp.asarray([-2.0, -3.0, -2.5, -4.0, -3.5, 0.2]), 0.3))
    sizes = {"num_samples": 20, "num_warmup": 20, "num_chains": 2}
    assert (nuts(most, KEY, **sizes).latents["x"] > -1.2).all()
    with pytest.warns(UserWarning, match="linearize: the simulation failed at 5 of 6 examples"):
        assert (mode_jump(most, KEY, **sizes).latents["x"] > -1.2).all()
    none = make(DiffusionMixturePrior(jnp.asarray([-8.0, -9.0]), 0.1))
    with pytest.raises(ValueError, match="no chain can start: the simulation failed"):
        nuts(none, KEY, **sizes)


def test_lookup_leaves_failed_examples_out():
    with pytest.warns(UserWarning, match=r"lookup: .* 2 of 4 examples \(number 0, 3\), 50 %"):
        posterior = lookup(make(MemorizedPrior(jnp.asarray([-2.0, 0.2, 0.1, -3.0]))))
    kept = lookup(make(MemorizedPrior(jnp.asarray([0.2, 0.1]))))
    assert posterior.num_failed == 2 and kept.num_failed == 0
    np.testing.assert_allclose(posterior.weights[1:3], kept.weights, rtol=1e-5)
    np.testing.assert_array_equal(posterior.weights[jnp.asarray([0, 3])], 0.0)
    # half of the prior's mass has no likelihood
    expected = kept.log_evidence - np.log(2)
    np.testing.assert_allclose(posterior.log_evidence, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="lookup: the simulation failed at all 2 examples"):
        lookup(make(MemorizedPrior(jnp.asarray([-2.0, -3.0]))))


def test_a_likelihood_without_bound_has_failed():
    def model(data=None):
        x = numpyro.sample("x", MemorizedPrior(jnp.asarray([0.0, 1.0])))
        numpyro.factor("pole", jnp.where(x > 0, jnp.inf, 0.0))

    with pytest.warns(UserWarning, match="1 of 2 examples"):
        np.testing.assert_array_equal(lookup(InverseProblem(model)).weights, [1.0, 0.0])


@pytest.mark.parametrize("elements", [2**23, 0], ids=["dense", "matrix-free"])
@pytest.mark.parametrize("neglect", [0.0, 1e-6])
def test_linearize_leaves_failed_components_out(monkeypatch, elements, neglect):
    module = importlib.import_module("ppl_memprior.inference.linearized._linearize")
    monkeypatch.setattr(module, "DENSE_ELEMENTS", elements)
    monkeypatch.setattr(module, "BOUNDED_OPERATIONS", 0)
    kept = linearize(make(DiffusionMixturePrior(jnp.asarray([0.2, 0.1]), 0.1)))
    some = make(DiffusionMixturePrior(jnp.asarray([-3.0, 0.2, 0.1]), 0.1))
    with pytest.warns(UserWarning, match=r"linearize: .* 1 of 3 examples \(number 0\).*left out"):
        found = linearize(some, neglect=neglect)
    assert found.num_failed == 1 and not found.report.linearized[0]
    weights = np.exp(found.log_weights)
    np.testing.assert_allclose(weights[1:], np.exp(kept.log_weights), rtol=1e-4)
    expected = kept.log_evidence + np.log(2 / 3)
    np.testing.assert_allclose(found.log_evidence, expected, rtol=1e-4)
    with pytest.raises(ValueError, match="linearize: the simulation failed at all 2 examples"):
        linearize(make(DiffusionMixturePrior(jnp.asarray([-2.0, -3.0]), 0.1)), neglect=neglect)


def test_evidence_over_bandwidths_leaves_failed_components_out():
    some = make(DiffusionMixturePrior(jnp.asarray([0.2, -3.0, 0.1]), 0.1))
    with pytest.warns(UserWarning, match="1 of 3 examples") as told:
        curve = evidence(some, [0.05, 0.1])
        expected = linearize(some).log_evidence
    assert len(told) == 2 and curve.num_failed == 1
    np.testing.assert_allclose(curve.log_evidence[1], expected, rtol=1e-5)


def test_a_linearization_that_leads_where_the_simulation_fails_is_not_believed():
    """The datum asks for x = e^-9 - 1.2; the tangent at 0.2 puts the mean far below -1.2."""

    def model(y=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([0.2]), 2.0))
        numpyro.sample("y", dist.Normal(jnp.log(x + 1.2), NOISE), obs=y)

    found = linearize(InverseProblem(model, y=-9.0))
    assert found.locs[0] < -1.2 and np.isposinf(found.report.misfit_at_mean[0])
    assert np.isposinf(found.linearization_error)


def test_gibbs_counts_the_examples_that_fail():
    def model(y=None):
        scale = numpyro.sample("scale", dist.LogNormal(-1.0, 0.5))
        x = numpyro.sample("x", MemorizedPrior(jnp.asarray([0.2, -3.0, 0.1])))
        numpyro.sample("y", dist.Normal(jnp.log(x + 1.2), scale), obs=y)

    problem = InverseProblem(model, y=DATUM)
    with pytest.warns(UserWarning, match=r"gibbs: .* 40 of 120 .*\(number 1 among them\), 33 %"):
        found = gibbs(problem, KEY, num_samples=20, num_warmup=10, num_chains=2)
    assert found.num_failed == 40 and (found.latents["x"] > -3).all()


def test_dps_and_the_tree_say_what_failed(problem):
    short = methods.Psis(num_samples=100, num_importance_draws=400)
    with pytest.warns(UserWarning, match="the simulation failed at"):
        trees = run(problem, [short], KEY, progress=False)
    assert trees["psis"].attrs["num_failed"] > 0 and trees["psis"].attrs["num_failed_draws"] == 0
    some = make(DiffusionMixturePrior(jnp.asarray([0.2, -3.0, 0.1]), 0.1))
    with pytest.warns(UserWarning, match="dps: the simulation failed at 1 of 3 examples"):
        found = dps(some, KEY, num_samples=4, num_steps=4)
    assert found.num_failed == 1 + found.sample_stats["skipped_steps"].sum()


def test_stored_draws_that_fail_are_counted(problem):
    x = np.array([[0.1, -2.0, 0.3, -3.0]], np.float32)
    with pytest.warns(UserWarning, match=r"draws \(number 1, 3\)"):
        tree = to_datatree(problem, Draws(latents={"x": x}, cost=Cost(), independent=True))
    assert tree.attrs["num_failed_draws"] == 2
    failed = ~np.isfinite(tree["sample_stats"]["chi_square"].to_numpy())
    np.testing.assert_array_equal(failed, [[False, True, False, True]])
