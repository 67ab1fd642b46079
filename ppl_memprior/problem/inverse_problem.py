"""A NumPyro model read as an inverse problem: prior, prediction, noise, log-likelihood.

`InverseProblem` is what every inference method of this package starts from. It adds nothing to
the model and asks for no special form of it: it runs the model under NumPyro's own handlers.
What to do with the parts is left to `ppl_memprior.inference` and `ppl_memprior.diffusion`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.typing import ArrayLike
from numpyro import handlers
from numpyro.distributions import Distribution

from ppl_memprior.distributions import LearnedPrior
from ppl_memprior.problem._gaussian_site import GaussianSite, gaussian_site
from ppl_memprior.problem._jaxpr import dependent_outputs
from ppl_memprior.problem._model_data import (
    ObservedData,
    masked_sites,
    model_argument,
    numeric,
    require_fixed,
)
from ppl_memprior.problem._model_sites import (
    check_finite,
    check_shapes,
    describe,
    known_data,
    the_prior_site,
)
from ppl_memprior.problem._prior_site import ReplaceDistribution, distribution_at

# NumPyro's stack of effect handlers is one for all threads: two models that run at once would see
# each other's sites. Compiled functions do not come here any more.
_RUNNING_A_MODEL = threading.RLock()


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
        TypeError: data that are no real numbers, or ragged lists of them.
        ValueError: no supported prior site or more than one, a prior site in a plate, a plate that
            is subsampled, no observed site that depends on the prior's, non-finite data.
    """

    def __init__(self, model: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.model: Callable[..., Any] = ObservedData(model)
        self.args = tuple(
            model_argument(f"argument {i} of the model", value) for i, value in enumerate(args)
        )
        self.kwargs = {
            name: model_argument(f"the model's argument {name!r}", value)
            for name, value in kwargs.items()
        }
        #: What is worked out once for each problem: compiled functions, the fingerprint. Made again
        #: by a copy, in another process too.
        self.derived: dict[Hashable, Any] = {}
        structure = self._structure()
        masked = masked_sites(structure, self._run)
        if masked:
            self.model = ObservedData(model, masked)
            structure = self._structure()
        self.prior_name = the_prior_site(structure)
        if structure[self.prior_name]["scale"] is not None:
            raise ValueError(
                f"the prior's site {self.prior_name!r} stands under numpyro.handlers.scale, which "
                "would make another prior of it; put the handler around the observed sites only"
            )
        with _RUNNING_A_MODEL:
            self.prior: LearnedPrior = distribution_at(
                self.model, self.prior_name, self.args, self.kwargs
            )
        self.event_shape: tuple[int, ...] = tuple(self.prior.event_shape)
        if self.prior.batch_shape:
            raise ValueError(
                f"the prior's site {self.prior_name!r} has batch shape {self.prior.batch_shape}; "
                "inference takes one field at a time: give sigma as a scalar and keep the site "
                "out of plates"
            )
        self.extra_latents: tuple[str, ...] = tuple(
            name
            for name, site in structure.items()
            if site["type"] == "sample" and not site["is_observed"] and name != self.prior_name
        )
        self.discrete_latents: tuple[str, ...] = tuple(
            name for name in self.extra_latents if structure[name]["fn"].support.is_discrete
        )
        self.deterministic_names: tuple[str, ...] = tuple(
            name for name, site in structure.items() if site["type"] == "deterministic"
        )
        self.non_gaussian: dict[str, str] = {}
        known = known_data(structure)
        check_finite(known)
        check_shapes(structure)
        self.observed: tuple[str, ...] = self._data_sites(structure)
        latents = {n: structure[n]["value"] for n in (self.prior_name, *self.extra_latents)}
        given = {n: jnp.zeros(value.shape, value.dtype) for n, value in latents.items()}
        unknown = [name for name in self.observed if name not in known]
        with numpyro.validation_enabled(False):  # zero may be outside of a site's support
            require_fixed(unknown, lambda key: self._run(given, key), jax.random.PRNGKey(0))
        self.num_data, read = self._read_data()
        # what the model has made of the data by JAX, then the data as they were given
        self.data: dict[str, np.ndarray] = read | {n: known[n] for n in self.observed if n in known}
        check_finite(self.data)

    @property
    def examples(self) -> jax.Array:
        """The examples as they stand in the prior's site, shape (N, *event_shape).

        The stored ones of a `MemorizedPrior`, else the means of the prior's components.
        """
        return self.prior.component_means

    @property
    def num_examples(self) -> int:
        """The number N of training examples, without reading them."""
        return self.prior.num_components

    def predict(self, x: ArrayLike, **others: ArrayLike) -> dict[str, jax.Array]:
        """Noise-free data of each Gaussian observed site.

        Args:
            x: value of the prior's site, shape `event_shape`.
            **others: values of the extra latent sites, if the model has any.

        Returns:
            For each observed site with Gaussian noise its mean, of the data's shape.
        """
        trace = self._trace(x, others)
        sites = {name: gaussian_site(trace[name]) for name in self.observed}
        return {name: site.loc for name, site in sites.items() if site is not None}

    def log_likelihood(self, x: ArrayLike, **others: ArrayLike) -> jax.Array:
        """Return log p(data | x), all observed sites and factors together (scalar)."""
        return self._sum_log_likelihood(self._trace(x, others))

    def residual(self, x: ArrayLike, **others: ArrayLike) -> jax.Array:
        """Whitened residual, shape (num_data of all sites,): unit variance at the truth.

        `log_likelihood(x) = log_normalizer - 0.5 * sum(residual(x) ** 2)`. Masked data stand in
        it as zeros.

        Raises:
            ValueError: an observed site whose noise is not Gaussian, named.
        """
        self.require_residual("residual")
        sites = self._gaussian_sites(self._trace(x, others))
        return jnp.concatenate([site.residual() for site in sites])

    def chi_square(self, x: ArrayLike, **others: ArrayLike) -> jax.Array:
        """Sum of the squared whitened residuals (scalar), without the weights of `handlers.scale`.

        At the truth it has mean `num_data` and variance 2 `num_data`, whatever those weights.

        Raises:
            ValueError: an observed site whose noise is not Gaussian, named.
        """
        self.require_residual("chi_square")
        sites = self._gaussian_sites(self._trace(x, others))
        return jnp.sum(jnp.stack([jnp.sum(site.whitened() ** 2) for site in sites]))

    def log_normalizer(self, **others: ArrayLike) -> jax.Array:
        """The part of the log-likelihood that is the same for every x (scalar)."""
        self.require_residual("log_normalizer")
        sites = self._gaussian_sites(self._trace(self.examples[0], others))
        return jnp.sum(jnp.stack([site.log_normalizer() for site in sites]))

    def deterministics(self, x: ArrayLike, **others: ArrayLike) -> dict[str, jax.Array]:
        """Values of the model's `numpyro.deterministic` sites at x."""
        trace = self._trace(x, others)
        return {name: trace[name]["value"] for name in self.deterministic_names}

    def prior_given(self, **others: ArrayLike) -> LearnedPrior:
        """The prior for given values of the extra latent sites (a hyperprior's sigma, say)."""
        if not self.extra_latents:
            return self.prior
        return self._trace(self.examples[0], others)[self.prior_name]["fn"]

    def draw_extra_latents(self, x: ArrayLike) -> dict[str, jax.Array]:
        """Values of the extra latent sites at x, drawn by NumPyro with seed 0."""
        trace = self._run({self.prior_name: jnp.asarray(x)})
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

    def _trace(self, x: ArrayLike, others: dict[str, ArrayLike]) -> dict[str, Any]:
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
        return self._run({self.prior_name: x, **given})

    def _run(
        self, values: Mapping[str, ArrayLike], rng_seed: int | jax.Array = 0
    ) -> dict[str, Any]:
        """The model's trace with the given latent values; the others are drawn."""
        model = handlers.substitute(handlers.seed(self.model, rng_seed=rng_seed), data=values)
        with _RUNNING_A_MODEL:
            return handlers.trace(model).get_trace(*self.args, **self.kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "derived": {}}

    def _structure(self) -> dict[str, Any]:
        """The model's sites, traced abstractly: names, distributions and the data."""
        found: dict[str, Any] = {}
        # the key is traced, so that no draw is looked at: the model may fail at some
        jax.eval_shape(lambda key: found.update(self._run({}, key)), jax.random.PRNGKey(0))
        return found

    def _data_sites(self, structure: dict[str, Any]) -> tuple[str, ...]:
        """The observed sites that depend on the prior's; fills in `non_gaussian`."""
        candidates = [
            name
            for name, site in structure.items()
            if site["type"] == "sample" and site["is_observed"]
        ]
        asked: list[tuple[str, str]] = []

        def outputs_in_question(x: jax.Array, others: dict[str, jax.Array]) -> list[jax.Array]:
            asked.clear()
            trace = self._run({self.prior_name: x, **others})
            outputs = []
            for name in candidates:
                outputs.append(jnp.sum(trace[name]["fn"].log_prob(trace[name]["value"])))
                asked.append((name, "log_prob"))
                site = gaussian_site(trace[name])
                if site is not None:
                    parts = (site.value, site.noise, site.mask, site.weight)
                    outputs.append(jnp.stack([jnp.sum(part) for part in parts]))
                    asked.append((name, "noise"))
            return outputs

        others = {
            name: jax.ShapeDtypeStruct(
                structure[name]["value"].shape, structure[name]["value"].dtype
            )
            for name in self.extra_latents
        }
        x = self.examples[0]
        by_prior = dependent_outputs(outputs_in_question, x, others)
        depends = dict(zip(asked, by_prior, strict=True))
        by_any = dependent_outputs(lambda both: outputs_in_question(*both), (x, others))
        data = dict(zip(asked, by_any, strict=True))
        observed = tuple(name for name in candidates if data[name, "log_prob"])
        if not any(depends[name, "log_prob"] for name in observed):
            latents = ", ".join(map(repr, self.extra_latents))
            through = (
                f". If data are to reach {self.prior_name!r} through {latents}, compute that from "
                "it, z = x + s * eps with eps a latent site, instead of sampling z around x"
            )
            raise ValueError(
                f"no observed site depends on the prior's site {self.prior_name!r} "
                f"(observed sites: {candidates}): pass the data to the model, "
                "InverseProblem(model, data=...), and give them to a site as obs="
                f"{through if latents else ''}"
            )
        for name in observed:
            if (name, "noise") not in depends:
                self.non_gaussian[name] = f"has {describe(structure[name]['fn'])} noise"
            elif depends[name, "noise"]:
                self.non_gaussian[name] = "has noise whose scale depends on the prior's site"
        return observed

    def _read_data(self) -> tuple[int, dict[str, np.ndarray]]:
        """The number of data of all observed sites, without the masked ones; and the data."""

        def counts_and_values(x: jax.Array) -> tuple[list[jax.Array], dict[str, jax.Array]]:
            trace = self._run({self.prior_name: x})
            values = {name: jnp.asarray(trace[name]["value"]) for name in self.observed}
            sites = {name: gaussian_site(trace[name]) for name in self.observed}
            counts = [
                jnp.asarray(jnp.size(values[name])) if site is None else jnp.sum(site.mask)
                for name, site in sites.items()
            ]
            return counts, values

        counts, values = jax.jit(counts_and_values)(self.examples[0])
        return sum(int(count) for count in counts), {
            name: np.asarray(value)
            for name, value in values.items()
            if not isinstance(value, jax.core.Tracer)
        }

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


def require_problem(problem: Any, method: str) -> None:
    """Raise a `TypeError` for what is no `InverseProblem`, a model say."""
    if not isinstance(problem, InverseProblem):
        raise TypeError(
            f"{method} takes an InverseProblem, got a {type(problem).__name__}: write "
            "InverseProblem(model, data=...) with the arguments of the model"
        )
