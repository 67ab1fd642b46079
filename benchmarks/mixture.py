"""Time, accuracy and memory of the mixture over stored examples.

Log-density and score of `DiffusionMixturePrior` are timed against NumPyro's `MixtureSameFamily`
under `value_and_grad`, against the (queries, N, d) broadcast in PyTorch, and against the bare
matrix products that bound them: one (x X^T), or two (x X^T) X. All of it runs in one process, in
rounds that take every contender in turn, after a warm-up call; times are medians. Errors are
relative, the worst of several queries, against float64 in NumPy on the same float32 numbers.

    python benchmarks/mixture.py [--quick] [--memmap N]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# PyTorch's threads must not spin while JAX works. Compiled programs take the examples as an
# argument; JAX would otherwise write a copy of them into each program.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS", "1")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import numpyro.distributions as dist  # noqa: E402

import ppl_memprior as mp  # noqa: E402

try:
    import torch
except ImportError:
    torch = None

CHECKED = 8  # queries that are compared with float64
MATTERS = 2.0**-24  # smallest responsibility that single precision can see beside one
FEW = 16
MEMMAP_DIMENSIONS, MEMMAP_QUERIES, MEMMAP_SIGMA = 1024, 16, 0.1


class Case(NamedTuple):
    """Examples to time, and bandwidths.

    `baseline_elements` bounds the (queries, N, d) arrays of the baselines, which get fewer queries
    where they need to, and whose time is then scaled up.
    """

    num: int
    d: int
    sigmas: tuple[float, ...]
    queries: int = 128
    baseline_elements: int = 10**8


class AccuracyCase(NamedTuple):
    """Examples whose values are `mean` +- `deviation`, and a bandwidth."""

    d: int
    num: int
    sigma: float
    mean: float
    deviation: float


class Plan(NamedTuple):
    """What one run of this script measures."""

    goal: Case
    cases: tuple[Case, ...]
    accuracy: tuple[AccuracyCase, ...]
    linearity: Case
    memmap: int


FULL = Plan(
    goal=Case(5000, 1000, (100, 10, 1, 0.1, 0.01, 0.001), baseline_elements=64 * 10**7),
    cases=(
        Case(1000, 10, (1,)),
        Case(1000, 100, (0.1,)),
        Case(1000, 65536, (0.001,), queries=32),
        Case(10_000, 10_000, (0.01,), queries=32),
        Case(100_000, 10, (0.1,), queries=32),
        Case(100_000, 1000, (0.001,), queries=32),
        Case(1_000_000, 10, (0.01,), queries=8),
        Case(1_000_000, 100, (1,), queries=32),
    ),
    accuracy=(
        AccuracyCase(4900, 500, 0.01, 2, 0.3),
        AccuracyCase(4900, 500, 10, 2000, 300),
        AccuracyCase(100, 200, 0.001, 0, 1),
        AccuracyCase(65536, 200, 0.01, 0, 1),
    ),
    linearity=Case(20_000, 1000, (0.1,)),
    memmap=200_000,
)
QUICK = Plan(
    goal=Case(48, 12, (1,), queries=16),
    cases=(Case(32, 10, (0.001,), queries=16),),
    accuracy=(AccuracyCase(12, 48, 0.01, 2, 0.3),),
    linearity=Case(24, 8, (0.1,), queries=16),
    memmap=60,
)


# --- contenders -----------------------------------------------------------------------------------


def draw_examples(num: int, d: int, mean: float = 0, deviation: float = 1) -> np.ndarray:
    """Return normal examples (N, d) in float32."""
    examples = np.random.default_rng(0).standard_normal((num, d), dtype=np.float32)
    if (mean, deviation) != (0, 1):
        examples = (mean + deviation * examples).astype(np.float32)
    return examples


def draw_queries(examples: np.ndarray, num: int, sigma: float) -> jax.Array:
    """Return `num` examples plus noise of standard deviation `sigma`, (num, d) in float32."""
    rng = np.random.default_rng(1)
    chosen = np.asarray(examples[np.sort(rng.integers(0, len(examples), num))])
    return jnp.asarray(chosen + np.float32(sigma) * rng.standard_normal(chosen.shape, np.float32))


def compiled(fn: Callable[..., Any], *arguments: Any) -> Any:
    """Return the compiled program of `fn` for arguments of these shapes."""
    return jax.jit(fn).lower(*arguments).compile()


def log_density_and_score(log_prob: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Return the function that gives (Q,) log-densities and their gradient (Q, d)."""

    def total(x: jax.Array, *parameters: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_density = log_prob(x, *parameters)
        return jnp.sum(log_density), log_density

    def both(x: jax.Array, *parameters: jax.Array) -> tuple[jax.Array, jax.Array]:
        (_, log_density), gradient = jax.value_and_grad(total, has_aux=True)(x, *parameters)
        return log_density, gradient

    return both


def mixture_same_family(x: jax.Array, examples: jax.Array, sigma: jax.Array) -> jax.Array:
    """Return the log-density by NumPyro, (Q,)."""
    components = dist.Independent(dist.Normal(examples, sigma), 1)
    weights = dist.Categorical(logits=jnp.zeros(len(examples)))
    return dist.MixtureSameFamily(weights, components).log_prob(x)


def torch_broadcast(x: Any, examples: Any, sigma: float) -> tuple[Any, Any]:
    """Return log-density and score in PyTorch, from all differences at once."""
    z = (x[:, None] - examples) / sigma
    logits = -0.5 * (z * z).sum(-1) - math.log(len(examples))
    normalizer = -x.shape[1] * math.log(sigma * math.sqrt(2 * math.pi))
    score = -torch.einsum("qn,qnd->qd", torch.softmax(logits, -1), z) / sigma
    return torch.logsumexp(logits, -1) + normalizer, score


def one_product(x: jax.Array, examples: jax.Array) -> jax.Array:
    """Return x X^T, (Q, N)."""
    return x @ examples.T


def two_products(x: jax.Array, examples: jax.Array) -> jax.Array:
    """Return (x X^T) X, (Q, d)."""
    return (x @ examples.T) @ examples


def product_form(x: jax.Array, examples: jax.Array, sigma: float) -> tuple[jax.Array, jax.Array]:
    """Return log-density and score by |x|^2 - 2 x.x_n + |x_n|^2 and nothing else."""
    squares = jnp.sum(x * x, 1)[:, None] - 2 * x @ examples.T + jnp.sum(examples**2, 1)
    logits = -0.5 * squares / sigma**2 - math.log(len(examples))
    normalizer = -x.shape[1] * math.log(sigma * math.sqrt(2 * math.pi))
    score = (jax.nn.softmax(logits) @ examples - x) / sigma**2
    return jax.nn.logsumexp(logits, -1) + normalizer, score


def centred_product_form(
    x: jax.Array, examples: jax.Array, sigma: float
) -> tuple[jax.Array, jax.Array]:
    """Return the same, with the mean of the examples as the origin."""
    centre = jnp.mean(examples, 0)
    return product_form(x - centre, examples - centre, sigma)


# --- measuring ------------------------------------------------------------------------------------


class Timing(NamedTuple):
    """Seconds of one call."""

    median: float
    least: float


def timed(fn: Callable[[], Any]) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    jax.block_until_ready(fn())
    return time.perf_counter() - start


def interleaved(
    contenders: dict[Any, Callable[[], Any]], seconds: float = 1.0
) -> dict[Any, Timing]:
    """Time every contender in turn, again and again: 3 to 15 times, about `seconds` each."""
    runs = {name: int(np.clip(seconds / timed(fn), 3, 15)) for name, fn in contenders.items()}
    rounds = max(runs.values())
    times: dict[Any, list[float]] = {name: [] for name in contenders}
    for i in range(rounds):
        for name, fn in contenders.items():
            # Fewer runs are spread over all rounds.
            if (i + 1) * runs[name] // rounds > i * runs[name] // rounds:
                times[name].append(timed(fn))
    return {name: Timing(statistics.median(t), min(t)) for name, t in times.items()}


def reference(
    queries: np.ndarray, examples: np.ndarray, sigma: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return log-density (Q,) and score (Q, d) in float64, and how many examples matter at most."""
    queries = np.asarray(queries, np.float64)
    num, d = examples.shape
    logits = np.empty((len(queries), num))
    step = max(1, 2**20 // d)
    for start in range(0, num, step):
        rows = np.asarray(examples[start : start + step], np.float64)
        for i, query in enumerate(queries):
            difference = (query - rows) / sigma
            logits[i, start : start + step] = -0.5 * np.einsum("nd,nd->n", difference, difference)
    top = logits.max(1)
    shares = np.exp(logits - top[:, None])
    total = shares.sum(1)
    log_density = top + np.log(total / num) - d * math.log(sigma * math.sqrt(2 * math.pi))
    shares /= total[:, None]
    score = np.empty_like(queries)
    for i, query in enumerate(queries):
        (near,) = np.nonzero(shares[i] > 1e-25)
        score[i] = shares[i, near] @ (np.asarray(examples[near], np.float64) - query) / sigma**2
    return log_density, score, int((shares > MATTERS).sum(1).max())


class Errors(NamedTuple):
    """Relative errors, each the worst of the queries."""

    log_density: float
    score: float

    @property
    def worst(self) -> float:
        """The larger one."""
        return max(self)


def errors(found: tuple[Any, Any], exact: tuple[np.ndarray, np.ndarray]) -> Errors:
    """Compare the first queries of `found` with their log-densities and scores in float64."""
    log_density, score = (np.asarray(f, np.float64)[:CHECKED] for f in found)
    return Errors(
        float(np.max(np.abs(log_density - exact[0]) / np.abs(exact[0]))),
        float(np.max(np.linalg.norm(score - exact[1], axis=1) / np.linalg.norm(exact[1], axis=1))),
    )


class Row(NamedTuple):
    """What was measured for one set of examples and one bandwidth."""

    case: Case
    sigma: float
    matter: int
    errors: Errors
    memory: int  # bytes, temporary
    ours: Timing
    score: Timing
    same_family: Timing
    broadcast: Timing | None
    one: Timing
    two: Timing


def measure(case: Case) -> list[Row]:
    """Time all contenders on one set of examples at every bandwidth of the case."""
    examples = draw_examples(case.num, case.d)
    on_device = jnp.asarray(examples)
    queries = {sigma: draw_queries(examples, case.queries, sigma) for sigma in case.sigmas}
    contenders: dict[Any, Callable[[], Any]] = {}
    facts = {}
    for sigma, x in queries.items():
        prior = mp.DiffusionMixturePrior(on_device, sigma)
        scores = prior.score(x)  # prepares the examples, outside of what is compiled next
        program = compiled(log_density_and_score(prior.log_prob), x)
        log_density, gradient = program(x)
        *exact, matter = reference(x[:CHECKED], examples, sigma)
        worst = map(max, *(errors((log_density, s), tuple(exact)) for s in (gradient, scores)))
        facts[sigma] = matter, Errors(*worst), program.memory_analysis().temp_size_in_bytes
        contenders["ours", sigma] = lambda program=program, x=x: program(x)
        contenders["score", sigma] = lambda prior=prior, x=x: prior.score(x)

    # What follows takes the same time at every bandwidth.
    sigma, x = next(iter(queries.items()))
    for fn in (one_product, two_products):
        program = compiled(fn, x, on_device)
        contenders[fn.__name__] = lambda program=program: program(x, on_device)
    share = min(1, case.baseline_elements / (case.queries * case.num * case.d))
    fewer = x[: max(1, int(share * case.queries))]
    arguments = (fewer, on_device, jnp.float32(sigma))
    same_family = compiled(log_density_and_score(mixture_same_family), *arguments)
    contenders["same_family"] = lambda: same_family(*arguments)
    if torch is not None:
        # At most 2 GB.
        some = fewer[: max(1, min(len(fewer), 5 * 10**8 // (case.num * case.d)))]
        theirs = torch.tensor(np.asarray(some)), torch.from_numpy(examples)
        contenders["broadcast"] = lambda: torch_broadcast(*theirs, sigma)

    times = interleaved(contenders)
    broadcast = None
    if torch is not None:
        broadcast = scaled(times["broadcast"], case.queries / len(some))
    return [
        Row(
            case,
            sigma,
            *facts[sigma],
            times["ours", sigma],
            times["score", sigma],
            scaled(times["same_family"], case.queries / len(fewer)),
            broadcast,
            times["one_product"],
            times["two_products"],
        )
        for sigma in case.sigmas
    ]


def scaled(timing: Timing, factor: float) -> Timing:
    """Return the timing of `factor` times the work."""
    return Timing(factor * timing.median, factor * timing.least)


class AccuracyRow(NamedTuple):
    """Errors of three ways to compute the same."""

    case: AccuracyCase
    ours: Errors
    product: Errors
    centred: Errors


def measure_accuracy(case: AccuracyCase) -> AccuracyRow:
    """Compare with float64."""
    examples = draw_examples(case.num, case.d, case.mean, case.deviation)
    x = draw_queries(examples, CHECKED, case.sigma)
    prior = mp.DiffusionMixturePrior(examples, case.sigma)
    log_density, score, _ = reference(x, examples, case.sigma)
    found = [
        (prior.log_prob(x), prior.score(x)),
        product_form(x, jnp.asarray(examples), case.sigma),
        centred_product_form(x, jnp.asarray(examples), case.sigma),
    ]
    return AccuracyRow(case, *(errors(f, (log_density, score)) for f in found))


def measure_growth(case: Case) -> dict[str, tuple[Timing, Timing]]:
    """Time the score and one product for (N, d), (2 N, d) and (N, 2 d), by name of the sizes."""
    contenders: dict[Any, Callable[[], Any]] = {}
    sizes = {"N, d": (1, 1), "2 N, d": (2, 1), "N, 2 d": (1, 2)}
    for name, (more, longer) in sizes.items():
        examples = draw_examples(more * case.num, longer * case.d)
        x = draw_queries(examples, case.queries, case.sigmas[0])
        prior = mp.DiffusionMixturePrior(examples, case.sigmas[0])
        prior.score(x)
        arguments = x, jnp.asarray(examples)
        program = compiled(one_product, *arguments)
        contenders["ours", name] = lambda prior=prior, x=x: prior.score(x)
        contenders["product", name] = lambda program=program, a=arguments: program(*a)
    times = interleaved(contenders)
    return {name: (times["ours", name], times["product", name]) for name in sizes}


# --- examples in a file ---------------------------------------------------------------------------


def measure_memmap(num: int) -> dict[str, float]:
    """Write examples into a temporary file, and evaluate their mixture in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "examples.npy"
        rows = np.lib.format.open_memmap(path, "w+", np.float32, (num, MEMMAP_DIMENSIONS))
        rng = np.random.default_rng(0)
        for start in range(0, num, 10_000):
            block = rows[start : start + 10_000]
            block[:] = rng.standard_normal(block.shape, dtype=np.float32)
        rows.flush()
        del rows
        command = [sys.executable, __file__, "--evaluate", str(path)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def resident(field: str) -> int:
    """Return an entry of this process's status on Linux, in bytes; 0 elsewhere.

    `getrusage` would not do: its peak starts from that of the parent process.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(s.split()[1]) for s in lines if s.startswith(field + ":")), 0)


class AnonymousPeak(threading.Thread):
    """Watches how much memory that belongs to no file this process holds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = resident("RssAnon")
        self.done = threading.Event()

    def run(self) -> None:
        """Look every few milliseconds."""
        while not self.done.wait(0.005):
            self.peak = max(self.peak, resident("RssAnon"))


def evaluate_memmap(path: Path) -> dict[str, float]:
    """Evaluate the mixture over the examples in a file; return seconds, memory and errors."""
    rows = np.load(path, mmap_mode="r")
    x = jax.block_until_ready(draw_queries(rows, MEMMAP_QUERIES, MEMMAP_SIGMA))
    before, anonymous = resident("VmHWM"), AnonymousPeak()
    least = anonymous.peak
    anonymous.start()
    start = time.perf_counter()
    prior = mp.DiffusionMixturePrior(rows, MEMMAP_SIGMA)
    built = time.perf_counter()
    found = jax.block_until_ready((prior.log_prob(x), prior.score(x)))
    first = time.perf_counter()
    jax.block_until_ready((prior.log_prob(x), prior.score(x)))
    second = time.perf_counter()
    anonymous.done.set()
    anonymous.join()
    after = resident("VmHWM")
    log_density, score, _ = reference(np.asarray(x[:CHECKED]), rows, MEMMAP_SIGMA)
    return {
        "build": built - start,
        "first": first - built,
        "second": second - first,
        "peak": after - before,
        "anonymous": anonymous.peak - least,
        "error": errors(found, (log_density, score)).worst,
    }


# --- printing -------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "".join(line(entries) + "\n" for entries in (header, ["---:"] * len(header), *rows))


def line(entries: Sequence[str]) -> str:
    """Return one line of a Markdown table."""
    return "| " + " | ".join(entries) + " |"


def digits(value: float) -> str:
    """Return two or three digits of a positive number, without an exponent where it is short."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ms(timing: Timing) -> str:
    """Return the median in milliseconds."""
    return digits(1e3 * timing.median)


def ratio(above: Timing, below: Timing) -> float:
    """Return the ratio of two medians."""
    return above.median / below.median


TIMING_HEADER = (
    "N|d|sigma|queries|matter|ours [ms]|score alone [ms]|x MixtureSameFamily|x torch"
    "|/ one product|/ two products|error log p|error score|memory [MB]"
)


def timing_line(row: Row) -> list[str]:
    """Return the entries of times, errors and memory."""
    return [
        f"{row.case.num:,}",
        f"{row.case.d:,}",
        f"{row.sigma:g}",
        str(row.case.queries),
        f"{row.matter:,}",
        ms(row.ours),
        ms(row.score),
        digits(ratio(row.same_family, row.ours)),
        "-" if row.broadcast is None else digits(ratio(row.broadcast, row.ours)),
        digits(ratio(row.ours, row.one)),
        digits(ratio(row.ours, row.two)),
        f"{row.errors.log_density:.0e}",
        f"{row.errors.score:.0e}",
        digits(row.memory / 1e6),
    ]


def measure_and_print(cases: Sequence[Case]) -> list[Row]:
    """Measure cases, and print the lines of each as soon as they are known."""
    rows: list[Row] = []
    print(table(TIMING_HEADER.split("|"), []), end="", flush=True)
    for case in cases:
        rows += (measured := measure(case))
        print("\n".join(line(timing_line(row)) for row in measured), flush=True)
    print()
    return rows


def accuracy_table(rows: Sequence[AccuracyRow]) -> str:
    """Return the table of errors of log p and of the score."""
    header = (
        "d|N|sigma|values|ours: log p|ours: score|product: log p|product: score"
        "|centred product: log p|centred product: score"
    )
    body = [
        [
            f"{r.case.d}",
            f"{r.case.num}",
            f"{r.case.sigma:g}",
            f"{r.case.mean:g} +- {r.case.deviation:g}",
            *(f"{error:.1e}" for e in (r.ours, r.product, r.centred) for error in e),
        ]
        for r in rows
    ]
    return table(header.split("|"), body)


def growth_table(growth: dict[str, tuple[Timing, Timing]], case: Case) -> str:
    """Return the table of times for doubled sizes."""
    header = ["sizes", "score [ms]", "times the first", "one product [ms]", "times the first"]
    first = growth["N, d"]
    body = [
        [
            name,
            *(s for t, f in zip(times, first, strict=True) for s in (ms(t), digits(ratio(t, f)))),
        ]
        for name, times in growth.items()
    ]
    return f"N = {case.num:,}, d = {case.d:,}, sigma = {case.sigmas[0]:g}\n\n" + table(header, body)


def memmap_table(num: int, found: dict[str, float]) -> str:
    """Return the table of what evaluating examples in a file takes."""
    header = (
        "N|d|file [GB]|queries|build [s]|first call [s]|second call [s]"
        "|anonymous memory [GiB]|all resident memory [GiB]|worst error"
    )
    body = [
        f"{num:,}",
        str(MEMMAP_DIMENSIONS),
        digits(4e-9 * num * MEMMAP_DIMENSIONS),
        str(MEMMAP_QUERIES),
        *(digits(found[key]) for key in ("build", "first", "second")),
        *(digits(found[key] / 2**30) for key in ("anonymous", "peak")),
        f"{found['error']:.0e}",
    ]
    return table(header.split("|"), [body])


class Goal(NamedTuple):
    """A bound that is held or not."""

    text: str
    met: bool
    measured: str

    def __str__(self) -> str:
        return f"- {'met' if self.met else 'NOT met'}: {self.text} ({self.measured})"


def speed_goals(rows: Sequence[Row]) -> Iterator[Goal]:
    """Yield the goals for the speed of one case, at every bandwidth."""
    case = rows[0].case
    where = f"at N = {case.num:,}, d = {case.d:,}, {case.queries} queries"
    speedup = [ratio(r.same_family, r.ours) for r in rows]
    yield Goal(
        f"at least 100 times faster than MixtureSameFamily under grad {where}, every sigma",
        min(speedup) >= 100,
        f"{digits(min(speedup))} to {digits(max(speedup))} times",
    )
    few = [r for r in rows if r.sigma <= 1 and r.matter < FEW]
    for text, limit, chosen, below in (
        (f"at most 1.5 times two bare products {where}, every sigma", 1.5, rows, "two"),
        (f"at most 1.3 times one bare product where fewer than {FEW} matter", 1.3, few, "one"),
    ):
        if not chosen:
            continue
        slowest = max(chosen, key=lambda r: ratio(r.ours, getattr(r, below)))
        product = getattr(slowest, below)
        medians = ratio(slowest.ours, product)
        minima = slowest.ours.least / product.least
        number = (
            f"{digits(medians)} by medians, {digits(minima)} by minima, sigma = {slowest.sigma:g}"
        )
        yield Goal(text, medians <= limit, f"at worst {number}")


def other_goals(
    accuracy: Sequence[AccuracyRow],
    growth: dict[str, tuple[Timing, Timing]],
    memmap: tuple[int, dict[str, float]] | None,
) -> Iterator[Goal]:
    """Yield the goals for accuracy, memory and growth."""
    worst = max(r.ours.worst for r in accuracy)
    text = "relative error of log p and score at most 1e-5 in every row of the accuracy table"
    yield Goal(text, worst <= 1e-5, f"at worst {worst:.1e}")
    if memmap is not None:
        num, found = memmap
        yield Goal(
            f"less than 2 GiB for {num:,} x {MEMMAP_DIMENSIONS} examples in a file",
            found["anonymous"] < 2 * 2**30,
            f"{digits(found['anonymous'] / 2**30)} GiB; {digits(found['peak'] / 2**30)} GiB with "
            "pages of the file that the system can drop",
        )
    for name in ("2 N, d", "N, 2 d"):
        grown = ratio(growth[name][0], growth["N, d"][0])
        yield Goal(f"linear: at most 2.3 times the time for {name}", grown <= 2.3, digits(grown))


def report(plan: Plan) -> None:
    """Measure everything in the plan and print it."""
    jax.config.update("jax_enable_x64", False)
    heading("One case in detail")
    detail = measure_and_print([plan.goal])
    heading("From small to large")
    measure_and_print(plan.cases)
    if torch is None:
        print("PyTorch is not installed; its column is empty.\n")
    heading("Relative errors in float32")
    accuracy = [measure_accuracy(case) for case in plan.accuracy]
    print(accuracy_table(accuracy), flush=True)
    heading("Growth")
    growth = measure_growth(plan.linearity)
    print(growth_table(growth, plan.linearity), flush=True)
    memmap = None
    if plan.memmap:
        heading("Examples in a file")
        memmap = plan.memmap, measure_memmap(plan.memmap)
        print(memmap_table(*memmap), flush=True)
    heading("Goals")
    for goal in (*speed_goals(detail), *other_goals(accuracy, growth, memmap)):
        print(goal)


def heading(text: str) -> None:
    """Print a heading."""
    print(f"## {text}\n", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for a test of the script")
    parser.add_argument(
        "--memmap",
        type=int,
        metavar="N",
        help=f"examples in a temporary file of 4 KB each (default {FULL.memmap:,}; 0: none)",
    )
    parser.add_argument("--evaluate", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.evaluate is not None:
        print(json.dumps(evaluate_memmap(options.evaluate)))
        return
    plan = QUICK if options.quick else FULL
    if options.memmap is not None:
        plan = plan._replace(memmap=options.memmap)
    start = time.perf_counter()
    report(plan)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
