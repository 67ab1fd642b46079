"""The mode-jump kernel: what it refuses, what it proposes, and how its chains run."""

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
from numpyro.infer import HMC, MCMC, NUTS, BarkerMH
from numpyro.infer.sa import SA
from scipy import special

from ppl_memprior import DiffusionMixturePrior, InverseProblem, ModeJump
from ppl_memprior.comparison import METHODS
from ppl_memprior.inference import default_proposal, mode_jump
from ppl_memprior.inference.mcmc.mode_jump._kernel import log_acceptance_ratio


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
