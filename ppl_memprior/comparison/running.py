"""Run several methods on one problem, and keep every finished one.

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
from typing import Any

import jax
import xarray as xr
from jax.typing import ArrayLike

from ppl_memprior._execution.files import check_writable_folder
from ppl_memprior.comparison.identity import (
    differences,
    identity_of,
    method_differences,
    method_identity,
)
from ppl_memprior.comparison.methods import Method
from ppl_memprior.comparison.methods.registry import alternatives, label_of, resolved
from ppl_memprior.comparison.resources import Resources
from ppl_memprior.comparison.returned_draws import check_draws
from ppl_memprior.comparison.trees.datatree import to_datatree
from ppl_memprior.comparison.trees.labels import (
    check_site_names,
    checked_coords,
    checked_dims,
    checked_truth,
    checked_units,
    labelled,
)
from ppl_memprior.comparison.trees.prior_groups import NUM_PRIOR_DRAWS, prior_groups
from ppl_memprior.comparison.trees.storage import add_tree, load_trees, save_trees
from ppl_memprior.inference import check_executor
from ppl_memprior.problem.inverse_problem import InverseProblem, require_problem

DRAWS_FILE = "draws.nc"
UNFINISHED = "unfinished"  # folder of what unfinished methods have done, example by example


def run(
    problem: InverseProblem,
    methods: Sequence[str | Method],
    rng_key: jax.Array,
    *,
    truth: ArrayLike | Mapping[str, ArrayLike] | None = None,
    coords: Mapping[str, ArrayLike] | None = None,
    units: Mapping[str, str] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    num_prior_draws: int = NUM_PRIOR_DRAWS,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, xr.DataTree]:
    """Draw from the problem's posterior by every method given.

    Args:
        problem: the inverse problem.
        methods: names ("lookup", "linearized", "psis", "mode-jump", "smc", "gibbs", "nuts",
            "dps") for methods with the defaults of their options, or objects of
            `ppl_memprior.methods`: `["lookup", methods.Dps(num_steps=1000)]`. A method may stand
            here twice under two labels. An object of your own needs `name`, `check` and `draw`;
            see `methods.Method`.
        rng_key: JAX random key; each method derives its own from it and its label, so that its
            draws do not depend on which others run.
        truth: true value of the prior's site, shape `event_shape`, where it is known; or true
            values of several sites by name, the prior's among them.
        coords: coordinate values of dimensions: `depth` and `distance` (metres) of fields, or of
            those that `dims` names.
        units: of sites, by their names; the figures print them.
        dims: names of dimensions by site, latent, deterministic or observed:
            `{"data": ["shot", "receiver", "time"]}`.
        num_prior_draws: draws of the groups `prior` and `prior_predictive`, one forward solve
            each, once a run; 0 leaves these groups out.
        executor: where work at single examples is done, that of "lookup", of "linearized", and of
            the proposals of "psis" and "mode-jump": any `concurrent.futures.Executor`, Dask's
            `client.get_executor()` included; here, without one.
        store: folder that keeps each method's draws as soon as it is done (`draws.nc`), and until
            all are done also their work at single examples (`unfinished`). Called again with the
            same problem, key, options and truth, finished methods are read from there, and an
            interrupted or killed one goes on with what it had. `coords`, `units` and `dims` may
            change: the stored draws take the new ones. Draws of methods that are not named are
            kept.
        progress: show bars on stderr.

    Returns:
        By the method's label a `DataTree` with the groups that ArviZ reads, `posterior`,
        `sample_stats`, `log_likelihood`, `posterior_predictive`, `observed_data`,
        `constant_data`, `prior` and `prior_predictive`, and the groups `examples` and `truth`. Its
        attributes: `log_evidence` where the method has it, `seconds` (wall
        time, compilation included), `num_forward_evaluations`, `num_gradient_evaluations`, and
        what the draws come from: `problem` (a fingerprint), `precision`, `key`, `truth`, `method`
        (its name) and `options`; of "psis" also `log_evidence_error`, `khat`,
        `num_importance_draws`, `importance_ess` and `ess` (of the draws taken among the weighted
        ones). What two methods share is made once. Its
        cost and wall time count for each of them.

    Raises:
        TypeError: an argument of another type, before any work is done.
        ValueError: before any work is done, an unknown method; a method that cannot take the
            problem; two methods with one label; a site whose name is taken; coordinates, units or
            a truth that fit no site; a process pool that forks; a store that cannot be written to,
            or that belongs to another problem, key or truth, or has draws of a method with other
            options (which of them, and how they differ).
        RuntimeError: work at an example failed in a worker (which example).
    """
    chosen = check_methods(problem, methods)
    _check_key(rng_key)
    known = checked_truth(problem, truth)
    names = checked_dims(problem, dims)
    labels = (checked_coords(problem, coords, names), checked_units(problem, units), names)
    if executor is not None:
        check_executor(executor)
    if store is not None:
        check_writable_folder("store", store)
    unfinished = None if store is None else Path(store) / UNFINISHED
    resources = Resources(executor=executor, store=unfinished, progress=progress)
    identity = identity_of(problem, rng_key, known)
    identities = {label_of(method): method_identity(method) for method in chosen}
    finished = {}
    if store is not None:
        stored = stored_draws(store, identity, chosen)
        finished = {name: labelled(tree, *labels) for name, tree in stored.items()}
        if any(not tree.identical(stored[name]) for name, tree in finished.items()):
            save_trees(finished, Path(store) / DRAWS_FILE)
    recommended = alternatives(problem)
    prior = None
    if any(label_of(method) not in finished for method in chosen):
        prior_key = jax.random.fold_in(rng_key, zlib.crc32(b"prior"))
        prior = prior_groups(problem, prior_key, num_prior_draws, progress=progress)
    for method in chosen:
        label = label_of(method)
        if label in finished:
            continue
        key = jax.random.fold_in(rng_key, zlib.crc32(label.encode()))
        start = time.perf_counter()
        draws = method.draw(problem, key, resources)
        seconds = time.perf_counter() - start + resources.take_borrowed_seconds()
        check_draws(label, draws, problem)
        tree = to_datatree(problem, draws, truth=known, prior=prior, progress=progress)
        tree.attrs.update({"seconds": seconds, **identity, **identities[label]})
        tree.attrs["remedy"] = getattr(method, "remedy", "")
        tree.attrs["methods_that_apply"] = recommended
        finished[label] = labelled(tree, *labels)
        if store is not None:
            _keep(label, finished, Path(store) / DRAWS_FILE)
    if unfinished is not None:
        shutil.rmtree(unfinished, ignore_errors=True)
    return {label_of(method): finished[label_of(method)] for method in chosen}


def check_methods(problem: InverseProblem, methods: Sequence[str | Method]) -> tuple[Method, ...]:
    """The methods as objects, if the problem can be given to all of them.

    Raises:
        TypeError: an object that is no method.
        ValueError: an unknown method, two of one label, or one that cannot take the problem.
    """
    found = resolved(methods)
    require_problem(problem, "run")
    check_site_names(problem)
    for method in found:
        method.check(problem)
    return found


def stored_draws(
    store: str | os.PathLike[str], identity: Mapping[str, str], methods: Sequence[Method] = ()
) -> dict[str, xr.DataTree]:
    """The draws that a folder holds by the method's label; none where it holds none.

    Args:
        store: the folder.
        identity: what the draws must come from, `identity_of`.
        methods: whose draws must come from the same methods with the same options.

    Raises:
        ValueError: they come from something else (what differs), or cannot be read.
    """
    path = Path(store) / DRAWS_FILE
    if not path.exists():
        return {}
    trees = load_trees(path)
    asked = {label_of(method): method for method in methods}
    for label, tree in trees.items():
        found = differences(tree.attrs, identity)
        if found:
            raise ValueError(
                f"{os.fspath(store)} holds draws ({label}) of another run: {found}. Choose another "
                "folder, or remove that one"
            )
        found = method_differences(tree.attrs, asked[label]) if label in asked else ""
        if found:
            raise ValueError(
                f"{os.fspath(store)} holds draws under the label {label!r} of another method: "
                f"{found}. Give the method another label, choose another folder, or remove that one"
            )
    return trees


def _keep(label: str, finished: Mapping[str, xr.DataTree], path: Path) -> None:
    """Store the draws of the method that has just finished beside those of the others."""
    if path.exists():
        add_tree(label, finished[label], path)
    else:
        save_trees(finished, path)


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
