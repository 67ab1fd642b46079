"""PyTorch's graphs between a value and its derivative: kept, counted, evicted and released."""

import functools
import gc
import resource
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_memprior.forward import torch_function
from ppl_memprior.forward.torch_bridge import _graphs as _torch_graphs

from .functions import (
    CLOSE,
    POINT,
    POINTS,
    flat,
    jax_swirl,
    pullbacks,
    scalar,
    torch_swirl,
    torch_swirls,
)

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


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


def test_a_forgotten_function_is_collected():
    wrapped = torch_function(lambda x: x * 2)
    wrapped(POINT)
    gone = weakref.ref(wrapped)
    del wrapped
    gc.collect()
    assert gone() is None
