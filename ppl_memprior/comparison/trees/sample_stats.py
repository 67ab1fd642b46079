"""Statistics of draws under the names that ArviZ gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

#: NumPyro's name of a statistic: ArviZ's.
ARVIZ_NAMES = {
    "num_steps": "n_steps",
    "accept_prob": "acceptance_rate",
    "potential_energy": "lp",
    "adapt_state.step_size": "step_size",
}


def named_as_arviz(sample_stats: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The statistics by ArviZ's names; those that ArviZ does not name keep theirs.

    `lp`, the log-density, is minus the potential energy. `tree_depth` is the number of doublings of
    a trajectory of NUTS of `n_steps` steps, zero without any.

    Args:
        sample_stats: by NumPyro's names, shape (chains, draws).
    """
    stats = {}
    for name, values in sample_stats.items():
        array = np.asarray(values)
        stats[ARVIZ_NAMES.get(name, name)] = -array if name == "potential_energy" else array
    if "n_steps" in stats and "tree_depth" not in stats:
        # the exponent of 2**(k - 1) <= n < 2**k is k
        stats["tree_depth"] = np.frexp(stats["n_steps"].astype(float))[1].astype(int)
    return stats
