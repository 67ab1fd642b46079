"""Derivatives that PyTorch does not have: an error, unless the result is declared constant."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_memprior.forward import torch_function

from .functions import CLOSE, MATRIX, PAIR, POINT, jnp_product, without_grad

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def test_what_does_not_depend_on_an_argument_has_a_zero_gradient():
    wrapped = torch_function(lambda x, y: (x * 2, torch.ones(3)), constant=(False, True))
    x_bar, y_bar = jax.grad(lambda x, y: sum(o.sum() for o in wrapped(x, y)), (0, 1))(POINT, POINT)
    np.testing.assert_array_equal(x_bar, 2.0)
    np.testing.assert_array_equal(y_bar, 0.0)


WEIGHTS = MATRIX.clone().requires_grad_()


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
