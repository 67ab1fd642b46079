"""Markov chains of NumPyro on a problem, warmup counted and chains kept apart.

The methods (`nuts`, `mode_jump`, `gibbs`) choose the kernel.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.infer import NUTS, init_to_sample
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import nested_attrgetter
from tqdm import tqdm

from ppl_memprior._execution.progress import progress_bar
from ppl_memprior._failures import LIMITS
from ppl_memprior.inference.draws import Cost, Draws
from ppl_memprior.problem.inverse_problem import InverseProblem

# Chains that start from the prior begin where the data's gradient is steep; until the step size has
# adapted, deeper trees cost a thousand simulations a step and bring nothing.
WARMUP_TREE_DEPTH = 5
# Iterations that one call of a compiled program makes at most, and keeps room for.
BUFFER = 64


@dataclass(frozen=True)
class MakeNuts:
    """Makes NUTS on the problem's latent sites. Each chain starts from its own prior draw."""

    max_tree_depth: int

    def __call__(self, problem: InverseProblem, held: Any) -> MCMCKernel:
        """Make it; nothing is held."""
        return nuts_kernel(problem, self.max_tree_depth)


def nuts_kernel(problem: InverseProblem, max_tree_depth: int) -> NUTS:
    """Return NUTS on the problem's latent sites. Each chain starts from its own prior draw."""
    depths = min(WARMUP_TREE_DEPTH, max_tree_depth), max_tree_depth
    model = handlers.block(problem.model, hide_fn=_is_deterministic)
    return NUTS(model, init_strategy=init_to_sample, max_tree_depth=depths)


def _is_deterministic(site: dict[str, Any]) -> bool:
    """Whether NumPyro would run the model once more for a site, at every draw and uncounted."""
    return site["type"] == "deterministic"


class MakeKernel(Protocol):
    """Makes a NumPyro kernel of a problem; hashable, so that it can be a compiled program's key."""

    def __call__(self, problem: InverseProblem, held: Any) -> MCMCKernel:
        """Make it; `held` is whatever arrays the kernel needs besides the problem."""

    def __hash__(self) -> int: ...


def run_chains(
    problem: InverseProblem,
    make_kernel: MakeKernel,
    rng_key: jax.Array,
    *,
    held: Any = None,
    num_samples: int,
    num_warmup: int,
    num_chains: int,
    statistics: tuple[str, ...],
    evaluations: str,
    progress: bool,
    description: str,
) -> Draws:
    """Warm a kernel up and draw from it, all chains vectorized.

    The compiled programs take the problem, so that another one of the same form, with other data
    say, does not compile them again. They make a few iterations at a call: Ctrl-C is answered
    between the calls.

    Args:
        problem: the problem whose model the kernel samples.
        make_kernel: makes the NumPyro kernel.
        rng_key: JAX random key.
        held: pytree of what the kernel needs besides the problem.
        num_samples: number of draws that each chain keeps.
        num_warmup: number of adaptation steps of each chain.
        num_chains: number of chains.
        statistics: fields of the kernel's state to keep with the draws.
        evaluations: the statistic that counts evaluations of the model, each with its gradient.
        progress: show a bar, on stderr.
        description: what the bar says.

    Returns:
        The draws of all latent sites and the statistics. Their cost includes the warmup, and counts
        what each chain needs: a chain that waits for a longer trajectory of another chain computes
        on, and drops the result. Within a trajectory of NUTS a failed simulation ends the
        trajectory and counts as a divergence.

    Raises:
        ValueError: no start was found.
    """
    keys = jax.random.split(rng_key, num_chains)
    programs = _Programs(make_kernel, num_warmup, (evaluations, *statistics))
    if problem.is_traced:
        return _traced_draws(problem, programs, held, keys, num_samples, statistics)
    with starts_may_fail():
        state = jax.block_until_ready(programs.start(problem, held, keys))
        inner = getattr(state, "block_states", (state,))[-1]
        if not np.isfinite(inner.potential_energy).all():
            # outside of a compiled program NumPyro looks at its start, and says what is wrong
            make_kernel(problem, held).init(keys, num_warmup, None, problem.args, problem.kwargs)
        total = num_warmup + num_samples
        with progress_bar(total=total, description=description, progress=progress) as bar:
            state, warmup = _iterations(programs, problem, held, state, num_warmup, bar)
            _, kept = _iterations(programs, problem, held, state, num_samples, bar)
    counts = [made.fields[0] for made in (*warmup, *kept)]
    count = sum(int(np.sum(each)) for each in counts)
    together = jax.tree.map(lambda *parts: np.swapaxes(np.concatenate(parts), 0, 1), *kept)
    return _draws(problem, together, count, statistics)


def _draws(problem: InverseProblem, made: _Made, count: Any, statistics: tuple[str, ...]) -> Draws:
    """Draws of what chains have made, chains first, and the evaluations that it took."""
    return Draws(
        latents={name: made.latents[name] for name in (problem.prior_name, *problem.extra_latents)},
        cost=Cost(num_forward_evaluations=count, num_gradient_evaluations=count),
        sample_stats=dict(zip(statistics, made.fields[1:], strict=True)),
    )


def _traced_draws(
    problem: InverseProblem,
    programs: _Programs,
    held: Any,
    keys: jax.Array,
    num_samples: int,
    statistics: tuple[str, ...],
) -> Draws:
    """The draws as part of a larger program, such as one of many data sets at once."""
    with numpyro.validation_enabled(False):
        state = programs.start(problem, held, keys)
        parts: dict[str, list[_Made]] = {}
        for phase, total in (("warmup", programs.num_warmup), ("kept", num_samples)):
            parts[phase] = []
            for begin in range(0, total, BUFFER):
                count = min(BUFFER, total - begin)
                state, made = programs.advance(problem, held, state, jnp.asarray(count))
                parts[phase].append(jax.tree.map(lambda rows, n=count: rows[:n], made))
    made_in_all = (*parts["warmup"], *parts["kept"])
    evaluations = jnp.sum(jnp.stack([jnp.sum(made.fields[0]) for made in made_in_all]))
    together = jax.tree.map(lambda *rows: jnp.swapaxes(jnp.concatenate(rows), 0, 1), *parts["kept"])
    return _draws(problem, together, evaluations, statistics)


class _Made(NamedTuple):
    """What some iterations have made, iterations and chains first; NumPy arrays in the end."""

    latents: dict[str, Any]
    fields: tuple[Any, ...]


@dataclass(frozen=True)
class _Programs:
    """The compiled programs of one kernel; equal ones share them.

    Attributes:
        make_kernel: makes the kernel.
        num_warmup: number of adaptation steps.
        fields: of the kernel's state to keep.
    """

    make_kernel: MakeKernel
    num_warmup: int
    fields: tuple[str, ...]

    @partial(jax.jit, static_argnums=0)
    def start(self, problem: InverseProblem, held: Any, keys: jax.Array) -> Any:
        """The chains' first state, one key for each chain."""
        return self._kernel(problem, held, keys)[1]

    @partial(jax.jit, static_argnums=0)
    def advance(
        self, problem: InverseProblem, held: Any, state: Any, count: jax.Array
    ) -> tuple[Any, _Made]:
        """The state after `count` iterations, and what they made in the first of BUFFER rows."""
        # NumPyro's kernels get their sampling function when they make a first state, not used here
        keys = jax.random.split(jax.random.key(0), len(jax.tree.leaves(state)[0]))
        kernel, _ = self._kernel(problem, held, keys)
        constrained = kernel.postprocess_fn(problem.args, problem.kwargs)

        def look(state: Any) -> _Made:
            z, *fields = nested_attrgetter(kernel.sample_field, *self.fields)(state)
            return _Made(jax.vmap(constrained)(z), tuple(fields))

        def iterate(i: jax.Array, carry: tuple[Any, _Made]) -> tuple[Any, _Made]:
            state, made = carry
            state = kernel.sample(state, problem.args, problem.kwargs)
            return state, jax.tree.map(lambda rows, row: rows.at[i].set(row), made, look(state))

        shapes = jax.eval_shape(look, state)
        rows = jax.tree.map(lambda row: jnp.zeros((BUFFER, *row.shape), row.dtype), shapes)
        return jax.lax.fori_loop(0, count, iterate, (state, rows))

    def _kernel(
        self, problem: InverseProblem, held: Any, keys: jax.Array
    ) -> tuple[MCMCKernel, Any]:
        kernel = self.make_kernel(problem, held)
        state = kernel.init(keys, self.num_warmup, None, problem.args, problem.kwargs)
        return kernel, state


def _iterations(
    programs: _Programs, problem: InverseProblem, held: Any, state: Any, total: int, bar: tqdm
) -> tuple[Any, list[_Made]]:
    """The state after `total` iterations, and what they made, one part after the other."""
    parts, done, count = [], 0, 1
    while done < total:
        count = min(count, BUFFER, total - done)
        begin = time.monotonic()
        state, made = jax.block_until_ready(
            programs.advance(problem, held, state, jnp.asarray(count))
        )
        # cut by NumPy: JAX would compile each length, and the lengths follow the clock
        parts.append(jax.tree.map(lambda rows, n=count: np.asarray(rows)[:n].copy(), made))
        done += count
        bar.update(count)
        # as many as take a second, so that the bar moves
        count = max(1, min(2 * count, int(count / max(time.monotonic() - begin, 1e-3))))
    return state, parts


_NO_START = ("Cannot find valid initial parameters", " distribution got invalid ")


@contextmanager
def starts_may_fail() -> Iterator[None]:
    """Let NumPyro start where the simulation fails, and look for another start.

    NumPyro runs a model once before it samples. With validation it refuses a distribution with a
    NaN parameter, such as the output of a failed simulation.

    Raises:
        ValueError: no start was found.
    """
    try:
        with numpyro.validation_enabled(False):
            yield
    except (RuntimeError, ValueError) as error:
        # where NumPyro finds no start, it validates the model at the last one, to say more
        if not any(words in str(error) for words in _NO_START):
            raise
        raise ValueError(
            "no draw from the prior has a posterior density and gradient that are finite, so no "
            f"chain can start: the simulation failed at all of them; {LIMITS}"
        ) from error
