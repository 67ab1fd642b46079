"""What the first call of each method costs, and what later calls on other problems cost.

A call reads a model with its data and runs one method. Later calls take other data from the same
model function, or a model made anew with another bandwidth and noise. The script counts what XLA
compiles in each call. The last table repeats a method on data drawn from the prior predictive, as
a calibration does. Prints Markdown. Run it on a quiet machine:

    python benchmarks/calls.py [--quick] [--calibration N]
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from _nuts_elsewhere import Chains, Run, blackjax_nuts, numpyro_nuts
from _stylized import cubic, line_problem
from scipy.stats import kstest

import ppl_memprior as mp
from ppl_memprior.diffusion import dps
from ppl_memprior.forward import stylized
from ppl_memprior.inference import gibbs, mode_jump, nuts, tempered_smc

COMPILATION = "/jax/core/compile/backend_compile_duration"
NUM_EXAMPLES, NUM_UNKNOWNS, NUM_DATA = 50, 6, 20
SIGMA, NOISE = 0.3, 0.1
BANDWIDTHS = (0.1, 0.2, 0.3, 0.4, 0.5)
NUM_CHAINS = 2
CALIBRATED_SIGMA, CALIBRATED_CHAINS = 0.05, 4
GOAL_REPETITIONS, GOAL_SECONDS = 200, 120.0


class Plan(NamedTuple):
    """Sizes of a run of this script.

    Attributes:
        later: later calls of each kind.
        iterations: of warmup, and as many draws, of each chain.
        draws: of DPS.
        steps: of DPS.
        particles: of SMC, in each of two repeats.
        importance_draws: of PSIS.
        calibrated: iterations of warmup, and as many draws, of each chain of the calibration.
        repetitions: of the calibration.
    """

    later: int
    iterations: int
    draws: int
    steps: int
    particles: int
    importance_draws: int
    calibrated: int
    repetitions: int


FULL = Plan(5, 100, 50, 100, 500, 4000, 250, GOAL_REPETITIONS)
QUICK = Plan(2, 8, 4, 5, 20, 100, 20, 3)


class Compilations:
    """Counts the programs that XLA compiles from its making on."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration: float, **_: Any) -> None:
        self.count += event == COMPILATION


class Measured(NamedTuple):
    """What one call took and returned."""

    seconds: float
    compilations: int
    result: Any


def measure(call: Callable[[], Any], compilations: Compilations) -> Measured:
    """Time a call until its arrays are computed."""
    before, start = compilations.count, time.perf_counter()
    result = jax.block_until_ready(call())
    return Measured(time.perf_counter() - start, compilations.count - before, result)


# --- the problems ---------------------------------------------------------------------------------


class Problems:
    """Models with F(m) = tanh(A m), and data from their prior predictives."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        shape = NUM_DATA, NUM_UNKNOWNS
        self._operator = self._rng.normal(size=shape) / np.sqrt(NUM_UNKNOWNS)
        self._examples = self._rng.normal(size=(NUM_EXAMPLES, NUM_UNKNOWNS))
        self._matrix = jnp.asarray(self._operator, jnp.float32)
        self._stored = jnp.asarray(self._examples, jnp.float32)

    def mixture(self, sigma: float, noise: float) -> Callable[..., None]:
        """A model with a Gaussian mixture as its prior."""
        prior, matrix = mp.DiffusionMixturePrior(self._stored, sigma), self._matrix

        def model(data: Any = None) -> None:
            m = numpyro.sample("m", prior)
            numpyro.sample("y", dist.Normal(jnp.tanh(matrix @ m), noise).to_event(1), obs=data)

        return model

    def memorized(self, sigma: float, noise: float) -> Callable[..., None]:
        """A model with the examples alone as its prior, and a latent scale of the noise."""
        prior, matrix = mp.MemorizedPrior(self._stored), self._matrix

        def model(data: Any = None) -> None:
            m = numpyro.sample("m", prior)
            scale = numpyro.sample("scale", dist.HalfNormal(noise))
            numpyro.sample("y", dist.Normal(jnp.tanh(matrix @ m), scale).to_event(1), obs=data)

        return model

    def data(self) -> np.ndarray:
        """New data, shape (NUM_DATA,)."""
        m = self._examples[self._rng.integers(NUM_EXAMPLES)]
        m = m + SIGMA * self._rng.normal(size=NUM_UNKNOWNS)
        clean = np.tanh(self._operator @ m)
        return (clean + NOISE * self._rng.normal(size=NUM_DATA)).astype(np.float32)


# --- the contenders -------------------------------------------------------------------------------

#: Runs something on a model with data and a key.
Call = Callable[[Callable[..., None], np.ndarray, jax.Array], Any]
#: Makes a model of a bandwidth and a noise scale.
MakeModel = Callable[[float, float], Callable[..., None]]


class Contender(NamedTuple):
    """What is called again and again.

    Attributes:
        name: in the table.
        make_model: makes the model of the first call, and of those on a model made anew.
        call: runs the contender.
        takes_models: whether a later call may take another model.
    """

    name: str
    make_model: MakeModel
    call: Call
    takes_models: bool = True


def our_methods(problems: Problems, plan: Plan) -> Iterator[Contender]:
    """Every method of the package, in the order in which they are measured."""
    chains = Chains(plan.iterations, plan.iterations, NUM_CHAINS)._asdict()
    methods: dict[str, Callable[[mp.InverseProblem, jax.Array], Any]] = {
        "lookup": lambda problem, key: mp.lookup(problem),
        "linearize": lambda problem, key: mp.linearize(problem),
        "psis": lambda problem, key: mp.psis(
            problem, mp.linearize(problem), key, num_draws=plan.importance_draws
        ),
        "dps": lambda problem, key: dps(problem, key, num_samples=plan.draws, num_steps=plan.steps),
        "nuts": lambda problem, key: nuts(problem, key, **chains),
        "mode-jump": lambda problem, key: mode_jump(problem, key, **chains),
        "smc": lambda problem, key: tempered_smc(
            problem, key, num_particles=plan.particles, num_repeats=2
        ),
        "gibbs": lambda problem, key: gibbs(problem, key, **chains),
        "evidence": lambda problem, key: mp.evidence(problem, BANDWIDTHS),
    }
    for name, method in methods.items():

        def call(model: Any, data: np.ndarray, key: jax.Array, method: Any = method) -> Any:
            return method(mp.InverseProblem(model, data=data), key)

        yield Contender(name, problems.memorized if name == "gibbs" else problems.mixture, call)


def nuts_elsewhere(problems: Problems, plan: Plan) -> Iterator[Contender]:
    """NUTS without this package, on the model of the first calls."""
    model = problems.mixture(SIGMA, NOISE)
    chains = Chains(plan.iterations, plan.iterations, NUM_CHAINS)
    runs = {
        "NumPyro's NUTS": numpyro_nuts(model, chains, progress_bar=False),
        "NumPyro's NUTS, progress bar": numpyro_nuts(model, chains, progress_bar=True),
        "BlackJAX's NUTS": blackjax_nuts(model, "m", chains),
    }
    for name, run in runs.items():

        def call(model: Any, data: np.ndarray, key: jax.Array, run: Run = run) -> Any:
            return run(data, key)

        yield Contender(name, problems.mixture, call, takes_models=False)


# --- first and later calls ------------------------------------------------------------------------


def calls_table(plan: Plan, only: list[str], compilations: Compilations) -> list[Measured]:
    """Print what the calls of each contender took, and return the later calls of our methods."""
    print(
        "| method | first call [s] | later calls: median [s] | worst [s] "
        "| programs compiled: first call | later calls, other data "
        "| later calls, model made anew |\n| --- " + "| ---: " * 6 + "|"
    )
    problems, ours = Problems(), []
    for contender in (*our_methods(problems, plan), *nuts_elsewhere(problems, plan)):
        if only and contender.name not in only:
            continue
        first, other_data, made_anew = calls_of(contender, problems, plan, compilations)
        if contender.takes_models:
            ours += [*other_data, *made_anew]
        seconds = [each.seconds for each in (*other_data, *made_anew)]
        compiled = str(sum(each.compilations for each in made_anew)) if made_anew else ""
        print(
            f"| {contender.name} | {first.seconds:.2f} | {np.median(seconds):.3f} "
            f"| {max(seconds):.3f} | {first.compilations} "
            f"| {sum(each.compilations for each in other_data)} | {compiled} |",
            flush=True,
        )
    return ours


def calls_of(
    contender: Contender, problems: Problems, plan: Plan, compilations: Compilations
) -> tuple[Measured, list[Measured], list[Measured]]:
    """The first call, the later ones with other data, and those on a model made anew."""
    model = contender.make_model(SIGMA, NOISE)
    keys = list(jax.random.split(jax.random.key(0), 1 + 2 * plan.later))

    def one(model: Callable[[], Callable[..., None]]) -> Measured:
        data, key = problems.data(), keys.pop()
        return measure(lambda: contender.call(model(), data, key), compilations)

    first, other_data, made_anew = one(lambda: model), [], []
    for i in range(plan.later):
        other_data.append(one(lambda: model))
        if contender.takes_models:
            other = SIGMA / (1.1 + 0.1 * i), NOISE * (1.1 + 0.1 * i)
            made_anew.append(one(partial(contender.make_model, *other)))
    return first, other_data, made_anew


# --- calibration ----------------------------------------------------------------------------------


def repetition(y: float, key: jax.Array, iterations: int) -> np.ndarray:
    """Draws of "mode-jump" for one observation, shape (chains, draws)."""
    draws = mode_jump(
        line_problem(y, CALIBRATED_SIGMA),
        key,
        num_warmup=iterations,
        num_samples=iterations,
        num_chains=CALIBRATED_CHAINS,
    )
    return draws.latents["x"]


def calibration_table(plan: Plan, compilations: Compilations) -> float:
    """Print what the repetitions of "mode-jump" took, and return the seconds of all together.

    If the draws are right, the share of them below the truth is uniform: it is the rank statistic
    of simulation-based calibration (Talts et al. 2018).
    """
    rng = np.random.default_rng(1)
    measured, shares = [], []
    for key in jax.random.split(jax.random.key(1), plan.repetitions):
        truth = rng.choice(stylized.EXAMPLES) + CALIBRATED_SIGMA * rng.normal()
        y = float(cubic(truth) + stylized.NOISE * rng.normal())

        measured.append(measure(partial(repetition, y, key, plan.calibrated), compilations))
        shares.append(float(np.mean(measured[-1].result < truth)))
    total = sum(each.seconds for each in measured)
    later = [each.seconds for each in measured[1:]] or [np.nan]
    print(
        "| repetitions | total [s] | a repetition [s] | first [s] | later: median [s] | worst [s] "
        "| programs compiled: first | later | p-value of the ranks |\n" + "| ---: " * 9 + "|"
    )
    print(
        f"| {len(measured)} | {total:.1f} | {total / len(measured):.3f} "
        f"| {measured[0].seconds:.2f} | {np.median(later):.3f} | {max(later):.3f} "
        f"| {measured[0].compilations} | {sum(each.compilations for each in measured[1:])} "
        f"| {kstest(shares, 'uniform').pvalue:.2f} |",
        flush=True,
    )
    return total


# --- all of it ------------------------------------------------------------------------------------


def peak_memory() -> float:
    """The largest resident memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def print_goal(text: str, met: bool, measured: str) -> None:
    print(f"- {'met' if met else 'NOT met'}: {text} ({measured})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for a test of the script")
    parser.add_argument("--calibration", type=int, help="repetitions of the calibration, or 0")
    parser.add_argument("--later", type=int, help="later calls of each kind")
    parser.add_argument("--only", nargs="+", default=[], help="names of methods in the first table")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    if arguments.calibration is not None:
        plan = plan._replace(repetitions=arguments.calibration)
    if arguments.later is not None:
        plan = plan._replace(later=arguments.later)
    if not arguments.quick:  # programs that an earlier process compiled would make first calls fast
        jax.config.update("jax_enable_compilation_cache", False)
    compilations = Compilations()
    print(
        f"JAX {jax.__version__}, NumPyro {numpyro.__version__}, BlackJAX {blackjax.__version__}, "
        f"{platform.machine()}, {os.cpu_count()} cores. N = {NUM_EXAMPLES}, d = {NUM_UNKNOWNS}, "
        f"{NUM_DATA} data, {NUM_CHAINS} chains of {plan.iterations} + {plan.iterations} "
        f"iterations, {plan.later} later calls of each kind.\n\n## First and later calls\n"
    )
    ours = calls_table(plan, arguments.only, compilations)
    print(f"\nLargest resident memory so far: {peak_memory():.2f} GiB.")
    total = None
    if plan.repetitions:
        print(
            f"\n## Calibration\n\n1-D, sigma = {CALIBRATED_SIGMA:g}, {CALIBRATED_CHAINS} chains of "
            f"{plan.calibrated} + {plan.calibrated} iterations.\n"
        )
        total = calibration_table(plan, compilations)
        print(f"\nLargest resident memory of everything: {peak_memory():.2f} GiB.")
    print("\n## Goals\n")
    compiled = sum(each.compilations for each in ours)
    print_goal("later calls compile nothing", not compiled, f"{compiled} programs")
    if total is not None and plan.repetitions == GOAL_REPETITIONS and not arguments.quick:
        text = f"{GOAL_REPETITIONS} repetitions of the calibration in {GOAL_SECONDS:g} s"
        print_goal(text, total <= GOAL_SECONDS, f"{total:.1f} s")


if __name__ == "__main__":
    main()
