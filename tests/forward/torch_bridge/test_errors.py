"""What the bridge refuses, and how an exception of the PyTorch function reaches the user."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_memprior.forward import torch_function

from .functions import POINT, POINTS, scalar, torch_swirl, torch_swirls

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def fails_on_values(x):
    if x.abs().sum() > 0:
        raise ValueError("the tank is empty: 42")
    return x


def test_an_exception_reaches_the_user_with_its_message():
    wrapped = torch_function(fails_on_values)
    with pytest.raises(
        RuntimeError, match="fails_on_values failed in PyTorch: the tank is empty"
    ) as info:
        wrapped(POINT)
    assert isinstance(info.value.__cause__, ValueError)
    with pytest.raises(RuntimeError, match="the tank is empty: 42"):
        jax.jit(wrapped)(POINT).block_until_ready()
    # The bridge works on afterwards.
    np.testing.assert_array_equal(wrapped(jnp.zeros(4)), 0.0)


def test_an_exception_while_the_shape_is_learned_is_pytorch_s_own():
    with pytest.raises(RuntimeError, match="size"):
        torch_function(lambda x: x @ torch.ones(5))(POINT)


def test_errors_say_what_to_do():
    with pytest.raises(NotImplementedError, match="second derivatives"):
        jax.hessian(scalar(torch_function(torch_swirl)))(POINT)
    with pytest.raises(TypeError, match="real and imaginary parts"):
        torch_function(torch_swirl)(POINT.astype(complex))
    with pytest.raises(TypeError, match="view_as_real"):
        torch_function(lambda x: x + 1j)(POINT)
    with pytest.raises(TypeError, match="got str"):
        torch_function(lambda x: "no tensor")(POINT)
    with pytest.raises(TypeError, match="at least one array"):
        torch_function(torch_swirl)()
    with pytest.raises(ValueError, match="max_batch"):
        torch_function(torch_swirl, max_batch=0)
    with pytest.raises(RuntimeError, match=r"returned shape \(4,\).*where \(3, 4\)"):
        jax.vmap(torch_function(torch_swirl, batched=lambda x: torch_swirls(x)[0]))(POINTS)


def test_a_missing_pytorch_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'ppl_memprior\[fwi\]'"):
        torch_function(torch_swirl)


def test_an_exception_inside_a_derivative_is_one_error_with_its_message():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise OSError("the tape is torn: 7")

    def broken(x):
        return Broken.apply(x)

    wrapped = torch_function(broken)
    with pytest.raises(RuntimeError, match="broken failed in PyTorch: the tape is torn: 7"):
        jax.grad(scalar(wrapped))(POINT)
    with pytest.raises(jax.errors.JaxRuntimeError) as info:
        jax.jit(jax.grad(scalar(wrapped)))(POINT).block_until_ready()
    # Under `jit` the error is JAX's; its last line is ours.
    assert "broken failed in PyTorch: the tape is torn: 7" in str(info.value)


def test_random_keys_do_not_cross():
    with pytest.raises(TypeError, match="key"):
        torch_function(torch_swirl)(jax.random.key(0))
