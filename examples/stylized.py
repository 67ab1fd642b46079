"""When can NUTS be trusted? The one-dimensional problem at a wide and at a narrow bandwidth.

Writes `stylized-<sigma>.html` for each bandwidth into the folder given (default: here) and prints
the verdicts. At sigma = 0.05 the chains stay with the example they started from: R-hat says so.

    python examples/stylized.py [FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import ppl_memprior as mp
from ppl_memprior import methods
from ppl_memprior.forward import stylized

METHODS = ("lookup", "linearized", "nuts", "dps")


def main(
    folder: Path,
    chosen: Sequence[str | methods.Method] = METHODS,
    bandwidths: Sequence[float] = (0.5, 0.05),
) -> dict[float, mp.Comparison]:
    """Compare the four posteriors at each bandwidth."""
    comparisons = {}
    for sigma in bandwidths:
        prior = mp.DiffusionMixturePrior(jnp.asarray(stylized.EXAMPLES), sigma)

        def model(y=None, prior=prior):
            x = numpyro.sample("x", prior)
            numpyro.sample("y", dist.Normal(stylized.cubic(x), stylized.NOISE), obs=y)

        problem = mp.InverseProblem(model, y=stylized.OBSERVATION)
        runs = mp.run(problem, chosen, jax.random.key(0))
        comparison = mp.compare(runs, reference="linearized")
        print(f"sigma = {sigma}\n{comparison.to_text()}\n")
        comparison.to_html(folder / f"stylized-{sigma}.html", title=f"sigma = {sigma}")
        comparisons[sigma] = comparison
    return comparisons


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
