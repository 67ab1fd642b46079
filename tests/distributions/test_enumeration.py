"""MemorizedPrior under NumPyro's enumeration and discrete samplers: refused, and what to use."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import (
    HMC,
    MCMC,
    NUTS,
    SVI,
    BarkerMH,
    DiscreteHMCGibbs,
    MixedHMC,
    Predictive,
    TraceEnum_ELBO,
)
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.gibbs import DiscreteGibbs, Gibbs
from scipy.integrate import trapezoid
from scipy.stats import halfnorm, norm

from ppl_memprior.distributions import MemorizedPrior
from ppl_memprior.inference import ExampleGibbs

EXAMPLES = np.array([-1.5, -0.4, 0.4, 1.2, 2.5], np.float32)
DATA = np.array([0.35, 0.6, 0.2, 0.9, -0.1], np.float32)
PRIOR = MemorizedPrior(EXAMPLES)


def observe(x, s):
    mean = jnp.asarray(x)[..., None] + jnp.zeros(5)
    numpyro.sample("y", dist.Normal(mean, s).to_event(1), obs=DATA)


def model():
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    observe(numpyro.sample("x", PRIOR), s)


def marked_model():
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    observe(numpyro.sample("x", PRIOR.mask(True), infer={"enumerate": "parallel"}), s)


def index_model():
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    n = numpyro.sample("n", dist.Categorical(logits=PRIOR.log_weights))
    observe(PRIOR.examples[n], s)


def masked_model():
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    observe(numpyro.sample("x", PRIOR.mask(True)), s)


def guide():
    numpyro.sample("s", dist.LogNormal(numpyro.param("loc", -0.5), 0.3))


def sample(kernel):
    MCMC(kernel, num_warmup=2, num_samples=2, progress_bar=False).run(jax.random.key(0))


def optimize(model, guide):
    optimizer = numpyro.optim.Adam(0.01)
    svi = SVI(model, guide, optimizer, TraceEnum_ELBO())
    svi.run(jax.random.key(0), 1, progress_bar=False)


def enumerate_all():
    from numpyro.contrib.funsor import config_enumerate

    optimize(config_enumerate(model), guide)


ROUTES = {
    "DiscreteHMCGibbs": lambda: sample(DiscreteHMCGibbs(NUTS(model))),
    "modified DiscreteHMCGibbs": lambda: sample(DiscreteHMCGibbs(NUTS(model), modified=True)),
    "MixedHMC": lambda: sample(MixedHMC(HMC(model))),
    "DiscreteGibbs": lambda: sample(Gibbs([(DiscreteGibbs(model), ["x"]), (NUTS(model), None)])),
    "masked DiscreteHMCGibbs": lambda: sample(DiscreteHMCGibbs(NUTS(masked_model))),
    "NUTS": lambda: sample(NUTS(model)),
    "NUTS, marked": lambda: sample(NUTS(marked_model)),
    "HMC": lambda: sample(HMC(model)),
    "BarkerMH": lambda: sample(BarkerMH(model)),
    "SVI, marked": lambda: optimize(marked_model, guide),
    "SVI, configured": enumerate_all,
    "SVI, automatic guide": lambda: optimize(model, AutoNormal(model)),
    "Predictive": lambda: Predictive(
        model, posterior_samples={"s": jnp.ones(2)}, infer_discrete=True
    )(jax.random.key(0)),
}


@pytest.mark.filterwarnings("ignore:Some algorithms will automatically enumerate:FutureWarning")
@pytest.mark.parametrize("route", ROUTES)
def test_what_takes_indices_for_values_is_refused(route):
    """Each put 0..4 in the place of the five examples, without a word."""
    pytest.importorskip("funsor")
    with pytest.raises(NotImplementedError, match=r"ExampleGibbs.*Categorical\(logits=.*examples"):
        ROUTES[route]()


def test_users_enumerate_as_they_like():
    for prior in (PRIOR, PRIOR.mask(True)):
        assert prior.has_enumerate_support
        np.testing.assert_array_equal(prior.enumerate_support(expand=False), EXAMPLES)
    draws = Predictive(model, num_samples=3)(jax.random.key(0))
    assert np.isin(draws["x"], EXAMPLES).all()


def exact_mean_of_s():
    """E[s | y] by quadrature over s for each example."""
    s = np.linspace(1e-3, 8, 20_001)
    log_joint = halfnorm.logpdf(s) + norm.logpdf(DATA[:, None, None], EXAMPLES[:, None], s).sum(0)
    joint = np.exp(log_joint).sum(0)
    return trapezoid(s * joint, s) / trapezoid(joint, s)


@pytest.mark.filterwarnings("ignore:Some algorithms will automatically enumerate:FutureWarning")
@pytest.mark.parametrize("route", ["index by Gibbs", "index by enumeration", "ExampleGibbs"])
def test_the_advised_routes_are_right(route):
    if route == "index by enumeration":
        pytest.importorskip("funsor")
    kernel = {
        "index by Gibbs": lambda: DiscreteHMCGibbs(HMC(index_model)),
        "index by enumeration": lambda: HMC(index_model),
        "ExampleGibbs": lambda: ExampleGibbs(NUTS(model)),
    }[route]()
    mcmc = MCMC(kernel, num_warmup=500, num_samples=4000, progress_bar=False)
    mcmc.run(jax.random.key(1))
    expected = exact_mean_of_s()
    assert abs(expected - 0.461) < 5e-4
    draws = np.asarray(mcmc.get_samples()["s"])
    # chains over the index move slowly: five standard errors at their own effective sample size
    error = 5 * draws.std() / np.sqrt(effective_sample_size(draws[None]))
    assert abs(draws.mean() - expected) < error < 0.15
