"""Models that are no inverse problem: each is refused by name, with what to do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.reparam import TransformReparam

from ppl_memprior import DiffusionMixturePrior, InverseProblem, MemorizedPrior, linearize

from .small_model import DATA, EXAMPLES, PRIOR, X, forward, normal_model


def test_a_subsampled_plate_is_refused():
    def model(data, subsample_size=None):
        x = numpyro.sample("x", PRIOR)
        with numpyro.plate("receivers", 30, subsample_size=subsample_size) as index:
            numpyro.sample("y", dist.Normal(x[0], 0.3), obs=data[index])

    data = jnp.linspace(-1, 1, 30)
    with pytest.raises(ValueError, match="plate 'receivers' shows the model 3 of its 30 elements"):
        InverseProblem(model, data, subsample_size=3)
    assert InverseProblem(model, data, subsample_size=30).num_data == 30


def unconnected(data=None):
    numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(0.0, 1.0).expand([3]).to_event(1), obs=data)


def two_priors(data=None):
    x = numpyro.sample("x", PRIOR)
    z = numpyro.sample("z", MemorizedPrior(EXAMPLES))
    numpyro.sample("y", dist.Normal(forward(x + z), 0.3).to_event(1), obs=data)


def no_prior(data=None):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(forward(x), 0.3).to_event(1), obs=data)


def prior_in_plate(data=None):
    with numpyro.plate("p", 4):
        numpyro.sample("x", PRIOR)


def batch_of_bandwidths(data=None):
    x = numpyro.sample("x", DiffusionMixturePrior(EXAMPLES, jnp.asarray([0.1, 0.2])))
    numpyro.sample("y", dist.Normal(forward(x[0]), 0.3).to_event(1), obs=data)


def through_another_latent(data=None):
    x = numpyro.sample("x", PRIOR)
    z = numpyro.sample("z", dist.Normal(x, 0.1).to_event(1))
    numpyro.sample("y", dist.Normal(forward(z), 0.3).to_event(1), obs=data)


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (normal_model, None, "no observed site depends"),
        (through_another_latent, DATA, r"reach 'x' through 'z', compute that from it, z = x \+ s"),
        (unconnected, DATA, "no observed site depends"),
        (two_priors, DATA, "has 2 sites.*'x', 'z'"),
        (no_prior, DATA, r"no latent site with a MemorizedPrior.*'x' \(Independent of Normal\)"),
        (prior_in_plate, DATA, "outside plates"),
        (batch_of_bandwidths, DATA, r"batch shape \(2,\)"),
        (normal_model, np.array([0.1, np.nan, np.inf]), "hold 2 NaN or infinite"),
        (normal_model, DATA[:1], r"have shape \(1,\), its distribution .* has shape \(3,\)"),
    ],
)
def test_bad_models_are_refused_by_name(model, data, message):
    with pytest.raises(ValueError, match=message):
        InverseProblem(model, data=data)


def test_a_model_is_no_problem():
    with pytest.raises(TypeError, match="linearize takes an InverseProblem, got a function: write"):
        linearize(normal_model)


def test_wrong_shape_is_an_error_that_shows_both():
    problem = InverseProblem(normal_model, data=DATA)
    with pytest.raises(ValueError, match=r"event shape \(2,\), got \(3,\)"):
        problem.predict(jnp.zeros(3))


def test_refuses_a_prior_under_a_scale():
    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.zeros(1), 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=data)

    with pytest.raises(ValueError, match="put the handler around the observed sites only"):
        InverseProblem(handlers.scale(model, scale=0.1), data=2.0)


def transformed(data=None):
    exponential = dist.transforms.ExpTransform()
    x = numpyro.sample("x", dist.TransformedDistribution(PRIOR, exponential))
    numpyro.sample("y", dist.Normal(forward(jnp.log(x)), 0.3).to_event(1), obs=data)


def test_a_transformed_prior_is_sent_to_reparam_which_works():
    with pytest.raises(
        ValueError, match=r"handlers.reparam\(model, config=\{'x': .*TransformRepar"
    ):
        InverseProblem(transformed, data=DATA)
    model = handlers.reparam(transformed, config={"x": TransformReparam()})
    problem = InverseProblem(model, data=DATA)
    plain = InverseProblem(normal_model, data=DATA)
    assert problem.prior_name == "x_base" and problem.deterministic_names == ("x",)
    np.testing.assert_allclose(problem.log_likelihood(X), plain.log_likelihood(X), rtol=1e-5)


def test_data_drawn_by_the_model_are_refused():
    data = jnp.linspace(-1.0, 1.0, 20)

    def minibatch():
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([-1.0, 0.5]), 0.3))
        some = jax.random.choice(numpyro.prng_key(), data, (5,), replace=False)
        numpyro.sample("y", dist.Normal(x, 0.3).expand([5]), obs=some)

    with pytest.raises(ValueError, match="'y' depend on the model's random key"):
        InverseProblem(minibatch)

    def scaled():
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([-1.0, 0.5]), 0.3))
        numpyro.sample("y", dist.Normal(x, 0.3).expand([20]), obs=2 * data)

    assert InverseProblem(scaled).num_data == 20
