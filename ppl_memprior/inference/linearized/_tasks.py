"""The work of `linearize` on one component, in the form that `map_examples` distributes.

`DenseTask` forms every Jacobian, `LowRankTask` needs products with it alone, and `BoundTask` says
which components are worth either. All return, for each example, NumPy arrays by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ppl_memprior._execution.map_examples import CUT_SHORT
from ppl_memprior.inference.linearized import _bounds
from ppl_memprior.inference.linearized._component_prior import ComponentPrior, posterior_directions
from ppl_memprior.inference.linearized._effort import (
    CannotMatter,
    ComponentBar,
    component_bar,
    effort_here,
)
from ppl_memprior.inference.linearized._gauss_newton import (
    Mode,
    answer,
    answer_in_batches,
    search_mode,
)
from ppl_memprior.inference.linearized._gaussian_update import (
    GaussianUpdate,
    Spectrum,
    dense_spectrum,
    gaussian_update,
)
from ppl_memprior.inference.linearized._low_rank import Products, low_rank
from ppl_memprior.inference.linearized._whitened import (
    WhitenedComponent,
    WhitenedComponents,
    whitened_residual,
)
from ppl_memprior.problem.inverse_problem import InverseProblem

FEW = 8  # components that are worked on as if they were so many
# Directions that block Golub-Kahan bidiagonalization finds at a time; their products go into one
# batch. The number decides which directions are found, so it does not depend on the memory.
BLOCK = 16
_SEED = 0  # of the random probes: example n at its i-th linearization always gets the same ones

Batch = Callable[[NDArray[Any]], list[dict[str, NDArray[Any]]]]


@dataclass(frozen=True)
class BoundTask:
    """Bound each component's log-evidence.

    Results: `log_evidence`, `misfit`, and the counts of evaluations.

    Attributes:
        steps: of the bidiagonalization that the bound is read from.
    """

    steps: int

    @property
    def name(self) -> str:
        """What it is called in a store."""
        return f"bound-{self.steps}"

    def prepare(self, problem: InverseProblem) -> Batch:
        """Compile the bound; see `ExampleTask`."""
        components = WhitenedComponents(problem)

        def work(indices: NDArray[Any]) -> list[dict[str, NDArray[Any]]]:
            found = _bounds.first_looks(problem, components.priors(indices), steps=self.steps)
            bounds = _bounds.evidence_bounds(found)
            return [
                {
                    "log_evidence": bound,
                    "misfit": misfit,
                    "forward_evaluations": np.asarray(_bounds.FORWARD_EVALUATIONS),
                    "gradient_evaluations": np.asarray(_bounds.gradient_evaluations(self.steps)),
                }
                for bound, misfit in zip(bounds, np.asarray(found.misfit), strict=True)
            ]

        return work


@dataclass(frozen=True)
class DenseTask:
    """Linearize by forming the Jacobian.

    Attributes:
        iterations: Gauss-Newton steps at most.
    """

    iterations: int
    name: str = "linearize-dense"

    def prepare(self, problem: InverseProblem) -> Batch:
        """Compile the Jacobians of a batch; see `ExampleTask`."""
        components = WhitenedComponents(problem)
        products = min(components.num_model, components.num_data)

        def work(indices: NDArray[Any]) -> list[dict[str, NDArray[Any]]]:
            batch = _DenseBatch(problem, components.priors(indices))
            start = np.zeros(components.num_model, components.dtype)
            searches = [search_mode(start, self.iterations) for _ in indices]
            modes = answer_in_batches(searches, batch.linearize_at, batch.objectives)
            posteriors = [_posterior(mode, self.iterations) for mode in modes]
            z = np.stack([mean for _, mean in posteriors]).astype(components.dtype)
            means, misfits = batch.look(np.arange(len(indices)), z)
            on_host = jax.tree.map(np.asarray, batch.priors)
            results = []
            for i in range(len(indices)):
                found = _Found(modes[i], posteriors[i][0], z[i], means[i], misfits[i])
                counts = {
                    "forward_evaluations": modes[i].iterations + modes[i].forward_evaluations + 2,
                    "gradient_evaluations": (modes[i].iterations + 1) * products,
                }
                prior = jax.tree.map(lambda leaf, i=i: leaf[i], on_host)
                results.append(_result(prior, found, 0.0, counts))
            return results

        return work


@dataclass(frozen=True)
class _DenseBatch:
    """Some components of a problem.

    Attributes:
        problem: whose components they are.
        priors: the components, with a leading axis.
    """

    problem: InverseProblem
    priors: ComponentPrior

    def linearize_at(self, which: NDArray[Any], z: NDArray[Any]) -> list[_Linearized]:
        """Linearize the components `which`, shape (K,), at z, shape (K, d)."""
        r, b = self._filled_up(_residuals_and_jacobians, which, z)
        return [_linearized_dense(*each) for each in zip(z, r, b, strict=True)]

    def objectives(self, which: NDArray[Any], z: NDArray[Any]) -> NDArray[Any]:
        """|r(z)|^2 / 2 + |z|^2 / 2 of the components `which`, shape (K,)."""
        _, misfits = self.look(which, z)
        return 0.5 * (misfits + np.sum(z**2, axis=1))

    def look(self, which: NDArray[Any], z: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The models at z, shape (K, d), and their misfits, shape (K,)."""
        return self._filled_up(_means_and_misfits, which, z)

    def _filled_up(self, program: Callable[..., Any], which: NDArray[Any], z: NDArray[Any]) -> Any:
        """A program at some of the components, compiled for two sizes at most."""
        num = len(self.priors.mean)
        size = min(FEW, num) if len(which) <= FEW else num
        filled = np.minimum(np.arange(size), len(which) - 1)
        chosen = jax.tree.map(lambda leaf: leaf[which[filled]], self.priors)
        made = program(self.problem, chosen, z[filled])
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(which)], made)


@dataclass(frozen=True)
class LowRankTask:
    """Linearize by products with the Jacobian, without forming it.

    Attributes:
        iterations: Gauss-Newton steps at most.
        accuracy: error of each component's log-evidence to stop at, in nats.
        max_rank: most directions of a component.
    """

    iterations: int
    accuracy: float
    max_rank: int
    name: str = "linearize-low-rank"

    def prepare(self, problem: InverseProblem) -> Batch:
        """Compile the products; see `ExampleTask`."""
        components = WhitenedComponents(problem)
        block = min(BLOCK, components.num_model, components.num_data)

        def work(indices: NDArray[Any]) -> list[dict[str, NDArray[Any]]]:
            results = []
            for n in indices:
                with component_bar(int(n), self.max_rank, self.accuracy) as bar:
                    component = components.at(int(n), block, bar.products)
                    key = jax.random.fold_in(jax.random.key(_SEED), int(n))
                    work_at_n = _LowRankWork(self, components, component, block, key, bar)
                    results.append(work_at_n.done())
            return results

        return work


@dataclass
class _LowRankWork:
    """The work of `LowRankTask` on one component.

    Attributes:
        task: what is wanted.
        components: all components.
        component: the one that is worked on.
        block: directions that are found at a time.
        key: of the random probes.
        bar: shows how far the work is.
        stopped: whether the effort ended before the accuracy was reached.
    """

    task: LowRankTask
    components: WhitenedComponents
    component: WhitenedComponent
    block: int
    key: jax.Array
    bar: ComponentBar
    stopped: bool = False

    def done(self) -> dict[str, NDArray[Any]]:
        """Do the work and return its results."""
        task, component = self.task, self.component
        origin = np.zeros(self.components.num_model, self.components.dtype)
        search = search_mode(origin, task.iterations)
        mode = answer(search, self.linearize_at, self.objective)
        update, z = _posterior(mode, task.iterations)
        mean = np.asarray(component.prior.at(jnp.asarray(z, self.components.dtype)))
        found = _Found(mode, update, z, mean, _squared(component.residual(z)))
        error = mode.linearized.truncation_error
        result = _result(component.prior, found, error, self.counts())
        cut_short = self.stopped and error > task.accuracy
        return {**result, CUT_SHORT: np.asarray(True)} if cut_short else result

    def linearize_at(self, z: NDArray[Any], _: _Linearized | None) -> _Linearized:
        """Linearize at z, shape (d,)."""
        component = self.component
        r, extrapolated = component.extrapolated_residual(z)
        found = low_rank(
            Products(partial(component.push, z), partial(component.pull, z)),
            extrapolated,
            self.components.num_model,
            key=self.key,
            block=self.block,
            accuracy=self.task.accuracy,
            max_rank=self.task.max_rank,
            enough=self.enough,
        )
        return _linearized(z, r, found.spectrum, found.truncation_error)

    def objective(self, z: NDArray[Any]) -> float:
        """|r(z)|^2 / 2 + |z|^2 / 2."""
        return 0.5 * float(_squared(self.component.residual(z)) + _squared(z))

    def enough(self, rank: int, error: float, bound: float) -> bool:
        """Whether no further directions are wanted; see `low_rank`.

        Raises:
            CannotMatter: the component's weight is negligible.
        """
        effort = effort_here()
        self.bar.directions(rank, error)
        # an iterated component has another evidence, which nothing bounds
        if not self.task.iterations and bound < effort.least:
            raise CannotMatter(bound, {n: np.asarray(c) for n, c in self.counts().items()})
        # another round, what comes before the next such question, and the look at the mean
        self.stopped = not effort.suffices(sum(self.counts().values()) + 3 * self.block + 1)
        return self.stopped

    def counts(self) -> dict[str, int]:
        """Evaluations so far."""
        return {
            "forward_evaluations": self.component.forward_evaluations,
            "gradient_evaluations": self.component.gradient_evaluations,
        }


class _Linearized(NamedTuple):
    """A component linearized at z, for the Gauss-Newton iteration."""

    objective: Any  # |r(z)|^2 / 2 + |z|^2 / 2
    update: GaussianUpdate
    decrement: Any
    spectrum: Spectrum
    truncation_error: Any


class _Found(NamedTuple):
    mode: Mode
    update: GaussianUpdate
    z: Any  # the posterior mean in whitened coordinates
    mean: Any  # and in the model's
    misfit_at_mean: Any


# Factorized outside of the compiled programs: two batched LAPACK calls of one program can wait for
# each other's threads for ever (jaxlib 0.10).
@jax.jit
def _residuals_and_jacobians(
    problem: InverseProblem, priors: ComponentPrior, z: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """r(z), shape (K, m), and B = -dr/dz, shape (K, m, d), of K components."""

    def of_one(prior: ComponentPrior, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        residual = partial(whitened_residual, problem, prior)
        num_data = jax.eval_shape(residual, z).shape[0]
        jacobian = jax.jacfwd if z.size <= num_data else jax.jacrev
        slope, r = jacobian(lambda z: (residual(z),) * 2, has_aux=True)(z)
        return r, -slope

    return jax.vmap(of_one)(priors, z)


@jax.jit
def _means_and_misfits(
    problem: InverseProblem, priors: ComponentPrior, z: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The models at z, shape (K, d), and |r(z)|^2, shape (K,), of K components."""

    def of_one(prior: ComponentPrior, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        return prior.at(z), jnp.sum(whitened_residual(problem, prior, z) ** 2)

    return jax.vmap(of_one)(priors, z)


def _linearized_dense(z: Any, r: Any, b: Any) -> _Linearized:
    if np.isfinite(r).all() and np.isfinite(b).all():
        return _linearized(z, r, dense_spectrum(b, r + b @ z), 0.0)
    # factorizations raise on what is not finite; `linearize` says which examples it was
    rank = min(b.shape)
    nothing = np.full(rank, np.nan, b.dtype)
    spectrum = Spectrum(nothing, np.zeros((rank, len(z)), b.dtype), nothing, b.dtype.type(np.nan))
    return _linearized(z, r, spectrum, 0.0)


def _linearized(z: Any, r: Any, spectrum: Spectrum, truncation_error: Any) -> _Linearized:
    update = gaussian_update(spectrum)
    step = update.mean - z
    decrement = _squared(step) + _squared(spectrum.singular_values * (spectrum.directions @ step))
    objective = 0.5 * (_squared(r) + _squared(z))
    return _Linearized(objective, update, decrement, spectrum, truncation_error)


def _posterior(mode: Mode, iterations: int) -> tuple[GaussianUpdate, Any]:
    """The update where the iteration ended, and its mean; at a mode, Laplace's value."""
    here = mode.linearized
    if not iterations:
        return here.update, here.update.mean
    xp = here.update.mean.__array_namespace__()
    mean = xp.where(mode.converged, mode.z, here.update.mean)
    laplace = -here.objective - 0.5 * here.update.log_determinant
    misfit = 2 * here.objective - _squared(mode.z)
    update = here.update._replace(
        mean=mean,
        log_evidence=xp.where(mode.converged, laplace, here.update.log_evidence),
        misfit=xp.where(mode.converged, misfit, here.update.misfit),
    )
    return update, mean


def _squared(vector: Any) -> Any:
    return (vector**2).sum()


def _result(
    prior: ComponentPrior, found: _Found, truncation_error: float, counts: dict[str, int]
) -> dict[str, NDArray[Any]]:
    spectrum, update = found.mode.linearized.spectrum, found.update
    directions, scales = posterior_directions(prior, spectrum.directions, spectrum.singular_values)
    result = {
        "mean": found.mean,
        "directions": directions,
        "direction_scales": scales,
        "singular_values": spectrum.singular_values,
        "coefficients": spectrum.coefficients,
        "unexplained": spectrum.unexplained,
        "log_evidence": update.log_evidence,
        "misfit": 2 * found.mode.first_objective,
        "linearized_misfit": update.misfit,
        "misfit_at_mean": found.misfit_at_mean,
        "log_determinant": update.log_determinant,
        "shift": np.sqrt(_squared(found.z)),
        "informed_directions": update.informed_directions,
        "rank": len(spectrum.singular_values),
        "truncation_error": truncation_error,
        "iterations": found.mode.iterations,
        "converged": found.mode.converged,
        **counts,
    }
    return {name: np.asarray(value) for name, value in result.items()}
