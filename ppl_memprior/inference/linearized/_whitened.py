"""The whitened residual of a problem as a function of the whitened coordinates of a component.

r(z) = Gamma^-1/2 (y - F(x_n + L_n z)), and products with B = -dr/dz and its transpose, several at
a time: an operator that folds a vmapped batch into one call (Deepwave's do) gets it whole.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ppl_memprior._batches import batch_slices, items_that_fit
from ppl_memprior.inference.linearized._component_prior import ComponentPrior, component_priors
from ppl_memprior.problem.inverse_problem import InverseProblem


def whitened_residual(problem: InverseProblem, prior: ComponentPrior, z: jax.Array) -> jax.Array:
    """The residual r(z), shape (m,), of a component of the prior and z, shape (d,)."""
    return problem.residual(prior.at(z).reshape(problem.event_shape))


def _residual_and_pushed(
    problem: InverseProblem, prior: ComponentPrior, z: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return jax.jvp(partial(whitened_residual, problem, prior), (z,), (z,))


def _pushed(
    problem: InverseProblem, prior: ComponentPrior, z: jax.Array, vectors: jax.Array
) -> jax.Array:
    def push(vector: jax.Array) -> jax.Array:
        return jax.jvp(partial(whitened_residual, problem, prior), (z,), (vector,))[1]

    return -jax.vmap(push)(vectors)


def _pulled(
    problem: InverseProblem, prior: ComponentPrior, z: jax.Array, vectors: jax.Array
) -> jax.Array:
    _, pull = jax.vjp(partial(whitened_residual, problem, prior), z)
    return -jax.vmap(lambda vector: pull(vector)[0])(vectors)


# Compiled once for all problems of one form, which they take as their first argument.
_compiled_residual = jax.jit(whitened_residual)
_compiled_residual_and_push = jax.jit(_residual_and_pushed)
_compiled_push = jax.jit(_pushed)
_compiled_pull = jax.jit(_pulled)


class WhitenedComponents:
    """All components of a problem, with compiled residuals and products.

    Attributes:
        problem: whose components they are.
        num_model, num_data: d and m (masked data, which stand in the residual as zeros, included).
        dtype: of the residual.
    """

    def __init__(self, problem: InverseProblem) -> None:
        self.problem = problem
        first = self.component(0)
        (self.num_model,) = first.mean.shape
        shape = jax.eval_shape(whitened_residual, problem, first, first.mean)
        self.num_data: int = shape.shape[0]
        self.dtype = np.dtype(shape.dtype)

    def component(self, index: int) -> ComponentPrior:
        """One component."""
        return jax.tree.map(lambda leaf: leaf[0], self.priors(np.asarray([index])))

    def priors(self, indices: NDArray[Any]) -> ComponentPrior:
        """Some components, stacked, by the indices of their examples."""
        return component_priors(self.problem.prior, indices)

    def at(
        self, index: int, block: int, made: Callable[[int], None] = lambda count: None
    ) -> WhitenedComponent:
        """One component.

        Args:
            index: of its example.
            block: products that are made at a time, at most.
            made: told after each batch of products how many there were in all.
        """
        return WhitenedComponent(self, self.component(index), block, made)


class WhitenedComponent:
    """Residual and products of one component, NumPy in and out, counted.

    Attributes:
        prior: the component.
        forward_evaluations, gradient_evaluations: solves and products made so far.
    """

    def __init__(
        self,
        components: WhitenedComponents,
        prior: ComponentPrior,
        block: int,
        made: Callable[[int], None],
    ) -> None:
        self.prior = prior
        self.forward_evaluations = 0
        self.gradient_evaluations = 0
        self._components = components
        self._made = made
        self._batch = min(block, items_that_fit(components.num_data + components.num_model))

    def residual(self, z: NDArray[Any]) -> NDArray[Any]:
        """r(z), shape (m,)."""
        self.forward_evaluations += 1
        return np.asarray(_compiled_residual(self._components.problem, self.prior, self._cast(z)))

    def extrapolated_residual(self, z: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """r(z), and r(z) + B z, which the component linearized at z has at its prior mean."""
        self.forward_evaluations += 1
        if not z.any():
            here = np.asarray(
                _compiled_residual(self._components.problem, self.prior, self._cast(z))
            )
            return here, here
        self.gradient_evaluations += 1
        here, pushed = _compiled_residual_and_push(
            self._components.problem, self.prior, self._cast(z)
        )
        return np.asarray(here), np.asarray(here) - np.asarray(pushed)

    def push(self, z: NDArray[Any], vectors: NDArray[Any]) -> NDArray[Any]:
        """B v at z for each row v of (n, d); shape (n, m)."""
        return self._in_batches(_compiled_push, z, vectors)

    def pull(self, z: NDArray[Any], vectors: NDArray[Any]) -> NDArray[Any]:
        """B^T u at z for each row u of (n, m); shape (n, d)."""
        return self._in_batches(_compiled_pull, z, vectors)

    def _cast(self, array: NDArray[Any]) -> jax.Array:
        return jnp.asarray(array, self._components.dtype)

    def _in_batches(
        self, product: Callable[..., jax.Array], z: NDArray[Any], vectors: NDArray[Any]
    ) -> NDArray[Any]:
        parts = []
        for rows in batch_slices(len(vectors), self._batch):
            part = vectors[rows]
            # one shape, one compilation: zeros fill up the last batch
            padded = np.zeros((self._batch, vectors.shape[1]), self._components.dtype)
            padded[: len(part)] = part
            made = product(self._components.problem, self.prior, self._cast(z), jnp.asarray(padded))
            parts.append(np.asarray(made)[: len(part)])
            self.gradient_evaluations += self._batch
            self._made(self.gradient_evaluations)
        return np.concatenate(parts)
