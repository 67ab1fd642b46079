"""The mixture over stored examples in NumPy float64, and the regimes that its sums tell apart."""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax


class Reference(NamedTuple):
    """Statistics of one mixture at queries (Q, d), in float64."""

    log_density: np.ndarray
    score: np.ndarray
    responsibilities: np.ndarray
    posterior_mean: np.ndarray


def reference(queries, examples, log_weights, alpha, sigma) -> Reference:
    """Evaluate by differences, one query at a time."""
    examples = np.asarray(examples, np.float64)
    log_weights = np.asarray(log_weights, np.float64)
    found = []
    for x, a, s in zip(*(np.asarray(v, np.float64) for v in (queries, alpha, sigma)), strict=True):
        difference = x - a * examples
        logits = log_weights - (difference**2).sum(1) / (2 * s**2)
        d = examples.shape[1]
        shares = softmax(logits)
        density = logsumexp(logits) - d * np.log(s) - 0.5 * d * np.log(2 * np.pi)
        found.append((density, -(shares @ difference) / s**2, shares, shares @ examples))
    return Reference(*(np.array(field) for field in zip(*found, strict=True)))


def relative_error(found, expected) -> float:
    """The largest |found - expected| / |expected| over queries; norms over what follows them."""
    found = np.asarray(found, np.float64).reshape(len(expected), -1)
    expected = np.asarray(expected).reshape(len(expected), -1)
    error = np.linalg.norm(found - expected, axis=1)
    return float(np.max(error / np.linalg.norm(expected, axis=1)))


def clusters(num, size, d, width, *, mean=5.0, dtype=np.float32):
    """Examples in clusters of `size`, whose members differ by `width` in each dimension."""
    rng = np.random.default_rng(0)
    centres = mean + rng.normal(size=(num // size, d))
    examples = np.repeat(centres, size, axis=0) + width * rng.normal(size=(num, d))
    return examples.astype(dtype)


def queries_of(examples, sigma, num_queries=4, alpha=1.0):
    """Examples of all parts of the table with noise of the bandwidth, and their parameters."""
    rng = np.random.default_rng(1)
    dtype = examples.dtype.type
    num = len(examples)
    picks = alpha * examples[np.linspace(0, num - 1, num_queries).astype(int)]
    queries = (picks + sigma * rng.normal(size=picks.shape)).astype(dtype)
    log_weights = np.log(rng.dirichlet(5 * np.ones(num))).astype(dtype)
    fill = np.ones(num_queries, dtype)
    return queries, log_weights, dtype(alpha) * fill, dtype(sigma) * fill
