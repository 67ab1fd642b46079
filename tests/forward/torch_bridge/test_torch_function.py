"""A PyTorch function behind the bridge against the same function written in JAX or in PyTorch."""

import concurrent.futures
import dataclasses
import functools
import gc
import pickle
import resource
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ppl_memprior.forward import torch_function
from ppl_memprior.forward.torch_bridge import _graphs as _torch_graphs

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

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


def torch_mix(a, b):
    return a * b.sum(), torch.outer(b, a)


def torch_mixes(a, b):
    return a * b.sum(1, keepdim=True), b[:, :, None] * a[:, None, :]


def jax_mix(a, b):
    return a * b.sum(), jnp.outer(b, a)


@pytest.fixture(scope="module", params=[None, torch_swirls], ids=["one by one", "batched"])
def swirl(request):
    return torch_function(torch_swirl, batched=request.param)


def scalar(fn):
    return lambda x: jnp.sum(fn(x) ** 2)


def with_its_own_jvp(f):
    wrapped = jax.custom_jvp(f)
    wrapped.defjvp(lambda primals, tangents: jax.jvp(f, primals, tangents))
    return wrapped


def times(value, tangent):
    return value * tangent


def pullbacks(f, points):
    return jax.vmap(lambda x: jax.vjp(f, x)[1])(points)


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


def test_a_float64_result_becomes_float32_without_64_bit_mode():
    wrapped = torch_function(lambda x: x.double() * 2)
    assert wrapped(POINT).dtype == jnp.float32
    np.testing.assert_allclose(jax.grad(lambda x: wrapped(x).sum())(POINT), 2.0)


def test_integers_pass_through_without_a_derivative():
    wrapped = torch_function(lambda x, n: (x * n, n + 1))
    n = jnp.array(3)
    value, after = wrapped(POINT, n)
    np.testing.assert_allclose(value, 3 * POINT)
    assert after == 4 and jnp.issubdtype(after.dtype, jnp.integer)
    np.testing.assert_allclose(jax.grad(lambda x: wrapped(x, n)[0].sum())(POINT), 3.0)


def test_what_does_not_depend_on_an_argument_has_a_zero_gradient():
    wrapped = torch_function(lambda x, y: (x * 2, torch.ones(3)), constant=(False, True))
    x_bar, y_bar = jax.grad(lambda x, y: sum(o.sum() for o in wrapped(x, y)), (0, 1))(POINT, POINT)
    np.testing.assert_array_equal(x_bar, 2.0)
    np.testing.assert_array_equal(y_bar, 0.0)


def test_empty_and_scalar_arrays():
    wrapped = torch_function(lambda x: x * 2)
    assert wrapped(jnp.zeros((0, 3))).shape == (0, 3)
    assert wrapped(2.0) == 4.0
    assert jax.grad(wrapped)(2.0) == 2.0


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


def test_a_given_result_saves_the_call_on_zeros():
    calls = []

    def counted(x):
        calls.append(x.clone().numpy())
        return x * 2

    wrapped = torch_function(counted, result=jax.ShapeDtypeStruct((4,), jnp.float32))
    wrapped(POINT)
    assert len(calls) == 1
    np.testing.assert_array_equal(calls[0], POINT)


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


# --- derivatives that PyTorch does not have -------------------------------------------------------

MATRIX = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
WEIGHTS = MATRIX.clone().requires_grad_()
PAIR = jnp.array([0.5, -1.0])


def without_grad(x):
    with torch.no_grad():
        return MATRIX @ x


def layer(x):
    # The network's own weights have a graph, which does not reach the argument.
    return torch.nn.functional.linear(x.detach(), WEIGHTS)


# What hides the argument from PyTorch: (function, whether forward mode sees through it).
HIDDEN = {
    "detach": (lambda x: MATRIX @ x.detach(), False),
    "no_grad": (without_grad, True),
    "data": (lambda x: MATRIX @ x.data, False),
    "NumPy": (lambda x: torch.from_numpy(MATRIX.numpy() @ x.detach().numpy()), False),
    "NumPy, without detach": (lambda x: torch.from_numpy(MATRIX.numpy() @ x.numpy()), False),
    "item": (lambda x: torch.stack([x[0].detach(), torch.tensor(x[1].item())]), False),
    "weights": (layer, False),
}
REVERSE = {
    "grad": lambda f: jax.grad(lambda x: f(x).sum())(PAIR),
    "grad under jit": lambda f: jax.jit(jax.grad(lambda x: f(x).sum()))(PAIR),
    "vjp": lambda f: jax.vjp(f, PAIR),
    "jacrev": lambda f: jax.jacrev(f)(PAIR),
    "vmap": lambda f: jax.vmap(jax.grad(lambda x: f(x).sum()))(jnp.stack([PAIR, PAIR])),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(lambda x: f(x).sum()))(PAIR),
    "linearize": lambda f: jax.linearize(f, PAIR),
}
FORWARD = {
    "jvp": lambda f: jax.jvp(f, (PAIR,), (PAIR,)),
    "jvp under jit": lambda f: jax.jit(lambda x: jax.jvp(f, (x,), (x,)))(PAIR),
    "jacfwd": lambda f: jax.jacfwd(f)(PAIR),
    "vmap": lambda f: jax.vmap(jax.jacfwd(f))(jnp.stack([PAIR, PAIR])),
}


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("batched", [False, True], ids=["one by one", "batched"])
def test_a_missing_graph_is_an_error_and_not_a_derivative_of_zero(hidden, batched):
    function, seen = HIDDEN[hidden]
    many = (lambda xs: torch.stack([function(x) for x in xs])) if batched else None
    wrapped = torch_function(function, batched=many)
    # The value is right, and needs no graph.
    np.testing.assert_array_equal(wrapped(PAIR), function(torch.tensor([0.5, -1.0])).detach())
    calls = REVERSE if seen else REVERSE | {f"forward {k}": v for k, v in FORWARD.items()}
    for call in calls.values():
        with pytest.raises(RuntimeError, match="no derivative.* could not follow the computation"):
            jax.block_until_ready(call(wrapped))


def test_forward_mode_sees_through_no_grad():
    for call in FORWARD.values():
        given, expected = (call(f) for f in (torch_function(without_grad), jnp_product))
        jax.tree.map(functools.partial(np.testing.assert_allclose, **CLOSE), given, expected)


def jnp_product(x):
    return jnp.asarray(MATRIX.numpy()) @ x


def test_a_linearized_evidence_of_a_function_without_a_graph_is_refused():
    import numpyro
    import numpyro.distributions as dist

    import ppl_memprior as mp

    prior = mp.DiffusionMixturePrior(np.array([[0.0, 1.0], [2.0, -1.0]]), sigma=0.5)

    def evidence(function):
        forward = torch_function(function)

        def model(data=None):
            x = numpyro.sample("x", prior)
            numpyro.sample("data", dist.Normal(forward(x), 0.1).to_event(1), obs=data)

        problem = mp.InverseProblem(model, data=np.array([1.0, 2.0, 3.0]))
        return float(mp.linearize(problem).log_evidence)

    matrix = np.asarray(MATRIX, np.float64)
    covariance = 0.25 * matrix @ matrix.T + 0.01 * np.eye(3)
    residuals = np.array([1.0, 2.0, 3.0]) - np.array([[0.0, 1.0], [2.0, -1.0]]) @ matrix.T
    exact = np.log(0.5) - 0.5 * np.einsum(
        "ni,ij,nj->n", residuals, np.linalg.inv(covariance), residuals
    )
    exact = np.logaddexp(*exact) - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    # float32: the residuals' quadratic form loses some 1e-5 of its size.
    np.testing.assert_allclose(evidence(lambda x: MATRIX @ x), exact, rtol=1e-3)
    with pytest.raises(RuntimeError, match="no derivative"):
        evidence(lambda x: MATRIX @ x.detach())


def test_results_without_a_graph_may_be_declared_constant():
    def survey(x):
        return {"data": 2 * x, "aside": (x.detach().norm(), torch.ones(2)), "count": len(x)}

    def total(f):
        return lambda x: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(f(x)))

    with pytest.raises(RuntimeError, match="of the 4 results, number 1 and 2 has no derivative"):
        jax.grad(total(torch_function(survey)))(PAIR)
    for constant in (
        {"data": False, "aside": True, "count": False},
        {"data": False, "aside": (True, True), "count": True},
    ):
        declared = torch_function(survey, constant=constant)
        np.testing.assert_array_equal(jax.grad(total(declared))(PAIR), 2.0)
        _, tangent = jax.jvp(total(declared), (PAIR,), (PAIR,))
        assert tangent == 2 * PAIR.sum()
        np.testing.assert_array_equal(jax.vmap(jax.grad(total(declared)))(PAIR[None]), 2.0)
    constant = torch_function(survey, constant=True)
    np.testing.assert_array_equal(jax.grad(total(constant))(PAIR), 0.0)
    # A result that has a graph is not differentiated either where it is declared constant.
    doubled = torch_function(lambda x: (2 * x, 3 * x), constant=(False, True))
    np.testing.assert_array_equal(jax.grad(total(doubled))(PAIR), 2.0)
    np.testing.assert_array_equal(jax.jacfwd(total(doubled))(PAIR), 2.0)
    for wrong in ({"data": True}, (True, False, False), "yes"):
        with pytest.raises(ValueError, match="constant must be True, False or a pytree"):
            torch_function(survey, constant=wrong)(PAIR)


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_a_result_may_depend_on_some_of_the_arguments(mode):
    passes = []

    def pair(x, y):
        passes.append(x.device.type)
        return 2 * x, 3 * y

    wrapped = torch_function(pair)
    for _ in range(2):
        first, second = mode(wrapped, argnums=0)(PAIR, PAIR)
        np.testing.assert_array_equal(first, 2 * np.eye(2))
        np.testing.assert_array_equal(second, 0.0)
    # Once for every direction of forward mode, and once more to learn that.
    assert passes.count("cpu") == (5 if mode is jax.jacfwd else 3)
    # No result depends on this argument: that is what a lost graph looks like.
    scaled = torch_function(lambda x, gain: gain * (MATRIX @ x.detach()))
    with pytest.raises(
        RuntimeError, match=r"respect to argument 1 of 2.*stop_gradient\(argument\)"
    ):
        mode(scaled)(PAIR, 2.0)
    stopped = mode(lambda x: scaled(jax.lax.stop_gradient(x), 2.0))(PAIR)
    np.testing.assert_array_equal(stopped, 0.0)


# --- arguments belong to the caller ---------------------------------------------------------------


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


# --- linear functions -----------------------------------------------------------------------------


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


def test_arguments_of_any_array_library():
    wrapped = torch_function(lambda x: 2 * x)
    for given in (np.arange(3.0).astype(">f4"), torch.arange(3.0), np.arange(3)):
        np.testing.assert_array_equal(wrapped(given), 2 * np.arange(3))


def test_a_missing_pytorch_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'ppl_memprior\[fwi\]'"):
        torch_function(torch_swirl)


def flat(function, *args):
    """What the primitives carry for these arguments."""
    function(*args)
    return next(iter(function._by_structure.values()))


def test_through_numpy_where_buffers_cannot_be_shared():
    from ppl_memprior.forward.torch_bridge import _cotangents
    from ppl_memprior.forward.torch_bridge import _evaluate as _torch_evaluate
    from ppl_memprior.forward.torch_bridge import _primitives as _torch_primitives

    function = torch_function(torch_swirl)
    params = {"function": flat(function, POINT)}
    layout = _torch_evaluate.Layout(None, (False,), 1, (0,))

    @jax.jit
    def value_and_cotangent(x):
        value, token = _torch_primitives._through_numpy(
            _torch_evaluate.evaluate_record,
            _torch_primitives._record_result,
            x,
            layout=layout,
            **params,
        )
        (pulled,) = _torch_primitives._through_numpy(
            _cotangents.evaluate_cotangents,
            _torch_primitives._cotangents_result,
            *(x, token, value),
            layout=layout._replace(mapped=(False,) * 3),
            **params,
        )
        return value, pulled

    expected, pull = jax.vjp(function, POINT)
    value, pulled = value_and_cotangent(POINT)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(pulled, pull(expected)[0])


def test_pickle_and_disabled_jit():
    wrapped = torch_function(torch_swirl, batched=torch_swirls, constant=False)
    wrapped = pickle.loads(pickle.dumps(wrapped))
    np.testing.assert_allclose(jax.vmap(wrapped)(POINTS), jax.vmap(jax_swirl)(POINTS), **CLOSE)
    with jax.disable_jit():
        np.testing.assert_allclose(wrapped(POINT), jax_swirl(POINT), **CLOSE)


def test_several_threads_with_different_points():
    wrapped = torch_function(torch_swirl)
    gradient = jax.jit(jax.value_and_grad(scalar(wrapped)))
    tangent = jax.jit(lambda x: jax.jvp(wrapped, (x,), (x,))[1])
    points = [POINT * (k + 1) for k in range(4)]

    def work(point):
        return [(*gradient(point), tangent(point)) for _ in range(20)]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, points))
    for point, runs in zip(points, results, strict=True):
        value, slope = jax.value_and_grad(scalar(jax_swirl))(point)
        pushed = jax.jvp(jax_swirl, (point,), (point,))[1]
        for run in runs:
            # Gradients grow with the square of the point: the tolerance is relative here.
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
                run,
                (value, slope, pushed),
            )


def test_nuts_with_vectorized_chains():
    import numpyro
    import numpyro.distributions as dist

    def model(forward):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([4]).to_event(1))
        numpyro.sample("y", dist.Normal(forward(x), 0.5).to_event(1), obs=jnp.ones(4))

    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(model, max_tree_depth=3),
        num_warmup=5,
        num_samples=5,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    forward = torch_function(torch_swirl, batched=torch_swirls)
    mcmc.run(jax.random.key(0), forward, extra_fields=("potential_energy",))
    draws, energies = mcmc.get_samples(), mcmc.get_extra_fields()["potential_energy"]
    assert len(np.unique(energies)) > 5
    log_density = jax.vmap(lambda x: numpyro.infer.util.log_density(model, (jax_swirl,), {}, x)[0])
    np.testing.assert_allclose(energies, -log_density(draws), rtol=1e-5)


# --- one forward pass -----------------------------------------------------------------------------


class Counted:
    """A function that counts the passes over data (shapes are learned on tensors without)."""

    def __init__(self, fn):
        self.fn, self.passes = fn, 0

    def __call__(self, x):
        self.passes += x.device.type != "meta"
        return self.fn(x)


COUNTS = {
    "value and gradient": (1, 1, lambda f, x: jax.value_and_grad(scalar(f))(x)),
    "jvp": (1, 1, lambda f, x: jax.jvp(f, (x,), (x,))),
    "Jacobian by rows": (1, 1, lambda f, x: jax.jacrev(f)(x)),
    "transposed jvp": (
        *(1, 1),
        lambda f, x: jax.linear_transpose(lambda t: jax.jvp(f, (x,), (t,))[1], x)(x),
    ),
    "scan": (
        *(3, 3),
        lambda f, x: jax.grad(
            lambda x: jax.lax.scan(lambda c, _: (0.3 * f(c), None), x, None, 3)[0].sum()
        )(x),
    ),
    "batch": (3, 1, lambda f, x: jax.vmap(jax.value_and_grad(scalar(f)))(POINTS)),
    "batch of Jacobians": (3, 1, lambda f, x: jax.vmap(jax.jacrev(f))(POINTS)),
    "checkpoint": (2, 2, lambda f, x: jax.value_and_grad(jax.checkpoint(scalar(f)))(x)),
    "value of a vjp": (1, 1, lambda f, x: jax.vjp(f, x)[0]),
    # The second cotangent finds the graph gone, and the one that it makes is kept.
    "many cotangents": (
        *(2, 2),
        lambda f, x: (lambda pull: [pull(k * x) for k in range(5)])(jax.vjp(f, x)[1]),
    ),
}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("case", COUNTS.values(), ids=COUNTS.keys())
def test_pytorch_runs_forward_no_more_often_than_needed(case, jit):
    one_by_one, together, call = case
    for expected, many in ((one_by_one, None), (together, Counted(torch_swirls))):
        one = Counted(torch_swirl)
        wrapped = torch_function(one, batched=many)
        run = functools.partial(call, wrapped)
        jax.block_until_ready(jax.jit(run)(POINT) if jit else run(POINT))
        assert one.passes + (many.passes if many else 0) == expected


@pytest.fixture
def store(monkeypatch):
    """An empty store of graphs whose bounds a test may set."""
    gc.collect()
    monkeypatch.setattr(_torch_graphs.STORE, "_graphs", type(_torch_graphs.STORE._graphs)())
    monkeypatch.setattr(_torch_graphs.STORE, "_nbytes", 0)
    return _torch_graphs.STORE


def test_graphs_are_released_after_use(store):
    wrapped = torch_function(torch_swirl, batched=torch_swirls)
    jax.grad(scalar(wrapped))(POINT)
    jax.vmap(jax.grad(scalar(wrapped)))(POINTS)
    assert len(store) == 0 and store.nbytes == 0
    _, pull = jax.vjp(wrapped, POINT)
    assert len(store) == 1 and store.nbytes >= POINT.nbytes
    pull(POINT)
    assert len(store) == 0 and store.nbytes == 0


def test_the_graphs_of_a_function_go_with_it(store):
    wrapped = torch_function(torch_swirl)
    jax.vjp(wrapped, POINT)
    number = flat(wrapped, POINT).functions.number
    assert [graph.owner for graph in store._graphs.values()] == [number]
    store.forget(number)
    assert len(store) == 0 and store.nbytes == 0


@pytest.mark.parametrize("bound", ["MAX_GRAPHS", "MAX_BYTES"])
@pytest.mark.parametrize("batched", [None, torch_swirls])
def test_what_was_evicted_is_computed_again(store, monkeypatch, bound, batched):
    monkeypatch.setattr(_torch_graphs, bound, 1)
    one, many = Counted(torch_swirl), Counted(batched)
    wrapped = torch_function(one, batched=batched and many, max_batch=2)
    pulls = [jax.vjp(wrapped, k * POINT)[1] for k in range(1, 4)]
    assert len(store) == 1
    one.passes = 0
    for k, pull in enumerate(pulls, 1):
        expected = jax.vjp(jax_swirl, k * POINT)[1](POINT)[0]
        np.testing.assert_allclose(pull(POINT)[0], expected, rtol=1e-5, atol=1e-5)
    assert one.passes == 2
    # Of a batch that does not fit, what was recorded first stays.
    ours = jax.vmap(jax.grad(scalar(wrapped)))(POINTS)
    np.testing.assert_allclose(ours, jax.vmap(jax.grad(scalar(jax_swirl)))(POINTS), **CLOSE)
    assert len(store) <= 1


@pytest.mark.parametrize("order", [[0, 2, 1, 3], [3, 3, 0]])
@pytest.mark.parametrize("evicted", [False, True])
def test_tokens_that_were_moved_find_their_elements(store, order, evicted):
    wrapped = torch_function(torch_swirl, batched=torch_swirls)
    points = jnp.stack([k * POINT for k in range(1, 5)])
    pulls = pullbacks(wrapped, points)
    expected = pullbacks(jax_swirl, points)
    for _ in range(3):  # at first use, at the second, and once it is kept
        if evicted:
            store.forget(flat(wrapped, POINT).functions.number)
        ours, theirs = (
            jax.vmap(lambda pull: pull(POINT)[0])(jax.tree.map(lambda a: a[jnp.array(order)], some))
            for some in (pulls, expected)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_token_of_another_process_is_not_taken_for_ours(store, monkeypatch):
    wrapped = torch_function(torch_swirl)
    _, pull = jax.vjp(wrapped, POINT)
    _, other = jax.vjp(wrapped, 2 * POINT)
    monkeypatch.setattr(_torch_graphs, "_PROCESS", _torch_graphs._PROCESS - 1)
    np.testing.assert_allclose(pull(POINT)[0], jax.vjp(jax_swirl, POINT)[1](POINT)[0], **CLOSE)
    assert len(store) == 2


def test_a_graph_is_measured_with_what_custom_functions_keep():
    class Keeps(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.history = {"states": [torch.zeros(1000), torch.zeros(500)]}
            ctx.save_for_backward(x)
            return 2 * x

        @staticmethod
        def backward(ctx, g):
            return 2 * g

    x = torch.ones(10, requires_grad=True)
    # Three blocks: the two states and what `sin` saves, its argument.
    assert _torch_graphs.measure([Keeps.apply(x).sin()]) == 4 * (1000 + 500 + 10 + 10)


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_stays_flat_over_many_gradients():
    wrapped = torch_function(torch_swirl)
    gradient = jax.jit(jax.grad(scalar(wrapped)))
    point = jnp.linspace(-1.0, 1.0, 5000)
    for _ in range(200):
        gradient(point).block_until_ready()
    before = resident()
    for _ in range(2000):
        gradient(point).block_until_ready()
    # One lost graph or buffer a call would be 2,000 times 20 kB.
    assert resident() - before < 10e6


# --- structures, shapes and dtypes ----------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Medium:
    velocity: Any
    density: Any
    name: str = dataclasses.field(default="", metadata={"static": True})


class Picked(NamedTuple):
    time: Any
    count: Any


def torch_survey(medium, sources: Sequence, *, gain):
    shots = [s * medium.velocity.sum() for s in sources]
    return {
        "data": (shots[0], shots[1] * gain),
        "picked": Picked(torch.exp(-medium.density), torch.tensor(len(sources))),
    }


def jax_survey(medium, sources, *, gain):
    shots = [s * medium.velocity.sum() for s in sources]
    return {
        "data": (shots[0], shots[1] * gain),
        "picked": Picked(jnp.exp(-medium.density), jnp.array(len(sources))),
    }


def test_pytrees_in_and_out():
    medium = Medium(POINT, 0.1 * POINT, name="block")
    sources = [jnp.float32(2.0), jnp.array([1.0, -1.0])]
    wrapped = torch_function(torch_survey)

    def same(ours, theirs):
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        jax.tree.map(functools.partial(np.testing.assert_allclose, **CLOSE), ours, theirs)

    same(wrapped(medium, sources, gain=3.0), jax_survey(medium, sources, gain=3.0))
    for f in (wrapped, jax.jit(wrapped)):
        same(f(medium, sources, gain=3.0), jax_survey(medium, sources, gain=3.0))

    def loss(f):
        def of(medium, sources, gain):
            out = f(medium, sources, gain=gain)
            return sum(jnp.sum(x**2) for x in jax.tree.leaves((out["data"], out["picked"].time)))

        return of

    args = medium, sources, jnp.float32(3.0)
    # Values up to 1e2: the tolerance of the other tests, relative.
    same(*(jax.grad(loss(f), argnums=(0, 1, 2))(*args) for f in (wrapped, jax_survey)))
    media = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), medium)
    batch = lambda f: jax.vmap(jax.grad(loss(f)), in_axes=(0, None, None))  # noqa: E731
    same(batch(wrapped)(media, sources, 3.0), batch(jax_survey)(media, sources, 3.0))


def test_a_result_given_as_a_pytree():
    calls = []

    def split(x):
        calls.append(x.device.type)
        return {"low": x[:1], "high": (x[1:],)}

    low, high = (jax.ShapeDtypeStruct((n,), jnp.float32) for n in (1, 3))
    wrapped = torch_function(split, result={"low": low, "high": (high,)})
    np.testing.assert_array_equal(wrapped(POINT)["high"][0], POINT[1:])
    assert calls == ["cpu"]
    with pytest.raises(RuntimeError, match="structure"):
        torch_function(split, result=(low, high))(POINT)


def test_python_numbers_in_and_out():
    wrapped = torch_function(
        lambda x, n, flag: (x * n if flag else x, 3, 0.5), constant=(False, False, True)
    )
    value, count, half = wrapped(2.0, 3, True)
    assert value == 6.0 and count == 3 and half == 0.5
    assert jnp.issubdtype(count.dtype, jnp.integer) and half.dtype == jnp.float32
    assert jax.grad(lambda x: wrapped(x, 3, False)[0])(2.0) == 1.0


@pytest.mark.parametrize("dtype", [jnp.uint8, bool])
def test_integer_and_boolean_arguments_under_every_transformation(dtype):
    where = jnp.array([1, 0, 1, 1]).astype(dtype)
    wrapped = torch_function(lambda x, n: (torch.where(n > 0, x**2, x), n + n))
    fallback = lambda x, n: (jnp.where(n > 0, x**2, x), n + n)  # noqa: E731
    assert wrapped(POINT, where)[1].dtype == fallback(POINT, where)[1].dtype
    for call in (
        lambda f: f(POINT, where),
        lambda f: jax.grad(lambda x: f(x, where)[0].sum())(POINT),
        lambda f: jax.jvp(lambda x: f(x, where)[0], (POINT,), (POINT,)),
        lambda f: jax.vmap(f, (0, None))(POINTS, where)[0],
        lambda f: jax.vmap(jax.grad(lambda x, n: f(x, n)[0].sum()), (None, 0))(
            POINT, jnp.stack([where, where])
        ),
    ):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, **CLOSE), call(wrapped), call(fallback)
        )


def test_shapes_are_learned_without_data_where_that_works():
    seen = []

    def spies(x):
        seen.append((x.device.type, float(x.sum()) if x.device.type != "meta" else None))
        return x * 2

    torch_function(spies)(POINT)
    assert [device for device, _ in seen] == ["meta", "cpu"]

    def needs_data(x):
        seen.append((x.device.type, None))
        return x * 2 if bool((x >= 0).all()) else x * 3

    seen.clear()
    torch_function(needs_data)(POINT)
    assert [device for device, _ in seen] == ["meta", "cpu", "cpu"]


def test_shapes_are_learned_on_ones_where_zeros_fail():
    def divides(x):
        if x.device.type == "meta" or not bool(x.all()):
            raise ZeroDivisionError("zero")
        return 1 / x

    np.testing.assert_allclose(torch_function(divides)(POINT), 1 / POINT, rtol=1e-6)


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


def test_a_changed_argument_is_noticed_while_recording():
    def changes(x, n):
        n.add_(1)
        return x * n

    with pytest.raises(RuntimeError, match="in place"):
        jax.grad(lambda x: torch_function(changes)(x, jnp.ones(4)).sum())(POINT)


def test_random_keys_do_not_cross():
    with pytest.raises(TypeError, match="key"):
        torch_function(torch_swirl)(jax.random.key(0))


def test_a_forgotten_function_is_collected():
    wrapped = torch_function(lambda x: x * 2)
    wrapped(POINT)
    gone = weakref.ref(wrapped)
    del wrapped
    gc.collect()
    assert gone() is None


def test_cuda_gets_device_buffers():
    # What JAX would run on a GPU, without one.
    wrapped = torch_function(torch_swirl)
    gradient = jax.jit(jax.value_and_grad(scalar(wrapped)))
    text = gradient.trace(POINT).lower(lowering_platforms=("cuda",)).as_text()
    # The recorded call and the cotangents.
    assert text.count("xla_buffer_python_gpu_callback") == 2


@pytest.mark.skipif(
    jax.default_backend() != "gpu" or not torch.cuda.is_available(),
    reason="needs JAX and PyTorch with CUDA",
)
def test_on_a_cuda_device_nothing_leaves_it():
    devices = []

    def swirl(x):
        devices.append(x.device.type)
        return torch_swirl(x)

    wrapped = torch_function(swirl)
    gradient = jax.jit(jax.value_and_grad(scalar(wrapped)))
    for k in range(1, 20):  # the order of the stream shows in the last of many calls
        ours = gradient(k * POINT)
    theirs = jax.value_and_grad(scalar(jax_swirl))(19 * POINT)
    # The value is a sum of squares of about 1e3: relative rounding of some ten operations.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-3), ours, theirs)
    assert set(devices) <= {"meta", "cuda"}
