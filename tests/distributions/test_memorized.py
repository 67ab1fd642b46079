"""MemorizedPrior: exact matches, enumeration, the limit of vanishing bandwidth, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS

from ppl_memprior.distributions import DiffusionMixturePrior, MemorizedPrior

EXAMPLES = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
WEIGHTS = np.array([0.1, 0.2, 0.3, 0.0, 0.4])


def test_log_prob_is_the_weight_of_exact_matches():
    # Validation would warn of values outside the support, which are the point here.
    prior = MemorizedPrior(EXAMPLES, WEIGHTS, validate_args=False)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(prior.log_prob(EXAMPLES), np.log(WEIGHTS), rtol=1e-6)
    nearby = np.nextafter(EXAMPLES, np.float32(np.inf))
    assert np.all(np.asarray(prior.log_prob(nearby)) == -np.inf)


def test_coinciding_examples_add_their_weights():
    prior = MemorizedPrior([1.0, 2.0, 1.0], [1, 1, 2])
    np.testing.assert_allclose(prior.log_prob(np.array([1.0, 2.0])), np.log([0.75, 0.25]), 1e-6)
    np.testing.assert_allclose(prior.responsibilities(1.0), [1 / 3, 0, 2 / 3], rtol=1e-6)


def test_weights_are_normalised_for_any_scale():
    for scale in (1e-30, 1.0, 1e30):
        prior = MemorizedPrior(EXAMPLES, WEIGHTS * scale)
        np.testing.assert_allclose(prior.weights, WEIGHTS, rtol=1e-5)
        assert prior.log_weights[3] == -np.inf
    np.testing.assert_allclose(MemorizedPrior(EXAMPLES).weights, 0.2, rtol=1e-6)


def test_moments_are_those_of_the_weighted_examples():
    prior = MemorizedPrior(EXAMPLES, WEIGHTS)
    mean = np.average(EXAMPLES.astype(np.float64), axis=0, weights=WEIGHTS)
    variance = np.average((EXAMPLES - mean) ** 2, axis=0, weights=WEIGHTS)
    np.testing.assert_allclose(prior.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(prior.variance, variance, rtol=1e-5)


def test_samples_are_examples_in_proportion_to_their_weights():
    prior = MemorizedPrior(EXAMPLES, WEIGHTS)
    num = 5000
    value, [index] = prior.sample_with_intermediates(jax.random.key(0), (num,))
    np.testing.assert_array_equal(value, EXAMPLES[index])
    share = np.bincount(index, minlength=5) / num
    # Five binomial standard deviations.
    assert np.all(np.abs(share - WEIGHTS) <= 5 * np.sqrt(WEIGHTS * (1 - WEIGHTS) / num))


@pytest.mark.parametrize("batch_shape", [(), (4,), (3, 1)])
def test_enumerate_support(batch_shape):
    prior = MemorizedPrior(EXAMPLES, WEIGHTS, validate_args=False).expand(batch_shape)
    expanded = prior.enumerate_support()
    assert expanded.shape == (5, *batch_shape, 2, 3)
    compact = prior.enumerate_support(expand=False)
    assert compact.shape == (5, *(1,) * len(batch_shape), 2, 3)
    np.testing.assert_array_equal(expanded, jnp.broadcast_to(compact, expanded.shape))
    total = jnp.exp(prior.log_prob(expanded)).sum(0)
    np.testing.assert_allclose(total, np.ones(batch_shape), rtol=1e-6)
    np.testing.assert_allclose(
        prior.mask(jnp.ones(batch_shape, bool)).enumerate_support(), expanded
    )


def test_responsibilities_are_one_hot_and_fall_back_on_the_nearest():
    prior = MemorizedPrior(EXAMPLES, WEIGHTS)
    expected = np.eye(5)
    # The example without weight cannot have produced anything: its nearest neighbour stands in.
    others = [0, 1, 2, 4]
    distance = ((EXAMPLES[3] - EXAMPLES[others]) ** 2).sum((1, 2))
    expected[3] = np.eye(5)[others[int(distance.argmin())]]
    np.testing.assert_array_equal(prior.responsibilities(EXAMPLES), expected)
    np.testing.assert_array_equal(prior.responsibilities(EXAMPLES + 1e-3), expected)


def test_denoise_and_diffuse_agree_with_the_mixture_formulas():
    prior = MemorizedPrior(EXAMPLES, WEIGHTS)
    alpha, sigma = 0.8, np.array([0.3, 1.0, 3.0])
    value = np.random.default_rng(1).normal(size=(4, 3, 2, 3))
    diffused = prior.diffuse(alpha, sigma)
    assert isinstance(diffused, DiffusionMixturePrior)
    assert diffused.batch_shape == (3,)
    denoised = prior.denoise(value, alpha, sigma)
    r = diffused.responsibilities(value)
    np.testing.assert_allclose(
        denoised, np.einsum("...n,nij->...ij", r, EXAMPLES), rtol=1e-4, atol=1e-5
    )
    # Tweedie: alpha E[x0 | x] = x + sigma^2 score(x).
    tweedie = (value + sigma[:, None, None] ** 2 * diffused.score(value)) / alpha
    np.testing.assert_allclose(denoised, tweedie, rtol=1e-4, atol=1e-4)
    expected = DiffusionMixturePrior(EXAMPLES, sigma, alpha=alpha, weights=WEIGHTS)
    np.testing.assert_allclose(diffused.log_prob(value), expected.log_prob(value), rtol=1e-5)


def test_denoise_broadcasts_one_value_over_noise_levels():
    prior = MemorizedPrior(EXAMPLES)
    levels = np.array([1e-3, 1.0, 1e3])
    denoised = prior.denoise(EXAMPLES[2], 1.0, levels)
    assert denoised.shape == (3, 2, 3)
    np.testing.assert_array_equal(denoised[0], EXAMPLES[2])
    np.testing.assert_allclose(denoised[2], prior.mean, atol=1e-4)


def test_reweight_is_bayes_rule():
    prior = MemorizedPrior(EXAMPLES, WEIGHTS)
    log_likelihood = np.array([-1000.0, -1001.0, -999.0, 0.0, -np.inf])
    posterior = prior.reweight(log_likelihood)
    expected = np.array([0.1 * np.exp(-1), 0.2 * np.exp(-2), 0.3, 0.0, 0.0])
    np.testing.assert_allclose(posterior.weights, expected / expected.sum(), rtol=1e-4)
    np.testing.assert_allclose(prior.weights, WEIGHTS, rtol=1e-6)


def test_gradient_in_the_weights_is_finite_where_nothing_matches():
    def log_prob(weights, value):
        return MemorizedPrior(EXAMPLES, weights, validate_args=False).log_prob(value)

    gradient = jax.grad(log_prob)
    assert np.all(gradient(jnp.asarray(WEIGHTS), EXAMPLES[0] + 1) == 0)
    # d/dw_m of log(w_0 / sum w), here with sum w = 1.
    expected = np.array([1 / 0.1 - 1, -1, -1, -1, -1])
    np.testing.assert_allclose(
        gradient(jnp.asarray(WEIGHTS), EXAMPLES[0]), expected, rtol=1e-5, atol=1e-5
    )


def index_model(prior, data):
    index = numpyro.sample(
        "index", dist.Categorical(logits=prior.log_weights), infer={"enumerate": "parallel"}
    )
    offset = numpyro.sample("offset", dist.Normal(0.0, 1.0))
    numpyro.sample("data", dist.Normal(prior.examples[index] + offset, 0.5), obs=data)


def test_index_can_be_enumerated_under_nuts():
    """The route through `Categorical` that the class's documentation recommends."""
    pytest.importorskip("funsor")
    prior = MemorizedPrior(np.array([-1.0, 0.5, 3.0]), [1, 2, 1])
    mcmc = MCMC(NUTS(index_model), num_warmup=200, num_samples=1000, progress_bar=False)
    mcmc.run(jax.random.key(0), prior, 0.7)
    grid = np.linspace(-6, 6, 2001)
    examples, weights = np.asarray(prior.examples), np.asarray(prior.weights)
    density = np.exp(-(grid**2) / 2) * sum(
        w * np.exp(-((0.7 - x - grid) ** 2) / (2 * 0.25))
        for x, w in zip(examples, weights, strict=True)
    )
    expected = np.sum(grid * density) / np.sum(density)
    # 1000 correlated draws of standard deviation near 1: a standard error below 0.1.
    assert abs(float(mcmc.get_samples()["offset"].mean()) - expected) < 0.3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1.0, np.nan]],), ValueError, r"examples of shape \(1, 2\).*first at index \(0, 1\)"),
        (([[np.inf, 1.0]],), ValueError, "1 of its 2 values"),
        ((np.zeros((0, 3)),), ValueError, r"shape \(0, 3\).*at least one example"),
        ((np.zeros((3, 0)),), ValueError, r"shape \(3, 0\).*no empty axis"),
        ((3.0,), ValueError, r"scalar, expected shape \(N, \*event\)"),
        (("examples.npy",), TypeError, "array of real numbers, got str"),
        ((None,), TypeError, "array of real numbers, got NoneType"),
        (([[1.0, 2.0], [3.0]],), TypeError, "nested lists of equal lengths"),
        (([1j],), TypeError, "must be real, got dtype complex"),
        (([1.0, 2.0], [1.0]), ValueError, r"weights has shape \(1,\), expected \(2,\)"),
        (([1.0, 2.0], 1.0), ValueError, r"weights has shape \(\), expected \(2,\)"),
        (([1.0, 2.0], [1.0, -0.5]), ValueError, "least of the 2 is -0.5"),
        (([1.0, 2.0], [0, 0]), ValueError, "all 2 weights are zero"),
        (([1.0, 2.0], [1.0, np.nan]), ValueError, "weights.*NaN"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        MemorizedPrior(*arguments)
    # Known values are checked under jit too.
    with pytest.raises(error, match=message):
        jax.jit(lambda: MemorizedPrior(*arguments).mean)()


@pytest.mark.parametrize("method", ["log_prob", "responsibilities"])
def test_values_that_do_not_fit(method):
    call = getattr(MemorizedPrior(EXAMPLES).expand((4,)), method)
    with pytest.raises(ValueError, match=r"value has shape \(3, 2\).*event shape \(2, 3\)"):
        call(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"value \(5,\), batch_shape \(4,\)"):
        call(np.zeros((5, 2, 3)))
    with pytest.raises(ValueError, match="value has shape"):
        jax.jit(call)(np.zeros(2))


def test_noise_levels_and_factors_that_do_not_fit():
    prior = MemorizedPrior(EXAMPLES)
    with pytest.raises(ValueError, match="sigma must be positive"):
        prior.denoise(EXAMPLES, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"value \(5,\).*sigma \(3,\)"):
        prior.denoise(EXAMPLES, 1.0, np.ones(3))
    with pytest.raises(ValueError, match="alpha.*finite"):
        prior.diffuse(np.nan, 1.0)
    with pytest.raises(ValueError, match=r"log_factors has shape \(2,\), expected \(5,\)"):
        prior.reweight([0.0, 0.0])
    with pytest.raises(ValueError, match="all 5 log_factors are minus infinity"):
        prior.reweight([-np.inf] * 5)
