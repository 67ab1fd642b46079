"""A PyTorch function behind the bridge against the same function written in JAX or in PyTorch."""

import functools
import pickle
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ppl_memprior.forward import torch_function

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
    "vmap scan": lambda f: (
        jax.vmap(lambda x: jax.lax.scan(lambda c, _: (0.3 * f(c), None), x, None, 3)[0]),
        POINTS,
    ),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_transformations_equal_those_of_the_same_function_in_jax(swirl, transform):
    ours, point = transform(swirl)
    theirs, _ = transform(jax_swirl)
    np.testing.assert_allclose(ours(point), theirs(point), **CLOSE)


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
    wrapped = torch_function(lambda x, y: (x * 2, torch.ones(3)))
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
    with pytest.raises(RuntimeError, match="fails_on_values failed in PyTorch: the tank is empty"):
        wrapped(POINT)
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
    with pytest.raises(RuntimeError, match="in place"):
        torch_function(lambda x: x.mul_(2))(jnp.ones(3))
    with pytest.raises(RuntimeError, match=r"returned shape \(4,\).*where \(3, 4\)"):
        jax.vmap(torch_function(torch_swirl, batched=lambda x: torch_swirls(x)[0]))(POINTS)


def test_a_missing_pytorch_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'ppl_memprior\[fwi\]'"):
        torch_function(torch_swirl)


def test_through_numpy_where_buffers_cannot_be_shared():
    from ppl_memprior.forward import _torch_evaluate, _torch_primitives

    function = torch_function(torch_swirl)
    layout = _torch_evaluate.Layout(None, (False,), 1)
    (value,) = jax.jit(
        lambda x: _torch_primitives._through_numpy(
            _torch_evaluate.evaluate_value,
            _torch_primitives._value_result,
            x,
            function=function,
            layout=layout,
        )
    )(POINT)
    np.testing.assert_array_equal(value, function(POINT))


def test_pickle_and_disabled_jit():
    wrapped = pickle.loads(pickle.dumps(torch_function(torch_swirl, batched=torch_swirls)))
    np.testing.assert_allclose(jax.vmap(wrapped)(POINTS), jax.vmap(jax_swirl)(POINTS), **CLOSE)
    with jax.disable_jit():
        np.testing.assert_allclose(wrapped(POINT), jax_swirl(POINT), **CLOSE)


def test_several_threads():
    wrapped = torch_function(torch_swirl)
    gradient = jax.jit(jax.grad(scalar(wrapped)))
    expected = np.asarray(gradient(POINT))
    wrong = []

    def work():
        wrong.extend(i for i in range(20) if not np.array_equal(gradient(POINT), expected))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


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
