"""The options that Markov chains around NUTS share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ppl_memprior.comparison.methods.method import Method
from ppl_memprior.comparison.methods.options import whole


@dataclass(frozen=True, kw_only=True)
class ChainMethod(Method):
    """Markov chains around NUTS.

    Attributes:
        num_samples: draws kept of each chain.
        num_warmup: adaptation steps of each chain.
        num_chains: chains, each started from its own draw from the prior.
        max_tree_depth: a trajectory has at most 2 ** max_tree_depth - 1 gradients.
    """

    remedy: ClassVar[str] = "run it longer"
    diagnosed: ClassVar[bool] = True

    num_samples: int = whole(1000, at_least=4)
    num_warmup: int = whole(500, at_least=0)
    num_chains: int = whole(4)
    max_tree_depth: int = whole(10)

    @property
    def sizes(self) -> dict[str, Any]:
        """The options as arguments of a sampler."""
        return {
            "num_samples": int(self.num_samples),
            "num_warmup": int(self.num_warmup),
            "num_chains": int(self.num_chains),
            "max_tree_depth": int(self.max_tree_depth),
        }
