"""A NumPyro model read as an inverse problem: prior, prediction, noise, log-likelihood.

`InverseProblem` is what every inference method of this package starts from. It adds nothing to
the model and asks for no special form of it: it runs the model under NumPyro's own handlers.
What to do with the parts is left to `ppl_memprior.inference` and `ppl_memprior.diffusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from ppl_memprior.distributions import LearnedPrior
from ppl_memprior.problem._as_pytree import Apart, Call, Form, Leaves, taken_apart
from ppl_memprior.problem._cache import Cache, remembered
from ppl_memprior.problem._gaussian_site import GaussianSite, gaussian_site
from ppl_memprior.problem._model_data import ObservedData, model_argument, numeric
from ppl_memprior.problem._model_run import trace_model
from ppl_memprior.problem._numbers_apart import Rest
from ppl_memprior.problem._other_data import other_data
from ppl_memprior.problem._prior_site import ReplaceDistribution
from ppl_memprior.problem._reading import read_model


class InverseProblem:
    """A NumPyro model with a memorized or Gaussian-mixture prior, read once.

    The model has one latent site whose distribution is a `MemorizedPrior`, a
    `DiffusionMixturePrior`, a `LowRankGaussianMixture`, such as an earlier posterior, or another
    `LearnedPrior` (the prior's site, of event shape `event_shape`). At least one observed site
    depends on it.
    Observed sites may be `Normal` or `MultivariateNormal`, also inside `Independent`, masked,
    scaled and in plates; these give a whitened residual. `obs_mask=` is read as a mask. With any
    other observed site, or `numpyro.factor`, there is still a log-likelihood, and the methods that
    need a residual say so.
    Observed sites that do not depend on the prior's site (a noise scale fixed with
    `numpyro.handlers.condition`, say) are constants, not data.

    Reading traces the model abstractly: no forward solve is made.

    Args:
        model: a NumPyro model.
        *args, **kwargs: the model's own arguments, data included. Arrays of NumPy, PyTorch,
            pandas (a Series) and xarray, in any byte order, and lists of numbers reach the model
            as arrays; everything else (JAX arrays, tuples, strings, None, tables, ...) as it is.

    Raises:
        TypeError: data that are no real numbers, or ragged lists of them; traced arguments.
        ValueError: no supported prior site or more than one, a prior site in a plate, a plate that
            is subsampled, no observed site that depends on the prior's, non-finite data.
    """

    #: Whether its numbers are traced by `jax.vmap`, `jax.jit` or `jax.grad`.
    is_traced: bool = False

    def __init__(self, model: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.model: Callable[..., Any] = ObservedData(model)
        self.args = tuple(
            model_argument(f"argument {i} of the model", value) for i, value in enumerate(args)
        )
        self.kwargs = {
            name: model_argument(f"the model's argument {name!r}", value)
            for name, value in kwargs.items()
        }
        _require_untraced(self.args, self.kwargs)
        structure = read_model(self.model, self.args, self.kwargs)
        if structure.masked:
            self.model = ObservedData(model, structure.masked)
        self.prior: LearnedPrior = structure.prior
        self.prior_name = structure.prior_name
        self.event_shape: tuple[int, ...] = tuple(structure.prior.event_shape)
        self.extra_latents = structure.extra_latents
        self.discrete_latents = structure.discrete_latents
        self.deterministic_names = structure.deterministic_names
        self.observed = structure.observed
        self.non_gaussian = dict(structure.non_gaussian)
        self.data = dict(structure.data)
        self.num_data = structure.num_data
        self.fixed_prior = structure.fixed_prior
        self.fixed_data = structure.fixed_data
        self._cache = Cache()

    @property
    def examples(self) -> jax.Array:
        """The examples as they stand in the prior's site, shape (N, *event_shape).

        The stored ones of a `MemorizedPrior`, else the means of the prior's components. Examples
        that lie in a file are all read, at each access; `take` reads some.
        """
        return self.prior.component_means

    def take(self, indices: ArrayLike) -> jax.Array:
        """The examples of these indices, without reading the others.

        Args:
            indices: whole numbers from 0 to N - 1, of any shape (*K); from -N to -1 they count
                from the end.

        Returns:
            Shape (*K, *event_shape).

        Raises:
            TypeError: indices that are not whole numbers.
            IndexError: an index out of range.
        """
        return self.prior.take(indices)

    @property
    def num_examples(self) -> int:
        """The number N of training examples, without reading them."""
        return self.prior.num_components

    def trace(self, x: ArrayLike, **others: ArrayLike) -> dict[str, Any]:
        """The model's NumPyro trace at given values of its latent sites.

        Args:
            x: value of the prior's site, shape `event_shape`.
            **others: values of the extra latent sites, all of them.

        Returns:
            The sites by name, as `numpyro.handlers.trace` records them.

        Raises:
            TypeError: a value that does not hold real numbers.
            ValueError: another shape of `x`; latent sites that are unknown, or missing.
        """
        unknown = sorted(set(others) - set(self.extra_latents))
        missing = [name for name in self.extra_latents if name not in others]
        if unknown or missing:
            raise ValueError(
                f"values wanted for the latent sites {list(self.extra_latents)} besides "
                f"{self.prior_name!r}: missing {missing}, unknown {unknown}"
            )
        x = jnp.asarray(numeric(repr(self.prior_name), x))
        if x.shape != self.event_shape:
            raise ValueError(
                f"{self.prior_name!r} has event shape {self.event_shape}, got {x.shape}; "
                "use jax.vmap for a batch"
            )
        given = {name: numeric(repr(name), value) for name, value in others.items()}
        return self._run({self.prior_name: x, **given}, 0)

    def prior_trace(self, rng_key: jax.Array) -> dict[str, Any]:
        """The model's NumPyro trace at latent sites drawn from their priors.

        Args:
            rng_key: JAX random key.

        Returns:
            The sites by name. The observed ones have the data as their values; draw from their
            distributions for the prior predictive.
        """
        return self._run({}, rng_key)

    def predict(self, x: ArrayLike, **others: ArrayLike) -> dict[str, jax.Array]:
        """Noise-free data of each Gaussian observed site.

        Args:
            x: value of the prior's site, shape `event_shape`.
            **others: values of the extra latent sites, if the model has any.

        Returns:
            For each observed site with Gaussian noise its mean, of the data's shape.
        """
        trace = self.trace(x, **others)
        sites = {name: gaussian_site(trace[name]) for name in self.observed}
        return {name: site.loc for name, site in sites.items() if site is not None}

    def log_likelihood(self, x: ArrayLike, **others: ArrayLike) -> jax.Array:
        """Return log p(data | x), all observed sites and factors together (scalar)."""
        return self._sum_log_likelihood(self.trace(x, **others))

    def residual(self, x: ArrayLike, **others: ArrayLike) -> jax.Array:
        """Whitened residual, shape (num_data of all sites,): unit variance at the truth.

        `log_likelihood(x) = log_normalizer - 0.5 * sum(residual(x) ** 2)`. Masked data stand in
        it as zeros.

        Raises:
            ValueError: an observed site whose noise is not Gaussian, named.
        """
        self.require_residual("residual")
        sites = self._gaussian_sites(self.trace(x, **others))
        return jnp.concatenate([site.residual() for site in sites])

    def chi_square(self, x: ArrayLike, **others: ArrayLike) -> jax.Array:
        """Sum of the squared whitened residuals (scalar), without the weights of `handlers.scale`.

        At the truth it has mean `num_data` and variance 2 `num_data`, whatever those weights.

        Raises:
            ValueError: an observed site whose noise is not Gaussian, named.
        """
        self.require_residual("chi_square")
        sites = self._gaussian_sites(self.trace(x, **others))
        return jnp.sum(jnp.stack([jnp.sum(site.whitened() ** 2) for site in sites]))

    def log_normalizer(self, **others: ArrayLike) -> jax.Array:
        """The part of the log-likelihood that is the same for every x (scalar)."""
        self.require_residual("log_normalizer")
        sites = self._gaussian_sites(self.trace(self.take(0), **others))
        return jnp.sum(jnp.stack([site.log_normalizer() for site in sites]))

    def deterministics(self, x: ArrayLike, **others: ArrayLike) -> dict[str, jax.Array]:
        """Values of the model's `numpyro.deterministic` sites at x."""
        trace = self.trace(x, **others)
        return {name: trace[name]["value"] for name in self.deterministic_names}

    def prior_given(self, **others: ArrayLike) -> LearnedPrior:
        """The prior for given values of the extra latent sites (a hyperprior's sigma, say)."""
        if not self.extra_latents:
            return self.prior
        return self.trace(self.take(0), **others)[self.prior_name]["fn"]

    def draw_extra_latents(self, x: ArrayLike) -> dict[str, jax.Array]:
        """Values of the extra latent sites at x, drawn by NumPyro with seed 0."""
        trace = self._run({self.prior_name: jnp.asarray(x)}, 0)
        return {name: trace[name]["value"] for name in self.extra_latents}

    def with_prior(self, prior: LearnedPrior) -> InverseProblem:
        """The same model and data with another prior in the prior's site.

        Args:
            prior: of event shape `event_shape`.

        Raises:
            TypeError: no distribution.
            ValueError: another event shape, or a distribution that cannot be the prior.
        """
        if not isinstance(prior, Distribution):
            raise TypeError(
                f"with_prior takes a NumPyro distribution, got a {type(prior).__name__}: write "
                "DiffusionMixturePrior(examples, sigma)"
            )
        if tuple(prior.event_shape) != self.event_shape:
            raise ValueError(
                f"the prior's site {self.prior_name!r} has event shape {self.event_shape}, the new "
                f"prior has {tuple(prior.event_shape)}"
            )
        model = ReplaceDistribution(self.model, self.prior_name, prior)
        return InverseProblem(model, *self.args, **self.kwargs)

    def with_data(self, *only: ArrayLike, **data: ArrayLike) -> InverseProblem:
        """The same model with other data, without reading it again.

        Programs compiled for this problem serve the new one. Inside `jax.vmap` or `jax.jit` the
        data may be traced: `jax.vmap(lambda y: problem.with_data(y=y).log_likelihood(x))(batch)`
        evaluates a batch of data sets. `lookup`, `nuts`, and `mode_jump` with a proposal also work
        there.

        Args:
            *only: the data of the only observed site.
            **data: data by observed site, of the shapes that they have now. Other sites keep
                theirs. An argument of the model that is a site's data is replaced with it.

        Returns:
            A new problem; this one does not change.

        Raises:
            TypeError: data that do not hold real numbers.
            ValueError: an unknown site; data of another shape; data that are not finite; a site
                whose data the model computes from its arguments. Then make a new `InverseProblem`.
        """
        leaves, form, rest = self._taken_apart()
        new = other_data(self, only, data)
        new_leaves, new_form = form.with_data(leaves, new)
        return InverseProblem._put_together(new_form, new_leaves, rest)

    @property
    def has_residual(self) -> bool:
        """Whether every observed site has additive Gaussian noise."""
        return not self.non_gaussian

    def require_residual(self, method: str) -> None:
        """Raise a `ValueError` naming the sites that keep `method` from having a residual."""
        if self.non_gaussian:
            names = "; ".join(f"{name!r} {why}" for name, why in self.non_gaussian.items())
            raise ValueError(
                f"{method} needs a residual, and site {names}. Use Normal or MultivariateNormal "
                "noise whose scale does not depend on the prior's site"
            )

    def require_no_extra_latents(self, method: str) -> None:
        """Raise a `ValueError` if the model has latent sites besides the prior's."""
        if self.extra_latents:
            names = ", ".join(repr(name) for name in self.extra_latents)
            raise ValueError(
                f"{method} takes a model whose only latent site is {self.prior_name!r}; this one "
                f"also has {names}"
            )

    def _run(self, values: Mapping[str, ArrayLike], rng_seed: int | jax.Array) -> dict[str, Any]:
        return trace_model(self.model, self.args, self.kwargs, values, rng_seed)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_cache"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _cache=Cache())

    def _gaussian_sites(self, trace: dict[str, Any]) -> list[GaussianSite]:
        sites = [gaussian_site(trace[name]) for name in self.observed]
        return [site for site in sites if site is not None]

    def _sum_log_likelihood(self, trace: dict[str, Any]) -> jax.Array:
        total = jnp.zeros(())
        for name in self.observed:
            site = trace[name]
            scale = 1.0 if site["scale"] is None else site["scale"]
            total = total + jnp.sum(scale * site["fn"].log_prob(site["value"]))
        return total

    def _taken_apart(self) -> Apart:
        def make() -> Apart:
            call = Call(self.model, self.args, self.kwargs)
            attributes = {name: getattr(self, name) for name in _WITHOUT_NUMBERS}
            return taken_apart(call, self.prior, self.data, attributes)

        return remembered(self, ("taken apart", jax.dtypes.canonicalize_dtype(float)), make)

    @classmethod
    def _put_together(cls, form: Form, leaves: Leaves, rest: Rest) -> InverseProblem:
        problem = object.__new__(cls)
        problem.model, problem.args, kwargs = form.call(leaves)
        problem.kwargs = dict(kwargs)
        problem.prior, problem.data = leaves.ready_prior(), leaves.data
        vars(problem).update(form.attributes)
        problem.is_traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(leaves))
        problem._cache = Cache()
        key = "taken apart", jax.dtypes.canonicalize_dtype(float)
        remembered(problem, key, lambda: Apart(leaves, form, rest))
        return problem


# what else a problem has holds numbers, or is made of the rest
_WITHOUT_NUMBERS = (
    *("prior_name", "event_shape", "extra_latents", "discrete_latents", "deterministic_names"),
    *("observed", "non_gaussian", "num_data", "fixed_prior", "fixed_data"),
)
jax.tree_util.register_pytree_node(
    InverseProblem,
    lambda problem: problem._taken_apart()[:2],
    lambda form, leaves: InverseProblem._put_together(form, Leaves(*leaves), form.rest),
)


def _require_untraced(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise a `TypeError` naming the arguments that a transformation of JAX traces."""
    named = {**{f"number {i}": value for i, value in enumerate(args)}, **kwargs}
    traced = [
        name
        for name, value in named.items()
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))
    ]
    if traced:
        raise TypeError(
            f"the model's arguments {', '.join(traced)} are traced by jax.jit, vmap or grad, and "
            "an InverseProblem reads its model outside of them: make the problem first, pass it to "
            "the transformed function, and use problem.with_data(...) there"
        )


def require_problem(problem: Any, method: str) -> None:
    """Raise a `TypeError` for what is no `InverseProblem`, a model say."""
    if not isinstance(problem, InverseProblem):
        raise TypeError(
            f"{method} takes an InverseProblem, got a {type(problem).__name__}: write "
            "InverseProblem(model, data=...) with the arguments of the model"
        )
