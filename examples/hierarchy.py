"""Hyperpriors: the bandwidth, the noise scale and the examples' weights inferred from the data.

Many unknowns drawn from one `DiffusionMixturePrior`, each seen once through x + 0.3 x^3 with noise,
tell how wide the prior is, how often each example occurs and how noisy the data are. Plain NumPyro:
the prior stands in a plate, and its parameters are latent sites. Prints a table of the
hyperparameters beside the values that the data were made with.

    python examples/hierarchy.py
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, init_to_value

import ppl_memprior as mp
from ppl_memprior.forward import stylized

EXAMPLES = np.array([-1.5, 0.0, 1.5])
TRUTH = {"sigma": 0.2, "noise": 0.1, "weights": np.array([0.5, 0.3, 0.2])}


def model(data: jax.Array) -> None:
    """Unknowns x_i from the mixture, data y_i = x_i + 0.3 x_i^3 + noise."""
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.5, 0.5))
    noise = numpyro.sample("noise", dist.LogNormal(-2.0, 0.5))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(len(EXAMPLES))))
    prior = mp.DiffusionMixturePrior(jnp.asarray(EXAMPLES), sigma, weights=weights)
    with numpyro.plate("unknowns", len(data)):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(stylized.cubic(x), noise), obs=data)


def simulate(rng_key: jax.Array, num_unknowns: int) -> jax.Array:
    """Data of the model at `TRUTH`, shape (num_unknowns,)."""
    prior_key, noise_key = jax.random.split(rng_key)
    prior = mp.DiffusionMixturePrior(
        jnp.asarray(EXAMPLES), TRUTH["sigma"], weights=jnp.asarray(TRUTH["weights"])
    )
    x = prior.sample(prior_key, (num_unknowns,))
    return stylized.cubic(x) + TRUTH["noise"] * jax.random.normal(noise_key, x.shape)


def main(
    num_unknowns: int = 200, num_warmup: int = 500, num_samples: int = 500, num_chains: int = 4
) -> dict[str, np.ndarray]:
    """Infer the hyperparameters; returns their draws, shape (chains, draws, *event)."""
    data = simulate(jax.random.key(0), num_unknowns)
    # Here the data say which example each unknown belongs to. Chains that start where the data are
    # explained have one mode to explore; from draws of the prior they stay with wrong examples and
    # blame the noise. Where the data do not say it, NUTS does not move between examples: start
    # chains at several, and see whether they agree.
    grid = np.linspace(-4, 4, 1001)
    explains = jnp.asarray(np.interp(data, stylized.cubic(grid), grid))
    start = {"x": explains, "sigma": 0.3, "noise": 0.3}
    mcmc = MCMC(
        NUTS(model, init_strategy=init_to_value(values=start), max_tree_depth=6),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(1), data)
    samples = mcmc.get_samples(group_by_chain=True)
    draws = {name: np.asarray(samples[name]) for name in TRUTH}
    print_table(draws)
    return draws


def print_table(draws: dict[str, np.ndarray]) -> None:
    """Truth, mean and 5 to 95 % of each hyperparameter."""
    print(f"{'':12}{'truth':>8}{'mean':>8}{'5 %':>8}{'95 %':>8}")
    for name, values in draws.items():
        columns = values.reshape(values.shape[0] * values.shape[1], -1).T
        for index, (column, truth) in enumerate(zip(columns, np.ravel(TRUTH[name]), strict=True)):
            label = f"{name}[{index}]" if len(columns) > 1 else name
            low, high = np.quantile(column, [0.05, 0.95])
            print(f"{label:12}{truth:8.3f}{column.mean():8.3f}{low:8.3f}{high:8.3f}")


if __name__ == "__main__":
    main()
