"""Gibbs over the examples against the enumeration of all of them, by quadrature for the rest."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import HMC, MCMC, NUTS

from ppl_memprior import DiffusionMixturePrior, InverseProblem, MemorizedPrior
from ppl_memprior._arviz import az
from ppl_memprior.inference import ExampleGibbs, gibbs
from ppl_memprior.inference.mcmc._gibbs import _log_joint

pytestmark = pytest.mark.arithmetic

KEY = jax.random.key(0)
EXAMPLES = np.array([-0.2, 0.3, 0.7])
WEIGHTS = np.array([0.2, 0.3, 0.5])
DATA = np.array([0.1, 0.5, 0.9, 0.4])


def model(data=None):
    noise = numpyro.sample("noise", dist.Gamma(3.0, 10.0))
    x = numpyro.sample("x", MemorizedPrior(jnp.asarray(EXAMPLES), jnp.asarray(WEIGHTS)))
    numpyro.sample("y", dist.Normal(x, noise).expand([4]).to_event(1), obs=data)


def enumeration():
    """Posterior weights of the examples and mean of the noise scale, in float64."""
    noise = np.linspace(1e-4, 6, 20_001)
    squares = ((DATA[:, None] - EXAMPLES) ** 2).sum(axis=0)[:, None]
    joint = noise**2 * np.exp(-10 * noise) * np.exp(-0.5 * squares / noise**2) / noise**4
    joint = WEIGHTS[:, None] * joint
    weights = np.trapezoid(joint, noise, axis=1)
    mean = np.trapezoid(joint.sum(axis=0) * noise, noise) / weights.sum()
    return weights / weights.sum(), mean


def test_weights_and_noise_scale_against_enumeration():
    problem = InverseProblem(model, data=jnp.asarray(DATA))
    result = gibbs(problem, KEY, num_samples=300, num_warmup=100, num_chains=4)
    x, noise = result.latents["x"], result.latents["noise"]
    assert x.shape == noise.shape == result.sample_stats["num_steps"].shape == (4, 300)
    assert np.isin(x, EXAMPLES.astype(x.dtype)).all()

    weights, mean = enumeration()
    for draws, exact in [
        *zip([x == e for e in EXAMPLES.astype(x.dtype)], weights, strict=True),
        (noise, mean),
    ]:
        error = float(az.mcse(draws.astype(float), method="mean"))
        assert abs(draws.mean() - exact) < 4 * error < 0.1
    # 3 solves for each update of the example, and the leapfrog steps
    updates = 4 * (100 + 300) * 3
    assert result.cost.num_forward_evaluations == updates + result.cost.num_gradient_evaluations
    assert result.cost.num_gradient_evaluations >= 4 * 400


def test_log_joint_has_everything_that_depends_on_the_example():
    """Weights and examples that depend on latents, a latent whose prior depends on the example."""

    def everything(data=None):
        tilt = numpyro.sample("tilt", dist.Normal(0.0, 1.0))
        weights = jax.nn.softmax(tilt * jnp.arange(3.0))
        x = numpyro.sample("x", MemorizedPrior(jnp.exp(tilt) * jnp.asarray(EXAMPLES), weights))
        level = numpyro.sample("level", dist.Normal(x, 0.5))
        with numpyro.handlers.scale(scale=2.0):
            numpyro.sample("y", dist.Normal(level + x, 0.3), obs=data)

    tilt, level = 0.4, 0.2
    fixed = numpyro.handlers.condition(everything, {"tilt": tilt, "level": level})
    seeded = numpyro.handlers.seed(fixed, 0)
    present = jnp.exp(tilt) * jnp.asarray(EXAMPLES)[0]
    found, prior = _log_joint(seeded, "x", present, (), {"data": 0.6})
    x = np.exp(tilt) * EXAMPLES
    log_weights = tilt * np.arange(3) - np.log(np.exp(tilt * np.arange(3)).sum())
    expected = log_weights - 0.5 * tilt**2 - 0.5 * np.log(2 * np.pi)
    expected += -0.5 * ((level - x) / 0.5) ** 2 - np.log(0.5) - 0.5 * np.log(2 * np.pi)
    expected += 2 * (-0.5 * ((0.6 - level - x) / 0.3) ** 2 - np.log(0.3) - 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(prior.component_means, x, rtol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # float32, terms of size 10


@pytest.mark.slow
def test_one_chain_after_the_other_and_the_number_of_the_example():
    kernel = ExampleGibbs(HMC(model, num_steps=2, trajectory_length=None))
    mcmc = MCMC(
        kernel,
        num_warmup=5,
        num_samples=20,
        num_chains=2,
        chain_method="sequential",
        progress_bar=False,
    )
    mcmc.run(KEY, data=jnp.asarray(DATA), extra_fields=("block_states.0.example",))
    number = mcmc.get_extra_fields()["block_states.0.example"]
    np.testing.assert_array_equal(EXAMPLES.astype(np.float32)[number], mcmc.get_samples()["x"])


def test_what_it_cannot_take_is_refused_by_name():
    with pytest.raises(ValueError, match="takes an HMC or NUTS kernel built on a model, got str"):
        ExampleGibbs("nuts")
    with pytest.raises(ValueError, match="built on a model"):
        ExampleGibbs(NUTS(potential_fn=lambda z: z))

    def without(data=None):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x, 0.3), obs=data)

    mcmc = MCMC(ExampleGibbs(NUTS(without)), num_warmup=1, num_samples=1, progress_bar=False)
    with pytest.raises(ValueError, match="one latent site whose distribution is a MemorizedPrior"):
        mcmc.run(KEY, data=0.1)


@pytest.mark.parametrize(
    ("prior", "other", "message"),
    [
        (DiffusionMixturePrior(jnp.asarray(EXAMPLES), 0.1), dist.Gamma(3.0), "needs a Memorized"),
        (MemorizedPrior(jnp.asarray(EXAMPLES)), None, "no others. Methods .*: dps, lookup"),
        (MemorizedPrior(jnp.asarray(EXAMPLES)), dist.Poisson(3.0), "'noise' of this model is disc"),
    ],
)
def test_problems_that_are_somebody_elses(prior, other, message):
    def given(data=None):
        noise = 0.3 if other is None else 1 + numpyro.sample("noise", other)
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, noise), obs=data)

    with pytest.raises(ValueError, match=message):
        gibbs(InverseProblem(given, data=0.2), KEY)
