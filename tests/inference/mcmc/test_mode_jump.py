"""Jumps between modes: the posterior by quadrature and by closed algebra, where NUTS stays put."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer import HMC, MCMC, NUTS, BarkerMH
from numpyro.infer.sa import SA
from scipy import special, stats

from ppl_memprior import DiffusionMixturePrior, InverseProblem, ModeJump
from ppl_memprior.comparison import METHODS
from ppl_memprior.forward import stylized
from ppl_memprior.inference import default_proposal, mode_jump, nuts
from ppl_memprior.inference.mcmc.mode_jump._kernel import log_acceptance_ratio

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
        local_every=5,
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
    np.testing.assert_array_equal(
        stats["num_steps"] > 0, np.tile(np.arange(DRAWS) % 5 == 0, (4, 1))
    )
    # the proposal's: a solve for each gradient, and one more, at each example and each of its steps
    proposal = default_proposal(cubic_problem(0.5, 0.05))
    extra = narrow.cost.num_forward_evaluations - narrow.cost.num_gradient_evaluations
    assert extra == proposal.num_forward_evaluations - proposal.num_gradient_evaluations
    assert narrow.cost.num_gradient_evaluations > stats["num_steps"].sum() + 4 * 3000
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
    with pytest.raises(ValueError, match="mode-jump needs a prior with a density"):
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
        proposal, failed, forwards, gradients = default_proposal(problem)
    assert isinstance(proposal, DiffusionMixturePrior) and (failed, forwards, gradients) == (
        0,
        2,
        0,
    )
    # the noise scale at the median of a half-normal, 0.6745, known to 0.025 (one standard error)
    # from 1,001 draws: 0.007 in the weights, of which two are allowed
    log = [dist.StudentT(4.0, x, 0.6745).log_prob(0.8) for x in (1.0, -1.0)]
    np.testing.assert_allclose(proposal.weights, special.softmax(np.asarray(log)), atol=0.015)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.3, 0.1, 0.05, 0.01])
def test_every_bandwidth(cubic_problem, cubic_quadrature, sigma):
    result = mode_jump(
        cubic_problem(0.5, sigma),
        jax.random.key(2),
        num_samples=DRAWS,
        num_warmup=500,
        num_chains=CHAINS,
    )
    exact = cubic_quadrature(0.5, sigma)
    weights = mode_weights(exact.density, exact.grid, stylized.EXAMPLES)
    draws = result.latents["x"]
    assert split_gelman_rubin(draws) < 1.01
    # standard errors between 0.003 and 0.007, for 10,000 draws of which NUTS and the jumps leave
    # at least half effective: 0.01 is 1.4 of the largest, with a fixed seed
    assert total_variation(drawn_weights(draws, stylized.EXAMPLES), weights) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.3, 0.1, 0.05, 0.01])
def test_two_dimensions(sigma):
    examples = np.asarray(stylized.EXAMPLES_2D)
    # between the two examples that are near each other and the origin, so that several modes count
    observation = np.array([0.55, 0.45])

    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray(examples, float), sigma))
        noise = dist.Normal(stylized.quadratic(x), stylized.NOISE).to_event(1)
        numpyro.sample("y", noise, obs=data)

    problem = InverseProblem(model, data=jnp.asarray(observation, float))
    result = mode_jump(
        problem, jax.random.key(0), num_samples=DRAWS, num_warmup=500, num_chains=CHAINS
    )
    first, second = np.meshgrid(*[np.linspace(-4, 6, 2001)] * 2, indexing="ij")
    grid = np.stack([first, second], axis=-1)
    predicted = np.stack([first + 0.3 * first * second, second + 0.2 * first**2], axis=-1)
    prior = sum(np.exp(-0.5 * np.sum((grid - e) ** 2, -1) / sigma**2) for e in examples)
    misfit = np.sum((observation - predicted) ** 2, -1) / stylized.NOISE**2
    joint = prior * np.exp(-0.5 * misfit)

    def nearest(points):
        squares = [np.sum((points - e) ** 2, axis=-1) for e in examples]
        return np.argmin(squares, axis=0)

    weights = np.bincount(nearest(grid).ravel(), joint.ravel() / joint.sum(), minlength=5)
    draws = result.latents["x"]
    found = np.bincount(nearest(draws).ravel(), minlength=5) / (CHAINS * DRAWS)
    assert weights[2] < 0.01 and np.sort(weights)[-2] > 0.05
    assert all(split_gelman_rubin(draws[..., k]) < 1.01 for k in range(2))
    # three modes share the mass: the total variation's standard error is about 0.006
    assert total_variation(found, weights) < 0.015
    mean = np.sum(grid * joint[..., None], axis=(0, 1)) / joint.sum()
    assert np.abs(draws.mean(axis=(0, 1)) - mean).max() < 0.02


def linear_mixture(d, num_examples, sigma, num_data, seed):
    """A linear problem whose data lie between examples, and its exact posterior in float64."""
    rng = np.random.default_rng(seed)
    # examples in a small ball, so that a handful of modes share the mass
    examples = rng.normal(size=(num_examples, d))
    operator = rng.normal(size=(num_data, d)) / np.sqrt(d)
    noise = 0.5
    data = operator @ examples[:4].mean(axis=0) + noise * rng.normal(size=num_data)
    prior = DiffusionMixturePrior(jnp.asarray(examples, jnp.float32), sigma)
    matrix = jnp.asarray(operator, jnp.float32)

    def model(y=None):
        x = numpyro.sample("x", prior)
        prediction = jnp.matmul(matrix, x, precision="highest")
        numpyro.sample("y", dist.Normal(prediction, noise).to_event(1), obs=y)

    problem = InverseProblem(model, y=jnp.asarray(data, jnp.float32))
    gain_covariance = sigma**2 * operator @ operator.T + noise**2 * np.eye(num_data)
    residuals = data - examples @ operator.T
    solved = np.linalg.solve(gain_covariance, residuals.T).T
    weights = special.softmax(-0.5 * np.sum(residuals * solved, axis=1))
    means = examples + sigma**2 * solved @ operator
    inverse = np.linalg.inv(np.eye(d) / sigma**2 + operator.T @ operator / noise**2)
    return problem, weights, means, inverse


def check_linear_mixture(d, num_examples, sigma, num_data, num_samples, num_warmup):
    problem, weights, means, covariance = linear_mixture(d, num_examples, sigma, num_data, seed=0)
    result = mode_jump(
        problem, jax.random.key(0), num_samples=num_samples, num_warmup=num_warmup, num_chains=4
    )
    draws = result.latents["x"]
    stats = result.sample_stats
    # where the proposal is the posterior, nine of ten jumps come from it and are accepted
    assert stats["jump_accept_prob"].mean() > 0.85
    total = 4 * num_samples
    found = np.bincount(stats["component"].ravel(), minlength=num_examples) / total
    heavy = weights > 0.05
    assert heavy.sum() >= 2
    # a draw keeps its mode with probability 0.1: the effective number is above 0.8 of the draws;
    # four standard errors
    error = np.sqrt(weights * (1 - weights) / (0.8 * total))
    assert (np.abs(found - weights)[heavy] < 4 * error[heavy]).all()
    flat, component = draws.reshape(total, d), stats["component"].ravel()
    for n in np.flatnonzero(heavy):
        inside = flat[component == n]
        sd = np.sqrt(np.diag(covariance))
        # four and a half standard errors in each of d coordinates, draws all but independent
        assert (
            np.abs(inside.mean(axis=0) - means[n]) < 4.5 * sd / np.sqrt(0.7 * len(inside))
        ).all()
        spread = np.linalg.solve(np.linalg.cholesky(covariance), (inside - means[n]).T)
        # mean of d * draws squares of standard normals: standard error sqrt(2 / (d * draws))
        assert abs(np.mean(spread**2) - 1) < 5 * np.sqrt(2 / (0.7 * spread.size))
        sample = np.cov(inside.T)
        scale = np.outer(sd, sd)
        # entries of a sample covariance: standard error about sqrt(2 / draws) of the scale
        assert np.abs((sample - covariance) / scale).max() < 6 * np.sqrt(2 / (0.7 * len(inside)))
    return split_gelman_rubin(draws.reshape(4, num_samples, d)[..., 0])


@pytest.mark.slow
def test_linear_mixture_small():
    assert check_linear_mixture(6, 20, 0.3, 3, num_samples=2500, num_warmup=300) < 1.01


@pytest.mark.slow
def test_linear_mixture_full_size():
    assert check_linear_mixture(100, 1000, 0.05, 8, num_samples=1000, num_warmup=200) < 1.02


@pytest.mark.slow
def test_noise_scale_is_sampled_along():
    """A second latent site, against quadrature in two dimensions."""

    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray(stylized.EXAMPLES), 0.1))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        with numpyro.plate("repeats", 3):
            numpyro.sample("y", dist.Normal(stylized.cubic(x), scale), obs=data)

    data = np.array([0.1, 0.3, -0.2])
    problem = InverseProblem(model, data=jnp.asarray(data))
    result = mode_jump(
        problem, jax.random.key(0), num_samples=DRAWS, num_warmup=1000, num_chains=CHAINS
    )
    x, log_scale = np.meshgrid(np.linspace(-4, 4, 3001), np.linspace(-6, 2, 1201), indexing="ij")
    scale = np.exp(log_scale)
    prior = sum(np.exp(-0.5 * ((x - e) / 0.1) ** 2) for e in stylized.EXAMPLES)
    misfit = np.sum((data[:, None, None] - x - 0.3 * x**3) ** 2, axis=0)
    # density of the logarithm of the scale: one factor of the scale
    joint = prior * np.exp(-0.5 * scale**2 - 0.5 * misfit / scale**2) * scale ** (1 - 3)
    joint /= joint.sum()
    weights = mode_weights(joint.sum(axis=1), x[:, 0], stylized.EXAMPLES)
    draws = result.latents
    assert split_gelman_rubin(draws["x"]) < 1.01 and split_gelman_rubin(draws["scale"]) < 1.01
    # two modes share the mass; at least 3,000 effective draws, a standard error of 0.009
    assert total_variation(drawn_weights(draws["x"], stylized.EXAMPLES), weights) < 0.03
    mean = np.sum(joint * scale)
    sd = np.sqrt(np.sum(joint * (scale - mean) ** 2))
    # at least 1,000 effective draws of the scale: four standard errors
    assert abs(draws["scale"].mean() - mean) < 0.13 * sd


FIELDS = ("jump_accepted", "component", "num_forward_evaluations", "potential_energy")


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [NUTS, HMC, BarkerMH])
def test_chain_methods_agree(cubic_problem, kernel):
    """Each chain has its own key, so all methods make the same draws, up to rounding."""
    jumping = ModeJump(kernel(cubic_problem(0.0, 0.05).model), num_jumps=2)
    draws = {}
    for method in ("sequential", "vectorized", jax.vmap):
        mcmc = MCMC(
            jumping,
            num_warmup=20,
            num_samples=30,
            num_chains=2,
            thinning=3,
            chain_method=method,
            progress_bar=False,
        )
        mcmc.run(jax.random.key(0), data=0.0, extra_fields=FIELDS)
        draws[str(method)] = mcmc.get_samples(group_by_chain=True)
        fields = mcmc.get_extra_fields(group_by_chain=True)
        assert {fields[name].shape for name in FIELDS} == {(2, 10)}
        assert draws[str(method)]["image"].shape == (2, 10), "deterministic sites come along"
        assert fields["jump_accepted"].any() and fields["num_forward_evaluations"].min() >= 3
    first, *others = draws.values()
    for other in others:
        # sixty iterations of float32 rounding, far from chaotic within one mode
        np.testing.assert_allclose(other["x"], first["x"], atol=1e-2)


@pytest.mark.slow
def test_goes_on_from_its_last_state(cubic_problem):
    """Two runs of 20 draws make the 40 of one, also through a pickle of the state."""
    jumping = ModeJump(NUTS(cubic_problem(0.0, 0.05).model))
    whole = MCMC(jumping, num_warmup=20, num_samples=40, progress_bar=False)
    whole.run(jax.random.key(0), data=0.0)
    parts = MCMC(jumping, num_warmup=20, num_samples=20, progress_bar=False)
    parts.run(jax.random.key(0), data=0.0)
    first = parts.get_samples()["x"]
    state = parts.last_state
    parts.post_warmup_state = state
    parts.run(state.rng_key, data=0.0)
    joined = np.concatenate([first, parts.get_samples()["x"]])
    # the same operations, compiled for another number of iterations
    np.testing.assert_allclose(joined, whole.get_samples()["x"], rtol=1e-5)
    parts.run(jax.random.key(5), data=0.0)
    assert not np.allclose(parts.get_samples()["x"], joined[20:]), "another key, other draws"
    assert "jump acc. prob=" in jumping.get_diagnostics_str(parts.last_state)


PARALLEL = """
import pickle
import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
from numpyro.infer import HMC, MCMC, NUTS, BarkerMH
from ppl_memprior import DiffusionMixturePrior, ModeJump

def model(data=None):
    x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([-0.4, 0.4]), 0.05))
    numpyro.sample("y", dist.Normal(x, 0.5), obs=data)

assert jax.local_device_count() == 2
draws = []
for method in ("parallel", "sequential"):
    mcmc = MCMC(ModeJump(NUTS(model)), num_warmup=20, num_samples=50, num_chains=2,
                chain_method=method, progress_bar=False)
    mcmc.run(jax.random.key(0), data=jnp.asarray(0.1), extra_fields=("jump_accept_prob",))
    draws.append(mcmc.get_samples()["x"])
    assert mcmc.get_extra_fields()["jump_accept_prob"].mean() > 0.8
assert jnp.allclose(draws[0], draws[1], atol=1e-2)
again = pickle.loads(pickle.dumps(mcmc))
again.post_warmup_state = again.last_state
again.run(jax.random.key(1), data=jnp.asarray(0.1))
assert again.get_samples()["x"].shape == (100,)
"""


@pytest.mark.slow
def test_parallel_chains_on_two_devices(tmp_path):
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_double_precision_and_a_hyperprior_on_the_bandwidth():
    with jax.enable_x64(True):

        def model(data=None):
            sigma = numpyro.sample("sigma", dist.LogNormal(-2.0, 0.5))
            x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray(stylized.EXAMPLES), sigma))
            numpyro.sample("y", dist.Normal(stylized.cubic(x), stylized.NOISE), obs=data)

        problem = InverseProblem(model, data=0.5)
        result = mode_jump(
            problem, jax.random.key(0), num_samples=DRAWS, num_warmup=1000, num_chains=CHAINS
        )
    draws = result.latents
    assert draws["x"].dtype == np.float64
    x, log = np.meshgrid(np.linspace(-4, 4, 3001), np.linspace(-5, 1, 601), indexing="ij")
    sigma = np.exp(log)
    prior = sum(np.exp(-0.5 * ((x - e) / sigma) ** 2) / sigma for e in stylized.EXAMPLES)
    misfit = (0.5 - x - 0.3 * x**3) / stylized.NOISE
    joint = prior * np.exp(-0.5 * misfit**2 - 0.5 * ((log + 2.0) / 0.5) ** 2)
    joint /= joint.sum()
    weights = mode_weights(joint.sum(axis=1), x[:, 0], stylized.EXAMPLES)
    assert split_gelman_rubin(draws["x"]) < 1.01 and split_gelman_rubin(draws["sigma"]) < 1.01
    # at least 3,000 effective draws: two standard errors of the lighter mode's mass
    assert total_variation(drawn_weights(draws["x"], stylized.EXAMPLES), weights) < 0.02
    # at least 1,000 effective draws of the logarithm of sigma: four standard errors
    mean = np.sum(joint * log)
    sd = np.sqrt(np.sum(joint * (log - mean) ** 2))
    assert abs(np.log(draws["sigma"]).mean() - mean) < 0.13 * sd


@pytest.mark.slow
def test_simulation_based_calibration():
    """Ranks of the truth among thinned posterior draws are uniform (Talts et al. 2018)."""
    repetitions, kept, num_warmup, thinning = 400, 9, 50, 10
    examples = jnp.asarray(stylized.EXAMPLES)
    prior = DiffusionMixturePrior(examples, 0.1)

    def model(y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(stylized.cubic(x), 2.0), obs=y)

    truth_key, noise_key = jax.random.split(jax.random.key(11))
    truths = np.asarray(prior.sample(truth_key, (repetitions,)))
    noise = 2.0 * jax.random.normal(noise_key, (repetitions,))
    data = stylized.cubic(truths) + noise
    # one proposal for all data sets, broad as the data are weak; so they run side by side
    kernel = ModeJump(NUTS(model), prior)
    keys = jax.random.split(jax.random.key(12), repetitions)
    states = kernel.init(keys, num_warmup, None, (), {"y": 0.0})

    @jax.jit
    @jax.vmap
    def rank(state, y, truth):
        arguments = (), {"y": y}
        inner = kernel.inner_kernel.refresh(state.inner_state, *arguments)

        def step(state, _):
            state = kernel.sample(state, *arguments)
            return state, state.z["x"]

        steps = num_warmup + kept * thinning
        _, draws = jax.lax.scan(step, state._replace(inner_state=inner), length=steps)
        return jnp.sum(draws[num_warmup + thinning - 1 :: thinning] < truth)

    ranks = np.asarray(rank(states, data, truths))
    counts = np.bincount(ranks, minlength=kept + 1)
    assert counts.sum() == repetitions and len(counts) == kept + 1
    # ten equally probable ranks; a fixed seed, so this is no flaky test
    assert stats.chisquare(counts).pvalue > 0.01


@pytest.mark.slow
@pytest.mark.torch
def test_full_waveform_inversion():
    """A handful of draws on a grid of 32 x 32 through Deepwave, counted."""
    from ppl_memprior import forward

    survey = forward.Survey.transmission(
        (32, 32), num_shots=1, num_receivers=6, peak_frequency=4.4, dt=0.006, num_times=135
    )
    wave = forward.ScalarWave(survey, 30.0, max_velocity=3600.0, pml_width=6)
    velocity = forward.KarhunenLoeve(
        (32, 32),
        30.0,
        correlation_length=300.0,
        num_terms=4,
        mean=2500.0,
        std=150.0,
        bounds=(1600.0, 3600.0),
    )
    examples = jax.random.normal(jax.random.key(0), (6, 4))
    clean = wave(velocity(jax.random.normal(jax.random.key(1), (4,))))
    noise = 0.4 * float(jnp.abs(clean).max())
    data = clean + noise * jax.random.normal(jax.random.key(2), clean.shape)

    def model(y=None):
        z = numpyro.sample("z", DiffusionMixturePrior(examples, 0.3))
        numpyro.sample("y", dist.Normal(wave(velocity(z)), noise).to_event(3), obs=y)

    problem = InverseProblem(model, y=data)
    result = mode_jump(
        problem,
        jax.random.key(0),
        num_samples=5,
        num_warmup=5,
        num_chains=2,
        max_tree_depth=3,
    )
    assert result.latents["z"].shape == (2, 5, 4) and np.isfinite(result.latents["z"]).all()
    assert np.isfinite(result.sample_stats["potential_energy"]).all()
    steps = result.sample_stats["num_steps"]
    assert (steps <= 7).all()
    # the proposal's own solves and Jacobian columns are counted by `linearize`; ten warmup
    # iterations of at least two evaluations
    proposal = default_proposal(problem)
    found = result.cost.num_forward_evaluations - proposal.num_forward_evaluations
    assert found == result.cost.num_gradient_evaluations - proposal.num_gradient_evaluations
    assert found >= (steps + 1).sum() + 10 * 2
