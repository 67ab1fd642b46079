"""Accuracy, invariances and bounds of the sums over stored examples."""

from functools import wraps

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from ppl_memprior import _batches
from ppl_memprior.distributions._mixture import differences as _differences
from ppl_memprior.distributions._mixture import nearest as _nearest
from ppl_memprior.distributions._mixture.examples import prepare

pytestmark = pytest.mark.arithmetic


def of_array(function):
    """The same function of examples in an array."""

    @wraps(function)
    def prepared(queries, examples, *parameters):
        return function(jnp.asarray(queries), prepare(jnp.asarray(examples)), *parameters)

    return prepared


log_density = of_array(_nearest.log_density)
score = of_array(_nearest.score)
responsibilities = of_array(_nearest.responsibilities)
posterior_mean = of_array(_nearest.posterior_mean)


@jax.jit
def log_density_and_gradient(queries, *parameters):
    value, pull_back = jax.vjp(lambda q: log_density(q, *parameters), queries)
    return value, pull_back(jnp.ones_like(value))[0]


def reference(queries, examples, log_weights, alpha, sigma):
    """Log-density, responsibilities and score in NumPy float64, one query at a time."""
    examples = np.asarray(examples, np.float64)
    log_weights = np.asarray(log_weights, np.float64)
    density, shares, scores = [], [], []
    for x, a, s in zip(*(np.asarray(v, np.float64) for v in (queries, alpha, sigma)), strict=True):
        difference = x - a * examples
        logits = log_weights - (difference**2).sum(1) / (2 * s**2)
        d = examples.shape[1]
        density.append(logsumexp(logits) - d * np.log(s) - 0.5 * d * np.log(2 * np.pi))
        shares.append(softmax(logits))
        scores.append(-(shares[-1] @ difference) / s**2)
    return np.array(density), np.array(shares), np.array(scores)


def problem(d, num, sigma, mean=0.0, spread=1.0, num_queries=4, dtype=np.float32, alpha=1.0):
    """Queries at the distance of a draw, as flat arrays of one dtype."""
    rng = np.random.default_rng(0)
    examples = (mean + spread * rng.normal(size=(num, d))).astype(dtype)
    picks = examples[rng.integers(num, size=num_queries)]
    queries = (alpha * picks + sigma * rng.normal(size=picks.shape)).astype(dtype)
    log_weights = np.log(rng.dirichlet(np.ones(num))).astype(dtype)
    fill = np.ones(num_queries, dtype)
    return queries, examples, log_weights, dtype(alpha) * fill, dtype(sigma) * fill


@pytest.mark.parametrize(
    ("d", "num", "sigma", "mean", "spread"),
    [
        (4900, 500, 0.01, 2.0, 0.3),
        (4900, 500, 10.0, 2000.0, 300.0),
        (100, 200, 0.001, 0.0, 1.0),
        (65536, 200, 0.01, 0.0, 1.0),
        (50, 100, 1e-6, 0.0, 1.0),
        (3, 40, 2.0, 0.0, 1.0),
        (10, 40, 1e-17, 1e-15, 1e-15),
    ],
)
def test_single_precision_in_the_memorized_regime(d, num, sigma, mean, spread):
    """Distances of a bandwidth among data of scale one, where the product form is wrong by tens."""
    arguments = problem(d, num, sigma, mean, spread, num_queries=2)
    density, shares, scores = reference(*arguments)
    value, gradient = log_density_and_gradient(*arguments)
    # 1e-5 relative is the package's goal; sums of d squares in float32 make about sqrt(d) eps.
    # The absolute part is for log-densities that happen to be small.
    np.testing.assert_allclose(value, density, rtol=1e-5, atol=1e-3)
    error = np.linalg.norm(gradient - scores, axis=1) / np.linalg.norm(scores, axis=1)
    assert np.all(error <= 1e-5)
    if d < 100:
        np.testing.assert_allclose(responsibilities(*arguments), shares, atol=1e-3)


def test_double_precision():
    with jax.enable_x64(True):
        arguments = problem(20, 30, 1e-5, dtype=np.float64, alpha=0.7)
        density, shares, scores = reference(*arguments)
        np.testing.assert_allclose(log_density(*arguments), density, rtol=1e-12)
        # alpha x_n is rounded in units of 1e-16, a 1e-11th of the bandwidth.
        error = np.abs(score(*arguments) - scores)
        assert np.max(error) <= 1e-10 * np.max(np.abs(scores))
        np.testing.assert_allclose(responsibilities(*arguments), shares, atol=1e-10)


def test_batches_change_nothing_and_bound_the_memory(monkeypatch):
    arguments = problem(6, 8, 0.8, num_queries=7)
    functions = (
        log_density,
        score,
        responsibilities,
        posterior_mean,
    )
    whole = [f(*arguments) for f in functions]
    two = 2 * 6 * 8 * _differences.COPIES  # numbers of two queries
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", two)
    for f, expected in zip(functions, whole, strict=True):
        # A new function object, because the jitted one has the old batch compiled in.
        batched = of_array(jax.jit(lambda *a, f=f: f.__wrapped__.__wrapped__(*a)))(*arguments)
        np.testing.assert_allclose(batched, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        score,
        posterior_mean,
        jax.grad(lambda *a: log_density(*a).sum()),
        jax.grad(lambda *a: log_density(*a).sum(), argnums=4),
        jax.grad(lambda *a: score(*a).sum()),
    ],
    ids=["score", "posterior_mean", "grad", "grad_sigma", "second"],
)
def test_memory_is_bounded_by_batches(function):
    num_queries, num, d = 512, 500, 400
    shapes = [(num_queries, d), (num, d), (num,), (num_queries,), (num_queries,)]
    arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    memory = jax.jit(function).lower(*arguments).compile().memory_analysis()
    if memory is None:
        pytest.skip("this backend does not report the memory of compiled programs")
    # All differences would take 410 MB; those of a batch take 17 MB, and a few of them are held,
    # most of them for second derivatives and those in sigma.
    assert memory.temp_size_in_bytes < 9 * 4 * _batches.BATCH_ELEMENTS / _differences.COPIES


EXTREMES = {
    "far from all examples": (np.full(3, 1e15), 0.1),
    "absurdly far": (np.full(3, 1e25), 1.0),
    "on an example": (None, 0.1),
    "bandwidth of a millionth": (np.full(3, 0.3), 1e-6),
}


@pytest.mark.parametrize(("query", "sigma"), EXTREMES.values(), ids=EXTREMES.keys())
def test_derivatives_are_finite_everywhere(query, sigma):
    _, examples, _, _, _ = problem(3, 5, 0.1)
    examples[1] = examples[0]  # coinciding examples
    query = examples[0] if query is None else query.astype(np.float32)
    with np.errstate(divide="ignore"):
        log_weights = np.log(np.array([0.4, 0.1, 0.0, 0.3, 0.2], np.float32))

    def one(q, centres, weights, alpha, s):
        return log_density(q[None], centres, weights, alpha[None], s[None])[0]

    arguments = (query, examples, log_weights, np.float32(1), np.float32(sigma))
    assert np.isfinite(one(*arguments))
    for gradient in jax.grad(one, argnums=(0, 1, 2))(*arguments):
        assert np.all(np.isfinite(gradient))
    if query[0] < 1e20:  # beyond, the derivatives in sigma and alpha exceed single precision
        for gradient in jax.grad(one, argnums=(3, 4))(*arguments):
            assert np.isfinite(gradient)
    assert np.all(np.isfinite(jax.hessian(one)(*arguments)))
    shares = responsibilities(query[None], examples, log_weights, *np.ones((2, 1)))
    np.testing.assert_allclose(shares.sum(), 1, rtol=1e-6)
    assert shares[0, 2] == 0


def test_posterior_mean_is_the_nearest_example_to_the_last_bit():
    queries, examples, log_weights, alpha, sigma = problem(20, 10, 1e-4, mean=1000.0)
    mean = posterior_mean(queries, examples, log_weights, alpha, sigma)
    nearest = ((queries[:, None] - examples) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(mean, examples[nearest])


# Properties. The shapes are fixed, so that every example reuses the compiled functions.
NUM, DIM, QUERIES = 6, 3, 2
finite = st.floats(-3, 3, width=32)
tables = st.lists(finite, min_size=NUM * DIM, max_size=NUM * DIM)
points = st.lists(finite, min_size=QUERIES * DIM, max_size=QUERIES * DIM)
masses = st.lists(st.floats(0.015625, 1, width=32), min_size=NUM, max_size=NUM)
mixtures = st.tuples(points, tables, masses, st.floats(0.25, 4, width=32))
quick = settings(max_examples=25, deadline=None)


def as_arguments(mixture):
    queries, examples, weights, sigma = (np.asarray(v, np.float32) for v in mixture)
    return (
        queries.reshape(QUERIES, DIM),
        examples.reshape(NUM, DIM),
        np.log(weights / weights.sum()),
        np.full(QUERIES, 0.5, np.float32),
        np.full(QUERIES, sigma),
    )


@quick
@given(mixtures, st.permutations(range(NUM)))
def test_order_of_examples_does_not_matter(mixture, order):
    q, x, w, a, s = as_arguments(mixture)
    order = np.array(order)
    np.testing.assert_allclose(
        log_density(q, x[order], w[order], a, s),
        log_density(q, x, w, a, s),
        rtol=1e-5,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        responsibilities(q, x[order], w[order], a, s),
        responsibilities(q, x, w, a, s)[:, order],
        atol=1e-5,
    )


@quick
@given(mixtures, st.integers(0, NUM - 2), st.floats(0.125, 0.875, width=32))
def test_weight_split_over_two_copies(mixture, which, share):
    q, x, w, a, s = as_arguments(mixture)
    x[NUM - 1] = x[which]  # the last example is a copy, which gets a share of the weight
    joined, split = np.exp(w), np.exp(w)
    joined[which] += joined[NUM - 1]
    joined[NUM - 1] = 0
    split[which], split[NUM - 1] = share * joined[which], (1 - share) * joined[which]
    with np.errstate(divide="ignore"):
        both = [np.log(v) for v in (joined, split)]
    for f in (log_density, score, posterior_mean):
        one, two = (f(q, x, v, a, s) for v in both)
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


@quick
@given(mixtures, st.integers(-8, 8))
def test_shift_of_everything(mixture, shift):
    """A shift by c of queries, and of alpha x_n: here by c / alpha = 2 c of the examples."""
    q, x, w, a, s = as_arguments(mixture)
    for f in (log_density, score, responsibilities):
        # Numbers up to 19 instead of 3 lose three bits.
        np.testing.assert_allclose(
            f(q + np.float32(shift), x + np.float32(2 * shift), w, a, s),
            f(q, x, w, a, s),
            rtol=1e-3,
            atol=1e-3,
        )


@quick
@given(mixtures, st.integers(-40, 40))
def test_change_of_units(mixture, power):
    """Powers of two scale exactly; the density changes by the volume of the unit."""
    q, x, w, a, s = as_arguments(mixture)
    unit = np.float32(2.0**power)
    scaled = (q * unit, x * unit, w, a, s * unit)
    np.testing.assert_allclose(
        log_density(*scaled) + DIM * power * np.log(2),
        log_density(q, x, w, a, s),
        rtol=1e-5,
        atol=1e-4,
    )
    np.testing.assert_allclose(score(*scaled) * unit, score(q, x, w, a, s), rtol=1e-4, atol=1e-5)
