"""What inference reads of a learned prior: components, responsibilities, weights and denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from .cases import NUM, WEIGHTS, build, continuous_case, discrete_case, draw, every_case


def components(d):
    """What inference reads of a prior."""
    return {
        "log_weights": d.log_weights,
        "means": d.component_means,
        "bandwidth": d.bandwidth,
        "directions": d.component_directions,
        "direction_scales": d.component_direction_scales,
    }


@every_case
def test_components_have_their_shapes_and_survive_jit_and_pytrees(spec):
    d = build(spec)
    found = components(d)
    rank = np.shape(spec.params.get("direction_scales", np.zeros((NUM, 0))))[1]
    assert d.num_components == NUM
    assert found["log_weights"].shape == (NUM,)
    assert found["means"].shape in ((NUM, *spec.event), (*spec.batch, NUM, *spec.event))
    assert found["bandwidth"].shape == spec.batch
    assert found["directions"].shape == (NUM, rank, *spec.event)
    assert found["direction_scales"].shape == (NUM, rank)
    assert all(array.dtype == jnp.float32 for array in found.values())
    again = jax.tree.unflatten(*reversed(jax.tree.flatten(d)))
    for other in (components(again), jax.jit(components)(d)):
        jax.tree.map(np.testing.assert_array_equal, other, found)
    with jax.enable_x64(True):
        assert all(array.dtype == jnp.float64 for array in components(build(spec)).values())


def dense_log_densities(d, value):
    """log pi_n + log N(value; m_n, C_n) from the formula of `LearnedPrior`, (*batch, N)."""
    dim = int(np.prod(d.event_shape))
    found = jax.tree.map(np.asarray, components(d))
    out = np.empty((*d.batch_shape, NUM))
    for index in np.ndindex(*d.batch_shape, NUM):
        n, scale = index[-1], found["bandwidth"][index[:-1]]
        mean = np.broadcast_to(found["means"], (*d.batch_shape, NUM, *d.event_shape))[index]
        rows = found["directions"][n].reshape(-1, dim)
        scales = found["direction_scales"][n]
        covariance = scale**2 * (np.eye(dim) - rows.T @ rows) + rows.T * scales**2 @ rows
        density = multivariate_normal(mean.ravel(), covariance)
        out[index] = found["log_weights"][n] + density.logpdf(np.ravel(value[index[:-1]]))
    return out


@continuous_case
def test_density_and_responsibilities_are_those_of_the_components(spec):
    with jax.enable_x64(True):
        d = build(spec)
        assert d.has_density
        value = np.asarray(draw(d))
        terms = dense_log_densities(d, value)
        total = logsumexp(terms, axis=-1)
        # both in double precision, by sums of few terms
        np.testing.assert_allclose(d.log_prob(value), total, rtol=1e-10)
        expected = np.exp(terms - total[..., None])
        np.testing.assert_allclose(d.responsibilities(value), expected, rtol=1e-8, atol=1e-12)


@discrete_case
def test_components_without_a_density_are_points_of_their_weights(spec):
    d = build(spec)
    assert not d.has_density and d.bandwidth == 0
    kept = d.log_weights > -jnp.inf
    np.testing.assert_array_equal(d.log_prob(d.component_means[kept]), d.log_weights[kept])
    np.testing.assert_array_equal(d.responsibilities(d.component_means[1]), np.eye(NUM)[1])


@every_case
def test_reweighting_changes_the_weights_alone(spec):
    d = build(spec)
    factors = np.array([0.3, -1.0, -np.inf, 2.0, 100.0])
    changed = d.reweight(factors)
    assert isinstance(changed, spec.cls)
    weights = np.ones(NUM) if spec.params.get("weights", WEIGHTS) is None else WEIGHTS
    expected = np.log(weights, where=weights > 0, out=np.full(NUM, -np.inf)) + factors
    expected -= logsumexp(expected)
    # float32, of logarithms as large as 100
    kept = expected > -np.inf
    np.testing.assert_allclose(changed.log_weights[kept], expected[kept], rtol=1e-5, atol=1e-5)
    assert np.all(np.exp(changed.log_weights[~kept]) == 0)
    before, after = components(d), components(changed)
    del before["log_weights"], after["log_weights"]
    jax.tree.map(np.testing.assert_array_equal, after, before)
    with pytest.raises(ValueError, match=r"log_factors has shape \(4,\), expected \(5,\)"):
        d.reweight(factors[:4])


@every_case
def test_denoiser_at_little_noise_returns_the_value(spec):
    d = build(spec)
    if not d.has_denoiser:
        with pytest.raises(NotImplementedError, match=f"{spec.cls.__name__} does not define deno"):
            d.denoise(draw(d), 1.0, 1e-3)
        return
    value = draw(d)
    # by an amount of order 1e-3^2 / 0.4 of a bandwidth, or not at all
    np.testing.assert_allclose(d.denoise(value, 1.0, 1e-3), value, rtol=1e-4, atol=1e-4)
