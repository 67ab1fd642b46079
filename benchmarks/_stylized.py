"""The stylized problems, and their posteriors by quadrature in NumPy float64.

What the benchmarks have in common; what is measured on it is left to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import ppl_memprior as mp
from ppl_memprior.forward import stylized


class Exact(NamedTuple):
    """A posterior on a grid of cells, in float64.

    Attributes:
        points: centres of the cells, shape (..., d).
        masses: probability of each cell, shape (...).
        bins: edges along each dimension of coarser bins, for draws.
        log_evidence: log p(data).
    """

    points: np.ndarray
    masses: np.ndarray
    bins: list[np.ndarray]
    log_evidence: float

    def to_density(self, posterior: Any) -> float:
        """Total variation to a posterior with a density."""
        flat = self.points.reshape(-1, self.points.shape[-1])
        points = flat[:, 0] if not posterior.event_shape else flat
        parts = [posterior.log_prob(part) for part in np.array_split(points, 40)]
        masses = np.exp(np.concatenate(parts, dtype=float)).reshape(self.masses.shape)
        return 0.5 * float(np.sum(np.abs(masses * self._cell() - self.masses)))

    def to_draws(self, posterior: mp.inference.PsisPosterior) -> float:
        """Total variation to weighted draws, over the bins."""
        d = self.points.shape[-1]
        draws = np.asarray(posterior.draws, float).reshape(-1, d)
        weights = np.exp(np.asarray(posterior.log_weights, float))
        counted = np.histogramdd(draws, self.bins, weights=weights)[0]
        flat = self.points.reshape(-1, d)
        exact = np.histogramdd(flat, self.bins, weights=self.masses.ravel())[0]
        return 0.5 * float(np.sum(np.abs(counted - exact)) + max(0.0, 1.0 - counted.sum()))

    def mode_weights(self, examples: np.ndarray) -> np.ndarray:
        """Probability of what lies nearest to each example (N, d), shape (N,)."""
        nearest = nearest_example(self.points, examples)
        return np.bincount(nearest.ravel(), self.masses.ravel(), minlength=len(examples))

    def _cell(self) -> float:
        axes = [np.unique(self.points[..., i]) for i in range(self.points.shape[-1])]
        return float(np.prod([axis[1] - axis[0] for axis in axes]))


def nearest_example(points: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """Number of the example (N, d) nearest to each point (..., d), shape (...)."""
    return np.argmin([np.sum((points - example) ** 2, axis=-1) for example in examples], axis=0)


def quadrature(
    forward: Callable[[np.ndarray], np.ndarray],
    examples: np.ndarray,
    data: np.ndarray,
    sigma: float,
    cells: int,
    bins: int,
) -> Exact:
    """The posterior from its formula, by the midpoint rule."""
    d = examples.shape[1]
    low, high = examples.min() - 5 * sigma - 1, examples.max() + 5 * sigma + 1
    edges = np.linspace(low, high, cells + 1)
    centres = 0.5 * (edges[1:] + edges[:-1])
    points = np.stack(np.meshgrid(*[centres] * d, indexing="ij"), axis=-1)
    squares = np.stack([np.sum((points - e) ** 2, axis=-1) for e in examples])
    log_prior = np.logaddexp.reduce(-0.5 * squares / sigma**2, axis=0) - np.log(len(examples))
    log_prior -= 0.5 * d * np.log(2 * np.pi * sigma**2)
    misfit = np.sum(((data - forward(points)) / stylized.NOISE) ** 2, axis=-1)
    log_joint = log_prior - 0.5 * misfit
    log_joint -= 0.5 * data.size * np.log(2 * np.pi * stylized.NOISE**2)
    log_cell = d * np.log(centres[1] - centres[0])
    log_evidence = np.logaddexp.reduce(log_joint, axis=None) + log_cell
    masses = np.exp(log_joint + log_cell - log_evidence)
    return Exact(points, masses, _bins(points, masses, bins), float(log_evidence))


def _bins(points: np.ndarray, masses: np.ndarray, bins: int) -> list[np.ndarray]:
    """Edges of bins over where all but a millionth of the mass is, in every dimension."""
    edges = []
    for i in range(points.shape[-1]):
        axis = np.unique(points[..., i])
        others = tuple(j for j in range(points.shape[-1]) if j != i)
        cumulated = np.cumsum(masses.sum(axis=others))
        low, high = np.searchsorted(cumulated, [5e-7, 1 - 5e-7])
        half = 0.5 * (axis[1] - axis[0])
        step = -(-(high - low + 1) // bins)  # cells in a bin: their edges coincide
        edges.append(axis[low] - half + 2 * half * step * np.arange(bins + 1))
    return edges


def cubic(x: np.ndarray) -> np.ndarray:
    """The one-dimensional map in NumPy."""
    return x + 0.3 * x**3


def quadratic(x: np.ndarray) -> np.ndarray:
    """The two-dimensional map in NumPy."""
    first, second = x[..., 0], x[..., 1]
    return np.stack([first + 0.3 * first * second, second + 0.2 * first**2], axis=-1)


def on_the_line(y: float, sigma: float) -> tuple[mp.InverseProblem, Exact]:
    """The one-dimensional problem for an observation and a bandwidth, and its posterior."""
    examples = np.asarray(stylized.EXAMPLES)[:, None]
    return line_problem(y, sigma), quadrature(cubic, examples, np.array([y]), sigma, 24_000, 60)


def line_problem(y: float, sigma: float) -> mp.InverseProblem:
    """The one-dimensional problem for an observation and a bandwidth."""
    return _problem(np.asarray(stylized.EXAMPLES), stylized.cubic, jnp.asarray(y), sigma)


def in_the_plane(y: tuple[float, float], sigma: float) -> tuple[mp.InverseProblem, Exact]:
    """The two-dimensional problem for an observation and a bandwidth, and its posterior."""
    examples = np.asarray(stylized.EXAMPLES_2D)
    problem = _problem(examples, stylized.quadratic, jnp.asarray(y), sigma)
    return problem, quadrature(quadratic, examples, np.array(y), sigma, 1000, 25)


def _problem(
    examples: np.ndarray, forward: Callable[[Any], Any], y: Any, sigma: float
) -> mp.InverseProblem:
    prior = mp.DiffusionMixturePrior(jnp.asarray(examples, jnp.float32), sigma)

    def model(data: Any = None) -> None:
        x = numpyro.sample("x", prior)
        noise = dist.Normal(forward(x), stylized.NOISE).to_event(len(prior.event_shape))
        numpyro.sample("y", noise, obs=data)

    return mp.InverseProblem(model, data=y)
