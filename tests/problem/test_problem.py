"""Reading NumPyro models: sites, residuals and likelihoods."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy import stats

from ppl_memprior import DiffusionMixturePrior, InverseProblem, MemorizedPrior, lookup

from .small_model import DATA, EXAMPLES, MATRIX, PRIOR, X, forward, normal_model, scale_model


def check_decomposition(problem, x=X):
    """log_likelihood = log_normalizer - |residual|^2 / 2, by two different routes."""
    expected = problem.log_normalizer() - 0.5 * jnp.sum(problem.residual(x) ** 2)
    np.testing.assert_allclose(problem.log_likelihood(x), expected, rtol=1e-5)  # float32 sums


def test_normal_site_against_scipy():
    problem = InverseProblem(normal_model, data=DATA)
    expected = stats.norm(np.asarray(forward(X), float), 0.3).logpdf(DATA).sum()
    np.testing.assert_allclose(problem.log_likelihood(X), expected, rtol=1e-5)
    np.testing.assert_allclose(problem.residual(X), (DATA - forward(X)) / 0.3, rtol=1e-5)
    np.testing.assert_allclose(problem.predict(X)["y"], forward(X))
    assert (problem.num_data, problem.observed, problem.event_shape) == (3, ("y",), (2,))
    check_decomposition(problem)


def test_multivariate_normal_site_against_scipy():
    covariance = np.array([[0.5, 0.2, 0.0], [0.2, 0.4, 0.1], [0.0, 0.1, 0.3]])

    def model(data=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.MultivariateNormal(forward(x), jnp.asarray(covariance)), obs=data)

    problem = InverseProblem(model, data=DATA)
    expected = stats.multivariate_normal(np.asarray(forward(X), float), covariance).logpdf(DATA)
    np.testing.assert_allclose(problem.log_likelihood(X), expected, rtol=1e-5)
    check_decomposition(problem)


def test_several_sites_plate_mask_and_scale():
    mask = np.array([True, False, True])

    def model(data=None, more=None):
        x = numpyro.sample("x", PRIOR)
        with numpyro.plate("receivers", 3), handlers.mask(mask=mask):
            numpyro.sample("a", dist.Normal(forward(x), 0.3), obs=data)
        with handlers.scale(scale=2.0):
            numpyro.sample("b", dist.Normal(x, 0.5).to_event(1), obs=more)

    more = np.array([0.1, 0.2], np.float32)
    problem = InverseProblem(model, data=DATA, more=more)
    first = stats.norm(np.asarray(forward(X), float), 0.3).logpdf(DATA)[mask].sum()
    second = 2.0 * stats.norm(np.asarray(X, float), 0.5).logpdf(more).sum()
    np.testing.assert_allclose(problem.log_likelihood(X), first + second, rtol=1e-5)
    assert problem.num_data == 2 + 2
    assert problem.residual(X)[1] == 0  # the masked datum
    # the weights of handlers.scale stay out of what is compared with the noise
    whitened = [(DATA - forward(X))[mask] / 0.3, (more - X) / 0.5]
    expected = sum(float(jnp.sum(part**2)) for part in whitened)
    np.testing.assert_allclose(problem.chi_square(X), expected, rtol=1e-5)
    check_decomposition(problem)


MASK = np.array([True, False, True])


def with_obs_mask(data=None):
    x = numpyro.sample("x", PRIOR)
    with numpyro.plate("receivers", 3):
        numpyro.sample("y", dist.Normal(forward(x), 0.3), obs=data, obs_mask=MASK)


def test_obs_mask_is_a_mask():
    def masked(data=None):
        x = numpyro.sample("x", PRIOR)
        with numpyro.plate("receivers", 3), handlers.mask(mask=MASK):
            numpyro.sample("y", dist.Normal(forward(x), 0.3), obs=data)

    problem, expected = (InverseProblem(model, data=DATA) for model in (with_obs_mask, masked))
    assert problem.observed == ("y",) and problem.num_data == 2
    assert problem.extra_latents == () and problem.deterministic_names == ()
    np.testing.assert_array_equal(problem.residual(X), expected.residual(X))
    likelihood = stats.norm(np.asarray(forward(X), float), 0.3).logpdf(DATA)[MASK].sum()
    np.testing.assert_allclose(problem.log_likelihood(X), likelihood, rtol=1e-5)
    check_decomposition(problem)
    # NumPyro's own machinery sees the same model: nothing is left that a kernel would sample
    trace = handlers.trace(handlers.seed(problem.model, 0)).get_trace(data=DATA)
    assert [name for name, site in trace.items() if site["type"] != "plate"] == ["x", "y"]
    again = InverseProblem(problem.model, data=DATA)
    np.testing.assert_array_equal(again.residual(X), expected.residual(X))


def test_obs_mask_under_other_handlers():
    def model(data=None):
        x = numpyro.sample("x", PRIOR)
        with handlers.scope(prefix="survey", divider="."), handlers.mask(mask=MASK[::-1] | MASK):
            numpyro.sample("y", dist.Normal(forward(x), 0.3), obs=data, obs_mask=jnp.asarray(MASK))

    problem = InverseProblem(model, data=DATA)
    assert problem.observed == ("survey.y",) and problem.extra_latents == ()
    likelihood = stats.norm(np.asarray(forward(X), float), 0.3).logpdf(DATA)[MASK].sum()
    np.testing.assert_allclose(problem.log_likelihood(X), likelihood, rtol=1e-5)


def test_obs_mask_whose_values_are_used_is_refused():
    def model(data=None):
        x = numpyro.sample("x", PRIOR)
        y = numpyro.sample("y", dist.Normal(forward(x), 0.3), obs=data, obs_mask=MASK)
        numpyro.sample("sum", dist.Normal(jnp.sum(y), 0.3), obs=1.0)

    with pytest.raises(ValueError, match="makes up at site 'y'.*numpyro.handlers.mask"):
        InverseProblem(model, data=DATA)


@pytest.mark.parametrize(
    ("noise", "reason"),
    [
        (lambda x: dist.StudentT(4.0, forward(x), 0.3).to_event(1), "StudentT"),
        (lambda x: dist.Normal(forward(x), 0.1 + x[0] ** 2).to_event(1), "depends on the prior"),
    ],
)
def test_other_noise_has_a_likelihood_and_no_residual(noise, reason):
    def model(data=None):
        numpyro.sample("y", noise(numpyro.sample("x", PRIOR)), obs=data)

    problem = InverseProblem(model, data=DATA)
    expected = jnp.sum(noise(X).log_prob(DATA))
    np.testing.assert_allclose(problem.log_likelihood(X), expected, rtol=1e-6)
    with pytest.raises(ValueError, match=f"residual needs a residual, and site 'y'.*{reason}"):
        problem.residual(X)


def test_factor_counts_in_the_likelihood():
    def model(data=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(forward(x), 0.3).to_event(1), obs=data)
        numpyro.factor("smooth", -jnp.sum(x**2))

    problem = InverseProblem(model, data=DATA)
    plain = InverseProblem(normal_model, data=DATA)
    expected = plain.log_likelihood(X) - jnp.sum(X**2)
    np.testing.assert_allclose(problem.log_likelihood(X), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="'smooth' has numpyro.factor noise"):
        problem.residual(X)


def test_positive_latents_stand_beside_a_factor_and_data_made_in_the_model():
    def model(data=None):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([-1.0, 0.5]), 0.3))
        numpyro.sample("y", dist.Normal(x, scale), obs=2 * jnp.asarray(data))
        numpyro.factor("penalty", -(x**2))

    problem = InverseProblem(model, data=0.2)
    expected = stats.norm.logpdf(0.4, 0.7, 1.5) - 0.7**2
    assert float(problem.log_likelihood(0.7, scale=1.5)) == pytest.approx(expected, abs=1e-5)


def test_deterministic_sites_and_vmap():
    def model(data=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.deterministic("speed", jnp.exp(x))
        numpyro.sample("y", dist.Normal(forward(x), 0.3).to_event(1), obs=data)

    problem = InverseProblem(model, data=DATA)
    batch = jnp.stack([X, 2 * X])
    values = jax.vmap(problem.deterministics)(batch)["speed"]
    np.testing.assert_allclose(values, np.exp(batch), rtol=1e-6)
    gradient = jax.jit(jax.vmap(jax.grad(problem.log_likelihood)))(batch)
    assert gradient.shape == (2, 2) and np.isfinite(gradient).all()


def test_extra_latent_sites_are_named_and_can_be_conditioned_on():
    problem = InverseProblem(scale_model, data=DATA)
    assert problem.extra_latents == ("scale",)
    plain = InverseProblem(normal_model, data=DATA)
    np.testing.assert_allclose(
        problem.log_likelihood(X, scale=0.3), plain.log_likelihood(X), rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"missing \['scale'\]"):
        problem.log_likelihood(X)
    with pytest.raises(ValueError, match="lookup takes .* also has 'scale'.*handlers.condition"):
        lookup(problem)
    fixed = InverseProblem(handlers.condition(scale_model, {"scale": 0.3}), data=DATA)
    assert fixed.extra_latents == () and fixed.observed == ("y",)
    np.testing.assert_allclose(fixed.log_likelihood(X), plain.log_likelihood(X), rtol=1e-6)


def test_data_of_an_extra_latent_site_count():
    def model(data=None, calibration=None):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("calibration", dist.Normal(0.0, scale), obs=calibration)
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(forward(x), scale).to_event(1), obs=data)

    problem = InverseProblem(model, data=DATA, calibration=np.float32(0.2))
    assert problem.observed == ("calibration", "y") and problem.num_data == 4
    expected = stats.norm(0, 0.4).logpdf(0.2)
    expected += stats.norm(np.asarray(forward(X), float), 0.4).logpdf(DATA).sum()
    np.testing.assert_allclose(problem.log_likelihood(X, scale=0.4), expected, rtol=1e-5)


def test_hyperprior_gives_the_prior_for_each_bandwidth():
    def model(data=None):
        sigma = numpyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        x = numpyro.sample("x", DiffusionMixturePrior(EXAMPLES, sigma))
        numpyro.sample("y", dist.Normal(forward(x), 0.3).to_event(1), obs=data)

    problem = InverseProblem(model, data=DATA)
    given = problem.prior_given(sigma=0.7)
    expected = DiffusionMixturePrior(EXAMPLES, 0.7).log_prob(X)
    np.testing.assert_allclose(given.log_prob(X), expected, rtol=1e-6)


def test_with_prior_changes_the_prior_alone():
    problem = InverseProblem(normal_model, data=DATA)
    other = DiffusionMixturePrior(EXAMPLES[:2] + 5, 0.7)
    changed = problem.with_prior(other)
    assert changed.prior is other and problem.prior is PRIOR
    np.testing.assert_array_equal(changed.examples, EXAMPLES[:2] + 5)
    np.testing.assert_array_equal(changed.log_likelihood(X), problem.log_likelihood(X))
    trace = handlers.trace(handlers.seed(changed.model, 0)).get_trace(data=DATA)
    assert trace["x"]["fn"] is other  # NumPyro's own samplers see it too
    with pytest.raises(ValueError, match=r"event shape \(2,\), the new prior has \(3,\)"):
        problem.with_prior(MemorizedPrior(jnp.zeros((4, 3))))
    with pytest.raises(ValueError, match="no latent site with a MemorizedPrior"):
        problem.with_prior(dist.Normal(jnp.zeros(2), 1.0).to_event(1))


def test_reading_makes_no_forward_solve():
    calls = []

    def counted(x):
        calls.append(1)
        return np.tanh(np.asarray(MATRIX) @ np.asarray(x))

    def model(data=None):
        x = numpyro.sample("x", PRIOR)
        y = jax.pure_callback(counted, jax.ShapeDtypeStruct((3,), x.dtype), x)
        numpyro.sample("y", dist.Normal(y, 0.3).to_event(1), obs=data)

    problem = InverseProblem(model, data=DATA)
    assert problem.num_data == 3 and not calls
    jax.block_until_ready(problem.log_likelihood(X))
    assert len(calls) == 1


def test_noise_from_a_function_that_jit_has_compiled_is_constant():
    @jax.jit
    def compiled(x):
        return forward(x), 0.1 + 0.2 * jnp.ones(3)

    def model(data=None):
        x = numpyro.sample("x", PRIOR)
        prediction, scale = compiled(x)
        numpyro.sample("y", dist.Normal(prediction, scale).to_event(1), obs=data)

    problem = InverseProblem(model, data=DATA)
    assert problem.has_residual and problem.residual(jnp.zeros(2)).shape == (3,)
