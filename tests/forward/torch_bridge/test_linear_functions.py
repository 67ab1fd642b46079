"""Functions declared linear: transposed and differentiated twice, like the same ones in JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_memprior.forward import torch_function

from .functions import CLOSE, MATRIX, PAIR, POINT, flat, jax_swirl, jnp_product, torch_swirl

pytestmark = pytest.mark.torch


@pytest.fixture(params=[False, True], ids=["one by one", "batched"])
def product(request):
    batched = (lambda x: x @ MATRIX.T) if request.param else None
    return torch_function(lambda x: MATRIX @ x, batched=batched, linear=True)


LINEAR = {
    "transpose": lambda f: lambda x, y: jax.linear_transpose(f, x)(y),
    "transpose under jit": lambda f: jax.jit(lambda x, y: jax.linear_transpose(f, x)(y)),
    "vmap of the transpose": lambda f: (
        lambda x, y: jax.vmap(jax.linear_transpose(f, x))(jnp.stack([y, -y]))
    ),
    "transpose of the vmap": lambda f: jax.jit(
        lambda x, y: jax.linear_transpose(jax.vmap(f), jnp.stack([x, x]))(jnp.stack([y, -y]))
    ),
    "shared by a batch": lambda f: (
        lambda x, y: jax.linear_transpose(
            lambda x: jax.vmap(lambda s: f(s * x))(jnp.arange(3.0)), x
        )(jnp.stack([y, -y, 2 * y]))
    ),
    "transposed twice": lambda f: (
        lambda x, y: jax.linear_transpose(lambda y: jax.linear_transpose(f, x)(y)[0], y)(x)
    ),
    "hessian": lambda f: lambda x, y: jax.jit(jax.hessian(lambda x: jnp.sum((f(x) - y) ** 3)))(x),
    "forward over forward": lambda f: (
        lambda x, y: jax.jacfwd(jax.jacfwd(lambda x: jnp.sum((f(x) - y) ** 3)))(x)
    ),
    "reverse over reverse": lambda f: (
        lambda x, y: jax.jacrev(jax.jacrev(lambda x: jnp.sum((f(x) - y) ** 3)))(x)
    ),
    "products with the hessian": lambda f: (
        lambda x, y: jax.vmap(
            lambda x: jax.jvp(jax.grad(lambda x: jnp.sum((f(x) - y) ** 3)), (x,), (x,))
        )(jnp.stack([x, 2 * x]))
    ),
    "jvp": lambda f: lambda x, y: jax.jvp(f, (x,), (2 * x,)),
}


@pytest.mark.parametrize("call", LINEAR.values(), ids=LINEAR.keys())
def test_a_linear_function_equals_the_same_in_jax(product, call):
    y = jnp.array([1.0, -2.0, 0.5])
    ours, theirs = (call(f)(PAIR, y) for f in (product, jnp_product))
    # Second derivatives of cubes reach some 1e3, in float32.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), ours, theirs)


def test_a_linear_function_of_several_arguments_is_adjoint():
    wrapped = torch_function(lambda a, b, n: (MATRIX @ a + n * b, 2 * b), linear=True)
    partial = lambda a, b: wrapped(a, b, 3)  # noqa: E731
    rng = np.random.default_rng(0)
    a, b, c, d = (jnp.asarray(rng.normal(size=k), jnp.float32) for k in (2, 3, 3, 3))
    pushed, pulled = partial(a, b), jax.linear_transpose(partial, a, b)((c, d))
    left = jnp.vdot(pushed[0], c) + jnp.vdot(pushed[1], d)
    np.testing.assert_allclose(left, jnp.vdot(pulled[0], a) + jnp.vdot(pulled[1], b), rtol=1e-5)


def test_only_what_is_declared_linear_is_transposed():
    with pytest.raises(NotImplementedError, match="say so with torch_function.*linear=True"):
        jax.linear_transpose(torch_function(torch_swirl), POINT)(POINT)


def test_values_and_tangents_in_one_pass_transpose_without_being_divided():
    from jax.interpreters import ad

    from ppl_memprior.forward.torch_bridge import _evaluate as _torch_evaluate
    from ppl_memprior.forward.torch_bridge import _primitives as _torch_primitives

    wrapped = torch_function(torch_swirl)
    unknown = ad.UndefinedPrimal(jax.typeof(POINT))
    transposed = ad.primitive_transposes[_torch_primitives.push_p](
        [ad.Zero(jax.typeof(POINT)), POINT],
        *(POINT, unknown),
        function=flat(wrapped, POINT),
        layout=_torch_evaluate.Layout(None, (False, False), 1, (0,)),
    )
    assert transposed[0] is None and len(transposed) == 2
    np.testing.assert_allclose(transposed[1], jax.vjp(jax_swirl, POINT)[1](POINT)[0], **CLOSE)
