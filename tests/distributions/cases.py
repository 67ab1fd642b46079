"""Our distributions in several shapes, for the tests that every distribution goes through."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ppl_memprior.distributions import (
    DiffusionMixturePrior,
    LowRankGaussianMixture,
    MemorizedPrior,
)

WEIGHTS = np.array([0.5, 2.0, 1.0, 0.0, 1.5])
NUM = len(WEIGHTS)


def examples(*event_shape):
    return np.random.default_rng(0).normal(size=(NUM, *event_shape))


def low_rank(event_shape, rank):
    """Parameters of a mixture with random orthonormal directions."""
    rng = np.random.default_rng(1)
    d = int(np.prod(event_shape))
    rows = [np.linalg.qr(rng.normal(size=(d, rank)))[0].T for _ in range(NUM)]
    return {
        "locs": examples(*event_shape),
        "scale": np.array(0.8),
        "directions": np.stack(rows).reshape(NUM, rank, *event_shape),
        "direction_scales": rng.uniform(0.1, 0.7, size=(NUM, rank)),
        "log_weights": np.log(WEIGHTS + 1e-300),
    }


def case(name, cls, *, batch=(), event, vmapped, **params):
    spec = SimpleNamespace(
        name=name, cls=cls, batch=batch, event=event, vmapped=vmapped, params=params
    )
    # one of them shows whether another JAX or NumPyro wants something else
    marks = [] if name == "mixture-image-batch" else [pytest.mark.arithmetic]
    if name in ("mixture-scalar", "memorized-image"):  # a class and an event shape of the others
        marks = [pytest.mark.slow]
    return pytest.param(spec, id=name, marks=marks)


def mixture(name, event, sigma, alpha=0.9, weights=WEIGHTS):
    batch = np.broadcast_shapes(np.shape(sigma), np.shape(alpha))
    return case(
        name,
        DiffusionMixturePrior,
        batch=batch,
        event=event,
        vmapped="sigma",
        examples=examples(*event),
        sigma=np.array(sigma),
        alpha=np.array(alpha),
        weights=weights,
    )


def memorized(name, event, weights=WEIGHTS):
    return case(
        name,
        MemorizedPrior,
        event=event,
        vmapped="examples",
        examples=examples(*event),
        weights=weights,
    )


DISCRETE = [
    memorized("memorized-scalar", ()),
    memorized("memorized-image", (2, 3), weights=None),
]
CONTINUOUS = [
    mixture("mixture-scalar", (), 0.4, weights=None),
    mixture("mixture-image-batch", (2, 3), [0.4, 0.8]),
    case(
        "low-rank-vector", LowRankGaussianMixture, event=(4,), vmapped="scale", **low_rank((4,), 2)
    ),
]
every_case = pytest.mark.parametrize("spec", DISCRETE + CONTINUOUS)
continuous_case = pytest.mark.parametrize("spec", CONTINUOUS)
discrete_case = pytest.mark.parametrize("spec", DISCRETE)


def build(spec, **changes):
    return spec.cls(**{**spec.params, **changes})


def draw(d, sample_shape=(), seed=0):
    return d.sample(jax.random.key(seed), sample_shape)
