"""The Gaussian-mixture posterior from linearizing the forward operator at every example.

Around example n, F(x) is replaced by F(x_n) + J_n (x - x_n). Each component of the prior then
has a Gaussian posterior and a closed-form evidence (Siahkoohi & Sabeddu, arXiv:2603.19629; the
component weights here include the log-determinant of the data covariance, which differs from
component to component). Dense: every Jacobian is formed, by forward mode when the model is the
smaller side and by reverse mode when the data are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppl_memprior._progress import map_in_batches
from ppl_memprior.distributions import DiffusionMixturePrior, LowRankGaussianMixture
from ppl_memprior.inference.lookup import check_finite_examples
from ppl_memprior.problem import InverseProblem


class ComponentReport(NamedTuple):
    """What the linearization found at each example; every field has shape (N,).

    Attributes:
        misfit: squared norm of the whitened residual at the example.
        linearized_misfit: the same at the component's mean, as the linear model predicts it.
        misfit_at_mean: the same at the component's mean, through the forward operator itself;
            where it is far from `linearized_misfit` the linearization is not to be believed.
        log_determinant: log det(I + J~ J~^T sigma^2), J~ the whitened Jacobian.
        shift: distance of the component's mean from the example, in units of sigma.
        informed_directions: sum of the data's share of each direction's precision, between 0
            (the data say nothing) and min(d, m).
    """

    misfit: jax.Array
    linearized_misfit: jax.Array
    misfit_at_mean: jax.Array
    log_determinant: jax.Array
    shift: jax.Array
    informed_directions: jax.Array


class LinearizedPosterior(LowRankGaussianMixture):
    """A `LowRankGaussianMixture` that carries the evidence and a report on its components.

    Attributes:
        log_evidence: log p(data) of the linearized problem (scalar).
        report: `ComponentReport`.
        num_forward_evaluations, num_gradient_evaluations: forward solves, and Jacobian products
            (each of the cost of a gradient), made.
    """

    pytree_data_fields = ("log_evidence", "report")
    pytree_aux_fields = ("num_forward_evaluations", "num_gradient_evaluations")

    log_evidence: jax.Array
    report: ComponentReport
    num_forward_evaluations: int
    num_gradient_evaluations: int

    @property
    def linearization_error(self) -> jax.Array:
        """Mean over the posterior's components of the log-likelihood's error at their means.

        Half the difference of the misfit that the forward operator has there and the one that
        its linearization promised, in nats (scalar). Below about one half the linearized
        posterior can be believed; far above, it describes another problem.
        """
        error = 0.5 * jnp.abs(self.report.misfit_at_mean - self.report.linearized_misfit)
        weights = jnp.exp(self.log_weights)
        return jnp.sum(jnp.where(weights > 0, weights * error, 0.0))


class _Component(NamedTuple):
    mean: jax.Array  # (d,)
    directions: jax.Array  # (k, d), orthonormal rows
    direction_scales: jax.Array  # (k,)
    log_evidence: jax.Array  # of this component, without the likelihood's normalizer
    misfit: jax.Array
    linearized_misfit: jax.Array
    misfit_at_mean: jax.Array
    log_determinant: jax.Array
    informed_directions: jax.Array


def linearize(problem: InverseProblem, *, progress: bool = False) -> LinearizedPosterior:
    """Posterior and evidence of the problem linearized at every training example.

    Exact where the forward operator is linear and the noise Gaussian.

    Args:
        problem: an inverse problem with a `DiffusionMixturePrior`, Gaussian noise and no extra
            latent sites.
        progress: show a bar over the linearizations, on stderr.

    Returns:
        A NumPyro distribution: the Gaussian mixture with covariances
        (I / sigma^2 + J_n^T Gamma^-1 J_n)^-1 and weights proportional to
        pi_n N(data; F(x_n), sigma^2 J_n J_n^T + Gamma).

    Raises:
        ValueError: a `MemorizedPrior` (it has no bandwidth), noise that is not Gaussian, extra
            latent sites, non-finite forward output or Jacobian (which examples).
    """
    check_linearize(problem)
    prior = problem.prior
    assert isinstance(prior, DiffusionMixturePrior)
    examples = problem.examples.reshape(len(problem.examples), -1)
    num_model, num_data = examples.shape[1], problem.num_data
    residual = _flat_residual(problem)

    parts: _Component = map_in_batches(
        lambda x: _linearize_component(residual, x, prior.sigma, num_model <= num_data),
        examples,
        elements_per_item=8 * num_model * num_data,
        description="linearize: examples",
        progress=progress,
    )
    check_finite_examples("the forward operator", ~np.isfinite(parts.misfit))
    finite = np.isfinite(parts.directions).all(axis=(1, 2)) & np.isfinite(parts.log_evidence)
    check_finite_examples("the Jacobian of the forward operator", ~finite)

    log_joint = prior.log_weights + parts.log_evidence
    shape = problem.event_shape
    posterior = LinearizedPosterior(
        jnp.asarray(parts.mean).reshape(-1, *shape),
        prior.sigma,
        jnp.asarray(parts.directions).reshape(*parts.directions.shape[:2], *shape),
        jnp.asarray(parts.direction_scales),
        log_joint,
    )
    posterior.log_evidence = jax.nn.logsumexp(log_joint) + problem.log_normalizer()
    shift = jnp.linalg.norm(parts.mean - examples, axis=1) / prior.sigma
    posterior.report = ComponentReport(
        jnp.asarray(parts.misfit),
        jnp.asarray(parts.linearized_misfit),
        jnp.asarray(parts.misfit_at_mean),
        jnp.asarray(parts.log_determinant),
        shift,
        jnp.asarray(parts.informed_directions),
    )
    posterior.num_forward_evaluations = 2 * len(examples)
    posterior.num_gradient_evaluations = len(examples) * min(num_model, num_data)
    return posterior


def check_linearize(problem: InverseProblem) -> None:
    """Raise a `ValueError` for a problem that `linearize` cannot take."""
    if not isinstance(problem.prior, DiffusionMixturePrior):
        raise ValueError(
            "linearize needs a DiffusionMixturePrior; a MemorizedPrior has no bandwidth, and its "
            "exact posterior is lookup(problem)"
        )
    problem.require_no_extra_latents("linearize")
    problem.require_residual("linearize")


def _flat_residual(problem: InverseProblem) -> Callable[[jax.Array], jax.Array]:
    """The whitened residual as a function of the flattened model."""
    return lambda flat: problem.residual(flat.reshape(problem.event_shape))


def _linearize_component(
    residual: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    sigma: jax.Array,
    model_is_smaller: bool,
) -> _Component:
    """Posterior of one component, by the singular values of B = sigma J~ (m x d).

    With B = U S V^T the covariance is sigma^2 (I - V S^2 / (1 + S^2) V^T), the mean
    x_n + sigma V S / (1 + S^2) U^T r, and the data covariance in whitened units I + B B^T. The
    products B^T B and B B^T, which square the condition number, are never formed: a QR
    factorization reduces the tall side first.
    """
    r = residual(x)
    jacobian = jax.jacfwd(residual)(x) if model_is_smaller else jax.jacrev(residual)(x)
    b = -sigma * jacobian
    if b.shape[0] >= b.shape[1]:
        q, triangle = jnp.linalg.qr(b)
        u, s, vt = jnp.linalg.svd(triangle, full_matrices=False)
        left = q @ u
    else:
        q, triangle = jnp.linalg.qr(b.T)
        v, s, ut = jnp.linalg.svd(triangle, full_matrices=False)
        vt, left = (q @ v).T, ut.T
    coefficients = left.T @ r
    unexplained = r - left @ coefficients
    mean = x + sigma * ((s / (1 + s**2) * coefficients) @ vt)
    log_determinant = jnp.sum(jnp.log1p(s**2))
    quadratic = jnp.sum(unexplained**2) + jnp.sum(coefficients**2 / (1 + s**2))
    linearized = jnp.sum(unexplained**2) + jnp.sum((coefficients / (1 + s**2)) ** 2)
    return _Component(
        mean=mean,
        directions=vt,
        direction_scales=sigma / jnp.sqrt(1 + s**2),
        log_evidence=-0.5 * (quadratic + log_determinant),
        misfit=jnp.sum(r**2),
        linearized_misfit=linearized,
        misfit_at_mean=jnp.sum(residual(mean) ** 2),
        log_determinant=log_determinant,
        informed_directions=jnp.sum(s**2 / (1 + s**2)),
    )
