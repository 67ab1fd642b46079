"""What a `ModeJump` kernel has read of a model with its arguments, and proposes jumps from."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from numpyro.distributions import Distribution

from ppl_memprior.problem.inverse_problem import InverseProblem


class Target(NamedTuple):
    """A model that has been read, and the proposal.

    Attributes:
        arguments: of the model, positional and by name; held, so that identities stay theirs.
        problem: the model with these arguments.
        proposal: distribution of the jumps.
    """

    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    problem: InverseProblem
    proposal: Distribution

    def is_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether these model arguments are the same objects, or equal plain values."""
        trees: list[Any] = [jax.tree.structure(each) for each in (self.arguments, (args, kwargs))]
        leaves = (jax.tree.leaves(each) for each in (self.arguments, (args, kwargs)))
        return trees[0] == trees[1] and all(
            a is b or (isinstance(a, int | float | str) and type(a) is type(b) and a == b)
            for a, b in zip(*leaves, strict=True)
        )
