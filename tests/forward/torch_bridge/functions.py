"""Small functions written in PyTorch and in JAX, and points to evaluate them at."""

import jax
import jax.numpy as jnp
import pytest

torch = pytest.importorskip("torch")

# float32 rounding of a handful of operations; JAX and PyTorch order and fuse them differently.
CLOSE = {"rtol": 2e-6, "atol": 2e-6}
POINT = jnp.array([0.3, -1.2, 0.8, 2.0], dtype=jnp.float32)
POINTS = jnp.stack([POINT, 0.5 * POINT, POINT + 1.0])


def torch_swirl(x):
    return torch.sin(x) * x.sum()


def torch_swirls(x):
    return torch.sin(x) * x.sum(1, keepdim=True)


def jax_swirl(x):
    return jnp.sin(x) * x.sum()


def scalar(fn):
    return lambda x: jnp.sum(fn(x) ** 2)


def pullbacks(f, points):
    return jax.vmap(lambda x: jax.vjp(f, x)[1])(points)


MATRIX = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
PAIR = jnp.array([0.5, -1.0])


def without_grad(x):
    with torch.no_grad():
        return MATRIX @ x


def jnp_product(x):
    return jnp.asarray(MATRIX.numpy()) @ x


def flat(function, *args):
    """What the primitives carry for these arguments."""
    function(*args)
    return next(iter(function._by_structure.values()))
