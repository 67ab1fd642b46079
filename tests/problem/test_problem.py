"""Reading NumPyro models: sites, residuals, likelihoods, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer.reparam import TransformReparam
from scipy import stats

from ppl_memprior import DiffusionMixturePrior, InverseProblem, MemorizedPrior, linearize, lookup

EXAMPLES = np.array([[0.0, 0.0], [1.0, 2.0], [-1.0, 0.5]], np.float32)
DATA = np.array([0.3, -0.2, 0.9], np.float32)
PRIOR = DiffusionMixturePrior(EXAMPLES, 0.2)
MATRIX = jnp.asarray([[1.0, 0.5], [0.2, -1.0], [0.7, 0.1]])
X = jnp.asarray([0.4, -0.3])


def forward(x):
    return jnp.tanh(MATRIX @ x)


def normal_model(data=None, noise=0.3):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(forward(x), noise).to_event(1), obs=data)


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


def test_a_subsampled_plate_is_refused():
    def model(data, subsample_size=None):
        x = numpyro.sample("x", PRIOR)
        with numpyro.plate("receivers", 30, subsample_size=subsample_size) as index:
            numpyro.sample("y", dist.Normal(x[0], 0.3), obs=data[index])

    data = jnp.linspace(-1, 1, 30)
    with pytest.raises(ValueError, match="plate 'receivers' shows the model 3 of its 30 elements"):
        InverseProblem(model, data, subsample_size=3)
    assert InverseProblem(model, data, subsample_size=30).num_data == 30


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


def scale_model(data=None):
    x = numpyro.sample("x", PRIOR)
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(forward(x), scale).to_event(1), obs=data)


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


def test_data_that_the_model_touches_are_read_all_the_same():
    def model(data):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(forward(x), 0.3).to_event(1), obs=jnp.log(data))

    given = np.exp(np.asarray(DATA, np.float32))
    np.testing.assert_allclose(InverseProblem(model, given).data["y"], DATA, rtol=1e-5)
    with pytest.raises(ValueError, match=r"site 'y' \(shape \(3,\)\) hold 1 NaN"):
        InverseProblem(model, np.where(np.arange(3) == 1, np.nan, given))


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


def foreign_arrays():
    yield "list", DATA.tolist()
    yield "big-endian", DATA.astype(">f4")
    yield "float64", DATA.astype(float)
    yield "series", pd.Series(DATA, index=[3, 1, 2])
    yield "dataarray", xr.DataArray(DATA, dims="receiver")
    yield "frame", pd.DataFrame({"y": DATA}).to_numpy()[:, 0]
    try:
        import torch
    except ImportError:
        return
    yield "tensor", torch.tensor(DATA, requires_grad=True)
    yield "list of tensors", list(torch.tensor(DATA))


@pytest.mark.parametrize("data", [pytest.param(value, id=name) for name, value in foreign_arrays()])
def test_data_of_any_kind_of_array(data):
    def compute_first(data):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(forward(x), 0.3).to_event(1), obs=2.0 * data)

    def by_closure():
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(forward(x), 0.3).to_event(1), obs=data)

    expected = InverseProblem(normal_model, data=DATA).residual(X)
    for problem in (InverseProblem(normal_model, data=data), InverseProblem(by_closure)):
        np.testing.assert_allclose(problem.residual(X), expected, rtol=1e-6)
        assert problem.data["y"].dtype.isnative
    twice = InverseProblem(compute_first, data).residual(X) + forward(X) / 0.3
    np.testing.assert_allclose(twice, 2 * DATA / 0.3, rtol=1e-5)


def test_values_of_any_kind_of_array():
    problem = InverseProblem(scale_model, data=DATA)
    expected = problem.log_likelihood(X, scale=0.3)
    for x in (np.asarray(X).tolist(), np.asarray(X).astype(">f4"), pd.Series(np.asarray(X))):
        np.testing.assert_array_equal(
            problem.log_likelihood(x, scale=np.array(0.3, ">f4")), expected
        )
    with pytest.raises(TypeError, match="'x' must be real"):
        problem.predict(np.asarray(X) * 1j, scale=0.3)
    with pytest.raises(TypeError, match="with_prior takes a NumPyro distribution, got a list"):
        problem.with_prior([0.0, 1.0])


def test_settings_reach_the_model_as_they_are():
    given = ((3, 2), "name", None, True, 2, 0.5, {"a": [1, 2]}, ["p", "q"], [jnp.ones(2), 1j], abs)
    seen = []

    def model(*settings, data):
        seen.append(settings)
        normal_model(data)

    InverseProblem(model, *given, data=DATA)
    assert all(a is b for a, b in zip(seen[0], given, strict=True))


@pytest.mark.parametrize(
    "data",
    [
        DATA * 1j,
        jnp.asarray(DATA) * 1j,
        [1j, 2j, 3j],
        np.array(["a", "b", "c"]),
        ["a", "b", "c"],
        np.array([1.0, None, 2.0], object),
        [[1.0, 2.0], [3.0]],
        np.array(["2020-01-01"] * 3, "datetime64[D]"),
        [0.1, None, 0.2],
    ],
    ids=["complex", "jax", "list", "text", "texts", "object", "ragged", "dates", "missing"],
)
def test_data_that_are_no_real_numbers_are_refused(data):
    with pytest.raises(TypeError, match="must be (real|an array of real numbers)"):
        InverseProblem(normal_model, data=data)


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
