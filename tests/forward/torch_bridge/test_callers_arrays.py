"""Arrays belong to the caller: a function that writes to its arguments is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_memprior.forward import torch_function

from .functions import POINT

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def writes_in_place(x):
    return torch.nn.functional.relu(x, inplace=True)


def writes_through_numpy(x):
    x.detach().numpy()[...] = 7.0
    return 2 * x


def writes_where_pytorch_does_not_count(x):
    x.data.mul_(3.0)
    return 2 * x


@pytest.mark.parametrize(
    "function", [writes_in_place, writes_through_numpy, writes_where_pytorch_does_not_count]
)
@pytest.mark.parametrize("batched", [False, True], ids=["one by one", "batched"])
def test_the_callers_array_is_never_changed(function, batched):
    point = jnp.array([-1.0, 2.0, jnp.nan])
    points = jnp.stack([point, point])
    before = np.array(point), np.array(points)
    wrapped = torch_function(function, batched=function if batched else None)
    calls = {
        "value": lambda: wrapped(point),
        "jit": lambda: jax.jit(wrapped)(point),
        "grad": lambda: jax.grad(lambda x: wrapped(x).sum())(point),
        "jvp": lambda: jax.jvp(wrapped, (point,), (point,)),
        "vmap": lambda: jax.vmap(wrapped)(points),
        "vmap grad": lambda: jax.vmap(jax.grad(lambda x: wrapped(x).sum()))(points),
    }
    for name, call in calls.items():
        # PyTorch refuses some of them itself; in forward mode NumPy gets no memory to write to.
        with pytest.raises(RuntimeError, match="in place|in-place|no derivative"):
            jax.block_until_ready(call())
        np.testing.assert_array_equal(point, before[0], err_msg=name)
        np.testing.assert_array_equal(points, before[1], err_msg=name)


def test_cotangents_and_tangents_are_not_changed_either():
    class Doubles(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, g):
            return g.mul_(2)

    cotangent = jnp.ones(4)
    _, pull = jax.vjp(torch_function(Doubles.apply), POINT)
    with pytest.raises(RuntimeError, match="in place"):
        pull(cotangent)
    np.testing.assert_array_equal(cotangent, 1.0)


def test_not_a_number_is_not_taken_for_a_change():
    wrapped = torch_function(lambda x, n: 2 * x + n)
    many = jnp.array([jnp.nan, -0.0, jnp.inf]), jnp.array([1, 2, 3], jnp.int32)
    np.testing.assert_array_equal(wrapped(*many), np.array([np.nan, 2.0, np.inf]))
    for dtype in (jnp.bfloat16, jnp.float16, jnp.bool_, jnp.uint8):
        assert wrapped(jnp.zeros((2, 0, 3), dtype), 1.0).shape == (2, 0, 3)
        assert np.all(np.asarray(wrapped(jnp.ones(3, dtype), jnp.float32(1.0))) == 3.0)


def test_a_changed_argument_is_noticed_while_recording():
    def changes(x, n):
        n.add_(1)
        return x * n

    with pytest.raises(RuntimeError, match="in place"):
        jax.grad(lambda x: torch_function(changes)(x, jnp.ones(4)).sum())(POINT)
