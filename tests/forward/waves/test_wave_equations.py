"""All wave equations through the same properties, against Deepwave called from PyTorch."""

import pickle
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from jax.test_util import check_grads

from ppl_memprior.forward import (
    AcousticWave,
    ElasticWave,
    ScalarBorn,
    ScalarWave,
)

from .native import CASES, DV, SETTINGS, SHAPE, SURVEY, VP, native_born

torch = pytest.importorskip("torch")
deepwave = pytest.importorskip("deepwave")
pytestmark = pytest.mark.torch


@pytest.fixture(params=CASES)
def make(request):
    return CASES[request.param]


@pytest.fixture
def case(make):
    return make()


def directions(model, seed):
    rng = np.random.default_rng(seed)
    return tuple(
        (0.01 * np.abs(field).max() * rng.normal(size=field.shape)).astype(field.dtype)
        for field in model
    )


def test_value_gradient_and_jvp_equal_native_deepwave(case):
    leaves = [torch.tensor(field, requires_grad=True) for field in case.model]
    data = case.native(*leaves)
    seed = torch.linspace(-1.0, 1.0, data.numel()).reshape(data.shape)
    gradients = torch.autograd.grad(data, leaves, seed)
    ours, pull = jax.vjp(case.wave, *map(jnp.asarray, case.model))
    assert ours.shape == case.wave.shape and ours.dtype == jnp.float32
    np.testing.assert_array_equal(ours, data.detach().numpy())
    for mine, theirs in zip(pull(jnp.asarray(seed.numpy())), gradients, strict=True):
        # The corner that elastic models repeat adds up four numbers, in another order.
        np.testing.assert_array_max_ulp(np.asarray(mine), theirs.numpy(), maxulp=2)
    along = directions(case.model, 1)
    _, tangent = jax.jvp(case.wave, case.model, along)
    if case.native is native_born:
        expected = native_born(torch.tensor(along[0]))
    else:
        _, expected = torch.func.jvp(
            case.native, *(tuple(map(torch.tensor, pair)) for pair in (case.model, along))
        )
    np.testing.assert_array_equal(tangent, expected.numpy())


def test_shapes(case):
    fields = len(case.model)
    assert case.wave.input_shape == (SHAPE if fields == 1 else (fields, *SHAPE))
    assert case.wave.shape == ((2,) if fields == 3 else ()) + (3, 4, 130)
    stacked = jnp.stack([jnp.asarray(field) for field in case.model])
    np.testing.assert_array_equal(jax.jit(lambda x: case.wave(*x))(stacked), case.wave(*case.model))


@pytest.mark.parametrize("more", [{}, {"shots_per_group": 2}], ids=["all shots", "in groups"])
def test_forward_and_reverse_mode_are_adjoint(make, more):
    # A time step that is stable inside makes the discrete adjoint exact, to rounding.
    survey = replace(SURVEY, dt=0.0004, wavelet=np.sin(np.linspace(0, 6, 90)) ** 3)
    wave = replace(make(**more).wave, survey=survey)
    with jax.enable_x64(True):
        model = tuple(jnp.asarray(field, jnp.float64) for field in make().model)
        along = tuple(jnp.asarray(d, jnp.float64) for d in directions(model, 2))
        data, tangent = jax.jvp(wave, model, along)
        assert data.dtype == jnp.float64
        seed = jnp.asarray(np.random.default_rng(3).normal(size=data.shape))
        pulled = jax.vjp(wave, *model)[1](seed)
        both = sum(jnp.vdot(p, d) for p, d in zip(pulled, along, strict=True))
        np.testing.assert_allclose(both, jnp.vdot(seed, tangent), rtol=1e-9)


@pytest.mark.parametrize("name", ["scalar", "born", "acoustic", "elastic"])
def test_derivatives_against_finite_differences(name):
    survey = replace(SURVEY, dt=0.0004, wavelet=np.sin(np.linspace(0, 6, 60)) ** 3)
    wave, _, model = CASES[name]()
    wave = replace(wave, survey=survey)
    with jax.enable_x64(True):
        model = tuple(jnp.asarray(field, jnp.float64) for field in model)
        scale = tuple(jnp.abs(field).max() for field in model)
        size = jnp.abs(wave(*model)).max()

        def scaled(*relative):
            return wave(*(r * s for r, s in zip(relative, scale, strict=True))) / size

        relative = tuple(field / s for field, s in zip(model, scale, strict=True))
        # Steps of 1e-5 of the model: truncation of about 1e-8.
        check_grads(scaled, relative, order=1, atol=1e-6, rtol=1e-6, eps=1e-5)


@pytest.mark.parametrize("max_memory", [1e9, 1.0], ids=["together", "one by one"])
def test_vmap_equals_a_loop(make, max_memory):
    wave, _, model = make(max_memory=max_memory)
    many = tuple(jnp.stack([field, 1.02 * field, 0.97 * field]) for field in model)
    last = len(model) - 1

    def misfit(*fields):
        return jnp.sum(wave(*fields) ** 2) / 2

    data = jax.jit(jax.vmap(wave))(*many)
    gradients = jax.jit(jax.vmap(jax.grad(misfit, argnums=last)))(*many)
    along = directions(model, 7)
    tangents = jax.vmap(lambda *fields: jax.jvp(wave, fields, along)[1])(*many)
    # A field that the batch shares is not repeated by the caller.
    shared = (None,) * last + (0,)
    mixed = jax.vmap(wave, in_axes=shared)(*model[:last], many[last])
    for i in range(3):
        one = tuple(field[i] for field in many)
        # Deepwave vectorizes over shots: the last bit may differ.
        np.testing.assert_allclose(data[i], wave(*one), atol=1e-6 * float(jnp.abs(data).max()))
        np.testing.assert_allclose(
            mixed[i], wave(*model[:last], one[-1]), atol=1e-6 * float(jnp.abs(data).max())
        )
        tangent = jax.jvp(wave, one, along)[1]
        np.testing.assert_allclose(tangents[i], tangent, atol=1e-6 * float(jnp.abs(tangent).max()))
        # Alone, Deepwave adds the shots' gradients up itself, in another order.
        alone = jax.grad(misfit, argnums=last)(*one)
        np.testing.assert_allclose(gradients[i], alone, atol=2e-5 * float(jnp.abs(alone).max()))


# Deepwave names the folder that it writes to.
@pytest.mark.filterwarnings('ignore:storage_mode="disk"')
@pytest.mark.parametrize(
    "more",
    [
        {"shots_per_group": 2},
        {"segments": 4},
        {"segments": 3, "shots_per_group": 2},
        {"storage": "disk"},
    ],
    ids=str,
)
def test_bounded_memory_changes_nothing(make, more):
    usual, bounded = make(), make(**more).wave
    if more != {"storage": "disk"}:
        assert bounded.gradient_memory < usual.wave.gradient_memory
    model = tuple(map(jnp.asarray, usual.model))
    data, pull = jax.vjp(usual.wave, *model)
    ours, our_pull = jax.vjp(bounded, *model)
    np.testing.assert_array_equal(ours, data)
    # Sums over shots and segments in another order; segments resample the whole trace once.
    for mine, theirs in zip(our_pull(data), pull(data), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5 * float(jnp.abs(theirs).max()))
    along = directions(usual.model, 4)
    for mine, theirs in zip(
        jax.jvp(bounded, model, along), jax.jvp(usual.wave, model, along), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    rows = jax.vmap(our_pull)(jnp.stack([data, 2 * data]))
    for row, once in zip(rows, our_pull(data), strict=True):
        np.testing.assert_allclose(row[1], 2 * once, rtol=1e-5, atol=1e-6 * float(abs(once).max()))


def test_frequencies_equal_numpys_transform_of_the_time_gather(make):
    bins = np.array([1, 3, 7])
    frequencies = bins / (SURVEY.num_times * SURVEY.dt)
    usual, wave = make(), make(frequencies=frequencies).wave
    time, components = usual.wave(*usual.model), wave(*usual.model)
    assert components.shape == wave.shape == (*usual.wave.shape[:-1], 3, 2)
    expected = np.fft.rfft(np.asarray(time, np.float64))[..., bins]
    ours = np.asarray(components[..., 0] + 1j * components[..., 1])
    # Sums of 130 float32 numbers.
    np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())
    _, tangent = jax.jvp(wave, usual.model, directions(usual.model, 5))
    (pulled, *_) = jax.vjp(wave, *usual.model)[1](components)
    assert np.all(np.isfinite(tangent)) and np.any(pulled)


def test_gradient_memory_is_what_deepwave_estimates(case):
    names = {
        ScalarWave: ("scalar", ["v"]),
        ScalarBorn: ("scalar_born", ["dv"]),
        AcousticWave: ("acoustic", ["v", "rho"]),
        ElasticWave: ("elastic", ["lamb", "mu", "buoyancy"]),
    }
    name, fields = names[type(case.wave)]
    shape = tuple(n + 1 for n in SHAPE) if name == "elastic" else SHAPE
    theirs = deepwave.estimate_memory(
        name, shape, 130, 3, accuracy=4, pml_width=5, models_requiring_grad=fields
    )
    assert case.wave.gradient_memory == theirs["backward_storage_bytes"]


def test_equal_hash_and_pickle_by_value(make):
    wave = make().wave
    assert len(repr(wave)) < 600
    copy = pickle.loads(pickle.dumps(wave))
    assert copy == wave == make().wave and hash(copy) == hash(wave)
    assert wave != make(frequencies=[5.0]).wave and wave != "something else"
    np.testing.assert_array_equal(copy(*make().model), wave(*make().model))
    with pytest.raises(AttributeError):
        wave.accuracy = 2


def test_born_modelling_is_transposed_as_a_linear_map():
    wave = CASES["born"](shots_per_group=2).wave
    rng = np.random.default_rng(8)
    dv = jnp.asarray(np.stack([DV, DV[::-1]]))
    seeds = jnp.asarray(rng.normal(size=(2, *wave.shape)), jnp.float32)
    shape = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    pull = jax.linear_transpose(wave, shape)
    pulled = jax.jit(jax.vmap(lambda d: pull(d)[0]))(seeds)
    together = jax.linear_transpose(jax.vmap(wave), dv)(seeds)[0]
    scattered = jax.vmap(wave)(dv)
    for i in range(2):
        (alone,) = pull(seeds[i])
        size = float(jnp.abs(alone).max())
        # The same migration, with the sums over shots in another order.
        for other in (pulled[i], together[i], jax.vjp(wave, dv[i])[1](seeds[i])[0]):
            np.testing.assert_allclose(other, alone, atol=2e-5 * size)
        left = float(jnp.vdot(scattered[i], seeds[i]))
        # The discrete adjoint samples the time integral at the survey's times only: 1e-4.
        scale = float(jnp.linalg.norm(scattered[i]) * jnp.linalg.norm(seeds[i]))
        np.testing.assert_allclose(float(jnp.vdot(alone, dv[i])), left, atol=1e-4 * scale)


@pytest.mark.parametrize("convert", [torch.tensor, pd.DataFrame, xr.DataArray, np.ndarray.tolist])
def test_models_of_any_array_library(convert):
    wave = CASES["scalar"]().wave
    np.testing.assert_array_equal(wave(convert(VP)), wave(VP))
    big = VP.astype(">f4")
    assert ScalarBorn(SURVEY, **SETTINGS, velocity=big) == CASES["born"]().wave
    np.testing.assert_array_equal(wave(big), wave(VP))
