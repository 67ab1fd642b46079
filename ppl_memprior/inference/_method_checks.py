"""Which methods take a problem, asked of the methods' own checks; what a refusal may advise.

Each method's module says what it cannot take, in a function under the method's name. Whatever a
refusal recommends has been through these functions, so that it cannot be wrong.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
from numpyro import handlers

from ppl_memprior.distributions import DiffusionMixturePrior
from ppl_memprior.distributions._weighted_examples import stored_examples
from ppl_memprior.problem._cache import remembered
from ppl_memprior.problem.inverse_problem import InverseProblem, require_problem

Check = Callable[[InverseProblem], None]

#: The functions that work on problems that JAX traces.
_IN_PROGRAMS = ("lookup", "nuts", "mode_jump")

_CHECKS: dict[str, Check] = {}


def method_check(method: str) -> Callable[[Check], Check]:
    """Register a method's check, and add advice to its error.

    Args:
        method: the method's name in `ppl_memprior.run`.

    Returns:
        A decorator. It takes a function that raises a `ValueError` with the reason alone. The
        decorated function's error also names the methods that take the problem, and the changes
        that would make this method take it.
    """

    def decorate(reasons: Check) -> Check:
        _CHECKS[method] = reasons
        return advising(reasons.__name__.removeprefix("check_"))(reasons)

    return decorate


def advising(function: str) -> Callable[[Check], Check]:
    """Add advice to a check's error, as `method_check` does, without registering a method."""

    def decorate(reasons: Check) -> Check:
        @functools.wraps(reasons)
        def check(problem: InverseProblem) -> None:
            require_problem(problem, function)
            if problem.is_traced and function not in _IN_PROGRAMS:
                raise TypeError(
                    f"{function} takes a problem whose numbers are known, and jax.vmap, jit or "
                    "grad traces them. Call it in a loop over problem.with_data(...), which "
                    f"compiles nothing again; in a transformation work {', '.join(_IN_PROGRAMS)} "
                    "(mode_jump with a proposal)"
                )
            try:
                reasons(problem)
            except ValueError as refusal:
                advice = [*_remedies(reasons, problem), _others(problem)]
                raise ValueError(". ".join([str(refusal), *advice])) from None

        return check

    return decorate


def methods_that_take(problem: InverseProblem) -> list[str]:
    """Return the names of the methods that take a problem as it is."""
    return sorted(name for name, reasons in _CHECKS.items() if _passes(reasons, problem))


def require_density(problem: InverseProblem, method: str) -> None:
    """Raise a `ValueError` for a prior without a density, such as a `MemorizedPrior`."""
    if not problem.prior.has_density:
        name = type(problem.prior).__name__
        raise ValueError(f"{method} needs a prior with a density; a {name} has none")


def require_continuous(problem: InverseProblem, method: str) -> None:
    """Raise a `ValueError` naming the discrete latent sites."""
    if problem.discrete_latents:
        listed = ", ".join(map(repr, problem.discrete_latents))
        raise ValueError(
            f"{method} moves continuous latent sites, and {listed} of this model is discrete: sum "
            "it out of the model (a mixture distribution)"
        )


def _others(problem: InverseProblem) -> str:
    names = methods_that_take(problem)
    sites = problem.discrete_latents
    if names or not sites:
        return f"Methods that take this model: {', '.join(names) or 'none'}"
    names = methods_that_take(_conditioned(problem, sites))
    fixed = ", ".join(map(repr, sites))
    return f"No method takes this model; with {fixed} fixed these do: {', '.join(names) or 'none'}"


def _remedies(reasons: Check, problem: InverseProblem) -> list[str]:
    """What would make the problem acceptable, each tried."""
    found = []
    if not problem.prior.has_density and _passes(reasons, _with_bandwidth(problem)):
        found.append("Give the prior a bandwidth, DiffusionMixturePrior(examples, sigma)")
    for sites in (problem.discrete_latents, problem.extra_latents):
        if sites and _passes(reasons, _conditioned(problem, sites)):
            values = ", ".join(f"{name!r}: ..." for name in sites)
            found.append(
                f"Fix what else is latent, numpyro.handlers.condition(model, {{{values}}})"
            )
            break
    return found


def _with_bandwidth(problem: InverseProblem) -> InverseProblem:
    def make() -> InverseProblem:
        return problem.with_prior(DiffusionMixturePrior(stored_examples(problem.prior), 1.0))

    return remembered(problem, "with bandwidth", make)


def _conditioned(problem: InverseProblem, sites: tuple[str, ...]) -> InverseProblem:
    def make() -> InverseProblem:
        values = _drawn(problem, problem.take(0))
        model = handlers.condition(problem.model, data={name: values[name] for name in sites})
        return InverseProblem(model, *problem.args, **problem.kwargs)

    return remembered(problem, ("conditioned", sites), make)


@jax.jit  # which leaves out the forward solve, whose result is not used
def _drawn(problem: InverseProblem, x: jax.Array) -> dict[str, jax.Array]:
    return problem.draw_extra_latents(x)


def _passes(reasons: Check, problem: InverseProblem) -> bool:
    try:
        reasons(problem)
    except ValueError:
        return False
    return True
