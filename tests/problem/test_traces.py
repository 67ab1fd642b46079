"""How often a model is traced, and what its traces are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from scipy import stats

from ppl_memprior import DiffusionMixturePrior, InverseProblem

from .small_model import DATA, EXAMPLES, PRIOR, X, forward, scale_model

pytestmark = pytest.mark.arithmetic  # another Python computes the same

MASK = np.array([True, False, True])


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_the_model_is_traced_once(where):
    """One call, whatever is asked of it: an extra latent, missing data, data made by JAX."""
    calls = []

    def counted(x):
        calls.append(1)
        return forward(x)

    def model(data):
        x = numpyro.sample("x", PRIOR if where == "outside" else DiffusionMixturePrior(EXAMPLES, 1))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        y = dist.Normal(counted(x), scale)
        with numpyro.plate("receivers", 3):
            numpyro.sample("y", y, obs=2 * data, obs_mask=MASK)

    problem = InverseProblem(model, jnp.asarray(DATA))
    assert len(calls) == 1
    assert (problem.num_data, problem.extra_latents) == (2, ("scale",))
    np.testing.assert_allclose(problem.data["y"], 2 * DATA, rtol=1e-6)
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(problem.prior))


def test_latent_sites_in_a_loop_reach_the_data():
    """A scan of NumPyro's: its sites are stacked, and what it returns depends on them."""

    def model(data=None):
        x = numpyro.sample("x", PRIOR)

        def step(state, shift):
            state = state + numpyro.sample("step", dist.Normal(0.0, 0.1)) * shift
            return state, state

        _, states = scan(step, x[0], jnp.ones(3))
        numpyro.sample("y", dist.Normal(states, 0.3).to_event(1), obs=data)

    problem = InverseProblem(model, data=DATA)
    assert problem.extra_latents == ("step",) and problem.observed == ("y",)
    steps = jnp.asarray([0.1, -0.2, 0.3])
    expected = stats.norm(X[0] + np.cumsum(steps), 0.3).logpdf(DATA).sum()
    np.testing.assert_allclose(problem.log_likelihood(X, step=steps), expected, rtol=1e-5)


def test_traces_are_those_of_numpyro():
    problem = InverseProblem(scale_model, data=DATA)
    given = {"x": X, "scale": jnp.asarray(0.3)}
    model = handlers.substitute(scale_model, data=given)
    expected = handlers.trace(model).get_trace(data=DATA)
    found = problem.trace(X, scale=jnp.asarray(0.3))
    for name in ("x", "scale", "y"):
        np.testing.assert_array_equal(found[name]["value"], expected[name]["value"])
    np.testing.assert_array_equal(found["y"]["fn"].mean, expected["y"]["fn"].mean)
    key = jax.random.key(3)
    drawn = handlers.trace(handlers.seed(scale_model, key)).get_trace(data=DATA)
    for name, site in problem.prior_trace(key).items():
        np.testing.assert_array_equal(site["value"], drawn[name]["value"])
