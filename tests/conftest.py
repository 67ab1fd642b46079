"""Problems that several test modules share, with answers that are known without the package."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# Most of the time goes into compiling; what two tests or two runs have in common is compiled once.
# Set before JAX is imported, for this process and those that it starts.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import DiffusionMixturePrior, InverseProblem, MemorizedPrior, methods
from ppl_memprior._execution.compilation_cache import prepare_folder
from ppl_memprior.forward import stylized

COMPILED = Path(__file__).parents[1] / ".pytest_cache" / "jax"
MAX_COMPILED = 500_000_000  # bytes: a few versions of all tests; one takes about 100 million


def pytest_configure(config: pytest.Config) -> None:
    """Bound the folder of compiled programs, once for all workers."""
    chosen_by_user = os.environ["JAX_COMPILATION_CACHE_DIR"] != str(COMPILED)
    if not chosen_by_user and not hasattr(config, "workerinput"):
        with contextlib.suppress(OSError):  # JAX goes on without, and says so
            prepare_folder(COMPILED, MAX_COMPILED)


@pytest.fixture(scope="session")
def cubic_problem() -> Callable[..., InverseProblem]:
    """The one-dimensional stylized problem for an observation and a bandwidth (0: memorized)."""

    def make(observation: float, sigma: float) -> InverseProblem:
        examples = jnp.asarray(stylized.EXAMPLES)
        prior = DiffusionMixturePrior(examples, sigma) if sigma else MemorizedPrior(examples)

        def model(data: Any = None) -> None:
            x = numpyro.sample("x", prior)
            numpyro.deterministic("image", stylized.cubic(x))
            numpyro.sample("y", dist.Normal(stylized.cubic(x), stylized.NOISE), obs=data)

        return InverseProblem(model, data=observation)

    return make


class Quadrature(NamedTuple):
    """A density on a grid, in float64, and its normalizer."""

    grid: np.ndarray
    density: np.ndarray
    log_evidence: float

    def total_variation(self, density: np.ndarray) -> float:
        return 0.5 * float(np.trapezoid(np.abs(density - self.density), self.grid))


@pytest.fixture(scope="session")
def cubic_quadrature() -> Callable[[float, float], Quadrature]:
    """The stylized posterior by the trapezoidal rule, from its formula alone."""

    def make(observation: float, sigma: float) -> Quadrature:
        x = np.linspace(-6, 6, 24_001)
        noise = stylized.NOISE
        prior = np.mean(
            [np.exp(-0.5 * ((x - e) / sigma) ** 2) for e in stylized.EXAMPLES], axis=0
        ) / (sigma * np.sqrt(2 * np.pi))
        residual = (observation - x - 0.3 * x**3) / noise
        joint = prior * np.exp(-0.5 * residual**2) / (noise * np.sqrt(2 * np.pi))
        evidence = np.trapezoid(joint, x)
        return Quadrature(x, joint / evidence, float(np.log(evidence)))

    return make


class LinearGaussian(NamedTuple):
    """A linear problem with its parameters, for closed-form algebra in NumPy."""

    problem: InverseProblem
    examples: np.ndarray
    weights: np.ndarray
    sigma: float
    operator: np.ndarray
    covariance: np.ndarray
    data: np.ndarray


@pytest.fixture(scope="session")
def linear_problem() -> Callable[[int, int], LinearGaussian]:
    """Random linear operator, correlated noise, five weighted examples: d unknowns, m data."""

    def make(d: int, m: int) -> LinearGaussian:
        rng = np.random.default_rng(d * 100 + m)
        examples = rng.normal(size=(5, d))
        weights = rng.dirichlet(np.ones(5))
        operator = rng.normal(size=(m, d))
        factor = 0.5 * np.eye(m) + 0.2 * np.tril(rng.normal(size=(m, m)))
        covariance = factor @ factor.T
        data = operator @ examples[0] + factor @ rng.normal(size=m)
        prior = DiffusionMixturePrior(
            jnp.asarray(examples, jnp.float32), 0.3, weights=jnp.asarray(weights, jnp.float32)
        )
        matrix = jnp.asarray(operator, jnp.float32)

        def model(data: Any = None) -> None:
            x = numpyro.sample("x", prior)
            noise = dist.MultivariateNormal(matrix @ x, jnp.asarray(covariance, jnp.float32))
            numpyro.sample("y", noise, obs=data)

        problem = InverseProblem(model, data=jnp.asarray(data, jnp.float32))
        return LinearGaussian(problem, examples, weights, 0.3, operator, covariance, data)

    return make


@pytest.fixture(scope="session")
def short() -> Any:
    """From names of methods to methods that finish in seconds."""

    def configured_short(*names: str) -> list[methods.Method]:
        return [
            method
            for name in names
            for method in methods.configured(
                [name],
                num_samples=20 if name == "dps" else 100,
                num_warmup=50,
                num_chains=2,
                num_importance_draws=400,
                num_particles=50,
                num_repeats=2,
                num_steps=20,
            )
        ]

    return configured_short


@pytest.fixture(scope="session")
def cubic_runs(cubic_problem: Any, short: Any) -> Any:
    """All methods on the stylized problem, short."""
    from ppl_memprior import run

    problem = cubic_problem(0.0, 0.3)
    return run(
        problem,
        short("lookup", "linearized", "psis", "mode-jump", "nuts", "dps"),
        jax.random.key(0),
        truth=jnp.float32(0.1),
        progress=False,
    )


class Killed(NamedTuple):
    """What a killed program left behind.

    Attributes:
        script: the program.
        store: its folder.
        stored: the first example of each batch in it.
    """

    script: Path
    store: Path
    stored: set[int]


@pytest.fixture
def killed_run(tmp_path: Path) -> Callable[[str, str, int], Killed]:
    """Run a program in a process of its own, and kill it once it has stored some batches.

    The program takes the path of a log and that of its store.
    """

    def run(source: str, batches: str, least: int) -> Killed:
        script, store = tmp_path / "script.py", tmp_path / "killed"
        script.write_text(source)
        process = subprocess.Popen(
            [sys.executable, script, tmp_path / "first", store],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        deadline = time.monotonic() + 120
        while len(list(store.glob(batches))) < least:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return Killed(script, store, {int(path.name[:8]) for path in store.glob(batches)})

    return run
