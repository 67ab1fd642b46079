"""Each way of summing over stored examples: that it is taken, and that it is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import special_ortho_group

from ppl_memprior import _batches
from ppl_memprior.distributions._mixture import mixtures, sums
from ppl_memprior.distributions._mixture import nearest as _nearest
from ppl_memprior.distributions._mixture import screening as _screening
from ppl_memprior.distributions._mixture.examples import Examples, prepare

from .reference import clusters, queries_of, reference, relative_error

pytestmark = pytest.mark.arithmetic

NUM, DIM = 640, 48

# (members of a cluster, their distance, bandwidth): what each query has to do
REGIMES = {
    "fewest": (1, 1.0, 0.01),
    "few": (10, 1e-3, 2e-3),
    "product": (1, 1.0, 6.0),
    "some": (80, 1e-3, 2e-3),
    "all": (320, 1e-3, 2e-3),
}


def regime(name, alpha=1.0, dtype=np.float32):
    size, width, sigma = REGIMES[name]
    examples = clusters(NUM, size, DIM, width, dtype=dtype)
    queries, *parameters = queries_of(examples, sigma, alpha=alpha)
    return queries, examples, *parameters


def ways(arguments):
    """Which ways `evaluate` would take for each query, by the functions that it decides with."""
    arguments = jax.tree.map(jnp.asarray, arguments)
    found = _screening.screen(*arguments, k=_screening.FEWEST)
    more = _screening.widen(found, _screening.FEW)
    most = _screening.widen(found, mixtures._SOME)
    exact = sums.by_refinement(lambda mixture: mixture.logits, more, *arguments)
    _, agrees = mixtures._compare(more, exact, *arguments)
    flags = {
        "fewest": mixtures._is_enough(found, NUM),
        "few": mixtures._is_enough(more, NUM),
        "product": agrees,
        "some": mixtures._is_enough(most, NUM),
    }
    chosen = np.full(len(arguments[0]), "all", dtype="<U8")
    for name in reversed(flags):
        chosen[np.asarray(flags[name])] = name
    return set(chosen)


@pytest.mark.parametrize("name", REGIMES)
def test_every_way_is_taken_and_accurate(name):
    queries, examples, *parameters = regime(name)
    arguments = (queries, prepare(examples), *parameters)
    assert ways(arguments) == {name}
    expected = reference(queries, examples, *parameters)
    # In float32: 1e-5 is the package's goal, for what is of the size of the data or larger.
    assert relative_error(_nearest.log_density(*arguments), expected.log_density) < 1e-5
    assert relative_error(_nearest.score(*arguments), expected.score) < 1e-5
    assert relative_error(_nearest.posterior_mean(*arguments), expected.posterior_mean) < 1e-5
    shares = _nearest.responsibilities(*arguments)
    # Logits of about d / 2 = 24, and of their differences, are rounded to a few 1e-6.
    np.testing.assert_allclose(shares, expected.responsibilities, atol=2e-5)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)


def test_queries_of_all_regimes_together():
    """One hard query does not change what the others get."""
    queries, examples, log_weights, alpha, _ = regime("all")
    queries[0] = 3 * queries[0]
    sigma = np.array([10.0, 2e-3, 0.3, 1e-5], np.float32)
    arguments = (queries, prepare(examples), log_weights, alpha, sigma)
    assert ways(arguments) == {"product", "all"}
    expected = reference(queries, examples, log_weights, alpha, sigma)
    assert relative_error(_nearest.log_density(*arguments), expected.log_density) < 1e-5
    assert relative_error(_nearest.score(*arguments), expected.score) < 1e-5


def test_double_precision_and_a_scale():
    with jax.enable_x64(True):
        for name in ("fewest", "product", "all"):
            queries, examples, *parameters = regime(name, alpha=0.7, dtype=np.float64)
            arguments = (queries, prepare(examples), *parameters)
            expected = reference(queries, examples, *parameters)
            # alpha x_n is rounded in units of 1e-16, a 1e-13th of the bandwidth; squared, d times.
            assert relative_error(_nearest.log_density(*arguments), expected.log_density) < 1e-11
            assert relative_error(_nearest.score(*arguments), expected.score) < 1e-11


def test_batches_of_examples_change_nothing(monkeypatch):
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 1)  # batches of the least size
    queries, examples, *_ = regime("few")
    examples = np.concatenate([examples, examples[::-1] + 1, examples * 0.9])  # two batches
    _, log_weights, alpha, sigma = queries_of(examples, 2e-3)
    sigma[1] = 9.0  # one query needs all examples
    arguments = (queries, prepare(examples), log_weights, alpha, sigma)
    found = _screening.screen(*arguments, k=_screening.FEWEST)
    assert found.all_logits is None
    expected = reference(queries, examples, log_weights, alpha, sigma)
    evaluate = jax.jit(
        lambda *a: mixtures.evaluate(
            lambda mixture: (
                _nearest._log_density_and_score_of(mixture),
                _nearest._responsibilities_of(mixture),
            ),
            *a,
        )
    )
    (density, score), shares = evaluate(*arguments)
    assert relative_error(density, expected.log_density) < 1e-5
    assert relative_error(score, expected.score) < 1e-5
    np.testing.assert_allclose(shares, expected.responsibilities, atol=2e-5)


def test_weights_of_zero_never_count():
    queries, examples, log_weights, alpha, sigma = regime("few")
    nearest = np.argmin(((queries[:, None] - examples) ** 2).sum(-1), axis=1)
    log_weights = log_weights.copy()
    log_weights[nearest] = -np.inf
    log_weights[5:-9] = -np.inf  # fewer are left than are looked for
    arguments = (queries, prepare(examples), log_weights, alpha, sigma)
    expected = reference(queries, examples, log_weights, alpha, sigma)
    assert relative_error(_nearest.log_density(*arguments), expected.log_density) < 1e-5
    shares = _nearest.responsibilities(*arguments)
    assert np.all(np.asarray(shares)[:, np.isneginf(log_weights)] == 0)
    gradient = jax.grad(lambda w: _nearest.log_density(*arguments[:2], w, alpha, sigma).sum())(
        jnp.asarray(log_weights)
    )
    np.testing.assert_allclose(gradient, expected.responsibilities.sum(0), atol=2e-5)


@pytest.mark.parametrize("name", ["few", "product", "all"])
def test_derivatives_in_every_argument(name):
    """Against the formulas in float64: score, denoiser Jacobian, Hessian, and all parameters."""
    with jax.enable_x64(True):
        queries, examples, log_weights, alpha, sigma = regime(name, alpha=0.9, dtype=np.float64)
        queries, alpha, sigma = queries[:2], alpha[:2], sigma[:2]
        rows = prepare(examples)
        expected = reference(queries, examples, log_weights, alpha, sigma)
        r, scale = expected.responsibilities, alpha[0] / sigma[0] ** 2
        direction = np.random.default_rng(3).normal(size=queries.shape)

        # The Jacobian of the posterior mean is alpha / sigma^2 times the covariance under r.
        difference = examples - expected.posterior_mean[:, None]
        along = np.einsum("qnd,qd->qn", difference, direction)
        product = scale * np.einsum("qn,qn,qnd->qd", r, along, difference)

        def mean(q):
            return _nearest.posterior_mean(q, rows, log_weights, alpha, sigma)

        tangent = jax.jvp(mean, (queries,), (direction,))[1]
        assert relative_error(tangent, product) < 1e-8
        (cotangent,) = jax.vjp(mean, queries)[1](direction)
        assert relative_error(cotangent, product) < 1e-8  # a symmetric matrix

        def total(q, w, a, s):
            return _nearest.log_density(q, rows, w, a, s).sum()

        arguments = (queries, log_weights, alpha, sigma)
        hessian_product = jax.jvp(
            jax.grad(total), arguments, (direction, *(np.zeros_like(v) for v in arguments[1:]))
        )[1]
        assert relative_error(hessian_product, scale * product - direction / sigma[0] ** 2) < 1e-8

        gradients = jax.grad(total, argnums=(0, 1, 2, 3))(*arguments)
        z = (queries[:, None] - alpha[0] * examples) / sigma[0]
        moments = {
            "queries": expected.score,
            "log_weights": r.sum(0),
            "alpha": np.einsum("qn,qnd,nd->q", r, z, examples) / sigma,
            "sigma": (np.einsum("qn,qnd->q", r, z**2) - DIM) / sigma,
        }
        for found, (argument, formula) in zip(gradients, moments.items(), strict=True):
            # alpha x_n cancels against x to 1e-16 / sigma, d times.
            np.testing.assert_allclose(found, formula, rtol=1e-8, atol=1e-8, err_msg=argument)


def test_under_vmap_as_in_a_batch():
    """In the hardest regime, where a branch that is taken for all must not be left out."""
    queries, examples, log_weights, alpha, sigma = regime("all")
    sigma = sigma * np.array([1, 1000, 1e-3, 1], np.float32)
    rows = prepare(examples)

    def one(q, a, s):
        return _nearest.log_density(q[None], rows, log_weights, a[None], s[None])[0]

    value, score = jax.jit(jax.vmap(jax.value_and_grad(one)))(queries, alpha, sigma)
    expected = reference(queries, examples, log_weights, alpha, sigma)
    assert relative_error(value, expected.log_density) < 1e-5
    assert relative_error(score, expected.score) < 1e-5


def test_bound_holds_where_rounding_is_worst():
    """Data far from the origin and of one sign, so that errors add up instead of cancelling."""
    rng = np.random.default_rng(0)
    examples = np.float32(1000) + rng.uniform(0, 1, size=(200, 3000)).astype(np.float32) ** 8
    queries, log_weights, alpha, sigma = queries_of(examples, 0.5, alpha=0.37)
    found = _screening.screen(
        queries, prepare(examples), log_weights, alpha, sigma, k=_screening.FEWEST
    )
    difference = queries[:, None].astype(np.float64) - float(alpha[0]) * examples
    exact = log_weights - (difference**2).sum(-1) / (2 * float(sigma[0]) ** 2)
    assert np.all(exact.max(1) >= found.floor)
    error, bound = np.abs(exact - found.all_logits), np.asarray(found.error)[:, None]
    assert np.all(error <= bound)
    others = np.sort(exact, axis=1)[:, : -found.indices.shape[1]]
    assert np.all(logsumexp(others, axis=1) <= found.rest + np.log(200))
    assert np.all(logsumexp(others, axis=1) <= _screening.widen(found, 4).rest + np.log(200))
    assert np.max(error / bound) > 1e-5  # not so wide that it says nothing


def test_two_stage_selection_is_top_k():
    values = np.random.default_rng(0).normal(size=(5, 1003)).astype(np.float32)
    values[2] = values[2, 0]  # ties
    values[3, 10:] = -np.inf
    for k in (1, 5, 17):
        top, index = _screening._largest(jnp.asarray(values), k)
        np.testing.assert_array_equal(top, jax.lax.top_k(values, k)[0])
        np.testing.assert_array_equal(np.take_along_axis(values, np.asarray(index), 1), top)
        assert all(len(set(row)) == k for row in np.asarray(index))


@pytest.mark.parametrize("name", ["fewest", "all"])
@pytest.mark.parametrize("k", [1, 5, NUM])
def test_nearest_examples(name, k):
    queries, examples, *_ = regime(name)
    queries[0] = examples[-1]  # on an example
    distance, index = _nearest.nearest(queries, prepare(examples), k)
    exact = np.linalg.norm(queries[:, None].astype(np.float64) - examples, axis=-1)
    np.testing.assert_allclose(distance, np.sort(exact, axis=1)[:, :k], rtol=1e-5)
    # Neighbours at distances that differ by their rounding may change places.
    found = np.take_along_axis(exact, np.asarray(index), axis=1)
    np.testing.assert_allclose(found, np.sort(exact, axis=1)[:, :k], rtol=1e-5)
    assert index[0, 0] == NUM - 1 and distance[0, 0] == 0


def test_rotation_changes_nothing():
    queries, examples, log_weights, alpha, sigma = regime("few")
    turn = special_ortho_group.rvs(DIM, random_state=0)
    turned = [(v.astype(np.float64) @ turn).astype(np.float32) for v in (queries, examples)]
    plain = _nearest.log_density(queries, prepare(examples), log_weights, alpha, sigma)
    # Turning rounds positions of size 5 to 3e-7, a 1e-4th of the bandwidth, in 48 dimensions.
    other = _nearest.log_density(turned[0], prepare(turned[1]), log_weights, alpha, sigma)
    np.testing.assert_allclose(plain, other, rtol=1e-4)


@pytest.mark.slow
def test_finite_far_away_on_examples_and_at_tiny_bandwidths():
    examples = clusters(128, 1, 32, 1.0)
    examples[1] = examples[0]  # coinciding examples
    ones = np.ones(32, np.float32)
    queries = np.stack([1e15 * ones, 1e25 * ones, examples[0], examples[0] + 1e-6, 0.3 * ones])
    sigma = np.array([0.1, 1.0, 0.1, 1e-6, 1e-6], np.float32)
    log_weights = np.full(128, -np.log(127), np.float32)
    log_weights[7] = -np.inf
    rows, alpha = prepare(examples), np.ones(5, np.float32)

    def total(q, w, s):
        return _nearest.log_density(q, rows, w, alpha, s).sum()

    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(
        queries, log_weights, sigma
    )
    assert np.isfinite(value)
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))
    _, curvature = jax.jvp(
        lambda q: _nearest.score(q, rows, log_weights, alpha, sigma),
        (queries,),
        (np.ones_like(queries),),
    )
    assert np.all(np.isfinite(curvature))
    near = slice(2, None)  # farther, derivatives in sigma exceed single precision
    in_sigma = jax.grad(total, argnums=2)(queries, log_weights, sigma)
    assert np.all(np.isfinite(in_sigma[near]))
    shares = _nearest.responsibilities(queries, rows, log_weights, alpha, sigma)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    assert np.all(shares[:, 7] == 0)


@pytest.mark.parametrize("order", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_higher_derivatives_in_the_product_regime(order):
    """Of what screening has computed once: against finite differences of one order less."""
    with jax.enable_x64(True):
        queries, examples, log_weights, alpha, sigma = regime("product", dtype=np.float64)
        query, rows = queries[:1], prepare(examples)
        direction = np.random.default_rng(2).normal(size=query.shape)
        direction /= np.linalg.norm(direction)

        def along(t):  # a line through x, log sigma and alpha
            return _nearest.log_density(
                query + 20 * t * direction,
                rows,
                log_weights,
                1 + 0.3 * t[None],
                6 * jnp.exp(t[None]),
            )[0]

        lower = along
        for _ in range(order - 1):
            lower = jax.grad(lower)
        higher, lower = jax.jit(jax.grad(lower)), jax.jit(lower)
        step = 1e-4
        difference = (lower(jnp.asarray(step)) - lower(jnp.asarray(-step))) / (2 * step)
        # Central differences: an error of step^2 times the derivative after the next, some 1e-6.
        np.testing.assert_allclose(higher(jnp.zeros(())), difference, rtol=1e-5)


def test_coinciding_examples_do_not_vouch_for_the_others():
    """The nearest 20 are one example; the others, as likely together, are far from it."""
    rng = np.random.default_rng(0)
    d, sigma = 16, 1.5e-3
    first = rng.normal(size=d)
    others = rng.normal(size=(59, d))
    others = first + 0.06 * np.linalg.norm(first) * others / np.linalg.norm(others, axis=1)[:, None]
    far = 10 * rng.normal(size=(100, d))
    examples = np.concatenate([np.repeat(first[None], 20, 0), others, far]).astype(np.float32)
    queries = examples[:1] + np.float32(0.03) * (examples[20:21] - examples[:1])
    half = ((queries - examples) ** 2).sum(1) / (2 * sigma**2)
    log_weights = np.zeros(len(examples))
    log_weights[20:79] = half[20:79] - half[0] - 1.0  # as likely, one nat each below
    log_weights = (log_weights - logsumexp(log_weights)).astype(np.float32)
    fill = np.ones(1, np.float32)
    arguments = (queries, prepare(examples), log_weights, fill, np.float32(sigma) * fill)
    # Logits of 1e4 are rounded in units of 1e-3 by any arithmetic; plain differences set the mark.
    plain = _nearest.responsibilities(arguments[0], Examples(jnp.asarray(examples)), *arguments[2:])
    np.testing.assert_allclose(_nearest.responsibilities(*arguments), plain, atol=1e-6)
    assert 0.3 < plain[0, :20].sum() < 0.7  # both kinds count


@pytest.mark.parametrize("num", [80, 300, 700])
def test_indices_in_double_precision(num):
    with jax.enable_x64(True):
        examples = np.random.default_rng(0).normal(size=(num, 32))
        _, index = _nearest.nearest(examples[:1], prepare(examples), 3)
        assert index[0, 0] == 0 and index.dtype == jnp.int32
