"""LowRankGaussianMixture against SciPy's dense normal distributions; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppl_memprior.distributions import DiffusionMixturePrior, LowRankGaussianMixture

pytestmark = pytest.mark.arithmetic

NUM, RANK, EVENT = 4, 2, (2, 3)
DIM = 6
LOG_WEIGHTS = np.array([0.0, 1.0, -np.inf, -0.5])


def parameters(rank=RANK, seed=0):
    rng = np.random.default_rng(seed)
    rows = [np.linalg.qr(rng.normal(size=(DIM, rank)))[0].T for _ in range(NUM)]
    return {
        "locs": rng.normal(size=(NUM, *EVENT)),
        "scale": 0.9,
        "directions": np.stack(rows).reshape(NUM, rank, *EVENT),
        "direction_scales": rng.uniform(0.05, 0.5, size=(NUM, rank)),
        "log_weights": LOG_WEIGHTS,
    }


def dense(params):
    """Weights, means and covariance matrices of the components, in NumPy float64."""
    weights = np.exp(params["log_weights"])
    locs = params["locs"].reshape(NUM, DIM)
    rows = params["directions"].reshape(NUM, -1, DIM)
    along = np.einsum("nki,nk,nkj->nij", rows, params["direction_scales"] ** 2, rows)
    outside = np.eye(DIM) - np.einsum("nki,nkj->nij", rows, rows)
    return weights / weights.sum(), locs, params["scale"] ** 2 * outside + along


def dense_pdfs(params, values):
    weights, locs, covariances = dense(params)
    flat = values.reshape(len(values), DIM)
    return np.stack(
        [
            w * stats.multivariate_normal(m, c).pdf(flat)
            for w, m, c in zip(weights, locs, covariances, strict=True)
        ],
        axis=-1,
    )


@pytest.mark.parametrize("rank", [0, 2, 6])
def test_log_prob_and_responsibilities_against_scipy(rank):
    params = parameters(rank)
    mixture = LowRankGaussianMixture(**params)
    values = np.random.default_rng(1).normal(size=(5, *EVENT)) * 0.5
    pdfs = dense_pdfs(params, values)
    np.testing.assert_allclose(mixture.log_prob(values), np.log(pdfs.sum(-1)), rtol=1e-4)
    np.testing.assert_allclose(
        mixture.responsibilities(values), pdfs / pdfs.sum(-1, keepdims=True), rtol=1e-3, atol=1e-5
    )
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            LowRankGaussianMixture(**params).log_prob(values), np.log(pdfs.sum(-1)), rtol=1e-10
        )


def test_moments_against_dense_algebra():
    params = parameters()
    mixture = LowRankGaussianMixture(**params)
    weights, locs, covariances = dense(params)
    mean = weights @ locs
    diagonals = np.diagonal(covariances, axis1=1, axis2=2)
    variance = weights @ (diagonals + (locs - mean) ** 2)
    np.testing.assert_allclose(mixture.mean.ravel(), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mixture.component_variances.reshape(NUM, DIM), diagonals, rtol=1e-4)
    np.testing.assert_allclose(mixture.variance.ravel(), variance, rtol=1e-5)
    assert mixture.num_components == NUM
    np.testing.assert_array_equal(mixture.component_means, mixture.locs)


def test_variance_survives_a_strong_contraction():
    """In float32, where what a complete set of directions leaves out is rounding."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0].astype(np.float32)
    scales = np.float32([1e-4, 3e-5, 1e-5, 1e-4])
    mixture = LowRankGaussianMixture(
        jnp.zeros((1, 4), jnp.float32), jnp.float32(1.0), rotation[None], scales[None]
    )
    exact = np.sqrt((scales.astype(float) ** 2) @ rotation.astype(float) ** 2)
    np.testing.assert_allclose(mixture.stddev, exact, rtol=1e-3)


def test_covariance_of_samples_of_each_component():
    params = parameters()
    num = 20_000
    value, [index] = LowRankGaussianMixture(**params).sample_with_intermediates(
        jax.random.key(0), (num,)
    )
    index = np.asarray(index)
    assert not np.any(index == 2)  # weight zero
    weights, locs, covariances = dense(params)
    for n in (0, 1, 3):
        draws = np.asarray(value)[index == n].reshape(-1, DIM) - locs[n]
        # Whitened by its covariance, a component is standard normal in every direction.
        white = np.linalg.solve(np.linalg.cholesky(covariances[n]), draws.T)
        error = white @ white.T / len(draws) - np.eye(DIM)
        # Entries have a standard error of sqrt(2 / number of draws) at most; five of these.
        assert np.max(np.abs(error)) <= 5 * np.sqrt(2 / len(draws))
        assert abs(len(draws) / num - weights[n]) <= 5 * np.sqrt(0.25 / num)


def test_without_directions_it_is_the_diffusion_mixture():
    locs = np.random.default_rng(0).normal(size=(5, 3))
    weights = np.array([1.0, 2.0, 3.0, 0.0, 1.0])
    with np.errstate(divide="ignore"):
        mixture = LowRankGaussianMixture(
            locs, 0.3, np.zeros((5, 0, 3)), np.zeros((5, 0)), np.log(weights)
        )
    prior = DiffusionMixturePrior(locs, 0.3, weights=weights)
    values = locs[:, None] + np.linspace(-1, 1, 4)[:, None]
    np.testing.assert_allclose(mixture.log_prob(values), prior.log_prob(values), rtol=1e-5)
    np.testing.assert_allclose(mixture.variance, prior.variance, rtol=1e-5)


def test_perpendicular_part_survives_a_long_way_along_a_direction():
    """|delta|^2 - |V delta|^2 would lose the perpendicular part in single precision."""
    d = 50
    direction = np.zeros((1, 1, d))
    direction[0, 0, 0] = 1
    mixture = LowRankGaussianMixture(np.zeros((1, d)), 1e-3, direction, [[1e4]])
    value = np.full(d, 1e-3)
    value[0] = 1e4
    expected = -0.5 * (1 + (d - 1) + d * np.log(2 * np.pi)) - (d - 1) * np.log(1e-3) - np.log(1e4)
    np.testing.assert_allclose(mixture.log_prob(value), expected, rtol=1e-5)


def test_log_weights_are_normalised_and_their_zero_is_harmless():
    params = parameters()
    mixture = LowRankGaussianMixture(**{**params, "log_weights": LOG_WEIGHTS + 700})
    np.testing.assert_allclose(jnp.exp(mixture.log_weights).sum(), 1, rtol=1e-5)

    def log_prob(log_weights, value):
        return LowRankGaussianMixture(**{**params, "log_weights": log_weights}).log_prob(value)

    gradients = jax.grad(log_prob, argnums=(0, 1))(jnp.asarray(LOG_WEIGHTS), jnp.ones(EVENT))
    assert all(np.all(np.isfinite(g)) for g in gradients)
    far = jax.grad(log_prob, argnums=1)(jnp.asarray(LOG_WEIGHTS), jnp.full(EVENT, 1e15))
    assert np.all(np.isfinite(far))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"locs": np.full((NUM, *EVENT), np.nan)}, ValueError, "locs of shape"),
        ({"locs": np.zeros((0, 3))}, ValueError, "at least one example"),
        ({"scale": 0.0}, ValueError, "scale must be positive"),
        ({"scale": [1.0, 2.0]}, ValueError, r"scale has shape \(2,\), expected \(\)"),
        ({"direction_scales": np.zeros((NUM, RANK))}, ValueError, "direction_scales must be pos"),
        ({"direction_scales": np.ones(NUM)}, ValueError, r"expected \(4, 2\): one scale per"),
        ({"directions": np.ones(3)}, ValueError, r"directions has shape \(3,\), expected"),
        ({"directions": np.zeros((NUM, RANK, 6))}, ValueError, r"\(4, k, \*\(2, 3\)\)"),
        ({"directions": np.zeros((NUM, 7, *EVENT))}, ValueError, "room for 6"),
        ({"directions": np.ones((NUM, RANK, *EVENT))}, ValueError, "must be orthonormal"),
        ({"directions": np.full((NUM, RANK, *EVENT), np.inf)}, ValueError, "directions.*finite"),
        ({"log_weights": np.zeros(3)}, ValueError, r"log_weights has shape \(3,\)"),
        ({"log_weights": np.full(NUM, -np.inf)}, ValueError, "all 4 log_weights are minus"),
        ({"log_weights": [0, 0, 0, np.nan]}, ValueError, "log_weights.*holds 1 values"),
        ({"log_weights": [0, 0, 0, np.inf]}, ValueError, "log_weights.*holds 1 values"),
    ],
)
def test_bad_arguments(changes, error, message):
    arguments = {**parameters(), **changes}
    with pytest.raises(error, match=message):
        LowRankGaussianMixture(**arguments)
    with pytest.raises(error, match=message):
        jax.jit(lambda: LowRankGaussianMixture(**arguments).mean)()


def test_missing_directions_are_rows_of_zeros():
    """Components of fewer directions: density, moments and draws as without the empty rows."""
    params = parameters()
    padded = {
        **params,
        "directions": np.concatenate([params["directions"], np.zeros((NUM, 3, *EVENT))], 1),
        "direction_scales": np.concatenate([params["direction_scales"], np.full((NUM, 3), 0.9)], 1),
    }
    few, many = LowRankGaussianMixture(**params), LowRankGaussianMixture(**padded)
    values = np.random.default_rng(1).normal(size=(5, *EVENT)) * 0.5
    np.testing.assert_allclose(many.log_prob(values), few.log_prob(values), rtol=1e-5)
    np.testing.assert_allclose(many.variance, few.variance, rtol=1e-5)
    np.testing.assert_allclose(many.stddev, np.sqrt(few.variance), rtol=1e-5)
    key = jax.random.key(0)
    np.testing.assert_allclose(many.sample(key, (4,)), few.sample(key, (4,)), atol=1e-5)
    padded["direction_scales"][0, -1] = 0.5
    with pytest.raises(ValueError, match="a direction of zeros.*direction scale 0.[89]"):
        LowRankGaussianMixture(**padded)
