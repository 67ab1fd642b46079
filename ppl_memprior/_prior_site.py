"""A NumPyro handler that puts another distribution in the place of one site's.

`InverseProblem.with_prior` reads the same model under it; what a distribution may be there is
checked by `problem.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpyro.distributions import Distribution
from numpyro.primitives import Messenger


class ReplaceDistribution(Messenger):
    """Run a model with the distribution of the latent site `name` replaced.

    Args:
        fn: the model.
        name: of a sample site.
        distribution: what the site has instead of its own.
    """

    def __init__(self, fn: Callable[..., Any], name: str, distribution: Distribution) -> None:
        super().__init__(fn)
        self.name = name
        self.distribution = distribution

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] == self.name:
            msg["fn"] = self.distribution
