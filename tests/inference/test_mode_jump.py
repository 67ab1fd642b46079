"""Jumps between modes: the posterior by quadrature and by closed algebra, where NUTS stays put."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer import NUTS
from numpyro.infer.sa import SA
from scipy import special

from ppl_memprior import DiffusionMixturePrior, InverseProblem, ModeJump
from ppl_memprior.comparison.run import METHODS
from ppl_memprior.forward import stylized
from ppl_memprior.inference import default_proposal, mode_jump, nuts
from ppl_memprior.inference.mode_jump import log_acceptance_ratio

CHAINS, DRAWS = 4, 2500


def mode_weights(density, grid, examples):
    """Mass of a density on a grid that lies nearest to each example."""
    nearest = np.argmin(np.abs(grid[:, None] - np.asarray(examples)), axis=1)
    mass = density / density.sum()
    return np.bincount(nearest, weights=mass, minlength=len(examples))


def drawn_weights(draws, examples):
    flat = np.asarray(draws).reshape(-1, 1)
    nearest = np.argmin(np.abs(flat - np.asarray(examples)), axis=1)
    return np.bincount(nearest, minlength=len(examples)) / len(flat)


def total_variation(p, q):
    return 0.5 * np.abs(p - q).sum()


@pytest.fixture(scope="module")
def narrow(cubic_problem):
    """Ten thousand draws of the stylized problem in the memorized regime."""
    return mode_jump(
        cubic_problem(0.5, 0.05),
        jax.random.key(1),
        num_samples=DRAWS,
        num_warmup=500,
        num_chains=CHAINS,
    )


def test_a_jump_leaves_a_discrete_target_invariant():
    """pi P = pi and detailed balance of the whole transition matrix, one state out of reach."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        target = rng.normal(size=7) * 5
        target[3] = -np.inf
        proposal = special.log_softmax(rng.normal(size=7))
        ratio = log_acceptance_ratio(
            jnp.asarray(target)[None, :],
            jnp.asarray(proposal)[None, :],
            jnp.asarray(target)[:, None],
            jnp.asarray(proposal)[:, None],
        )
        accept = np.exp(np.asarray(ratio))
    transition = accept * np.exp(proposal)
    np.fill_diagonal(transition, 0.0)
    np.fill_diagonal(transition, 1.0 - transition.sum(axis=1))
    pi = special.softmax(target)
    flow = pi[:, None] * transition
    # sums of seven float64 numbers below one
    np.testing.assert_allclose(flow, flow.T, atol=1e-12)
    np.testing.assert_allclose(pi @ transition, pi, atol=1e-12)
    assert (transition[3, [0, 1, 2, 4, 5, 6]] > 0).all() and transition[0, 3] == 0


def test_right_where_nuts_does_not_mix(narrow, cubic_problem, cubic_quadrature):
    draws = narrow.latents["x"]
    exact = cubic_quadrature(0.5, 0.05)
    weights = mode_weights(exact.density, exact.grid, stylized.EXAMPLES)
    assert draws.shape == (CHAINS, DRAWS)
    assert split_gelman_rubin(draws) < 1.01
    # nine of ten jumps are accepted: at least 7,000 effective draws, a standard error of 0.006 if
    # two modes shared the mass and 0.004 here; 0.01 is 2.4 of them
    assert total_variation(drawn_weights(draws, stylized.EXAMPLES), weights) < 0.01
    # within the mode, 0.02 is 1.3 standard errors of the mean over the posterior's width
    mean = np.trapezoid(exact.grid * exact.density, exact.grid)
    sd = np.sqrt(np.trapezoid((exact.grid - mean) ** 2 * exact.density, exact.grid))
    assert abs(draws.mean() - mean) < 0.04 * sd
    assert abs(draws.std() / sd - 1) < 0.03


def test_nuts_alone_does_not_mix(cubic_problem):
    alone = nuts(
        cubic_problem(0.5, 0.05), jax.random.key(1), num_samples=500, num_warmup=300, num_chains=4
    )
    assert split_gelman_rubin(alone.latents["x"]) > 2


def test_statistics_and_counts(narrow, cubic_problem):
    stats = narrow.sample_stats
    assert {value.shape for value in stats.values()} == {(CHAINS, DRAWS)}
    np.testing.assert_array_equal(
        stats["num_forward_evaluations"], stats["num_steps"] + 1, "leapfrog steps and one jump"
    )
    # of a linearization at five examples: two forward solves and one gradient each
    extra = narrow.num_forward_evaluations - narrow.num_gradient_evaluations
    assert extra == 5 and narrow.num_gradient_evaluations > stats["num_steps"].sum() + 4 * 3000
    # accepted as often as the acceptance probabilities say: 0.005 standard errors of 10,000 flips
    np.testing.assert_allclose(
        stats["jump_accepted"].mean(), stats["jump_accept_prob"].mean(), atol=0.015
    )
    assert stats["jump_accept_prob"].mean() > 0.8
    nearest = np.argmin(
        np.abs(narrow.latents["x"][..., None] - np.asarray(stylized.EXAMPLES)), axis=-1
    )
    np.testing.assert_array_equal(stats["component"], nearest)
    problem = cubic_problem(0.5, 0.05)
    x = jnp.asarray(narrow.latents["x"][:, -20:].ravel())
    energy = -jax.vmap(lambda v: problem.log_likelihood(v) + problem.prior.log_prob(v))(x)
    # the energy that a jump stored is that of its position, to float32 rounding
    np.testing.assert_allclose(stats["potential_energy"][:, -20:].ravel(), energy, rtol=1e-4)
    assert (stats["energy"] - stats["potential_energy"] > -1e-3).all(), "kinetic energy"


def test_run_knows_it(cubic_problem):
    assert "mode-jump" in METHODS
    with pytest.raises(ValueError, match="a MemorizedPrior has none"):
        METHODS["mode-jump"].check(cubic_problem(0.0, 0.0))


def test_refuses_settings_and_kernels(cubic_problem):
    model = cubic_problem(0.0, 0.3).model
    with pytest.raises(TypeError, match="inner_kernel must be a NumPyro kernel"):
        ModeJump(model)
    with pytest.raises(ValueError, match="has no model"):
        ModeJump(NUTS(potential_fn=lambda z: z**2))
    with pytest.raises(ValueError, match=r"defensive_share must lie in \[0, 1\), got 1"):
        ModeJump(NUTS(model), defensive_share=1.0)
    with pytest.raises(ValueError, match="num_jumps must be an integer of at least 1, got 0"):
        ModeJump(NUTS(model), num_jumps=0)
    with pytest.warns(UserWarning, match="unbounded"):
        ModeJump(NUTS(model), defensive_share=0.0)


@pytest.mark.parametrize(
    ("proposal", "error", "message"),
    [
        (3.0, TypeError, "proposal must be a numpyro Distribution, got float"),
        (dist.Normal(jnp.zeros(3), 1.0), ValueError, r"batch shape \(3,\)"),
        (dist.Poisson(3.0), ValueError, "is discrete"),
        (dist.Delta(0.0), ValueError, "is discrete"),
        (dist.HalfNormal(1.0), ValueError, "has support"),
        (dist.Uniform(-1.0, 1.0), ValueError, "has support"),
    ],
)
def test_refuses_proposals(cubic_problem, proposal, error, message):
    with pytest.raises(error, match=message):
        ModeJump(NUTS(cubic_problem(0.0, 0.3).model), proposal)


def started(kernel, **kwargs):
    return kernel.init(jax.random.key(0), 10, None, (), kwargs)


def test_refuses_at_init(cubic_problem):
    model = cubic_problem(0.0, 0.3).model
    wrong = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    with pytest.raises(ValueError, match=r"event shape \(2,\), the prior's site 'x' has \(\)"):
        started(ModeJump(NUTS(model), wrong), data=0.0)
    with pytest.raises(ValueError, match="Gibbs sampler over the index"):
        started(ModeJump(NUTS(cubic_problem(0.0, 0.0).model)), data=0.0)
    with pytest.raises(ValueError, match="they are traced by jit or vmap"):
        jax.eval_shape(lambda y: started(ModeJump(NUTS(model)), data=y), 0.0)
    with pytest.raises(ValueError, match="has no z_grad"):
        started(ModeJump(SA(model), dist.Normal(0.0, 1.0)), data=0.0)


def test_names_the_site_without_a_log_density():
    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([1.0, 2.0]), 0.1))
        noise = dist.Normal(jnp.sqrt(x - 50.0), 0.1, validate_args=False)
        numpyro.sample("y", noise, obs=data)

    message = r"site 'y' \(Normal\) has log-density nan at its value 1. The latent values are 'x' ="
    kernel = ModeJump(NUTS(model), dist.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match=message):
        started(kernel, data=1.0)
    with pytest.raises(ValueError, match=message):
        kernel.init(jax.random.split(jax.random.key(0), 2), 10, None, (), {"data": 1.0})


def test_proposal_without_a_residual_is_the_weighted_prior():
    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([1.0, -1.0]), 0.1))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.StudentT(4.0, x, scale), obs=data)

    problem = InverseProblem(model, data=0.8)
    with pytest.warns(UserWarning, match="site 'y' has StudentT noise: jumps are proposed from"):
        proposal, forwards, gradients = default_proposal(problem)
    assert isinstance(proposal, DiffusionMixturePrior) and (forwards, gradients) == (2, 0)
    # the noise scale at the median of a half-normal, 0.6745, known to 0.025 (one standard error)
    # from 1,001 draws: 0.007 in the weights, of which two are allowed
    log = [dist.StudentT(4.0, x, 0.6745).log_prob(0.8) for x in (1.0, -1.0)]
    np.testing.assert_allclose(proposal.weights, special.softmax(np.asarray(log)), atol=0.015)
