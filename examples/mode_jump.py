"""NUTS and ModeJump on the one-dimensional problem at sigma = 0.05, as rank plots.

Four chains of each start from the prior. The ranks of one chain's draws among all draws are uniform
if the chains have the same law; the picture shows them for every chain, with R-hat and the mass
that each chain gives to the examples. Writes the picture (default: docs/rank_plots.png).

    python examples/mode_jump.py [FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib.axes import Axes
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer import MCMC, NUTS, init_to_sample

import ppl_memprior as mp
from ppl_memprior.forward import stylized

SIGMA = 0.05
OBSERVATION = 0.2
BINS = 20


def model(y=None):
    x = numpyro.sample("x", mp.DiffusionMixturePrior(jnp.asarray(stylized.EXAMPLES), SIGMA))
    numpyro.sample("y", dist.Normal(stylized.cubic(x), stylized.NOISE), obs=y)


def main(
    path: Path, num_warmup: int = 500, num_samples: int = 2500, dpi: int = 150
) -> dict[str, np.ndarray]:
    """Draw by both kernels, save the picture and return the draws, shape (4, num_samples)."""
    nuts = NUTS(model, init_strategy=init_to_sample)
    draws = {}
    for name, kernel in {"NUTS": nuts, "ModeJump(NUTS)": mp.ModeJump(nuts)}.items():
        mcmc = MCMC(
            kernel,
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=4,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(jax.random.key(3), y=OBSERVATION)
        draws[name] = np.asarray(mcmc.get_samples(group_by_chain=True)["x"])
    figure = plt.figure(figsize=(8.0, 6.4), layout="constrained")
    figure.suptitle(f"exact posterior: {in_words(exact_shares())}", fontsize=10)
    columns = figure.subfigures(1, 2)
    for column, (name, chains) in zip(columns, draws.items(), strict=True):
        column.suptitle(f"{name}: split R-hat {split_gelman_rubin(chains):.3f}")
        panels = column.subplots(4, 1, sharex=True, sharey=True)
        for axes, chain, ranks in zip(panels, chains, ranks_among_all(chains), strict=True):
            plot_ranks(axes, ranks, chains.size)
            axes.set_title(in_words(shares(chain)), loc="right", fontsize=9)
        for number, axes in enumerate(panels, start=1):
            axes.set_ylabel(f"chain {number}")
        panels[-1].set_xlabel("rank among the draws of all chains")
    figure.savefig(path, dpi=dpi)
    plt.close(figure)
    return draws


def ranks_among_all(chains: np.ndarray) -> np.ndarray:
    """Rank of each draw among all draws, of the shape of `chains`."""
    return np.argsort(np.argsort(chains.ravel())).reshape(chains.shape)


def plot_ranks(axes: Axes, ranks: np.ndarray, total: int) -> None:
    """Histogram of one chain's ranks, and the level at which they are uniform."""
    axes.hist(ranks, bins=BINS, range=(0, total), color="tab:blue", alpha=0.7)
    axes.axhline(len(ranks) / BINS, color="black", linewidth=1, linestyle="--")
    axes.margins(x=0)
    axes.set_yticks([])


def shares(x: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Share of the values x that lies nearest to each example."""
    nearest = np.argmin(np.abs(x[:, None] - np.asarray(stylized.EXAMPLES)), axis=1)
    mass = np.bincount(nearest, weights, minlength=len(stylized.EXAMPLES))
    return mass / mass.sum()


def exact_shares() -> np.ndarray:
    """The posterior's mass nearest to each example, by quadrature."""
    x = np.linspace(-4, 4, 16_001)
    prior = sum(np.exp(-0.5 * ((x - e) / SIGMA) ** 2) for e in stylized.EXAMPLES)
    misfit = (OBSERVATION - x - 0.3 * x**3) / stylized.NOISE
    return shares(x, prior * np.exp(-0.5 * misfit**2))


def in_words(masses: np.ndarray) -> str:
    """The examples that carry at least one percent, and how much."""
    pairs = zip(masses, stylized.EXAMPLES, strict=True)
    return ", ".join(f"{100 * mass:.1f} % at {e:g}" for mass, e in pairs if mass >= 0.01)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/rank_plots.png"))
