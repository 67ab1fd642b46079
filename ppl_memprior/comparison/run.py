"""Run several methods on one problem, by name, and keep every finished one.

What all methods share is done here: labels, wall time, storing, going on after an interruption.
What each does is left to `methods`.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import jax
import xarray as xr
from jax.typing import ArrayLike

from ppl_memprior._files import check_writable_folder
from ppl_memprior._method_checks import methods_that_take
from ppl_memprior.comparison.datatree import to_datatree
from ppl_memprior.comparison.identity import differences, identity_of
from ppl_memprior.comparison.labels import (
    check_site_names,
    checked_coords,
    checked_dims,
    checked_truth,
    checked_units,
    labelled,
)
from ppl_memprior.comparison.methods import METHODS, Means, Settings
from ppl_memprior.comparison.prior_groups import prior_groups
from ppl_memprior.comparison.storage import load_trees, save_trees
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
    dims: Mapping[str, Sequence[str]] | None = None,
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
        coords: coordinate values of dimensions: `depth` and `distance` (metres) of fields, or of
            those that `dims` names.
        units: of sites, by their names; the figures print them.
        dims: names of dimensions by site, latent, deterministic or observed:
            `{"data": ["shot", "receiver", "time"]}`.
        executor: where work at single examples is done, that of "lookup", of "linearized", and of
            the proposals of "psis" and "mode-jump": any `concurrent.futures.Executor`, Dask's
            `client.get_executor()` included; here, without one.
        store: folder that keeps each method's draws as soon as it is done (`draws.nc`), and until
            all are done also their work at single examples (`unfinished`). Called again with the
            same problem, key, settings and truth, finished methods are read from there, and an
            interrupted or killed one goes on with what it had. `coords`, `units` and `dims` may
            change: the stored draws take the new ones. Draws of methods that are not named are
            kept.
        progress: show bars on stderr.

    Returns:
        By the method's name a `DataTree` with the groups that ArviZ reads, `posterior`,
        `sample_stats`, `log_likelihood`, `posterior_predictive`, `observed_data`,
        `constant_data`, `prior` and `prior_predictive`, and the groups `examples` and `truth`. Its
        attributes: `log_evidence` where the method has it, `seconds` (wall
        time, compilation included), `num_forward_evaluations`, `num_gradient_evaluations`, and
        what the draws come from: `problem` (a fingerprint), `precision`, `key`, `settings`,
        `truth`; of
        "psis" also `log_evidence_error`, `khat`, `num_importance_draws`, `importance_ess` and
        `ess` (of the draws taken among the weighted ones).

    Raises:
        TypeError: an argument of another type, before any work is done.
        ValueError: before any work is done, an unknown method; a method that cannot take the
            problem; a site whose name is taken; coordinates, units or a truth that fit no site; a
            process pool that forks; a store that cannot be written to, or that belongs to another
            problem, key, settings or truth (which of them, and how they differ).
        RuntimeError: work at an example failed in a worker (which example).
    """
    settings = Settings() if settings is None else settings
    check_methods(problem, methods)
    _check_settings(settings)
    _check_key(rng_key)
    known = checked_truth(problem, truth)
    names = checked_dims(problem, dims)
    labels = (checked_coords(problem, coords, names), checked_units(problem, units), names)
    if executor is not None:
        check_executor(executor)
    if store is not None:
        check_writable_folder("store", store)
    unfinished = None if store is None else Path(store) / UNFINISHED
    means = Means(executor, unfinished, progress)
    identity = identity_of(problem, rng_key, settings, known)
    finished = {}
    if store is not None:
        stored = stored_draws(store, identity)
        finished = {name: labelled(tree, *labels) for name, tree in stored.items()}
        if any(not tree.identical(stored[name]) for name, tree in finished.items()):
            save_trees(finished, Path(store) / DRAWS_FILE)
    prior = None
    if not set(methods) <= set(finished):
        prior_key = jax.random.fold_in(rng_key, zlib.crc32(b"prior"))
        prior = prior_groups(problem, prior_key, progress=progress)
    for name in methods:
        if name in finished:
            continue
        key = jax.random.fold_in(rng_key, zlib.crc32(name.encode()))
        start = time.perf_counter()
        draws = METHODS[name].draw(problem, key, settings, means)
        seconds = time.perf_counter() - start
        tree = to_datatree(problem, draws, truth=known, prior=prior, progress=progress)
        tree.attrs["methods_that_apply"] = json.dumps(methods_that_take(problem))
        tree.attrs.update({"method": name, "seconds": seconds, **identity})
        finished[name] = labelled(tree, *labels)
        if store is not None:
            save_trees(finished, Path(store) / DRAWS_FILE)
    if unfinished is not None:
        shutil.rmtree(unfinished, ignore_errors=True)
    return {name: finished[name] for name in methods}


def check_methods(problem: InverseProblem, methods: Sequence[str]) -> None:
    """Raise a `ValueError` for an unknown method or one that cannot take the problem."""
    if not isinstance(methods, Sequence) or isinstance(methods, str) or not methods:
        raise ValueError(f"methods is a list of names out of {list(METHODS)}, got {methods!r}")
    for name in methods:
        if not isinstance(name, str) or name not in METHODS:
            raise ValueError(f"unknown method {name!r}; there are: {', '.join(METHODS)}")
    require_problem(problem, "run")
    check_site_names(problem)
    for name in methods:
        METHODS[name].check(problem)


def stored_draws(
    store: str | os.PathLike[str], identity: Mapping[str, str]
) -> dict[str, xr.DataTree]:
    """The draws that a folder holds by the method's name; none where it holds none.

    Args:
        store: the folder.
        identity: what the draws must come from, `identity_of`.

    Raises:
        ValueError: they come from something else (what differs), or cannot be read.
    """
    path = Path(store) / DRAWS_FILE
    if not path.exists():
        return {}
    trees = load_trees(path)
    for name, tree in trees.items():
        found = differences(tree.attrs, identity)
        if found:
            raise ValueError(
                f"{os.fspath(store)} holds draws ({name}) of another run: {found}. Choose another "
                "folder, or remove that one"
            )
    return trees


def _check_settings(settings: Any) -> None:
    if not isinstance(settings, Settings):
        raise TypeError(
            f"settings must be a Settings, got {type(settings).__name__}: write "
            "Settings(num_samples=1000)"
        )


def _check_key(rng_key: Any) -> None:
    try:
        jax.random.fold_in(rng_key, 0)
    except (TypeError, ValueError):
        seed = rng_key if isinstance(rng_key, int) else 0
        found = getattr(rng_key, "shape", None)
        described = repr(rng_key) if found is None else f"an array of shape {found}"
        raise TypeError(
            f"rng_key must be one JAX random key, got {described}: write jax.random.key({seed})"
        ) from None
