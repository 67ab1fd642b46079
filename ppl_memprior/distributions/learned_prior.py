"""The interface through which inference reads a prior: its components, weights and abilities.

`LearnedPrior` is the base class of the priors in this package and of a user's own priors. All other
modules read a prior through this interface, whatever its class.
"""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from ppl_memprior.distributions import _checks


class LearnedPrior(Distribution):
    r"""A weighted mixture with one component for each training example.

    .. math::
        p(x) = \sum_n \pi_n \, \mathcal{N}(x;\, m_n,\, C_n), \qquad
        C_n = s^2 (I - V_n^\top V_n) + V_n^\top \mathrm{diag}(t_n^2) V_n

    with weights :math:`\pi_n`, means :math:`m_n` and bandwidth s. The rows of :math:`V_n` are
    orthonormal directions in which a component has standard deviations :math:`t_n` of its own. A
    memorized prior has no such directions, and its bandwidth is zero: its components are points.

    To write another prior, derive it from this class as from NumPyro's `Distribution`. Set
    `log_weights`. Define `component_means`, `bandwidth`, `responsibilities` and `reweight`. The
    defaults of the other members describe isotropic components, a density and no denoiser. Define
    `take` as well where examples lie in a file.

    The shapes below are those of a prior without batch axes. Batch axes come first in arrays that
    depend on them.
    """

    #: Whether `log_prob` is the logarithm of a density, not of a probability.
    has_density: bool = True
    #: Whether `denoise` is defined.
    has_denoiser: bool = False

    #: Normalised log-weights, shape (N,); minus infinity for a weight of zero.
    log_weights: jax.Array

    @classmethod
    def gather_pytree_data_fields(cls) -> tuple[str, ...]:
        """NumPyro's, in an order that is the same in every process."""
        return tuple(sorted(super().gather_pytree_data_fields()))

    @classmethod
    def gather_pytree_aux_fields(cls) -> tuple[str, ...]:
        """NumPyro's, in an order that is the same in every process."""
        return tuple(sorted(super().gather_pytree_aux_fields()))

    @property
    def num_components(self) -> int:
        """The number N of components."""
        return self.log_weights.shape[-1]

    @property
    def component_means(self) -> jax.Array:
        """Means m_n of the components, shape (N, *event)."""
        raise NotImplementedError(_undefined(self, "component_means"))

    def take(self, indices: ArrayLike) -> jax.Array:
        """Means of some components, without reading the others where they lie in a file.

        Args:
            indices: whole numbers from 0 to N - 1, of any shape (*K). Those from -N to -1 count
                from the end, unless they are traced.

        Returns:
            The means, shape (*K, *event).

        Raises:
            TypeError: indices that are not whole numbers.
            IndexError: an index out of range. Traced indices cannot be looked at.
        """
        return self.component_means[_checks.example_indices(indices, self.num_components)]

    def prepared_examples(self) -> Any:
        """What sums over the examples prepare once, a pytree; None where there is nothing."""
        return None

    def with_prepared_examples(self, prepared: Any) -> Self:
        """Return this prior with what `prepared_examples` of an equal one has returned."""
        return self

    @property
    def bandwidth(self) -> jax.Array:
        """Standard deviation s that all components share, scalar; zero without a density.

        Its unit is that of the means. It may be traced where it depends on another latent site.
        """
        raise NotImplementedError(_undefined(self, "bandwidth"))

    @property
    def component_directions(self) -> jax.Array:
        """Orthonormal directions V_n of each component, shape (N, k, *event); by default k = 0."""
        return jnp.zeros((*self.log_weights.shape, 0, *self.event_shape), self.log_weights.dtype)

    @property
    def component_direction_scales(self) -> jax.Array:
        """Standard deviations t_n along the directions, shape (N, k); by default k = 0."""
        return jnp.zeros((*self.log_weights.shape, 0), self.log_weights.dtype)

    def responsibilities(self, value: ArrayLike) -> jax.Array:
        """Return the probability that each component produced `value`.

        Args:
            value: shape (*sample, *event).

        Returns:
            Shape (*sample, N), each row adding to one.
        """
        raise NotImplementedError(_undefined(self, "responsibilities"))

    def reweight(self, log_factors: ArrayLike) -> LearnedPrior:
        """Return the same components with weights pi_n exp(log_factors_n), normalised.

        Args:
            log_factors: shape (N,); minus infinity removes a component.

        Returns:
            A prior of the same class.
        """
        raise NotImplementedError(_undefined(self, "reweight"))

    def denoise(self, value: ArrayLike, alpha: ArrayLike, sigma: ArrayLike) -> jax.Array:
        """Return E[x0 | alpha x0 + sigma eps = value] for x0 from this prior, eps standard normal.

        Args:
            value: the noised value, shape (*sample, *event).
            alpha: scale of the noise level; broadcasts with (*sample).
            sigma: positive standard deviation of the noise; broadcasts likewise.

        Returns:
            Shape (*sample, *event).
        """
        raise NotImplementedError(_undefined(self, "denoise"))


def _undefined(prior: LearnedPrior, name: str) -> str:
    return f"{type(prior).__name__} does not define {name}, which LearnedPrior describes."
