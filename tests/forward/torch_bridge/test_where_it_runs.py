"""One function in other threads, processes, chains and on other devices."""

import concurrent.futures
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_memprior.forward import torch_function

from .functions import CLOSE, POINT, POINTS, flat, jax_swirl, scalar, torch_swirl, torch_swirls

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


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
