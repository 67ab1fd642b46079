"""A refusal of NumPyro's enumeration, which would put an example's index in the example's place.

NumPyro's `DiscreteGibbs`, `DiscreteHMCGibbs`, `MixedHMC` and `enum` ask a distribution how many
values it has and then use 0..N-1 as these values. That is right for a `Categorical` and wrong, in
silence, for a distribution over arrays. Nothing in a distribution's interface can say so: the
caller has to be looked at.
"""

from __future__ import annotations

import sys
from types import FrameType

#: NumPyro's modules that count the values of a site, and the ones that pass the question on.
_INFERENCE = ("numpyro.infer.", "numpyro.contrib.")
_WRAPPERS = "numpyro.distributions."


def refuse_indices() -> None:
    """Raise if the caller's caller is NumPyro's inference, directly or through its distributions.

    Raises:
        NotImplementedError: with what to use instead.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and _module(frame).startswith(_WRAPPERS):
        # A wrapper (mask, expand, to_event) that is being built copies the flag, and asks nothing.
        if frame.f_code.co_name == "__init__":
            return
        frame = frame.f_back
    if frame is not None and _module(frame).startswith(_INFERENCE):
        raise NotImplementedError(
            "NumPyro's discrete samplers and its enumeration use the indices 0..N-1 as the values "
            "of a discrete site, and the values of a MemorizedPrior are its examples. Use "
            "MCMC(ppl_memprior.inference.ExampleGibbs(NUTS(model))), which is method 'gibbs' of "
            "ppl_memprior.run, or lookup where the model has no other latent site. Or write the "
            "model with the index, n = numpyro.sample('n', Categorical(logits=prior.log_weights)) "
            "and x = prior.examples[n], which any of NumPyro's methods can take."
        )


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
