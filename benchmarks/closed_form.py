"""How accurate the closed-form posteriors are, what they cost, and how far they reach.

Three tables, as Markdown. The distance of the linearized, the iterated and the importance-corrected
posterior to quadrature, in one and two dimensions; the time of linearizing all components against
a loop of backward passes, in one process; and, where OpenFWI velocity models are given, a full
waveform inversion in pixel space. Run it on a quiet machine:

    python benchmarks/closed_form.py [--fwi FOLDER_OF_OPENFWI_MODELS]
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import ppl_memprior as mp
from ppl_memprior.forward import stylized

try:
    import torch
except ImportError:
    torch = None

BANDWIDTHS = (0.5, 0.3, 0.05)
ITERATIONS = 50


# --- distance to quadrature -----------------------------------------------------------------------


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

    def _cell(self) -> float:
        axes = [np.unique(self.points[..., i]) for i in range(self.points.shape[-1])]
        return float(np.prod([axis[1] - axis[0] for axis in axes]))


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


def stylized_problems() -> Iterator[tuple[str, mp.InverseProblem, Exact]]:
    """Every bandwidth and three observations, in one and two dimensions."""
    line = np.asarray(stylized.EXAMPLES)
    plane = np.asarray(stylized.EXAMPLES_2D)

    def model(prior: Any, forward: Any, data: Any = None) -> None:
        x = numpyro.sample("x", prior)
        noise = dist.Normal(forward(x), stylized.NOISE).to_event(len(prior.event_shape))
        numpyro.sample("y", noise, obs=data)

    for y in (0.0, 1.5, 3.0):
        for sigma in BANDWIDTHS:
            prior = mp.DiffusionMixturePrior(jnp.asarray(line, jnp.float32), sigma)
            problem = mp.InverseProblem(partial(model, prior, stylized.cubic), data=y)
            exact = quadrature(cubic, line[:, None], np.array([y]), sigma, 24_000, 60)
            yield f"1-D | {y:g} | {sigma:g}", problem, exact
    for y in ((0.0, 0.0), (0.5, 0.5), (2.0, 1.0)):
        for sigma in BANDWIDTHS:
            prior = mp.DiffusionMixturePrior(jnp.asarray(plane, jnp.float32), sigma)
            problem = mp.InverseProblem(
                partial(model, prior, stylized.quadratic), data=jnp.asarray(y)
            )
            exact = quadrature(quadratic, plane, np.array(y), sigma, 1000, 25)
            yield f"2-D | ({y[0]:g}, {y[1]:g}) | {sigma:g}", problem, exact


def accuracy_table(num_draws: int) -> None:
    print(
        "| problem | data | sigma | linearized | iterated | corrected | k-hat "
        "| log-evidence: quadrature | linearized | iterated | corrected |\n" + "|---" * 11 + "|"
    )
    for name, problem, exact in stylized_problems():
        plain = mp.linearize(problem)
        iterated = mp.linearize(problem, iterations=ITERATIONS)
        corrected = mp.psis(problem, iterated, jax.random.key(0), num_draws=num_draws)
        distances = [exact.to_density(plain), exact.to_density(iterated), exact.to_draws(corrected)]
        found = " | ".join(f"{distance:.4f}" for distance in distances)
        print(
            f"| {name} | {found} | {corrected.khat:.2f} | {exact.log_evidence:.4f} | "
            f"{plain.log_evidence:.4f} | {iterated.log_evidence:.4f} | "
            f"{corrected.log_evidence:.4f} ± {corrected.log_evidence_error:.4f} |",
            flush=True,
        )


# --- time -----------------------------------------------------------------------------------------


def speed_table(num: int, d: int, m: int, looped: int, repeats: int) -> None:
    """`linearize` against a backward pass for every datum of every component.

    The loops are timed on `looped` components; each component costs them the same.
    """
    rng = np.random.default_rng(0)
    examples = rng.normal(size=(num, d)).astype(np.float32)
    operator = (rng.normal(size=(m, d)) / np.sqrt(d)).astype(np.float32)
    data = np.tanh(operator @ examples[0]).astype(np.float32)

    def model(data: Any = None) -> None:
        x = numpyro.sample("x", mp.DiffusionMixturePrior(jnp.asarray(examples), 0.1))
        numpyro.sample("y", dist.Normal(jnp.tanh(operator @ x), 0.1).to_event(1), obs=data)

    problem = mp.InverseProblem(model, data=data)
    pull = jax.jit(lambda x, u: jax.vjp(lambda v: jnp.tanh(operator @ v), x)[1](u)[0])
    rows = jnp.eye(m)

    def ours() -> None:
        jax.block_until_ready(mp.linearize(problem).locs)

    def loop_in_jax() -> None:
        for x in examples[:looped]:
            jax.block_until_ready([pull(x, row) for row in rows])

    def loop_in_torch() -> None:
        matrix = torch.from_numpy(operator)
        for example in examples[:looped]:
            x = torch.from_numpy(example).requires_grad_()
            y = torch.tanh(matrix @ x)
            for i in range(m):
                torch.autograd.grad(y[i], x, retain_graph=True)

    sides = [("linearize, everything", ours, 1.0)]
    sides.append(("loop of compiled backward passes (JAX)", loop_in_jax, num / looped))
    if torch is not None:
        sides.append(("loop of backward passes (PyTorch)", loop_in_torch, num / looped))
    times: dict[str, list[float]] = {name: [] for name, _, _ in sides}
    for _, function, _ in sides:
        function()
    for _ in range(repeats):
        for name, function, factor in sides:
            start = time.perf_counter()
            function()
            times[name].append(factor * (time.perf_counter() - start))
    base = float(np.median(times[sides[0][0]]))
    print(f"N = {num}, d = {d}, m = {m}; medians of {repeats} turns.\n")
    print("| what | seconds | ratio |\n|---|---|---|")
    for name, measured in times.items():
        median = float(np.median(measured))
        print(f"| {name} | {median:.3g} | {median / base:.1f} |", flush=True)


# --- full waveform inversion in pixel space -------------------------------------------------------


def fwi_table(path: str, accuracy: float, max_rank: int, sigma: float, noise: float) -> None:
    """A complete posterior over 70 x 70 velocities from 350,000 data and 50 examples."""
    models = mp.datasets.load_openfwi(path, max_models=51)
    survey = mp.forward.Survey.surface(
        (70, 70), num_shots=5, num_receivers=70, peak_frequency=15.0, dt=0.001, num_times=1000
    )
    wave = mp.forward.ScalarWave(survey, 10.0, max_velocity=5000.0)
    clean = wave(jnp.asarray(models[50]))
    scale = noise * float(jnp.abs(clean).max())
    data = clean + scale * jax.random.normal(jax.random.key(0), clean.shape)

    def model(data: Any = None) -> None:
        v = numpyro.sample("v", mp.DiffusionMixturePrior(jnp.asarray(models[:50]), sigma))
        numpyro.sample("data", dist.Normal(wave(v), scale).to_event(3), obs=data)

    start = time.perf_counter()
    problem = mp.InverseProblem(model, data=data)
    posterior = mp.linearize(problem, accuracy=accuracy, max_rank=max_rank, progress=True)
    draws = posterior.sample(jax.random.key(1), (100,))
    stddev = np.sqrt(np.asarray(posterior.variance))
    jax.block_until_ready(draws)
    seconds = time.perf_counter() - start
    report = posterior.report
    done = np.flatnonzero(report.linearized)
    best = int(np.argmax(posterior.log_weights))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    error = np.sqrt(np.mean((np.asarray(posterior.mean) - models[50]) ** 2))
    nearest = np.sqrt(np.mean((models[best] - models[50]) ** 2))
    rows = {
        "data, unknowns, examples": f"{data.size:,}, {models[0].size:,}, 50",
        "bandwidth, m/s; noise, share of the peak": f"{sigma:g}; {noise:g}",
        "wall time of everything, s": f"{seconds:.0f}",
        "largest resident memory, GiB": f"{peak:.2f}",
        "components linearized; neglected mass": f"{done.size}; {posterior.neglected_mass:.2g}",
        "rank": ", ".join(str(int(report.rank[n])) for n in done),
        "truncation error, nats": ", ".join(f"{report.truncation_error[n]:.2g}" for n in done),
        "log-evidence": f"{posterior.log_evidence:.1f}",
        "example with the largest weight; weight": f"{best}; "
        f"{float(np.exp(posterior.log_weights[best])):.4f}",
        "reduced chi-square: at that example, linearized at the mean, at the mean": ", ".join(
            f"{float(value[best]) / data.size:.4f}"
            for value in (report.misfit, report.linearized_misfit, report.misfit_at_mean)
        ),
        "rms error of that example; of the posterior's mean, m/s": f"{nearest:.0f}; {error:.0f}",
        "posterior standard deviation, m/s": f"{stddev.min():.0f} to {stddev.max():.0f}",
        "forward solves; Jacobian products": f"{posterior.num_forward_evaluations}; "
        f"{posterior.num_gradient_evaluations}",
    }
    print("| what | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=1_000_000, help="of the correction")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--fwi", help="OpenFWI models: also invert in pixel space")
    parser.add_argument("--accuracy", type=float, default=1.0, help="of that inversion, nats")
    parser.add_argument("--max-rank", type=int, default=256, help="of that inversion")
    parser.add_argument("--sigma", type=float, default=50.0, help="of that inversion, m/s")
    parser.add_argument("--noise", type=float, default=0.2, help="of that inversion")
    arguments = parser.parse_args()
    print(f"JAX {jax.__version__}, NumPyro {numpyro.__version__}, {platform.machine()}\n")
    if arguments.fwi:
        settings = arguments.accuracy, arguments.max_rank, arguments.sigma, arguments.noise
        fwi_table(arguments.fwi, *settings)
        return
    accuracy_table(arguments.draws)
    print()
    speed_table(1000, 100, 200, 20, arguments.repeats)


if __name__ == "__main__":
    main()
