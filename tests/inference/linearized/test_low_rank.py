"""The matrix-free factorization, its error estimate and the evidence bounds, against NumPy."""

from __future__ import annotations

import tracemalloc

import jax
import numpy as np
import pytest

from ppl_memprior.inference.linearized._gaussian_update import gaussian_update
from ppl_memprior.inference.linearized._low_rank import Products, low_rank
from ppl_memprior.inference.linearized._ordering import in_order_of_importance

pytestmark = pytest.mark.arithmetic

DECAYS = {
    "exponential": lambda i: 0.8**i,
    "cubic": lambda i: (1.0 + i) ** -1.5,
    "flat": lambda i: (1.0 + i) ** -0.5,
}


def random_problem(d, m, decay, seed, largest=30.0):
    rng = np.random.default_rng(seed)
    k = min(d, m)
    left = np.linalg.qr(rng.normal(size=(m, k)))[0]
    right = np.linalg.qr(rng.normal(size=(d, k)))[0]
    b = (left * (largest * DECAYS[decay](np.arange(k)))) @ right.T
    return b, b @ rng.normal(size=d) + rng.normal(size=m)


def log_evidence(b, r):
    covariance = np.eye(len(r)) + b @ b.T
    return -0.5 * (r @ np.linalg.solve(covariance, r) + np.linalg.slogdet(covariance)[1])


def factorize(b, r, seed, dtype=np.float32, **settings):
    b, r = b.astype(dtype), r.astype(dtype)
    settings = {"block": 16, "accuracy": 0.1, "max_rank": b.shape[1], **settings}
    return low_rank(
        Products(lambda v: v.astype(dtype) @ b.T, lambda u: u.astype(dtype) @ b),
        r,
        b.shape[1],
        key=jax.random.key(seed),
        **settings,
    )


def test_error_estimate_covers_the_error():
    """In 95 % of the problems: two standard errors of a random estimate."""
    covered, ranks = [], []
    for seed in range(60):
        d, m = [(60, 150), (150, 60), (200, 200), (64, 64)][seed % 4]
        b, r = random_problem(d, m, list(DECAYS)[seed % 3], seed)
        accuracy = [0.01, 0.1, 1.0, 10.0][seed // 4 % 4]
        found = factorize(b, r, seed, np.float64, accuracy=accuracy)
        error = gaussian_update(found.spectrum).log_evidence - log_evidence(b, r)
        # rounding of the dense reference
        covered.append(abs(error) <= found.truncation_error + 1e-9)
        ranks.append(len(found.spectrum.singular_values) / min(d, m))
        assert found.truncation_error <= accuracy
    assert np.mean(covered) >= 0.95
    assert np.mean(ranks) < 0.9  # and it stops early where it can


@pytest.mark.parametrize(("d", "m"), [(60, 150), (150, 60)])
def test_mean_and_covariance_in_single_precision(d, m):
    b, r = random_problem(d, m, "exponential", 1)
    found = factorize(b, r, 0, accuracy=1e-3)
    s, rows = found.spectrum.singular_values, found.spectrum.directions
    update = gaussian_update(found.spectrum)
    covariance = np.linalg.inv(np.eye(d) + b.T @ b)
    # float32 products of norm 30, and 1e-3 nats left out
    np.testing.assert_allclose(update.mean, covariance @ b.T @ r, atol=2e-3)
    np.testing.assert_allclose(
        np.eye(d) - (rows.T * (s**2 / (1 + s**2))) @ rows, covariance, atol=2e-3
    )
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(s)), atol=1e-10)
    np.testing.assert_allclose(update.log_evidence, log_evidence(b, r), atol=5e-3)


@pytest.mark.parametrize(("d", "m"), [(60, 150), (150, 60)])
@pytest.mark.parametrize("decay", DECAYS)
def test_strong_contraction_in_single_precision(d, m, decay):
    """Singular values from 1e4 down: their squares, 1e8, are beyond what float32 resolves."""
    b, r = random_problem(d, m, decay, 4, largest=1e4)
    b, r = b.astype(np.float32).astype(float), r.astype(np.float32).astype(float)
    found = factorize(b, r, 0)
    left, s, _ = np.linalg.svd(b, full_matrices=False)
    along = left.T @ r
    expected = r @ r - along @ along + np.sum(along**2 / (1 + s**2) + np.log1p(s**2))
    # float32 products are wrong by eps |B|, 1e-3 beside the noise's 1, in each direction
    error = gaussian_update(found.spectrum).log_evidence + 0.5 * expected
    assert abs(error) <= found.truncation_error + 0.02
    assert found.truncation_error <= 0.1


def test_one_singular_value_many_times():
    """A Krylov space of 16 vectors ends at once; random directions go on."""
    b, r = 3.0 * np.eye(70, 90), np.arange(70.0) / 10
    found = factorize(b, r, 0, np.float64)
    assert len(found.spectrum.singular_values) == 70
    np.testing.assert_allclose(found.spectrum.singular_values, 3.0, rtol=1e-12)
    np.testing.assert_allclose(
        gaussian_update(found.spectrum).log_evidence, log_evidence(b, r), rtol=1e-12
    )


def test_rows_of_the_data_are_not_kept():
    """At any time a few blocks of them, of a rank of 480."""
    m, d = 40_000, 600
    rng = np.random.default_rng(0)
    sparse = rng.integers(d, size=m)
    weights = rng.normal(size=(m, 1)).astype(np.float32)

    def pull(u):
        total = np.zeros((d, len(u)), np.float32)
        np.add.at(total, sparse, weights * u.T)
        return total.T

    products = Products(lambda v: (weights * v.T[sparse]).T, pull)
    tracemalloc.start()
    found = low_rank(
        products,
        rng.normal(size=m).astype(np.float32),
        d,
        key=jax.random.key(0),
        block=16,
        accuracy=1e-9,
        max_rank=480,
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.spectrum.singular_values) == 480
    assert peak < 20 * 16 * m * 4  # 480 rows would take half as much again


def test_complete_basis_and_zero_operator():
    b, r = random_problem(40, 50, "flat", 2)
    whole = factorize(b, r, 0, np.float64, accuracy=1e-12)
    assert len(whole.spectrum.singular_values) == 40 and whole.truncation_error == 0
    np.testing.assert_allclose(
        whole.spectrum.singular_values, np.linalg.svd(b, compute_uv=False), rtol=1e-9
    )
    nothing = factorize(np.zeros((50, 40)), r, 0)
    assert len(nothing.spectrum.singular_values) == 0 and nothing.truncation_error == 0


def test_max_rank_stops_and_the_estimate_says_what_it_costs():
    b, r = random_problem(150, 200, "cubic", 3)
    found = factorize(b, r, 0, np.float64, max_rank=20, accuracy=1e-6)
    assert len(found.spectrum.singular_values) == 20
    error = gaussian_update(found.spectrum).log_evidence - log_evidence(b, r)
    assert 0.1 < abs(error) <= found.truncation_error


def test_important_components_first():
    log_weights = np.log(np.full(6, 1 / 6))
    values = np.array([-50.0, -1.0, -80.0, -3.0, -200.0, -2.0])
    asked = []

    def work(indices, least):
        asked.extend(indices.tolist())
        return [{"log_evidence": values[n]} for n in indices]

    slack = np.array([1.0, 0.5, 2.0, 0.0, 3.0, 4.0])
    loose = slack + np.array([1.0, 9.0, 100.0, 9.0, 1.0, 9.0])
    touched, tightened = [], []

    def tighten_a_little(indices):
        touched.extend(indices.tolist())
        return (values + loose)[indices] - 0.1

    def tighten(indices):
        tightened.extend(indices.tolist())
        return (values + slack)[indices]

    settings = {"at_once": 1, "progress": False}
    results, rest = in_order_of_importance(
        work, [tighten_a_little, tighten], log_weights, values + loose, 1e-6, **settings
    )
    assert asked == [5, 1, 3] and set(results) == {1, 3, 5}
    assert tightened == [2, 5, 1, 3]  # those that looked as if they could matter, and no others
    assert set(touched) == set(tightened)
    left = values + np.where(np.isin(range(6), tightened), slack, loose)
    expected = np.exp(left[[0, 2, 4]]).sum() / np.exp(values[[1, 3, 5]]).sum()
    np.testing.assert_allclose(rest, expected, rtol=1e-9)
    asked.clear(), tightened.clear()
    results, rest = in_order_of_importance(
        work, [tighten_a_little, tighten], log_weights, values + loose, 0.0, **settings
    )
    assert len(results) == 6 and rest == 0 and not tightened


def test_components_that_turn_out_not_to_matter_are_given_up():
    """Each is given up once, at a bound that is low enough beside those that are finished."""
    values = np.array([-60.0, -3.0, -45.0, -1.0, -30.0])
    log_weights = np.log(np.full(5, 1 / 5))
    asked, given_up = [], {}

    def work(indices, least):
        (n,) = indices.tolist()
        asked.append(n)
        bound = values[n] + 10.0  # known before the component is finished
        if bound < least[0]:
            given_up[n] = bound
            return [bound]
        return [{"log_evidence": values[n]}]

    results, rest = in_order_of_importance(
        work, [], log_weights, np.zeros(5), 1e-6, at_once=1, first=3, progress=False
    )
    assert asked[0] == 3 and sorted(asked) == [0, 1, 2, 3, 4]
    assert set(results) == {1, 3} and set(given_up) == {0, 2, 4}
    expected = np.exp([*given_up.values()]).sum() / np.exp(values[[1, 3]]).sum()
    np.testing.assert_allclose(rest, expected, rtol=1e-9)
    assert rest <= 1e-6


@pytest.mark.parametrize("decay", DECAYS)
def test_bound_on_the_evidence_holds_in_every_round(decay):
    b, r = random_problem(80, 120, decay, 7)
    exact, bounds = log_evidence(b, r), []

    def look(rank, error, bound):
        bounds.append(bound)
        return False

    factorize(b, r, 7, np.float64, accuracy=1e-6, block=8, enough=look)
    # rounding of the dense reference
    assert len(bounds) > 2 and np.all(np.array(bounds) >= exact - 1e-8)
    assert bounds[-1] - exact < 0.1 * (bounds[0] - exact)  # and comes down to it
