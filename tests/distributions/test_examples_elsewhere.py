"""Examples that are not in this device's memory: in files, and on several devices."""

import os
import subprocess
import sys

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

from ppl_memprior import DiffusionMixturePrior, MemorizedPrior, _batches
from ppl_memprior.distributions._mixture.examples import HostRows

from .reference import clusters, reference, relative_error

EVENT = (4, 6)
NUM = 2300  # two batches and a rest


@pytest.fixture
def examples(monkeypatch):
    """Examples that, in a file, are too many to be read as a whole."""
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 1000 * 24)
    return clusters(NUM, 1, 24, 1.0).reshape(NUM, *EVENT)


def mapped(examples, folder):
    np.save(folder / "x.npy", examples)
    return np.load(folder / "x.npy", mmap_mode="r")


def flat_reference(prior, values, examples):
    fill = np.ones(len(values), np.float32)
    return reference(
        np.asarray(values).reshape(len(values), -1),
        examples.reshape(NUM, -1),
        prior.log_weights,
        float(prior.alpha) * fill,
        float(prior.sigma) * fill,
    )


def test_examples_in_a_file(examples, tmp_path):
    array = mapped(examples, tmp_path)
    weights = np.random.default_rng(0).uniform(0.5, 1, NUM)
    prior = DiffusionMixturePrior(array, 0.3, weights=weights)
    assert isinstance(prior.examples, HostRows)
    assert (prior.batch_shape, prior.event_shape, prior.num_examples) == ((), EVENT, NUM)
    noise = np.random.default_rng(1).normal(size=(3, *EVENT)).astype(np.float32)
    values = examples[[3, 1100, 2290]] + np.float32(0.3) * noise
    # Few examples matter at the narrow bandwidth, all at the wide one.
    for each in (prior, prior.diffuse(1.0, 8.0)):
        expected = flat_reference(each, values, examples)
        assert relative_error(each.log_prob(values), expected.log_density) < 1e-5
        assert relative_error(each.score(values), expected.score) < 1e-5
        shares = each.responsibilities(values)
        np.testing.assert_allclose(shares, expected.responsibilities, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda v: prior.log_prob(v).sum()))(values)
    np.testing.assert_allclose(gradient, prior.score(values), rtol=1e-5)
    # Under a transformation first, from a copy that has lost what was prepared.
    rebuilt = jax.tree.map(lambda leaf: leaf, prior.diffuse(1.0, 0.4))
    density = jax.jit(lambda d, v: d.log_prob(v))(rebuilt, values)
    np.testing.assert_allclose(density, prior.diffuse(1.0, 0.4).log_prob(values), rtol=1e-6)
    distance, index = prior.nearest(values, 2)
    exact = np.linalg.norm((values[:, None] - examples).reshape(3, NUM, -1), axis=-1)
    np.testing.assert_allclose(distance, np.sort(exact, axis=1)[:, :2], rtol=1e-5)
    np.testing.assert_array_equal(index, np.argsort(exact, axis=1)[:, :2])

    weights = weights / weights.sum()
    mean = np.einsum("n,nij->ij", weights, examples.astype(np.float64))
    variance = np.einsum("n,nij->ij", weights, (examples - mean) ** 2)
    np.testing.assert_allclose(prior.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(prior.variance, variance + 0.09, rtol=1e-4)


@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
def test_chunked_files(kind, examples, tmp_path):
    if kind == "zarr":
        array = zarr.create_array(
            tmp_path / "x.zarr", shape=examples.shape, dtype="f4", chunks=(500, *EVENT)
        )
        array[:] = examples
    else:
        array = h5py.File(tmp_path / "x.h5", "w").create_dataset("x", data=examples)
    prior = MemorizedPrior(array)
    assert isinstance(prior.examples, HostRows)
    distance, index = prior.nearest(examples[[7, 2299]], 1)
    np.testing.assert_array_equal(index, [[7], [2299]])
    np.testing.assert_array_equal(distance, 0)
    value, [index] = prior.sample_with_intermediates(jax.random.key(0), (5,))
    np.testing.assert_array_equal(value, examples[index])


def test_memorized_examples_in_a_file(examples, tmp_path):
    prior, same = MemorizedPrior(mapped(examples, tmp_path)), MemorizedPrior(examples)
    assert isinstance(prior.examples, HostRows)
    value, [index] = prior.sample_with_intermediates(jax.random.key(0), (5,))
    np.testing.assert_array_equal(value, examples[index])
    noised = value + 0.1
    np.testing.assert_allclose(
        prior.denoise(noised, 1.0, 0.2), same.denoise(noised, 1.0, 0.2), rtol=1e-5
    )
    for each in (value, noised):
        np.testing.assert_allclose(prior.log_prob(each), same.log_prob(each), rtol=1e-6)
        np.testing.assert_array_equal(prior.support(each), same.support(each))
    np.testing.assert_array_equal(prior.log_prob(noised), -np.inf)
    np.testing.assert_array_equal(jnp.argmax(prior.responsibilities(value), axis=1), index)
    nearest = prior.nearest(noised)[1][:, 0]
    np.testing.assert_array_equal(prior.responsibilities(noised), np.eye(NUM)[nearest])
    heaviest = prior.reweight(jnp.zeros(NUM).at[1500].set(1.0)).support
    np.testing.assert_array_equal(heaviest.feasible_like(value[0]), examples[1500])
    with pytest.raises(NotImplementedError, match=r"enumerate_support needs .*numpy.array"):
        prior.enumerate_support()


def test_examples_in_a_file_share_the_weight_of_a_value(examples, tmp_path):
    examples[2200] = examples[5]  # in two batches
    weights = np.random.default_rng(0).uniform(0.5, 1, NUM)
    prior = MemorizedPrior(mapped(examples, tmp_path), weights)
    shares = weights[[5, 2200]]
    # float32 weights of a sum of 2300
    np.testing.assert_allclose(
        prior.log_prob(examples[5]), np.log(shares.sum() / weights.sum()), rtol=1e-5
    )
    expected = np.zeros(NUM)
    expected[[5, 2200]] = shares / shares.sum()
    np.testing.assert_allclose(prior.responsibilities(examples[5]), expected, rtol=1e-5)
    gradient = jax.grad(lambda t: prior.reweight(t).log_prob(examples[5]))(jnp.zeros(NUM))
    np.testing.assert_allclose(gradient, expected - weights / weights.sum(), atol=1e-6)


def test_a_file_is_first_used_under_jit(examples, tmp_path):
    array = mapped(examples, tmp_path)
    density = jax.jit(lambda v: DiffusionMixturePrior(array, 0.3).log_prob(v))(examples[:2])
    same = DiffusionMixturePrior(examples, 0.3).log_prob(examples[:2])
    np.testing.assert_allclose(density, same, rtol=1e-6)


def test_small_files_are_read(tmp_path):
    prior = DiffusionMixturePrior(mapped(np.ones((3, 2)), tmp_path), 0.1)
    assert isinstance(prior.examples, jax.Array) and prior.examples.dtype == jnp.float32


def test_broken_files(examples, tmp_path):
    examples[1234, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"\(2300, 4, 6\).*index 1234 holds NaN"):
        DiffusionMixturePrior(mapped(examples, tmp_path), 0.1)
    with pytest.raises(TypeError, match="must be real"):
        DiffusionMixturePrior(mapped(np.ones((3, 2), complex), tmp_path), 0.1)


SHARDED = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ppl_memprior import DiffusionMixturePrior

rng = np.random.default_rng(0)
examples = rng.normal(size=(512, 32)).astype(np.float32)
values = examples[:4] + 0.3 * rng.normal(size=(4, 32)).astype(np.float32)
weights = rng.uniform(0.5, 1, 512)
assert len(jax.devices()) == 8
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((8,), ("examples",), axis_types=(kind,))
    sharded = jax.device_put(examples, NamedSharding(mesh, PartitionSpec("examples")))
    for sigma in (0.3, 4.0) if kind is AxisType.Auto else (0.3,):
        one = DiffusionMixturePrior(examples, sigma, weights=weights)
        many = DiffusionMixturePrior(sharded, sigma, weights=weights)
        assert len(many.examples.addressable_shards) == 8
        found = [
            (d.log_prob(values), d.score(values), d.nearest(values, 3))
            for d in (one, many)
        ]
        # Sums over examples are taken in another order.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), *found)
        assert len(many._prepared.table.centred.addressable_shards) == 8
print("same")
"""


def test_examples_on_eight_devices():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "same\n", done.stderr
