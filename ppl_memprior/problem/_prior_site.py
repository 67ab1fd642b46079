"""NumPyro handlers that read, or replace, the distribution of one latent site.

`InverseProblem` learns its prior by the one and takes another one by the other; what a
distribution may be there is left to `_model_sites`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from numpyro import handlers
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


class _SiteReached(Exception):
    """Ends the run of a model as soon as the site has been reached."""


class _StopAt(Messenger):
    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        super().__init__(fn)
        self.name = name
        self.found: Any = None

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] == self.name:
            self.found = msg["fn"]
            raise _SiteReached


def distribution_at(
    model: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The concrete distribution of site `name`; what follows it in the model is not run."""
    reader = _StopAt(handlers.seed(model, rng_seed=0), name)
    with contextlib.suppress(_SiteReached):
        reader(*args, **kwargs)
    return reader.found
