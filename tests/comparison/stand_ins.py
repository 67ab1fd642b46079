"""A method that counts its calls, and a problem whose unknown is a field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from ppl_memprior import (
    DiffusionMixturePrior,
    InverseProblem,
    methods,
)
from ppl_memprior.comparison.methods import Method


@dataclass(frozen=True, kw_only=True)
class Counted(Method):
    """A method that counts its calls, and draws what another one draws."""

    name: ClassVar[str] = "counted"
    calls: ClassVar[list[str]] = []
    interrupts: bool = False

    def check(self, problem):
        pass

    def draw(self, problem, key, resources):
        if self.interrupts:
            raise KeyboardInterrupt
        self.calls.append(self.label)
        return methods.Lookup(num_samples=4).draw(problem, key, resources)


def field_problem():
    """A field of 2 x 3 cells and a deterministic site of its rows."""

    def model(data=None):
        v = numpyro.sample("v", DiffusionMixturePrior(jnp.zeros((4, 2, 3)), 0.2))
        numpyro.deterministic("profile", v.mean(1))
        numpyro.sample("y", dist.Normal(v.sum(0), 0.3).to_event(1), obs=data)

    return InverseProblem(model, data=jnp.zeros(3))
