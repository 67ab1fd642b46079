"""Run several methods on one problem, by name, and keep every finished one.

What all methods share is done here: labels, wall time, storing, going on after an interruption.
What each does is left to `methods`.
"""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from jax.typing import ArrayLike

from ppl_memprior._fingerprint import hash_of, problem_fingerprint
from ppl_memprior.comparison.convert import (
    check_site_names,
    load_trees,
    save_trees,
    to_datatree,
)
from ppl_memprior.comparison.methods import METHODS, Means, Settings
from ppl_memprior.inference import check_executor
from ppl_memprior.problem import InverseProblem, require_problem

DRAWS_FILE = "draws.nc"
UNFINISHED = "unfinished"  # folder of what unfinished methods have done, example by example


def run(
    problem: InverseProblem,
    methods: Sequence[str],
    rng_key: jax.Array,
    *,
    settings: Settings | None = None,
    truth: ArrayLike | Mapping[str, ArrayLike] | None = None,
    coords: Mapping[str, ArrayLike] | None = None,
    units: Mapping[str, str] | None = None,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, xr.DataTree]:
    """Draw from the problem's posterior by every method named.

    Args:
        problem: the inverse problem.
        methods: names out of `METHODS`: "lookup", "linearized", "psis" (the linearized posterior,
            its components iterated to their modes, corrected by importance sampling), "mode-jump",
            "nuts", "smc", "gibbs", "dps".
        rng_key: JAX random key; each method derives its own from it and its name, so that its
            draws do not depend on which others run.
        settings: how long each works; see `Settings`.
        truth: true value of the prior's site, shape `event_shape`, where it is known; or true
            values of several sites by name, the prior's among them.
        coords: coordinate values of dimensions: `depth` and `distance` (metres) of fields.
        units: of sites, by their names; the figures print them.
        executor: where work at single examples is done, that of "lookup", of "linearized", and of
            the proposals of "psis" and "mode-jump": any `concurrent.futures.Executor`, Dask's
            `client.get_executor()` included; here, without one.
        store: folder that keeps each method's draws as soon as it is done (`draws.nc`), and until
            all are done also their work at single examples (`unfinished`). Called again with the
            same problem, key and settings, finished methods are read from there, and an
            interrupted or killed one goes on with what it had.
        progress: show bars on stderr.

    Returns:
        By the method's name a `DataTree` with the groups `posterior`, `sample_stats`, `examples`
        and `truth`, and attributes: `log_evidence` where the method has it, `seconds` (wall
        time, compilation included), `num_forward_evaluations`, `num_gradient_evaluations`; of
        "psis" also `log_evidence_error`, `khat`, `num_importance_draws`, `importance_ess` and
        `ess` (of the draws taken among the weighted ones).

    Raises:
        TypeError: no executor.
        ValueError: an unknown method; a method that cannot take the problem, or a site whose name
            is taken (before any work is done); a process pool that forks; a store that belongs to
            another problem, key or settings.
        RuntimeError: work at an example failed in a worker (which example).
    """
    settings = settings or Settings()
    check_methods(problem, methods)
    _check_truth(problem, truth)
    if executor is not None:
        check_executor(executor)
    unfinished = None if store is None else Path(store) / UNFINISHED
    means = Means(executor, unfinished, progress)
    identity = fingerprint(problem, rng_key, settings, truth)
    finished = _finished(store, identity)
    for name in methods:
        if name in finished:
            continue
        key = jax.random.fold_in(rng_key, zlib.crc32(name.encode()))
        start = time.perf_counter()
        draws = METHODS[name].draw(problem, key, settings, means)
        seconds = time.perf_counter() - start
        tree = to_datatree(
            problem, draws, truth=truth, coords=coords, units=units, progress=progress
        )
        tree.attrs.update({"method": name, "seconds": seconds, "fingerprint": identity})
        finished[name] = tree
        if store is not None:
            save_trees(finished, Path(store) / DRAWS_FILE)
    if unfinished is not None:
        shutil.rmtree(unfinished, ignore_errors=True)
    return {name: finished[name] for name in methods}


def check_methods(problem: InverseProblem, methods: Sequence[str]) -> None:
    """Raise a `ValueError` for an unknown method or one that cannot take the problem."""
    if not methods or isinstance(methods, str):
        raise ValueError(f"methods is a list of names out of {list(METHODS)}, got {methods!r}")
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r}; there are: {', '.join(METHODS)}")
    require_problem(problem, "run")
    check_site_names(problem)
    for name in methods:
        METHODS[name].check(problem)


def _check_truth(
    problem: InverseProblem, truth: ArrayLike | Mapping[str, ArrayLike] | None
) -> None:
    if truth is None:
        return
    value = truth.get(problem.prior_name) if isinstance(truth, Mapping) else truth
    if value is None or np.shape(value) != problem.event_shape:
        raise ValueError(
            f"truth must give the prior's site {problem.prior_name!r} a value of event shape "
            f"{problem.event_shape}, got {'none' if value is None else np.shape(value)}"
        )


def fingerprint(
    problem: InverseProblem,
    rng_key: jax.Array,
    settings: Settings,
    truth: ArrayLike | Mapping[str, ArrayLike] | None = None,
) -> str:
    """A hash of everything that the stored trees depend on, 16 hexadecimal digits.

    Of the problem, as `problem_fingerprint` sees it, the key, the settings and the truth.
    """
    known = truth if isinstance(truth, Mapping) else {"": truth}
    truths = [
        part
        for name, value in known.items()
        for part in (name, "unknown" if value is None else value)
    ]
    key = np.asarray(jax.random.key_data(rng_key))
    return hash_of(problem_fingerprint(problem), key, repr(settings), *truths)[:16]


def _finished(store: str | os.PathLike[str] | None, identity: str) -> dict[str, xr.DataTree]:
    if store is None or not (Path(store) / DRAWS_FILE).exists():
        return {}
    trees = load_trees(Path(store) / DRAWS_FILE)
    for name, tree in trees.items():
        if tree.attrs.get("fingerprint") != identity:
            raise ValueError(
                f"{os.fspath(store)} holds draws ({name}) of another problem, seed or settings; "
                "choose another folder or remove that one"
            )
    return trees
