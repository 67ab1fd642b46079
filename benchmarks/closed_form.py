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
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from _stylized import Exact, in_the_plane, on_the_line

import ppl_memprior as mp

try:
    import torch
except ImportError:
    torch = None

BANDWIDTHS = (0.5, 0.3, 0.05)
ITERATIONS = 50


# --- distance to quadrature -----------------------------------------------------------------------


def stylized_problems() -> Iterator[tuple[str, mp.InverseProblem, Exact]]:
    """Every bandwidth and three observations, in one and two dimensions."""
    for y in (0.0, 1.5, 3.0):
        for sigma in BANDWIDTHS:
            yield f"1-D | {y:g} | {sigma:g}", *on_the_line(y, sigma)
    for y in ((0.0, 0.0), (0.5, 0.5), (2.0, 1.0)):
        for sigma in BANDWIDTHS:
            yield f"2-D | ({y[0]:g}, {y[1]:g}) | {sigma:g}", *in_the_plane(y, sigma)


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
    wave = mp.forward.ScalarWave(survey, 10.0, max_velocity=5000.0, pml_width=10)
    clean = wave(jnp.asarray(models[50]))
    scale = noise * float(jnp.abs(clean).max())
    data = clean + scale * jax.random.normal(jax.random.key(0), clean.shape)

    def model(data: Any = None) -> None:
        v = numpyro.sample("v", mp.DiffusionMixturePrior(jnp.asarray(models[:50]), sigma))
        numpyro.sample("data", dist.Normal(wave(v), scale).to_event(3), obs=data)

    start, spent = time.perf_counter(), time.process_time()
    problem = mp.InverseProblem(model, data=data)
    posterior = mp.linearize(problem, accuracy=accuracy, max_rank=max_rank, progress=True)
    draws = posterior.sample(jax.random.key(1), (100,))
    stddev = np.sqrt(np.asarray(posterior.variance))
    jax.block_until_ready(draws)
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    report = posterior.report
    done = np.flatnonzero(report.linearized)
    best = int(np.argmax(posterior.log_weights))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    error = np.sqrt(np.mean((np.asarray(posterior.mean) - models[50]) ** 2))
    nearest = np.sqrt(np.mean((models[best] - models[50]) ** 2))
    rows = {
        "data, unknowns, examples": f"{data.size:,}, {models[0].size:,}, 50",
        "bandwidth, m/s; noise, share of the peak": f"{sigma:g}; {noise:g}",
        "wall time of everything; processor time, s": f"{seconds:.0f}; {spent:.0f}",
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
