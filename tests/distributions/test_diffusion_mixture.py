"""DiffusionMixturePrior against SciPy, quadrature and NUTS; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from scipy import stats

from ppl_memprior.distributions import DiffusionMixturePrior, MemorizedPrior

pytestmark = pytest.mark.arithmetic

RNG = np.random.default_rng(0)
EXAMPLES = RNG.normal(size=(6, 2, 2)).astype(np.float32)
WEIGHTS = np.array([1.0, 3.0, 0.0, 2.0, 2.0, 2.0]) / 10
VALUES = RNG.normal(size=(5, 2, 2)).astype(np.float32)

# One dimension: three examples, two of them close together.
LINE = np.array([-1.0, 0.2, 0.5])
LINE_WEIGHTS = np.array([0.5, 0.2, 0.3])
GRID = np.linspace(-12.0, 12.0, 24001)
STEP = GRID[1] - GRID[0]


def line(**changes):
    return DiffusionMixturePrior(
        LINE, **{"sigma": 0.3, "alpha": 0.8, "weights": LINE_WEIGHTS, **changes}
    )


def scipy_log_prob(values, sigma, alpha):
    components = [
        stats.multivariate_normal(alpha * x.ravel(), sigma**2 * np.eye(x.size)) for x in EXAMPLES
    ]
    flat = values.reshape(len(values), -1)
    return np.log(sum(w * c.pdf(flat) for w, c in zip(WEIGHTS, components, strict=True)))


@pytest.mark.parametrize(("sigma", "alpha"), [(0.3, 1.0), (1.0, 0.5), (2.0, -1.0)])
def test_log_prob_against_scipy(sigma, alpha):
    prior = DiffusionMixturePrior(EXAMPLES, sigma, alpha=alpha, weights=WEIGHTS)
    expected = scipy_log_prob(VALUES.astype(np.float64), sigma, alpha)
    np.testing.assert_allclose(prior.log_prob(VALUES), expected, rtol=1e-5)


def test_batch_of_bandwidths_is_a_row_of_single_priors():
    sigma, alpha = np.array([0.3, 0.6, 1.2]), np.array([[1.0], [0.5]])
    batch = DiffusionMixturePrior(EXAMPLES, sigma, alpha=alpha, weights=WEIGHTS)
    assert batch.batch_shape == (2, 3)
    value = VALUES[:, None, None]
    for i in range(2):
        for j in range(3):
            single = DiffusionMixturePrior(EXAMPLES, sigma[j], alpha=alpha[i, 0], weights=WEIGHTS)
            for name in ("log_prob", "score", "responsibilities"):
                np.testing.assert_allclose(
                    getattr(batch, name)(value)[:, i, j],
                    getattr(single, name)(VALUES),
                    rtol=1e-5,
                    atol=1e-6,
                )
            for name in ("mean", "variance", "component_means"):
                np.testing.assert_allclose(
                    getattr(batch, name)[i, j], getattr(single, name), rtol=1e-5, atol=1e-6
                )


def test_density_and_cdf_against_quadrature():
    prior = line()
    density = np.exp(np.asarray(prior.log_prob(GRID), np.float64))
    # The trapezoidal rule is exact to rounding for smooth functions that vanish at both ends.
    assert abs(density.sum() * STEP - 1) < 1e-5
    assert abs((GRID * density).sum() * STEP - prior.mean) < 1e-5
    assert abs(((GRID - float(prior.mean)) ** 2 * density).sum() * STEP - prior.variance) < 1e-5
    cumulative = (np.cumsum(density) - density / 2) * STEP
    np.testing.assert_allclose(prior.cdf(GRID), cumulative, atol=1e-5)


def test_cdf_is_for_scalar_events_only():
    with pytest.raises(NotImplementedError, match=r"shape \(2, 2\)"):
        DiffusionMixturePrior(EXAMPLES, 1.0).cdf(VALUES)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.9, 0.2), (0.5, 1.0), (0.0, 1.0), (1.0, 1e-3)])
def test_denoiser_against_quadrature(alpha, sigma):
    prior = line()
    noised = np.array([-1.5, -0.3, 0.1, 0.4, 2.0])
    log_prior = np.asarray(prior.log_prob(GRID), np.float64)
    log_joint = log_prior - (noised[:, None] - alpha * GRID) ** 2 / (2 * sigma**2)
    joint = np.exp(log_joint - log_joint.max(1, keepdims=True))
    expected = (joint * GRID).sum(1) / joint.sum(1)
    # float32 prior densities under the integral; at sigma = 1e-3 the grid has one node a sigma.
    np.testing.assert_allclose(prior.denoise(noised, alpha, sigma), expected, atol=2e-5)


def test_tweedie():
    prior = DiffusionMixturePrior(EXAMPLES, 0.4, alpha=0.9, weights=WEIGHTS)
    alpha, sigma = 0.7, 0.5
    noised = prior.diffuse(alpha, sigma)
    tweedie = (VALUES + sigma**2 * noised.score(VALUES)) / alpha
    np.testing.assert_allclose(prior.denoise(VALUES, alpha, sigma), tweedie, rtol=1e-4, atol=1e-5)


def test_denoiser_of_vanishing_bandwidth_is_that_of_the_memorized_prior():
    memorized = MemorizedPrior(EXAMPLES, WEIGHTS)
    prior = DiffusionMixturePrior(EXAMPLES, 1e-6, weights=WEIGHTS)
    np.testing.assert_allclose(
        prior.denoise(VALUES, 0.8, 0.6), memorized.denoise(VALUES, 0.8, 0.6), atol=1e-5
    )


def test_diffuse_composes_and_matches_simulation():
    once = line().diffuse(0.9, 0.4).diffuse(0.5, 0.3)
    np.testing.assert_allclose(once.alpha, 0.8 * 0.9 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(once.sigma**2, 0.25 * (0.81 * 0.09 + 0.16) + 0.09, rtol=1e-6)
    draws = 0.5 * (0.9 * line().sample(jax.random.key(0), (4000,)))
    draws += np.random.default_rng(1).normal(size=4000) * np.sqrt(0.25 * 0.16 + 0.09)
    # Kolmogorov-Smirnov at a fixed seed; 1e-3 would be an unlucky one in a thousand.
    assert stats.kstest(np.asarray(draws), lambda v: np.asarray(once.cdf(v))).pvalue > 1e-3


def test_samples_stay_near_their_examples():
    prior = DiffusionMixturePrior(EXAMPLES, 1e-3, alpha=2.0, weights=WEIGHTS)
    value, [index] = prior.sample_with_intermediates(jax.random.key(0), (2000,))
    residual = (np.asarray(value) - 2 * EXAMPLES[index]) / 1e-3
    # 8000 standard normals; float32 rounds values of size 2 to 1e-4 of the bandwidth.
    assert stats.kstest(residual.ravel(), "norm").pvalue > 1e-3
    assert not np.any(np.asarray(index) == 2)  # weight zero
    np.testing.assert_array_equal(prior.responsibilities(value).argmax(-1), index)


def test_reweight_gives_the_conditional_score():
    log_likelihood = np.array([0.0, -1.0, -2.0, -3.0, -500.0, -np.inf])
    posterior = DiffusionMixturePrior(EXAMPLES, 0.5, weights=WEIGHTS).reweight(log_likelihood)
    expected = DiffusionMixturePrior(EXAMPLES, 0.5, weights=WEIGHTS * np.exp(log_likelihood))
    np.testing.assert_allclose(posterior.score(VALUES), expected.score(VALUES), rtol=1e-4)


@pytest.mark.parametrize("sigma", [0.05, 1.0])
def test_grad_of_log_prob_is_the_score_inside_a_transformed_program(sigma):
    prior = DiffusionMixturePrior(EXAMPLES, sigma, weights=WEIGHTS)
    gradient = jax.jit(jax.vmap(jax.grad(prior.log_prob)))(VALUES)
    np.testing.assert_allclose(gradient, prior.score(VALUES), rtol=1e-5, atol=1e-5)


def test_hessian_is_the_responsibilities_covariance():
    sigma = 0.5
    prior = DiffusionMixturePrior(EXAMPLES, sigma, weights=WEIGHTS)
    hessian = np.asarray(jax.hessian(prior.log_prob)(VALUES[0])).reshape(4, 4)
    r = np.asarray(prior.responsibilities(VALUES[0]), np.float64)
    rows = EXAMPLES.reshape(6, 4).astype(np.float64)
    covariance = (rows.T * r) @ rows - np.outer(r @ rows, r @ rows)
    np.testing.assert_allclose(
        hessian, covariance / sigma**4 - np.eye(4) / sigma**2, rtol=1e-4, atol=1e-3
    )


def test_weight_gradient_against_the_formula():
    def log_prob(weights):
        return DiffusionMixturePrior(EXAMPLES, 0.7, weights=weights).log_prob(VALUES[0])

    weights = jnp.asarray(WEIGHTS)
    equal = DiffusionMixturePrior(EXAMPLES, 0.7)
    # the density of each component over that of the mixture, for weights of zero as well
    density = len(WEIGHTS) * equal.responsibilities(VALUES[0]) * jnp.exp(equal.log_prob(VALUES[0]))
    expected = density / jnp.exp(log_prob(weights)) - 1
    np.testing.assert_allclose(jax.grad(log_prob)(weights), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_nuts_finds_the_bandwidth_and_the_weights():
    """A hyperprior on sigma: the chain's mean against quadrature."""
    values = np.array([-0.9, -0.7, 0.1, 0.4, 0.6, 0.1])

    def model():
        sigma = numpyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
        prior = DiffusionMixturePrior(LINE, sigma, weights=weights)
        with numpyro.plate("values", len(values)):
            numpyro.sample("x", prior, obs=values)

    mcmc = MCMC(NUTS(model), num_warmup=150, num_samples=700, progress_bar=False)
    mcmc.run(jax.random.key(0))
    draws = mcmc.get_samples()

    # Quadrature: log sigma on a grid, the weights by uniform draws from the simplex.
    log_sigma = np.linspace(-4, 2, 121)
    simplex = np.random.default_rng(0).dirichlet(np.ones(3), size=4000)
    kernel = stats.norm.pdf(values, LINE[:, None], np.exp(log_sigma)[:, None, None])
    likelihood = np.prod(np.einsum("wn,snv->swv", simplex, kernel), axis=-1)
    joint = likelihood * stats.norm.pdf(log_sigma)[:, None]
    expected_sigma = (joint.sum(1) * np.exp(log_sigma)).sum() / joint.sum()
    expected_weights = joint.sum(0) @ simplex / joint.sum()
    # At least 300 effective draws: some four standard errors of posteriors of width 0.15 to 0.25.
    assert abs(float(draws["sigma"].mean()) - expected_sigma) < 0.05
    np.testing.assert_allclose(draws["weights"].mean(0), expected_weights, atol=0.05)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sigma": 0.0}, ValueError, "sigma must be positive and finite, got 0.0"),
        ({"sigma": [0.1, -0.2]}, ValueError, r"sigma must be positive and finite, got \[ 0.1 -0.2"),
        ({"sigma": np.nan}, ValueError, "sigma must be positive and finite, got nan"),
        ({"sigma": np.inf}, ValueError, "sigma must be positive and finite, got inf"),
        ({"sigma": "small"}, TypeError, "sigma must be an array of real numbers, got str"),
        ({"alpha": np.nan}, ValueError, "alpha.*must be finite"),
        (
            {"sigma": [1.0, 2.0], "alpha": [1.0, 1.0, 1.0]},
            ValueError,
            r"sigma \(2,\), alpha \(3,\)",
        ),
        ({"weights": [1.0, 1.0]}, ValueError, r"weights has shape \(2,\), expected \(3,\)"),
        ({"weights": [1.0, 1.0, -1.0]}, ValueError, "least of the 3 is -1.0"),
        ({"weights": [0.0, 0.0, 0.0]}, ValueError, "all 3 weights are zero"),
        ({"weights": [1.0, 1.0, np.inf]}, ValueError, "weights.*infinite"),
    ],
)
def test_bad_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        line(**changes)
    with pytest.raises(error, match=message):
        jax.jit(lambda: line(**changes).mean)()


def test_bad_shapes_of_traced_arguments():
    with pytest.raises(ValueError, match=r"weights has shape \(2,\), expected \(3,\)"):
        jax.jit(lambda w: line(weights=w).mean)(np.ones(2))
    with pytest.raises(ValueError, match=r"sigma \(2,\), alpha \(3,\)"):
        jax.jit(lambda s: line(sigma=s, alpha=np.ones(3)).mean)(np.ones(2))


def test_noise_levels_that_do_not_fit():
    prior = line(sigma=[0.1, 0.2])
    with pytest.raises(ValueError, match="sigma must be positive"):
        prior.denoise(np.zeros(2), 1.0, -1.0)
    with pytest.raises(ValueError, match=r"sigma \(3,\), batch_shape \(2,\)"):
        prior.diffuse(1.0, np.ones(3))
    with pytest.raises(ValueError, match=r"alpha \(3,\).*batch_shape \(2,\)"):
        prior.denoise(np.zeros(2), np.ones(3), 1.0)


ON_A_LINE = DiffusionMixturePrior([-1.5, -0.4, 0.4, 1.2, 2.5], 1.0, weights=[1, 2, 3, 0, 1])


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 3.0])
def test_entropy_and_divergence_are_within_their_bounds(sigma):
    p = DiffusionMixturePrior(ON_A_LINE.examples, sigma, weights=ON_A_LINE.weights)
    q = DiffusionMixturePrior([-1.0, 0.3, 2.4], 2 * sigma, alpha=0.9)
    grid = np.linspace(-20, 20, 100_001)
    log_p, log_q = (np.asarray(d.log_prob(grid), np.float64) for d in (p, q))
    mass = np.exp(log_p) * (grid[1] - grid[0])
    slack = 1e-4  # the log-densities are in single precision
    entropy, divergence = -np.sum(mass * log_p), np.sum(mass * (log_p - log_q))
    least, most = p.entropy_bounds()
    assert least - slack <= entropy <= most + slack
    assert most - least < 0.4  # nats
    least, most = p.kl_bounds(q)
    assert max(least, 0) - slack <= divergence <= most + slack


def test_bounds_are_sharp_where_components_do_not_overlap():
    p = DiffusionMixturePrior(50 * np.eye(4, 3), np.array([0.1, 0.2]))
    expected = np.log(4) + 1.5 * np.log(2 * np.pi * np.e * np.array([0.01, 0.04]))
    for bound in p.entropy_bounds():
        np.testing.assert_allclose(bound, expected, rtol=1e-5)
    wide = DiffusionMixturePrior(50 * np.eye(4, 3), 0.4)
    ratio = np.array([0.1, 0.2]) / 0.4
    least, most = p.kl_bounds(wide)
    # A single Gaussian's divergence is known; the lower bound loses log-terms of it only.
    exact = 1.5 * (ratio**2 - 1) - 3 * np.log(ratio)
    np.testing.assert_allclose(most, exact, rtol=1e-5)
    assert np.all((least > 0) & (least <= exact))
    np.testing.assert_allclose(p.kl_bounds(p)[1], 0, atol=1e-5)
    for other, error in ((ON_A_LINE, ValueError), (dist.Normal(0, 1), TypeError)):
        with pytest.raises(error, match="other"):
            p.kl_bounds(other)


def test_nearest_refuses_what_does_not_fit():
    assert [v.shape for v in ON_A_LINE.nearest(np.zeros((4, 2)), 3)] == [(4, 2, 3)] * 2
    for k in (0, 6):
        with pytest.raises(ValueError, match=f"k is {k}, expected 1 to 5"):
            ON_A_LINE.nearest(0.0, k)
    with pytest.raises(ValueError, match="value has shape"):
        DiffusionMixturePrior(np.eye(3), 1.0).nearest(np.zeros(2))


def test_nearest_has_derivatives_on_an_example():
    prior = DiffusionMixturePrior(np.eye(3), 1.0)
    gradient = jax.grad(lambda x: prior.nearest(x, 2)[0].sum())(jnp.eye(3)[0])
    np.testing.assert_allclose(gradient, (jnp.eye(3)[0] - jnp.eye(3)[1]) / 2**0.5, rtol=1e-6)


def test_no_values_and_units_of_any_size():
    for num in (5, 80):
        examples = np.random.default_rng(0).normal(size=(num, 32))
        # NumPyro's own validation cannot look at nothing.
        prior = DiffusionMixturePrior(examples, 0.3, validate_args=False)
        none = np.zeros((0, 2, 32))
        assert prior.log_prob(none).shape == (0, 2)
        assert prior.score(none).shape == none.shape
        assert prior.nearest(none, 2)[1].shape == (0, 2, 2)
    tiny = DiffusionMixturePrior(1e-20 * np.eye(3), 1e-21)
    denoised = tiny.denoise(1.1e-20 * np.eye(3), 1.0, 1e-21)
    np.testing.assert_allclose(denoised, 1.05e-20 * np.eye(3), rtol=1e-5, atol=1e-26)
