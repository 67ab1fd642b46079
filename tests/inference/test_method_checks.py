"""What a refusal recommends: for models of every kind, asked of the methods themselves."""

from __future__ import annotations

import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from ppl_memprior import (
    DiffusionMixturePrior,
    InverseProblem,
    LowRankGaussianMixture,
    MemorizedPrior,
    ModeJump,
    methods,
    psis,
    run,
)
from ppl_memprior.comparison.methods import METHODS
from ppl_memprior.inference._method_checks import methods_that_take

pytestmark = pytest.mark.arithmetic  # another Python computes the same

EXAMPLES = jnp.asarray([-1.0, 0.2, 1.5])
PRIORS = {
    "memorized": MemorizedPrior(EXAMPLES),
    "mixture": DiffusionMixturePrior(EXAMPLES, 0.5),
    "low-rank": LowRankGaussianMixture(
        EXAMPLES, 0.5, jnp.ones((3, 1)), jnp.full((3, 1), 0.3), jnp.log(jnp.ones(3) / 3)
    ),
}


def make(prior, gaussian=True, scale=False, count=False, replace=None):
    def model(y=None):
        noise = numpyro.sample("scale", dist.HalfNormal(1.0)) if scale else 0.3
        shift = numpyro.sample("count", dist.Poisson(1.0)) if count else 0.0
        x = numpyro.sample("x", PRIORS[prior] if replace is None else replace) + shift
        numpyro.sample("y", dist.Normal(x, noise) if gaussian else dist.Cauchy(x, noise), obs=y)

    return InverseProblem(model, y=0.3)


KINDS = [
    dict(zip(("prior", "gaussian", "scale", "count"), kind, strict=True))
    for kind in (
        *itertools.product(("memorized", "mixture"), (True, False), (False, True), (False,)),
        ("memorized", True, True, True),
        ("mixture", False, False, True),
        ("low-rank", True, False, False),
        ("low-rank", False, True, False),
    )
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_every_recommendation_is_true(kind):
    problem = make(**kind)
    refusals = {}
    for name, method in METHODS.items():
        try:
            method.check(problem)
        except ValueError as error:
            refusals[name] = str(error)
    assert sorted(set(METHODS) - set(refusals)) == methods_that_take(problem)
    for name, message in refusals.items():
        recommended = re.search(r"Methods that take this model: ([\w, -]+)$", message)
        fixed = re.search(r"with 'count' fixed these do: ([\w, -]+)$", message)
        assert (recommended is None) == kind["count"] and (fixed is None) != kind["count"]
        condition = re.search(r"handlers.condition\(model, \{([^}]*)\}\)", message)
        values = {"scale": 0.3, "count": 1.0}
        for other in recommended[1].split(", ") if recommended else ():
            METHODS[other].check(problem)
        for other in fixed[1].split(", ") if fixed else ():
            model = handlers.condition(problem.model, {"count": 1.0})
            METHODS[other].check(InverseProblem(model, y=0.3))
        if condition:
            sites = re.findall(r"'(\w+)'", condition[1])
            model = handlers.condition(problem.model, {site: values[site] for site in sites})
            METHODS[name].check(InverseProblem(model, y=0.3))
        if "DiffusionMixturePrior(examples, sigma)" in message:
            METHODS[name].check(problem.with_prior(PRIORS["mixture"]))
        # nothing outside of these sentences names a method
        rest = re.sub(r"(Methods that take this model|fixed these do): .*", "", message)
        rest = rest.replace("psis corrects linearize(problem), unless you call psis(", "")
        rest = rest.removeprefix(name).removeprefix("linearize needs")
        assert not any(re.search(rf"\b{other}\b", rest) for other in METHODS), rest


def test_discrete_latent_sites_are_refused_before_any_work(tmp_path):
    for prior, name in (("mixture", "nuts"), ("mixture", "mode-jump"), ("memorized", "gibbs")):
        with pytest.raises(ValueError, match="'count' of this model is discrete: sum it out.*Fix"):
            run(make(prior, count=True, scale=True), [name], jax.random.key(0), store=tmp_path)
    assert not list(tmp_path.iterdir())
    kernel = ModeJump(numpyro.infer.NUTS(make("mixture", count=True).model), dist.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="'count' of this model is discrete"):
        kernel.init(jax.random.key(0), 1, None, (), {"y": 0.3})


def test_psis_with_a_proposal_takes_any_noise():
    problem = make("mixture", gaussian=False)
    with pytest.raises(ValueError, match="unless you call psis"):
        METHODS["psis"].check(problem)
    found = psis(problem, dist.Normal(0.3, 1.0), jax.random.key(0), num_draws=100)
    assert np.isfinite(found.log_evidence)


def test_stored_draws_say_which_methods_apply():
    tiny = methods.Gibbs(num_samples=4, num_warmup=1, num_chains=1)
    problem = make("memorized", scale=True)
    tree = run(problem, [tiny], jax.random.key(0), progress=False)["gibbs"]
    assert list(json.loads(tree.attrs["methods_that_apply"])) == ["gibbs"]
