"""Latent-to-field maps against dense linear algebra in NumPy."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from jax.test_util import check_grads

from ppl_memprior.forward import KarhunenLoeve, PrincipalComponents, matern32, squared_exponential

SHAPE = (6, 5)


def expansion(**change):
    values = {
        "correlation_length": (35.0, 20.0),
        "num_terms": 8,
        "mean": 2500.0,
        "std": 300.0,
        **change,
    }
    return KarhunenLoeve(SHAPE, 10.0, **values)


def dense_covariance(correlation):
    z, x = np.meshgrid(10.0 * np.arange(6), 10.0 * np.arange(5), indexing="ij")
    along_z = correlation(np.abs(np.subtract.outer(z.ravel(), z.ravel())) / 35.0)
    along_x = correlation(np.abs(np.subtract.outer(x.ravel(), x.ravel())) / 20.0)
    return 300.0**2 * along_z * along_x


@pytest.mark.parametrize("correlation", [squared_exponential, matern32])
def test_covariance_is_the_best_of_its_rank(correlation):
    field = expansion(correlation=correlation)
    flat = field.basis.reshape(8, -1)
    eigenvalues, vectors = np.linalg.eigh(dense_covariance(correlation))
    largest, leading = eigenvalues[::-1][:8], vectors[:, ::-1][:, :8]
    # float64 eigenproblems of 30 unknowns.
    np.testing.assert_allclose(np.sum(flat**2, axis=1), largest, rtol=1e-8)
    np.testing.assert_allclose(flat.T @ flat, (leading * largest) @ leading.T, atol=1e-6)
    np.testing.assert_allclose(field.explained_variance, largest.sum() / eigenvalues.sum())


def test_all_terms_give_the_whole_covariance():
    field = expansion(num_terms=30, correlation=matern32)
    flat = field.basis.reshape(30, -1)
    np.testing.assert_allclose(flat.T @ flat, dense_covariance(matern32), atol=1e-6)
    assert field.explained_variance == pytest.approx(1.0)


def test_draws_have_the_mean_and_the_deviation():
    mean = 2000.0 + 100.0 * np.arange(6)[:, None] + np.zeros(5)
    field = expansion(mean=mean, num_terms=20)
    draws = jax.vmap(field)(jax.random.normal(jax.random.key(0), (4000, 20)))
    # 4,000 draws: five standard errors of 300 / sqrt(4000).
    np.testing.assert_allclose(draws.mean(0), mean, atol=25.0)
    np.testing.assert_allclose(draws.std(0), 300.0, atol=25.0)


@pytest.mark.parametrize("bounds", [None, (1500.0, 4500.0)])
def test_projection_recovers_the_latent(bounds):
    field = expansion(bounds=bounds)
    z = jax.random.normal(jax.random.key(1), (8,))
    # float32: the smallest of the terms carries a hundredth of the field's deviation.
    np.testing.assert_allclose(field.project(field(z)), z, atol=2e-3)


def test_bounds_are_never_left_and_hardly_felt_in_the_middle():
    field, free = expansion(bounds=(1500.0, 3500.0)), expansion()
    for size in (1e1, 1e3, 1e6):
        values = field(size * jax.random.normal(jax.random.key(2), (8,)))
        assert values.min() >= 1500.0 and values.max() <= 3500.0
    small = 0.05 * jnp.ones(8)
    np.testing.assert_allclose(field(small), free(small), rtol=1e-4)


def test_fields_are_differentiable_and_vmap():
    examples = np.random.default_rng(0).normal(size=(7, *SHAPE))
    with jax.enable_x64(True):
        for field in (expansion(bounds=(1500.0, 4500.0)), PrincipalComponents.fit(examples, 4)):
            length = len(field.basis)
            z = jax.random.normal(jax.random.key(3), (length,), jnp.float64)
            check_grads(field, (z,), order=1, modes=("fwd", "rev"), rtol=1e-5)
            many = jnp.stack([z, -z])
            np.testing.assert_allclose(jax.vmap(field)(many)[1], field(-z), rtol=1e-12)


def test_the_dtype_is_that_of_the_latent():
    assert expansion()(jnp.zeros(8)).dtype == jnp.float32
    assert expansion()(jnp.zeros(8, int)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert expansion()(jnp.zeros(8, jnp.float64)).dtype == jnp.float64


def test_pickle():
    field = pickle.loads(pickle.dumps(expansion()))
    np.testing.assert_array_equal(field(jnp.ones(8)), expansion()(jnp.ones(8)))
    fitted = PrincipalComponents.fit(np.random.default_rng(0).normal(size=(7, *SHAPE)), 3)
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy(jnp.ones(3)), fitted(jnp.ones(3)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_terms": 31}, "between 1 and nz \\* nx = 30"),
        ({"correlation_length": 0.0}, "correlation_length must be positive"),
        ({"std": float("nan")}, "std must be positive"),
        ({"mean": np.zeros(3)}, r"shape \(6, 5\), got shape \(3,\)"),
        ({"bounds": (3.0, 1.0)}, "lo < hi"),
        ({"bounds": (2600.0, 4000.0)}, "not inside the bounds"),
        ({"num_terms": 30, "correlation_length": 5000.0}, "rounding error"),
    ],
)
def test_karhunen_loeve_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        expansion(**change)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(8,\) is expected, got \(3,\)"):
        expansion()(jnp.zeros(3))
    with pytest.raises(ValueError, match=r"\(6, 5\) is expected, got \(2, 6, 5\)"):
        expansion().project(jnp.zeros((2, 6, 5)))


def test_principal_components_equal_numpy():
    examples = np.random.default_rng(4).normal(size=(9, *SHAPE)) + 3.0
    fitted = PrincipalComponents.fit(examples, 5)
    flat = (examples - examples.mean(0)).reshape(9, -1)
    covariance = flat.T @ flat / 8
    eigenvalues, vectors = np.linalg.eigh(covariance)
    largest, leading = eigenvalues[::-1][:5], vectors[:, ::-1][:, :5]
    basis = fitted.basis.reshape(5, -1)
    # float64 eigenproblem of 30 unknowns.
    np.testing.assert_allclose(basis.T @ basis, (leading * largest) @ leading.T, atol=1e-12)
    np.testing.assert_allclose(fitted.explained_variance_ratio, largest / np.trace(covariance))


def test_scores_of_the_examples_are_white_and_decode():
    examples = 1500.0 + 3000.0 * np.random.default_rng(5).random(size=(9, *SHAPE))
    fitted = PrincipalComponents.fit(examples, 8)
    scores = np.asarray(jax.vmap(fitted.encode)(jnp.asarray(examples)))
    # float32 fields of some 3,000 m/s: rounding of about 1e-4 of a score.
    np.testing.assert_allclose(scores.mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.cov(scores.T), np.eye(8), atol=1e-4)
    # Nine examples have eight directions, so eight components reproduce them.
    np.testing.assert_allclose(jax.vmap(fitted)(jnp.asarray(scores)), examples, rtol=1e-5)


@pytest.mark.parametrize(
    ("examples", "count", "message"),
    [
        (np.zeros((1, 4)), 1, "n >= 2"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), 1, "1 non-finite"),
        (np.eye(4), 4, "between 1 and 3"),
        (np.ones((4, 3)), 1, "between 1 and 0"),
    ],
)
def test_fit_refuses(examples, count, message):
    with pytest.raises(ValueError, match=message):
        PrincipalComponents.fit(examples, count)


def test_arrays_of_any_library_and_byte_order():
    mean = np.full((6, 5), 2000.0)
    settings = {"correlation_length": 20.0, "num_terms": 4, "std": 100.0}
    expected = KarhunenLoeve((6, 5), 10.0, mean=mean, **settings)
    given = KarhunenLoeve((6, 5), 10.0, mean=xr.DataArray(mean.astype(">f8")), **settings)
    z = np.arange(4.0)
    np.testing.assert_array_equal(given(z.astype(">f4")), expected(z))
    examples = np.random.default_rng(0).normal(size=(5, 3, 2))
    fitted = PrincipalComponents.fit(xr.DataArray(examples.astype(">f8")), 2)
    np.testing.assert_array_equal(fitted.basis, PrincipalComponents.fit(examples, 2).basis)
    np.testing.assert_allclose(fitted.encode(xr.DataArray(examples[0])), fitted.encode(examples[0]))
