"""NumPyro's NUTS on models of this package."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ppl_memprior.inference import nuts

COMPILATION = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def wide(cubic_problem):
    return nuts(
        cubic_problem(0.0, 0.5), jax.random.key(0), num_samples=1500, num_warmup=400, num_chains=4
    )


def test_agrees_with_quadrature_at_a_wide_bandwidth(wide, cubic_quadrature):
    exact = cubic_quadrature(0.0, 0.5)
    mean = np.trapezoid(exact.grid * exact.density, exact.grid)
    sd = np.sqrt(np.trapezoid((exact.grid - mean) ** 2 * exact.density, exact.grid))
    draws = wide.latents["x"]
    assert draws.shape == (4, 1500)
    # at least 600 effective draws: the mean's standard error is below 0.041 sd, four of them
    assert abs(draws.mean() - mean) < 0.16 * sd
    assert abs(draws.std() / sd - 1) < 0.12


def test_gradient_evaluations_are_the_leapfrog_steps(wide):
    sampling = wide.sample_stats["num_steps"].sum()
    assert wide.cost.num_gradient_evaluations > sampling > 4 * 1500


def test_another_number_of_draws_compiles_nothing(cubic_problem):
    compiled = []
    problem, options = cubic_problem(0.0, 0.5), {"num_warmup": 4, "num_chains": 2}
    keys = list(jax.random.split(jax.random.key(0), 2))
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event)
    )
    # iterations are made in parts of 1, 2, 4, ...; here the last parts have other lengths
    nuts(problem, keys[0], num_samples=5, **options)
    assert COMPILATION in compiled
    compiled.clear()
    draws = nuts(problem, keys[1], num_samples=6, **options)
    assert draws.latents["x"].shape == (2, 6) and COMPILATION not in compiled


def test_refuses_a_memorized_prior(cubic_problem):
    with pytest.raises(ValueError, match="nuts needs a prior with a density"):
        nuts(cubic_problem(0.0, 0.0), jax.random.key(0))
