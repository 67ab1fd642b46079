"""What goes into a PyTorch function and comes out of it: pytrees, shapes, numbers and dtypes."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_memprior.forward import torch_function

from .functions import CLOSE, POINT, POINTS

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


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


def test_empty_and_scalar_arrays():
    wrapped = torch_function(lambda x: x * 2)
    assert wrapped(jnp.zeros((0, 3))).shape == (0, 3)
    assert wrapped(2.0) == 4.0
    assert jax.grad(wrapped)(2.0) == 2.0


def test_a_given_result_saves_the_call_on_zeros():
    calls = []

    def counted(x):
        calls.append(x.clone().numpy())
        return x * 2

    wrapped = torch_function(counted, result=jax.ShapeDtypeStruct((4,), jnp.float32))
    wrapped(POINT)
    assert len(calls) == 1
    np.testing.assert_array_equal(calls[0], POINT)


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
