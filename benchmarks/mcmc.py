"""How samplers move between the modes of a memorizing prior, and what a draw of the mode costs.

NUTS, mode-jump and tempered SMC on the one- and two-dimensional stylized problems from a wide
bandwidth to a narrow one, against quadrature, and on a linear problem with 1,000 examples in 100
dimensions, against its exact weights. Costs are counts of forward evaluations, warmup and proposal
included, so that a busy machine does not change them. Prints Markdown:

    python benchmarks/mcmc.py
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from _stylized import in_the_plane, nearest_example, on_the_line

import ppl_memprior as mp
from ppl_memprior.diagnostics import convergence, mode_mixing, total_variation
from ppl_memprior.forward import stylized
from ppl_memprior.inference import default_proposal, mode_jump, nuts, tempered_smc

BANDWIDTHS = (1.0, 0.5, 0.3, 0.1, 0.05, 0.01)
# Between examples, so that several modes of unequal weight count: at the paper's own observation
# chains that never leave the mode they started in would be right by symmetry.
ON_THE_LINE, IN_THE_PLANE = 0.2, (0.55, 0.45)
CHAINS, WARMUP = 4, 500
# As many draws of NUTS from many chains at once, which is what vectorized hardware suggests.
MANY_CHAINS = 64
# Where jumps are accepted often, local moves may be rare and warmup short.
LOCAL_EVERY, SHORT_WARMUP = 20, 100
SELDOM = f"mode-jump, local_every={LOCAL_EVERY}"
KHAT_DRAWS = 10_000
GOAL, KHAT_LIMIT = 50.0, 0.7


class Case(NamedTuple):
    """A problem with the exact probability of what lies nearest to each of its examples."""

    name: str
    problem: mp.InverseProblem
    examples: np.ndarray  # (N, d)
    weights: np.ndarray  # (N,)


class Row(NamedTuple):
    """What a sampler did with a case.

    Attributes:
        rhat: rank-normalised split R-hat of the worst coordinate.
        distance: total variation of the modes' weights to the exact ones.
        floor: the mean of that for as many independent draws from the exact weights.
        ess: of the mode's indicator.
        evaluations: forward evaluations of everything.
    """

    rhat: float
    distance: float
    floor: float
    ess: float
    evaluations: int

    @property
    def rate(self) -> float:
        """Effective draws of the mode in 1,000 forward evaluations."""
        return 1000 * self.ess / self.evaluations


def of_chains(case: Case, draws: np.ndarray, evaluations: int) -> Row:
    """From the draws (chains, draws, *event) of Markov chains."""
    points, modes = _modes(case, draws)
    mixing = mode_mixing(xr.DataArray(modes, dims=("chain", "draw")))
    return Row(_rhat(points), *_distances(case, modes), mixing.ess, evaluations)


def of_particles(case: Case, draws: np.ndarray, evaluations: int) -> Row:
    """From the particles (repeats, particles, *event) of SMC.

    Particles of one repeat depend on one another in a way that no autocorrelation shows. Repeats
    are independent: the scatter of the modes' weights over them says to how many independent draws
    the particles amount. All modes together give one number, sum of p (1 - p) over the sum of the
    variances.
    """
    points, modes = _modes(case, draws)
    shares = np.stack([np.bincount(m, minlength=len(case.weights)) / m.size for m in modes])
    binomial = np.sum(case.weights * (1 - case.weights))
    ess = len(modes) * float(binomial / np.sum(np.var(shares, axis=0, ddof=1)))
    return Row(_rhat(points), *_distances(case, modes), ess, evaluations)


def _modes(case: Case, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = np.asarray(draws, float).reshape(*draws.shape[:2], -1)
    return points, np.stack([nearest_example(chain, case.examples) for chain in points])


def _rhat(points: np.ndarray) -> float:
    return convergence(xr.DataArray(points, dims=("chain", "draw", "coordinate"))).rhat


def _distances(case: Case, modes: np.ndarray) -> tuple[float, float]:
    """Total variation of the draws to the exact weights, and that of independent draws."""
    shares = np.bincount(modes.ravel(), minlength=len(case.weights)) / modes.size
    drawn = np.random.default_rng(0).multinomial(modes.size, case.weights, size=1000) / modes.size
    independent = [total_variation(row, case.weights) for row in drawn]
    return total_variation(shares, case.weights), float(np.mean(independent))


def stylized_cases() -> Iterator[Case]:
    """Both dimensions at every bandwidth."""
    for sigma in BANDWIDTHS:
        problem, exact = on_the_line(ON_THE_LINE, sigma)
        examples = np.asarray(stylized.EXAMPLES)[:, None]
        yield Case(f"1-D | {sigma:g}", problem, examples, exact.mode_weights(examples))
    for sigma in BANDWIDTHS:
        problem, exact = in_the_plane(IN_THE_PLANE, sigma)
        examples = np.asarray(stylized.EXAMPLES_2D)
        yield Case(f"2-D | {sigma:g}", problem, examples, exact.mode_weights(examples))


def linear_case(d: int, num: int, sigma: float, num_data: int) -> Case:
    """A linear operator, whose posterior is a Gaussian mixture with weights in closed form.

    The examples are so far apart that what lies nearest to one is its component's. Two of them
    have 0.78 and 0.19 of the weight; with half of the data it were spread over so many that not
    even independent draws would come within 0.01 of it.
    """
    rng = np.random.default_rng(0)
    examples, noise = rng.normal(size=(num, d)), 0.5
    operator = rng.normal(size=(num_data, d)) / np.sqrt(d)
    data = operator @ examples[:4].mean(axis=0) + noise * rng.normal(size=num_data)
    prior = mp.DiffusionMixturePrior(jnp.asarray(examples, jnp.float32), sigma)
    matrix = jnp.asarray(operator, jnp.float32)

    def model(data: Any = None) -> None:
        x = numpyro.sample("x", prior)
        prediction = jnp.matmul(matrix, x, precision="highest")
        numpyro.sample("y", dist.Normal(prediction, noise).to_event(1), obs=data)

    residuals = data - examples @ operator.T
    covariance = sigma**2 * operator @ operator.T + noise**2 * np.eye(num_data)
    misfits = np.sum(residuals * np.linalg.solve(covariance, residuals.T).T, axis=1)
    weights = np.exp(-0.5 * (misfits - misfits.min()))
    problem = mp.InverseProblem(model, data=jnp.asarray(data, jnp.float32))
    name = f"linear, d = {d}, N = {num:,} | {sigma:g}"
    return Case(name, problem, examples, weights / weights.sum())


def measure(case: Case, num_samples: int, particles: int, repeats: int) -> dict[str, Row]:
    """Run every sampler."""
    nuts_key, jump_key, smc_key = jax.random.split(jax.random.key(0), 3)
    site, chains = case.problem.prior_name, {"num_warmup": WARMUP, "num_chains": CHAINS}
    alone = nuts(case.problem, nuts_key, num_samples=num_samples, **chains)
    many = nuts(
        case.problem,
        nuts_key,
        num_samples=-(-CHAINS * num_samples // MANY_CHAINS),
        num_warmup=WARMUP,
        num_chains=MANY_CHAINS,
    )
    jumps = mode_jump(case.problem, jump_key, num_samples=num_samples, **chains)
    seldom = mode_jump(
        case.problem,
        jump_key,
        num_samples=num_samples,
        num_warmup=SHORT_WARMUP,
        num_chains=CHAINS,
        local_every=LOCAL_EVERY,
    )
    smc = tempered_smc(case.problem, smc_key, num_particles=particles, num_repeats=repeats)
    return {
        "NUTS": of_chains(case, alone.latents[site], alone.cost.num_forward_evaluations),
        f"NUTS, {MANY_CHAINS} chains": of_chains(
            case, many.latents[site], many.cost.num_forward_evaluations
        ),
        "mode-jump": of_chains(case, jumps.latents[site], jumps.cost.num_forward_evaluations),
        SELDOM: of_chains(case, seldom.latents[site], seldom.cost.num_forward_evaluations),
        "SMC": of_particles(case, smc.latents[site], smc.cost.num_forward_evaluations),
    }


def khat_of(case: Case) -> float:
    """Whether the proposal of the jumps would do for importance sampling."""
    proposal = default_proposal(case.problem).distribution
    return float(mp.psis(case.problem, proposal, jax.random.key(1), num_draws=KHAT_DRAWS).khat)


def print_case(case: Case, rows: dict[str, Row], khat: float, num_particles: int) -> None:
    """One line for each sampler; the ratios stand in mode-jump's."""
    smc = rows["SMC"]
    for name, row in rows.items():
        ratio, bound = row.rate / smc.rate, row.rate / (1000 * num_particles / smc.evaluations)
        met = "met" if ratio >= GOAL else "**not met**"
        verdict = met if khat < KHAT_LIMIT and row is rows[SELDOM] else ""
        last = f"{khat:.2f} | {ratio:.0f} | {bound:.0f} | {verdict}"
        print(
            f"| {case.name} | {name} | {row.rhat:.3f} | {row.distance:.4f} | {row.floor:.4f} "
            f"| {row.ess:,.0f} | {row.evaluations:,} | {row.rate:.3g} "
            f"| {last if 'jump' in name else '| | |'} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=2500, help="draws of each of four chains")
    parser.add_argument("--particles", type=int, default=1000, help="of each repeat of SMC")
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--repeats", type=int, default=8, help="of SMC")
    arguments = parser.parse_args()
    print(
        f"JAX {jax.__version__}, NumPyro {numpyro.__version__}, {platform.machine()}; {CHAINS} "
        f"chains of {WARMUP} + {arguments.samples} iterations; SMC with {arguments.particles} "
        f"particles, {arguments.repeats} repeats.\n"
    )
    print(
        "| problem | sigma | sampler | R-hat | TV | of independent draws | mode ESS "
        "| forward evaluations | ESS per 1,000 | k-hat | ratio to SMC | to its bound | goal 50 |\n"
        + "|---" * 13
        + "|"
    )
    particles = arguments.particles * arguments.repeats
    for case in (*stylized_cases(), linear_case(100, 1000, 0.05, 16)):
        if not case.name.startswith(arguments.only):
            continue
        rows = measure(case, arguments.samples, arguments.particles, arguments.repeats)
        print_case(case, rows, khat_of(case), particles)


if __name__ == "__main__":
    main()
