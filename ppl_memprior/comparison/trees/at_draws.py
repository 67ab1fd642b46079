"""What the model says at the draws, by one program with one forward solve for each distinct draw.

The program returns the deterministic sites, the responsibilities, chi-square, the log-likelihood
of each datum and the distributions of the observed sites. Noise is drawn from these afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from numpyro.ops.provenance import eval_provenance

from ppl_memprior._batches import filled_batches, items_in_batch
from ppl_memprior._execution.progress import (
    map_in_batches,
    progress_bar,
    told_plainly,
)
from ppl_memprior._failures import has_failed
from ppl_memprior.comparison.trees.observed_sites import (
    data_sites,
    elementwise,
    log_likelihoods,
    some_latents,
)
from ppl_memprior.problem._cache import remembered
from ppl_memprior.problem._gaussian_site import gaussian_site
from ppl_memprior.problem.inverse_problem import InverseProblem


@dataclass(frozen=True)
class AtDraws:
    """What the model says at n draws.

    Attributes:
        deterministics: values of the deterministic sites by name, shape (n, *event_shape).
        mean_responsibility: mean over the draws, shape (N,).
        chi_square: shape (n,); None where a site's noise is not Gaussian.
        failed: whether the simulation fails at each draw, shape (n,).
        log_likelihood: of each datum at the chosen draws, by observed site.
        predictive: data drawn at the chosen draws, by observed site, masked ones too. Sites whose
            distribution cannot be drawn from are left out.
        num_evaluations: forward solves, one for each distinct draw.
    """

    deterministics: Mapping[str, np.ndarray]
    mean_responsibility: np.ndarray
    chi_square: np.ndarray | None
    failed: np.ndarray
    log_likelihood: Mapping[str, np.ndarray]
    predictive: Mapping[str, np.ndarray]
    num_evaluations: int


def at_draws(
    problem: InverseProblem,
    latents: Mapping[str, np.ndarray],
    chosen: np.ndarray,
    rng_key: jax.Array,
    *,
    progress: bool = False,
) -> AtDraws:
    """Evaluate the model at draws of its latent sites.

    Args:
        problem: the inverse problem.
        latents: draws of all latent sites by name, shape (n, *event_shape).
        chosen: numbers of the draws whose log-likelihoods and predictions are wanted, shape (k,).
        rng_key: of the noise. Draws that repeat an earlier one have noise of their own.
        progress: show a bar over the forward solves, on stderr.
    """
    names = list(latents)
    rows = np.concatenate([latents[name].reshape(len(latents[name]), -1) for name in names], 1)
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.ravel()
    shares = np.bincount(inverse) / len(inverse)
    wanted = np.zeros(len(first), dtype=bool)
    wanted[inverse[chosen]] = True

    # found once for a problem
    noise = remembered(problem, "noise of the observed sites", lambda: _noise(problem))
    program = _AtDraw(tuple(noise.items()))
    responsibility = np.zeros(problem.num_examples)
    parts, chosen_parts = [], []
    fixed: dict[str, list[np.ndarray]] = {}
    unique = {name: jnp.asarray(latents[name][first]) for name in names}
    elements = sum(problem.data[name].size for name in data_sites(problem)) + rows.shape[1]
    for items, (part, of_all) in _in_batches(problem, program, unique, elements, progress):
        fixed = of_all
        responsibility += shares[items] @ part.pop("responsibilities")
        large = {name: part.pop(name) for name in ("log_likelihood", "noise")}
        chosen_parts.append(jax.tree.map(lambda leaf, w=wanted[items]: leaf[w], large))
        parts.append(part)
    found = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    at_chosen = jax.tree.map(lambda *leaves: np.concatenate(leaves), *chosen_parts)
    places = (np.cumsum(wanted) - 1)[inverse[chosen]]
    predictive = {
        name: noise[name].sample(jax.random.fold_in(rng_key, i), leaves, fixed[name], places)
        for i, (name, leaves) in enumerate(at_chosen["noise"].items())
    }
    failed = found["failed"]
    if "chi_square" in found:
        failed |= ~np.isfinite(found["chi_square"])
    return AtDraws(
        deterministics={n: v[inverse] for n, v in found["deterministics"].items()},
        mean_responsibility=responsibility.astype(problem.take(0).dtype),
        chi_square=found["chi_square"][inverse] if "chi_square" in found else None,
        failed=failed[inverse],
        log_likelihood={n: v[places] for n, v in at_chosen["log_likelihood"].items()},
        predictive=predictive,
        num_evaluations=len(first),
    )


def can_sample(fn: Any) -> bool:
    """Whether draws can be taken from a distribution; some have a density only."""
    try:
        jax.eval_shape(fn.sample, jax.random.key(0))
    except Exception:  # a user's own distribution may raise anything here
        return False
    return True


def is_defined(fn: Any) -> jax.Array:
    """Whether no parameter of a distribution is NaN, as those of a failed simulation are."""
    floating = [leaf for leaf in _leaves(fn) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return ~jnp.any(jnp.asarray([jnp.any(jnp.isnan(leaf)) for leaf in floating], dtype=bool))


def nan_where_undefined(values: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """Predictions with NaN where their distribution is not defined, also of whole numbers.

    Args:
        values: shape (n, *data_shape).
        defined: shape (n,).
    """
    if np.all(defined):
        return values
    found = values.astype(np.result_type(values.dtype, np.float32))
    found[~defined] = np.nan
    return found


@dataclass(frozen=True)
class _Noise:
    """The distribution of an observed site, taken apart into arrays.

    Only the arrays that depend on the latent sites are kept for each draw: a covariance that they
    share is kept once.

    Attributes:
        structure: puts the arrays together again.
        varies: which of the arrays depend on the latent sites.
        size: numbers of one prediction.
    """

    structure: Any
    varies: tuple[bool, ...]
    size: int

    def __hash__(self) -> int:
        return hash((self.varies, self.size))  # not every distribution's structure has a hash

    def split(self, fn: Any) -> tuple[list[jax.Array], list[jax.Array]]:
        """The arrays that depend on the latent sites, and the others."""
        pairs = list(zip(_leaves(fn), self.varies, strict=True))
        return [leaf for leaf, v in pairs if v], [leaf for leaf, v in pairs if not v]

    def together(self, varying: list[jax.Array], fixed: list[Any]) -> Any:
        """The distribution of one draw."""
        of_draw, of_all = iter(varying), iter(fixed)
        leaves = [next(of_draw) if varies else jnp.asarray(next(of_all)) for varies in self.varies]
        return jax.tree.unflatten(self.structure, leaves)

    def sample(
        self, rng_key: jax.Array, varying: list[np.ndarray], fixed: list[Any], which: np.ndarray
    ) -> np.ndarray:
        """A prediction for each of `which`, the number of a kept distribution."""
        items = (jax.random.split(rng_key, len(which)), [leaf[which] for leaf in varying])
        return nan_where_undefined(
            *map_in_batches(Partial(_Prediction(self), fixed), items, elements_per_item=self.size)
        )


@dataclass(frozen=True)
class _Prediction:
    """Draws data; equal where the distributions come apart in the same way."""

    noise: _Noise

    def __call__(
        self, fixed: list[Any], item: tuple[jax.Array, list[jax.Array]]
    ) -> tuple[jax.Array, jax.Array]:
        key, leaves = item
        fn = self.noise.together(leaves, fixed)
        return fn.sample(key), is_defined(fn)


@dataclass(frozen=True)
class _AtDraw:
    """What is kept of a draw, and what all draws share; equal for problems of one form.

    Attributes:
        noise: the observed sites that predictions are drawn of, by name.
    """

    noise: tuple[tuple[str, _Noise], ...]

    @partial(jax.jit, static_argnums=0)
    def run(
        self, problem: InverseProblem, latents: dict[str, jax.Array]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """From latent sites, stacked over draws."""
        return jax.vmap(partial(self._one, problem), out_axes=(0, None))(latents)

    def _one(
        self, problem: InverseProblem, values: dict[str, jax.Array]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        others: dict[str, ArrayLike] = {name: values[name] for name in problem.extra_latents}
        x = values[problem.prior_name]
        trace = problem.trace(x, **others)
        prior = trace[problem.prior_name]["fn"] if others else problem.prior
        each: dict[str, Any] = {
            "deterministics": {name: trace[name]["value"] for name in problem.deterministic_names},
            "responsibilities": prior.responsibilities(x),
            "log_likelihood": {name: log_likelihoods(trace[name]) for name in problem.observed},
        }
        total = sum(map(jnp.sum, each["log_likelihood"].values()), jnp.zeros(()))
        each["failed"] = has_failed(total)
        if problem.has_residual:
            sites = [gaussian_site(trace[name]) for name in problem.observed]
            squares = [jnp.sum(site.whitened() ** 2) for site in sites if site is not None]
            each["chi_square"] = jnp.sum(jnp.stack(squares))
        split = {name: form.split(elementwise(trace[name]["fn"])) for name, form in self.noise}
        each["noise"] = {name: varying for name, (varying, _) in split.items()}
        return each, {name: fixed for name, (_, fixed) in split.items()}


def _noise(problem: InverseProblem) -> dict[str, _Noise]:
    """How the distributions of the observed sites come apart; the model is traced, not run."""

    def read(latents: tuple[jax.Array, dict[str, ArrayLike]]) -> dict[str, Any]:
        x, others = latents
        trace = problem.trace(x, **others)
        found = {name: elementwise(trace[name]["fn"]) for name in data_sites(problem)}
        return {name: fn for name, fn in found.items() if _comes_apart(fn)}

    depends = eval_provenance(read, latents=some_latents(problem))
    parts = {name: jax.tree.flatten(fn) for name, fn in depends.items()}
    return {
        name: _Noise(structure, tuple(map(bool, leaves)), problem.data[name].size)
        for name, (leaves, structure) in parts.items()
    }


def _comes_apart(fn: Any) -> bool:
    """Whether draws can be taken from a distribution, also from one made of its arrays alone."""
    structure = jax.tree.structure(fn)
    return can_sample(fn) and can_sample(jax.tree.unflatten(structure, _leaves(fn)))


def _leaves(fn: Any) -> list[jax.Array]:
    return [jnp.asarray(leaf) for leaf in jax.tree.leaves(fn)]


def _in_batches(
    problem: InverseProblem,
    program: _AtDraw,
    latents: dict[str, jax.Array],
    elements: int,
    progress: bool,
) -> Iterator[tuple[slice, tuple[dict[str, Any], dict[str, Any]]]]:
    """Run the program in batches that bound the memory, of one shape and so one compilation."""
    description = "forward solves at the draws"
    count = len(next(iter(latents.values())))
    size = items_in_batch(count, elements)
    with progress_bar(total=count, description=description, progress=progress) as bar:
        for items, indices in filled_batches(count, size):
            kept = items.stop - items.start
            with told_plainly(description):
                each, fixed = jax.block_until_ready(
                    program.run(problem, {name: leaf[indices] for name, leaf in latents.items()})
                )
            part = jax.tree.map(lambda leaf, k=kept: np.asarray(leaf)[:k], each)
            yield items, (part, jax.tree.map(np.asarray, fixed))
            bar.update(kept)
