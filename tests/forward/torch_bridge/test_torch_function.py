"""A PyTorch function behind the bridge against the same function written in JAX or in PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ppl_memprior.forward import torch_function

from .functions import CLOSE, POINT, POINTS, jax_swirl, pullbacks, scalar, torch_swirl, torch_swirls

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def torch_mix(a, b):
    return a * b.sum(), torch.outer(b, a)


def torch_mixes(a, b):
    return a * b.sum(1, keepdim=True), b[:, :, None] * a[:, None, :]


def jax_mix(a, b):
    return a * b.sum(), jnp.outer(b, a)


@pytest.fixture(scope="module", params=[None, torch_swirls], ids=["one by one", "batched"])
def swirl(request):
    return torch_function(torch_swirl, batched=request.param)


def with_its_own_jvp(f):
    wrapped = jax.custom_jvp(f)
    wrapped.defjvp(lambda primals, tangents: jax.jvp(f, primals, tangents))
    return wrapped


def times(value, tangent):
    return value * tangent


TRANSFORMS = {
    "value": lambda f: (f, POINT),
    "jit": lambda f: (jax.jit(f), POINT),
    "grad": lambda f: (jax.grad(scalar(f)), POINT),
    "jvp": lambda f: (lambda x: jax.jvp(f, (x,), (x + 1.0,))[1], POINT),
    "vjp": lambda f: (lambda x: jax.vjp(f, x)[1](x + 1.0)[0], POINT),
    "linearize": lambda f: (lambda x: jax.linearize(f, x)[1](x + 1.0), POINT),
    "linear_transpose": lambda f: (
        lambda x: jax.linear_transpose(lambda t: jax.jvp(f, (x,), (t,))[1], x)(x)[0],
        POINT,
    ),
    "transpose twice": lambda f: (
        lambda x: jax.linear_transpose(lambda c: jax.vjp(f, x)[1](c)[0], x)(x)[0],
        POINT,
    ),
    "jacfwd": lambda f: (jax.jacfwd(f), POINT),
    "jacrev": lambda f: (jax.jacrev(f), POINT),
    "vmap": lambda f: (jax.vmap(f), POINTS),
    "vmap over the last axis": lambda f: (jax.vmap(f, in_axes=1, out_axes=1), POINTS.T),
    "vmap of vmap": lambda f: (jax.vmap(jax.vmap(f)), jnp.stack([POINTS, -POINTS])),
    "jit vmap grad": lambda f: (jax.jit(jax.vmap(jax.grad(scalar(f)))), POINTS),
    "grad of a sum over vmap": lambda f: (jax.grad(lambda x: jax.vmap(f)(x).sum()), POINTS),
    "vmap jacfwd": lambda f: (jax.vmap(jax.jacfwd(f)), POINTS),
    "vmap jacrev": lambda f: (jax.vmap(jax.jacrev(f)), POINTS),
    "checkpoint": lambda f: (jax.grad(jax.checkpoint(scalar(f))), POINT),
    "scan": lambda f: (
        jax.grad(lambda x: jax.lax.scan(lambda c, _: (0.3 * f(c), None), x, None, 3)[0].sum()),
        POINT,
    ),
    "a value inside a derivative": lambda f: (
        lambda x: jax.jvp(lambda x: jax.vjp(f, x)[0], (x,), (x,))[1],
        POINT,
    ),
    "gradient for the tangent": lambda f: (
        lambda x: jax.grad(lambda t: jax.jvp(f, (x,), (t,))[1].sum())(x),
        POINT,
    ),
    "checkpoint that saves": lambda f: (
        jax.grad(
            jax.checkpoint(scalar(f), policy=jax.checkpoint_policies.everything_saveable),
        ),
        POINT,
    ),
    "checkpoint in scan": lambda f: (
        jax.grad(
            lambda x: jax.lax.scan(jax.checkpoint(lambda c, _: (0.3 * f(c), None)), x, None, 3)[
                0
            ].sum()
        ),
        POINT,
    ),
    "jvp of a loop": lambda f: (
        lambda x: jax.jvp(
            lambda x: jax.lax.fori_loop(0, 3, lambda _, c: 0.3 * f(c), x), (x,), (x,)
        )[1],
        POINT,
    ),
    "transpose of a jitted scan": lambda f: (
        lambda x: jax.linear_transpose(
            jax.jit(
                lambda t: jax.lax.scan(
                    lambda c, _: (times(*jax.jvp(f, (x,), (c,))), None), t, None, 3
                )[0]
            ),
            x,
        )(x)[0],
        POINT,
    ),
    "inside a custom_jvp": lambda f: (jax.grad(scalar(with_its_own_jvp(f))), POINT),
    "cond under vmap": lambda f: (
        jax.vmap(
            jax.grad(lambda x: jax.lax.cond(x[0] > 0.2, lambda y: f(y).sum(), jnp.sum, x)),
        ),
        POINTS,
    ),
    "Jacobian of a vmap": lambda f: (jax.jacrev(jax.vmap(f)), POINTS),
    "several cotangents at one point": lambda f: (
        jax.jit(lambda x: [jax.vjp(f, x)[1](k * x)[0] for k in range(1, 5)]),
        POINT,
    ),
    "pullbacks in another order": lambda f: (
        lambda xs: jax.vmap(lambda pull, c: pull(c)[0])(
            jax.tree.map(lambda a: a[jnp.array([2, 0, 0])], pullbacks(f, xs)), xs
        ),
        POINTS,
    ),
    "single pullbacks of a batch": lambda f: (
        lambda xs: [jax.tree.map(lambda a, k=k: a[k], pullbacks(f, xs))(xs[0])[0] for k in (2, 0)],
        POINTS,
    ),
    "vmap scan": lambda f: (
        jax.vmap(lambda x: jax.lax.scan(lambda c, _: (0.3 * f(c), None), x, None, 3)[0]),
        POINTS,
    ),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_transformations_equal_those_of_the_same_function_in_jax(swirl, transform):
    ours, point = transform(swirl)
    theirs, _ = transform(jax_swirl)
    expected = theirs(point)
    # Twice: what the first run left behind must not be taken for the second's.
    for _ in range(2):
        jax.tree.map(functools.partial(np.testing.assert_allclose, **CLOSE), ours(point), expected)


def test_jacobians_equal_torch_func():
    wrapped = torch_function(torch_swirl)
    native = torch.func.jacrev(torch_swirl)(torch.from_numpy(np.array(POINT))).numpy()
    np.testing.assert_allclose(jax.jacfwd(wrapped)(POINT), native, **CLOSE)
    np.testing.assert_allclose(jax.jacrev(wrapped)(POINT), native, **CLOSE)


def test_value_and_gradient_equal_native_pytorch_to_the_last_bit():
    wrapped = torch_function(torch_swirl)
    x = torch.from_numpy(np.array(POINT)).requires_grad_()
    value = torch_swirl(x)
    (gradient,) = torch.autograd.grad(value, x, torch.ones(4))
    ours, pull = jax.vjp(wrapped, POINT)
    np.testing.assert_array_equal(ours, value.detach().numpy())
    np.testing.assert_array_equal(pull(jnp.ones(4))[0], gradient.numpy())


@pytest.mark.parametrize("batched", [None, torch_mixes])
def test_two_arguments_and_two_results(batched):
    wrapped = torch_function(torch_mix, batched=batched)
    b = jnp.array([1.0, 2.0, -0.5], dtype=jnp.float32)

    def check(transform, *args):
        ours, theirs = transform(wrapped)(*args), transform(jax_mix)(*args)
        jax.tree.map(functools.partial(np.testing.assert_allclose, **CLOSE), ours, theirs)

    check(lambda f: f, POINT, b)
    check(lambda f: jax.jacfwd(f, argnums=(0, 1)), POINT, b)
    check(lambda f: jax.jacrev(f, argnums=(0, 1)), POINT, b)
    check(lambda f: jax.vmap(f, in_axes=(0, None)), POINTS, b)
    check(lambda f: jax.vmap(jax.jacrev(f, argnums=1), in_axes=(0, None)), POINTS, b)
    # Both arguments mapped by different vmaps, so each is shared along the other's axis.
    pairs = jnp.stack([b, 2.0 * b])
    check(lambda f: jax.vmap(jax.vmap(f, (0, None)), (None, 0)), POINTS, pairs)
    # The gradient of what a batch shares is summed over the batch.
    check(
        lambda f: jax.grad(lambda b: sum(jnp.sum(o**2) for o in jax.vmap(f, (0, None))(POINTS, b))),
        b,
    )


@pytest.mark.parametrize("batched", [None, torch_swirls])
def test_gradients_against_finite_differences_in_float64(batched):
    with jax.enable_x64(True):
        wrapped = torch_function(torch_swirl, batched=batched)
        point = jnp.asarray(np.array(POINT), dtype=jnp.float64)
        assert wrapped(point).dtype == jnp.float64
        # Central differences in float64 leave about 1e-9; the default tolerance is far above.
        check_grads(wrapped, (point,), order=1, modes=("fwd", "rev"), rtol=1e-6)
        points = jnp.stack([point, point + 1.0])
        check_grads(jax.vmap(wrapped), (points,), order=1, modes=("fwd", "rev"), rtol=1e-6)
    assert wrapped(POINT).dtype == jnp.float32


@pytest.mark.parametrize(("max_batch", "expected"), [(None, [6]), (4, [4, 2])])
def test_a_batch_is_one_call_or_as_few_as_allowed(max_batch, expected):
    lengths = []

    def batched(x):
        lengths.append(len(x))
        return torch_swirls(x)

    wrapped = torch_function(torch_swirl, batched=batched, max_batch=max_batch)
    points = jnp.stack([POINTS, -POINTS])
    values = jax.vmap(jax.vmap(wrapped))(points)
    assert lengths == expected
    np.testing.assert_allclose(values, jax.vmap(jax.vmap(jax_swirl))(points), **CLOSE)
    gradients = jax.vmap(jax.grad(scalar(wrapped)))(points[0])
    np.testing.assert_allclose(gradients, jax.vmap(jax.grad(scalar(jax_swirl)))(POINTS), **CLOSE)


def test_arguments_of_any_array_library():
    wrapped = torch_function(lambda x: 2 * x)
    for given in (np.arange(3.0).astype(">f4"), torch.arange(3.0), np.arange(3)):
        np.testing.assert_array_equal(wrapped(given), 2 * np.arange(3))


def test_forward_and_reverse_mode_are_adjoint():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        wrapped = torch_function(torch_mix, batched=torch_mixes)
        a, b, da, db = (jnp.asarray(rng.normal(size=n)) for n in (4, 3, 4, 3))
        tangent_map = lambda da, db: jax.jvp(wrapped, (a, b), (da, db))[1]  # noqa: E731
        pushed = tangent_map(da, db)
        cotangents = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), pushed)
        pulled = jax.linear_transpose(tangent_map, da, db)(cotangents)
        left = sum(jnp.vdot(c, p) for c, p in zip(cotangents, pushed, strict=True))
        right = jnp.vdot(pulled[0], da) + jnp.vdot(pulled[1], db)
    # Rounding of some twenty operations in float64.
    np.testing.assert_allclose(left, right, rtol=1e-13)
