"""Whatever holds real numbers may be given: to the constructors and to all that takes a value."""

import warnings

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from ppl_memprior import _batches
from ppl_memprior.distributions import DiffusionMixturePrior, LowRankGaussianMixture, MemorizedPrior
from ppl_memprior.distributions._mixture import examples as _examples

pytestmark = pytest.mark.arithmetic  # another Python computes the same

EXAMPLES = np.array([[0.0, 1.0], [2.0, 0.5], [3.0, -1.0]])
VALUE = np.array([2.0, 0.5])


def as_tensor(array, folder):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(array.copy()).requires_grad_()


def new_file(folder):
    return folder / f"{len(list(folder.iterdir()))}"


def in_npz(array, folder):
    path = new_file(folder).with_suffix(".npz")
    np.savez(path, a=array.astype(">f4"))
    return np.load(path)["a"]


def in_big_endian_map(array, folder):
    path = new_file(folder).with_suffix(".npy")
    np.save(path, array.astype(">f8"))
    return np.load(path, mmap_mode="r")


def in_hdf5(array, folder, **options):
    file = h5py.File(new_file(folder), "w")
    return file.create_dataset("a", data=array.astype(">f4"), **options)


def in_zarr(array, folder):
    return zarr.array(array.astype(">f4"), chunks=1 if array.ndim else None)


HOLDERS = {
    "list": lambda array, _: array.tolist(),
    "list of JAX arrays": lambda array, _: [jnp.asarray(row) for row in array],
    "double": lambda array, _: array,
    "big-endian": lambda array, _: array.astype(">f8"),
    "pandas": lambda array, _: (pd.Series if array.ndim == 1 else pd.DataFrame)(array),
    "xarray": lambda array, _: xr.DataArray(array),
    "memory map": in_big_endian_map,
    "npz": in_npz,
    "HDF5": in_hdf5,
    "HDF5 in chunks": lambda array, folder: in_hdf5(array, folder, chunks=True),
    "Zarr": in_zarr,
    "torch": as_tensor,
}
every_holder = pytest.mark.parametrize(
    "holder", [pytest.param(h, marks=[pytest.mark.torch] * (h == "torch")) for h in HOLDERS]
)


@pytest.fixture
def held(holder, tmp_path):
    """Turns a NumPy array into what the parameter names; warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield lambda array: HOLDERS[holder](np.asarray(array), tmp_path)


def same(ours, expected):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
        assert one.dtype == other.dtype


@every_holder
def test_constructors(held):
    weights = np.array([0.5, 0.25, 0.25])
    for cls, given in (
        (MemorizedPrior, {"examples": EXAMPLES, "weights": weights}),
        (DiffusionMixturePrior, {"examples": EXAMPLES, "sigma": weights, "alpha": -weights}),
        (
            LowRankGaussianMixture,
            {
                "locs": EXAMPLES,
                "scale": 0.5,
                "directions": EXAMPLES[:, :0, None] + np.zeros((1, 1, 2)),
                "direction_scales": EXAMPLES[:, :0],
                "log_weights": weights,
            },
        ),
    ):
        expected = cls(**given)
        for name, array in given.items():
            if np.ndim(array) in (1, 2) and np.size(array):
                same(cls(**{**given, name: held(array)}), expected)


@every_holder
def test_values(held):
    memorized = MemorizedPrior(EXAMPLES, validate_args=True)
    mixture = DiffusionMixturePrior(EXAMPLES, 0.5, validate_args=True)
    low_rank = LowRankGaussianMixture(
        EXAMPLES, 0.5, np.zeros((3, 0, 2)), np.zeros((3, 0)), validate_args=True
    )
    value = VALUE.astype(np.float32)
    for d, methods in (
        (memorized, ["log_prob", "responsibilities", "nearest"]),
        (mixture, ["log_prob", "score", "responsibilities", "nearest"]),
        (low_rank, ["log_prob", "responsibilities"]),
    ):
        for method in methods:
            same(getattr(d, method)(held(VALUE)), getattr(d, method)(value))
    for d in (memorized, mixture):
        levels = np.array([0.5, 1.0])
        same(d.denoise(held(VALUE), 1.0, held(levels)), d.denoise(value, 1.0, levels))
        same(d.diffuse(1.0, held(levels)), d.diffuse(1.0, levels))
        factors = np.array([0.5, 1.0, 2.0])
        same(d.reweight(held(factors)), d.reweight(factors))
    line = DiffusionMixturePrior([0.0, 1.0], 0.5)
    same(line.cdf(held(VALUE)), line.cdf(value))
    same(line.icdf(held([0.2, 0.4])), line.icdf(np.array([0.2, 0.4], np.float32)))


@pytest.mark.parametrize("holder", ["memory map", "HDF5", "Zarr"])
def test_big_endian_examples_that_stay_in_their_file(held, monkeypatch):
    examples = np.random.default_rng(0).normal(size=(100, 30))
    prior = DiffusionMixturePrior(examples, 0.5)
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 1000)
    outside = DiffusionMixturePrior(held(examples), 0.5)
    assert isinstance(outside.examples, _examples.HostRows)
    assert outside.examples.dtype == jnp.float32
    # rounded to 1e-7 of the examples' size, at 30 times the bandwidth squared
    np.testing.assert_allclose(outside.log_prob(examples[:2]), prior.log_prob(examples[:2]), 1e-4)


def test_integers_beyond_32_bits_stay_what_they_are():
    prior = MemorizedPrior(np.array([5_000_000_000, 1]))
    np.testing.assert_allclose(prior.examples, [5e9, 1])


@pytest.mark.parametrize(
    "given",
    [
        np.array([1j, 2j]),
        np.array(["a", "b"]),
        np.array([None, 1.0]),
        zarr.array(np.array([1j, 2j])),
        pd.Series(["a", "b"]),
        [[1.0], [1.0, 2.0]],
    ],
    ids=lambda g: type(g).__name__,
)
def test_other_things_are_refused(given):
    for use in (
        MemorizedPrior,
        lambda x: MemorizedPrior([1.0, 2.0], x),
        DiffusionMixturePrior([1.0, 2.0], 0.5).log_prob,
        DiffusionMixturePrior([1.0, 2.0], 0.5).score,
    ):
        with pytest.raises(TypeError, match="must be (real|an array of real numbers), got"):
            use(given)
    with pytest.raises(ValueError, match="masks 1 of its 2 values"):
        MemorizedPrior(np.ma.array([1.0, 2.0], mask=[True, False]))
