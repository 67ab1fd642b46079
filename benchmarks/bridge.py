"""What the PyTorch bridge costs: the same PyTorch function called from JAX and from PyTorch.

Every case is timed in one process, the two sides taking turns, so that a busy machine slows both.
The table has the median of each side and the median of the ratios of neighbouring calls, and the
same ratio of processor time, which other programs disturb less. Prints Markdown. Run it on a quiet
machine:

    python benchmarks/bridge.py
"""

from __future__ import annotations

import os

# One thread a side: the ratio then shows the bridge, not how two thread pools share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import platform
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import deepwave
import jax
import jax.numpy as jnp
import numpy as np
import torch

from ppl_memprior.forward import Survey, torch_function

try:
    from wrap_torch2jax import torch2jax
except ImportError:
    torch2jax = None

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
# Deepwave says, once a run, that it cannot tell how coarse the grid is under torch.func.
warnings.filterwarnings("ignore", "The test for the number of grid cells", UserWarning)


class Case(NamedTuple):
    """One comparison: what JAX calls, what PyTorch calls, and how far apart they may be."""

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    repeats: int
    goal: float | None
    absolute: bool = False  # the goal is microseconds of difference, not a ratio


class Result(NamedTuple):
    """Medians of a case, in seconds."""

    ours: float
    theirs: float
    ratio: float
    difference: float
    processor_ratio: float


def measure(case: Case, calls: int) -> Result:
    """Time both sides in turn, `calls` calls at a time."""

    def clock(function: Callable[[], Any]) -> np.ndarray:
        start = np.array([time.perf_counter(), time.process_time()])
        for _ in range(calls):
            function()
        return (np.array([time.perf_counter(), time.process_time()]) - start) / calls

    clock(case.ours), clock(case.theirs)
    pairs = np.empty((case.repeats, 2, 2))  # (turn, ours or theirs, wall or processor)
    for k in range(case.repeats):
        # Whoever goes first finds the caches as the other left them: take turns at that too.
        for side in (0, 1) if k % 2 else (1, 0):
            pairs[k, side] = clock(case.theirs if side else case.ours)
    ours, theirs = pairs[:, 0], pairs[:, 1]
    ratio = np.median(ours / theirs, axis=0)
    return Result(
        ours=float(np.median(ours[:, 0])),
        theirs=float(np.median(theirs[:, 0])),
        ratio=float(ratio[0]),
        difference=float(np.median((ours - theirs)[:, 0])),
        processor_ratio=float(ratio[1]),
    )


def torch_value_and_grad(fn: Callable[[Any], Any], x: Any) -> Any:
    leaf = x.detach().requires_grad_()
    loss = 0.5 * (fn(leaf) ** 2).sum()
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def jax_loss(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: 0.5 * jnp.sum(fn(x) ** 2)


def three_cases(
    name: str,
    functions: tuple[Callable[[Any], Any], Callable[[Any], Any]],
    point: np.ndarray,
    repeats: int,
    goals: tuple[float | None, float | None, float | None],
    absolute: bool = False,
) -> Iterator[Case]:
    """Value, gradient and tangent of a pair of functions, the one in JAX and the one in PyTorch."""
    ours, theirs = functions
    x, t = jnp.asarray(point), torch.from_numpy(point)
    value = jax.jit(ours)
    gradient = jax.jit(jax.value_and_grad(jax_loss(ours)))
    tangent = jax.jit(lambda x: jax.jvp(ours, (x,), (x,)))

    def torch_value() -> Any:
        with torch.no_grad():
            return theirs(t)

    sides = {
        "value": (lambda: value(x), torch_value),
        "value and gradient": (lambda: gradient(x), lambda: torch_value_and_grad(theirs, t)),
        "jvp": (lambda: tangent(x), lambda: torch.func.jvp(theirs, (t,), (t,))),
    }
    for (kind, (a, b)), goal in zip(sides.items(), goals, strict=True):
        yield Case(
            f"{name}, {kind}", lambda a=a: jax.block_until_ready(a()), b, repeats, goal, absolute
        )


def trivial_cases(repeats: int) -> Iterator[Case]:
    """A function that takes PyTorch a microsecond or two: what is left is the bridge."""
    yield from three_cases(
        "sin of 100 numbers",
        (torch_function(torch.sin), torch.sin),
        np.linspace(-1, 1, 100, dtype=np.float32),
        repeats,
        (150.0, None, None),
        absolute=True,
    )


class Waves:
    """Five shots of acoustic waves over a square model."""

    def __init__(self, cells: int, steps: int = 1000) -> None:
        self.survey = Survey.surface((cells, cells), 5, cells, 10.0, 0.001, steps)
        self.sources = torch.from_numpy(self.survey.source_locations.copy())
        self.receivers = torch.from_numpy(self.survey.receiver_locations.copy())
        self.wavelet = torch.from_numpy(self.survey.wavelet.copy())

    def one(self, v: Any) -> Any:
        """Data of one model (nz, nx)."""
        return self._propagate(v, 1)

    def many(self, v: Any) -> Any:
        """Data of n models (n, nz, nx), in one propagation."""
        shots = self.survey.num_shots
        each = v[:, None].expand(-1, shots, -1, -1).reshape(-1, *v.shape[1:])
        return self._propagate(each, len(v)).unflatten(0, (len(v), shots))

    def _propagate(self, v: Any, models: int) -> Any:
        amplitudes = self.wavelet.to(v.dtype).expand(models * self.survey.num_shots, 1, -1)
        return deepwave.scalar(
            v,
            10.0,
            self.survey.dt,
            source_amplitudes=amplitudes,
            source_locations=self.sources.repeat(models, 1, 1),
            receiver_locations=self.receivers.repeat(models, 1, 1),
            accuracy=4,
            pml_width=20,
            pml_freq=self.survey.peak_frequency,
            max_vel=3500.0,
        )[-1]


def models(cells: int, count: int) -> np.ndarray:
    """Velocities that grow with depth, with a smooth anomaly each, m/s: (count, cells, cells)."""
    z, x = np.meshgrid(np.linspace(0, 1, cells), np.linspace(0, 1, cells), indexing="ij")
    centres = np.linspace(0.3, 0.7, count)
    anomalies = [300 * np.exp(-((z - 0.5) ** 2 + (x - c) ** 2) / 0.02) for c in centres]
    return np.stack([1800 + 1000 * z + a for a in anomalies]).astype(np.float32)


def wave_cases(cells: int, repeats: int) -> Iterator[Case]:
    """Value, gradient and tangent of one model's data; and PyTorch against itself."""
    waves = Waves(cells)
    function = torch_function(waves.one, batched=waves.many)
    goal = 1.02 if cells == 70 else None
    name = f"Deepwave {cells} x {cells}"
    point = models(cells, 1)[0]
    for case in three_cases(name, (function, waves.one), point, repeats, (goal, goal, goal)):
        yield case
        if case.goal is not None:  # how far apart two sides lie that are the same
            yield case._replace(
                name=f"{case.name}, PyTorch on both sides", ours=case.theirs, goal=None
            )


def batch_cases(cells: int, count: int, repeats: int) -> Iterator[Case]:
    """Many models in one propagation, against the same propagation in PyTorch."""
    steps = 300
    waves = Waves(cells, steps)
    function = torch_function(waves.one, batched=waves.many)
    point = models(cells, count)
    x, t = jnp.asarray(point), torch.from_numpy(point)
    value = jax.jit(jax.vmap(function))
    gradient = jax.jit(jax.vmap(jax.value_and_grad(jax_loss(function))))
    name = f"{count} models of {cells} x {cells}, {steps} steps"

    def torch_value() -> Any:
        with torch.no_grad():
            return waves.many(t)

    yield Case(
        f"{name}, value", lambda: jax.block_until_ready(value(x)), torch_value, repeats, 1.05
    )
    yield Case(
        f"{name}, values and gradients",
        lambda: jax.block_until_ready(gradient(x)),
        lambda: torch_value_and_grad(waves.many, t),
        repeats,
        1.05,
    )


def torch2jax_cases(cells: int, repeats: int) -> Iterator[Case]:
    """The other bridge on the same waves; its gradient repeats the forward pass."""
    waves = Waves(cells)
    point = models(cells, 1)[0]
    x, t = jnp.asarray(point), torch.from_numpy(point)
    function = torch2jax(waves.one, t, depth=1)
    gradient = jax.jit(jax.value_and_grad(jax_loss(function)))
    yield Case(
        f"wrap-torch2jax, Deepwave {cells} x {cells}, value and gradient",
        lambda: jax.block_until_ready(gradient(x)),
        lambda: torch_value_and_grad(waves.one, t),
        repeats,
        None,
    )


def print_row(case: Case, result: Result) -> None:
    if case.absolute:
        shown = f"+{result.difference * 1e6:.0f} µs"
        reached = case.goal is None or result.difference * 1e6 <= case.goal
        goal = "" if case.goal is None else f"+{case.goal:g} µs"
        processor = ""
    else:
        shown, processor = f"{result.ratio:.3f}", f"{result.processor_ratio:.3f}"
        reached = case.goal is None or result.ratio <= case.goal
        goal = "" if case.goal is None else f"{case.goal:g}"
    verdict = "" if case.goal is None else ("met" if reached else "**not met**")
    times = f"{result.theirs * 1e3:.4g} | {result.ours * 1e3:.4g}"
    print(f"| {case.name} | {times} | {shown} | {processor} | {goal} | {verdict} |", flush=True)


def resident() -> int:
    """Memory that this process holds now, bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=21, help="turns of each side")
    parser.add_argument("--cells", type=int, nargs="+", default=[32, 70], help="model sizes")
    parser.add_argument("--models", type=int, default=32, help="size of the batch")
    arguments = parser.parse_args()
    start = time.perf_counter()
    print(
        f"PyTorch {torch.__version__}, Deepwave {deepwave.__version__}, JAX {jax.__version__}, "
        f"{platform.machine()}, {torch.get_num_threads()} thread(s); "
        "5 shots, 1,000 time steps unless said otherwise.\n"
    )
    print("| case | PyTorch, ms | bridge, ms | ratio or difference | processor time | goal | |")
    print("|---|---|---|---|---|---|---|")
    for case in trivial_cases(arguments.repeats):
        print_row(case, measure(case, 300))
    for cells in arguments.cells:
        for case in wave_cases(cells, arguments.repeats):
            print_row(case, measure(case, 1))
    small = min(arguments.cells)
    for case in batch_cases(small, arguments.models, max(3, arguments.repeats // 5)):
        print_row(case, measure(case, 1))
    if torch2jax is None:
        print("| wrap-torch2jax | | | not installed | | | |")
    else:
        for case in torch2jax_cases(small, arguments.repeats):
            print_row(case, measure(case, 1))
    before = resident()
    gradient = next(case for case in wave_cases(small, 1) if "gradient" in case.name).ours
    for _ in range(20):
        gradient()
    print(
        f"\nResident memory: {before / 2**20:.0f} MiB, after 20 more gradients "
        f"{resident() / 2**20:.0f} MiB; at most "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB. "
        f"The benchmark took {time.perf_counter() - start:.0f} s."
    )


if __name__ == "__main__":
    main()
