"""A user's own `LearnedPrior`, on NumPyro's mixtures, where a prior of this package would stand."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from ppl_memprior import DiffusionMixturePrior, InverseProblem, evidence, linearize, lookup
from ppl_memprior.diffusion import dps
from ppl_memprior.distributions import LearnedPrior
from ppl_memprior.inference import mode_jump, tempered_smc
from ppl_memprior.inference._method_checks import methods_that_take
from ppl_memprior.inference.mcmc.mode_jump._proposal import default_proposal

pytestmark = pytest.mark.arithmetic

EXAMPLES = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
SIGMA = 0.4
MATRIX = np.array([[1.0, 0.5], [-0.3, 0.8], [0.2, 0.2]], np.float32)
DATA = np.array([0.4, -0.2, 0.1], np.float32)


class OwnMixture(LearnedPrior):
    """Isotropic Gaussians, scored and sampled by NumPyro's `MixtureSameFamily`."""

    support = constraints.real_vector
    pytree_data_fields = ("locs", "scale", "log_weights")

    def __init__(self, locs, scale, log_weights=None):
        self.locs = jnp.asarray(locs)
        self.scale = jnp.asarray(scale, self.locs.dtype)
        unnormalized = jnp.zeros(len(locs)) if log_weights is None else log_weights
        self.log_weights = jax.nn.log_softmax(unnormalized)
        super().__init__((), self.locs.shape[1:])

    @property
    def mixture(self):
        parts = dist.Normal(self.locs, self.scale).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.log_weights), parts)

    def sample(self, key, sample_shape=()):
        return self.mixture.sample(key, sample_shape)

    def log_prob(self, value, intermediates=None):
        return self.mixture.log_prob(value)

    @property
    def component_means(self):
        return self.locs

    @property
    def bandwidth(self):
        return self.scale

    def responsibilities(self, value):
        return jax.nn.softmax(self.mixture.component_log_probs(value), axis=-1)

    def reweight(self, log_factors):
        return OwnMixture(self.locs, self.scale, self.log_weights + log_factors)


def problem_with(prior, noise=dist.Normal):
    def model(data=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", noise(jnp.asarray(MATRIX) @ x, 0.3).to_event(1), obs=data)

    return InverseProblem(model, data=DATA)


OWN = OwnMixture(EXAMPLES, SIGMA)
OURS = DiffusionMixturePrior(EXAMPLES, SIGMA)


def test_problem_reads_examples_and_methods_from_the_interface():
    problem = problem_with(OWN)
    assert problem.prior is OWN and problem.num_examples == 5
    np.testing.assert_array_equal(problem.examples, EXAMPLES)
    ours = methods_that_take(problem_with(OURS))
    assert methods_that_take(problem) == [name for name in ours if name != "dps"]
    with pytest.raises(ValueError, match="needs a prior with a denoiser.*OwnMixture has none"):
        dps(problem, jax.random.key(0))


def test_closed_forms_are_those_of_the_same_prior_of_this_package():
    own, ours = (linearize(problem_with(prior)) for prior in (OWN, OURS))
    # the same arithmetic on the same numbers, up to rounding in float32
    np.testing.assert_allclose(own.log_evidence, ours.log_evidence, rtol=1e-5)
    np.testing.assert_allclose(own.locs, ours.locs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own.mean, ours.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own.variance, ours.variance, rtol=1e-5)
    own, ours = (lookup(problem_with(prior)) for prior in (OWN, OURS))
    np.testing.assert_allclose(own.log_weights, ours.log_weights, rtol=1e-5, atol=1e-6)
    own, ours = (evidence(problem_with(prior), [0.2, 0.8]) for prior in (OWN, OURS))
    np.testing.assert_allclose(own.log_evidence, ours.log_evidence, rtol=1e-5)


def test_jumps_without_a_residual_are_proposed_from_the_reweighted_prior():
    with pytest.warns(UserWarning, match="cannot be linearized"):
        proposal = default_proposal(problem_with(OWN, dist.Cauchy)).distribution
    assert isinstance(proposal, OwnMixture)
    logits = dist.Cauchy(EXAMPLES @ MATRIX.T, 0.3).log_prob(DATA).sum(axis=1)
    expected = logits - jax.nn.logsumexp(logits)
    np.testing.assert_allclose(proposal.log_weights, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # compiles two samplers
def test_samplers_agree_with_the_closed_form():
    problem = problem_with(OWN)
    exact = linearize(problem)
    jumps = mode_jump(problem, jax.random.key(1), num_warmup=100, num_samples=400, num_chains=2)
    smc = tempered_smc(problem, jax.random.key(2), num_particles=400, num_repeats=2)
    for latents in (jumps.latents, smc.latents):
        draws = np.asarray(latents["x"]).reshape(-1, 2)
        # 800 draws worth at least 200 independent ones: four standard errors
        tolerance = 4 * np.sqrt(np.asarray(exact.variance) / 200)
        assert np.all(np.abs(draws.mean(axis=0) - exact.mean) < tolerance)
    assert abs(smc.log_evidence - exact.log_evidence) < 0.5
