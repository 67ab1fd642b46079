"""Run several methods on one problem, by name, and keep every finished one.

`METHODS` is the list of what there is. Each entry turns a problem and a key into `Draws`; what
all methods share (labels, wall time, storing, going on after an interruption) is done here.
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from jax.typing import ArrayLike

from ppl_memprior import diffusion, inference
from ppl_memprior.comparison.convert import Draws, load_trees, save_trees, to_datatree
from ppl_memprior.problem import InverseProblem

DRAWS_FILE = "draws.nc"


@dataclass(frozen=True)
class Settings:
    """How long each method works.

    Attributes:
        num_samples: draws of the closed forms, and of each chain.
        num_warmup: adaptation steps of each chain.
        num_chains: Markov chains.
        max_tree_depth: of NUTS: a trajectory has at most 2 ** max_tree_depth - 1 gradients.
        num_diffusion_samples: draws of diffusion posterior sampling.
        num_diffusion_steps: its noise levels.
    """

    num_samples: int = 1000
    num_warmup: int = 500
    num_chains: int = 4
    max_tree_depth: int = 10
    num_diffusion_samples: int = 200
    num_diffusion_steps: int = 200

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            smallest = 4 if name == "num_samples" else 2 if name == "num_diffusion_steps" else 1
            if value < smallest:
                raise ValueError(f"{name} must be at least {smallest}, got {value}")


@dataclass(frozen=True)
class Method:
    """A way to a posterior.

    Attributes:
        check: raises a `ValueError` for a problem that the method cannot take.
        draw: does the work.
    """

    check: Callable[[InverseProblem], None]
    draw: Callable[[InverseProblem, jax.Array, Settings, bool], Draws]


def run(
    problem: InverseProblem,
    methods: Sequence[str],
    rng_key: jax.Array,
    *,
    settings: Settings | None = None,
    truth: ArrayLike | Mapping[str, ArrayLike] | None = None,
    coords: Mapping[str, ArrayLike] | None = None,
    units: Mapping[str, str] | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, xr.DataTree]:
    """Draw from the problem's posterior by every method named.

    Args:
        problem: the inverse problem.
        methods: names out of `METHODS`: "lookup", "linearized", "mode-jump", "nuts", "dps".
        rng_key: JAX random key; each method derives its own from it and its name, so that its
            draws do not depend on which others run.
        settings: how long each works; see `Settings`.
        truth: true value of the prior's site, shape `event_shape`, where it is known; or true
            values of several sites by name, the prior's among them.
        coords: coordinate values of dimensions: `depth` and `distance` (metres) of fields.
        units: of sites, by their names; the figures print them.
        store: folder that keeps each method's draws as soon as it is done (`draws.nc`). Called
            again with the same problem, key and settings, finished methods are read from there.
        progress: show bars on stderr.

    Returns:
        By the method's name a `DataTree` with the groups `posterior`, `sample_stats`, `examples`
        and `truth`, and attributes: `log_evidence` where the method has it, `seconds` (wall
        time, compilation included), `num_forward_evaluations`, `num_gradient_evaluations`.

    Raises:
        ValueError: an unknown method; a method that cannot take the problem (before any work is
            done); a store that belongs to another problem, key or settings.
    """
    settings = settings or Settings()
    check_methods(problem, methods)
    _check_truth(problem, truth)
    identity = fingerprint(problem, rng_key, settings, truth)
    finished = _finished(store, identity)
    for name in methods:
        if name in finished:
            continue
        key = jax.random.fold_in(rng_key, zlib.crc32(name.encode()))
        start = time.perf_counter()
        draws = METHODS[name].draw(problem, key, settings, progress)
        seconds = time.perf_counter() - start
        tree = to_datatree(
            problem, draws, truth=truth, coords=coords, units=units, progress=progress
        )
        tree.attrs.update({"method": name, "seconds": seconds, "fingerprint": identity})
        finished[name] = tree
        if store is not None:
            save_trees(finished, Path(store) / DRAWS_FILE)
    return {name: finished[name] for name in methods}


def check_methods(problem: InverseProblem, methods: Sequence[str]) -> None:
    """Raise a `ValueError` for an unknown method or one that cannot take the problem."""
    if not methods or isinstance(methods, str):
        raise ValueError(f"methods is a list of names out of {list(METHODS)}, got {methods!r}")
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r}; there are: {', '.join(METHODS)}")
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
    """A hash of everything that the stored trees depend on.

    The model's code is seen through its values: the prior's parameters, the data, and, without
    extra latent sites, the likelihood and the deterministic sites at two examples, which the
    forward operator and the noise enter.
    """
    digest = hashlib.sha256()
    bandwidth = getattr(problem.prior, "sigma", 0.0)
    for part in (problem.examples, problem.prior.log_weights, bandwidth):
        digest.update(np.asarray(part).tobytes())
    digest.update(repr((problem.prior_name, problem.observed, problem.extra_latents)).encode())
    digest.update(repr((settings, np.asarray(jax.random.key_data(rng_key)).tolist())).encode())
    known = truth if isinstance(truth, Mapping) else {"": truth}
    for name, value in (*problem.data.items(), *known.items()):
        digest.update(name.encode() + (b"" if value is None else np.asarray(value).tobytes()))
    if not problem.extra_latents:
        probe = jax.jit(lambda x: (problem.log_likelihood(x), problem.deterministics(x)))
        for example in (problem.examples[0], problem.examples[-1]):
            for leaf in jax.tree.leaves(probe(example)):
                digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


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


def _draw_lookup(
    problem: InverseProblem, key: jax.Array, settings: Settings, progress: bool
) -> Draws:
    posterior = inference.lookup(problem, progress=progress)
    return _closed_form(problem, posterior, posterior.weights, key, settings)


def _draw_linearized(
    problem: InverseProblem, key: jax.Array, settings: Settings, progress: bool
) -> Draws:
    posterior = inference.linearize(problem, progress=progress)
    weights = np.exp(np.asarray(posterior.log_weights, dtype=float))
    return _closed_form(
        problem,
        posterior,
        weights,
        key,
        settings,
        linearization_error=float(posterior.linearization_error),
    )


def _closed_form(
    problem: InverseProblem,
    posterior: inference.LookupPosterior | inference.LinearizedPosterior,
    weights: ArrayLike,
    key: jax.Array,
    settings: Settings,
    **attrs: float,
) -> Draws:
    draws = posterior.sample(key, (1, settings.num_samples))
    return Draws(
        latents={problem.prior_name: draws},
        independent=True,
        example_weights=weights,
        attrs={
            "log_evidence": float(posterior.log_evidence),
            "num_forward_evaluations": posterior.num_forward_evaluations,
            "num_gradient_evaluations": posterior.num_gradient_evaluations,
            **attrs,
        },
    )


def _draw_nuts(
    problem: InverseProblem, key: jax.Array, settings: Settings, progress: bool
) -> Draws:
    result = inference.nuts(
        problem,
        key,
        num_samples=settings.num_samples,
        num_warmup=settings.num_warmup,
        num_chains=settings.num_chains,
        max_tree_depth=settings.max_tree_depth,
        progress=progress,
    )
    return Draws(
        latents=result.latents,
        independent=False,
        sample_stats=result.sample_stats,
        attrs={
            "num_forward_evaluations": result.num_gradient_evaluations,
            "num_gradient_evaluations": result.num_gradient_evaluations,
        },
    )


def _draw_mode_jump(
    problem: InverseProblem, key: jax.Array, settings: Settings, progress: bool
) -> Draws:
    result = inference.mode_jump(
        problem,
        key,
        num_samples=settings.num_samples,
        num_warmup=settings.num_warmup,
        num_chains=settings.num_chains,
        max_tree_depth=settings.max_tree_depth,
        progress=progress,
    )
    return Draws(
        latents=result.latents,
        independent=False,
        sample_stats=result.sample_stats,
        attrs={
            "num_forward_evaluations": result.num_forward_evaluations,
            "num_gradient_evaluations": result.num_gradient_evaluations,
        },
    )


def _draw_dps(problem: InverseProblem, key: jax.Array, settings: Settings, progress: bool) -> Draws:
    result = diffusion.dps(
        problem,
        key,
        num_samples=settings.num_diffusion_samples,
        num_steps=settings.num_diffusion_steps,
        progress=progress,
    )
    return Draws(
        latents={problem.prior_name: result.draws[None]},
        independent=True,
        sample_stats={"skipped_steps": result.skipped_steps[None]},
        attrs={
            "num_forward_evaluations": result.num_forward_evaluations,
            "num_gradient_evaluations": result.num_gradient_evaluations,
        },
    )


METHODS: Mapping[str, Method] = {
    "lookup": Method(inference.check_lookup, _draw_lookup),
    "linearized": Method(inference.check_linearize, _draw_linearized),
    "mode-jump": Method(inference.check_mode_jump, _draw_mode_jump),
    "nuts": Method(inference.check_nuts, _draw_nuts),
    "dps": Method(diffusion.check_dps, _draw_dps),
}
