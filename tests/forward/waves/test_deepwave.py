"""Scalar waves through the bridge against Deepwave called from PyTorch."""

import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_memprior.forward import ScalarWave, Survey

torch = pytest.importorskip("torch")
deepwave = pytest.importorskip("deepwave")
pytestmark = pytest.mark.torch

SURVEY = Survey.surface((12, 14), 2, 5, peak_frequency=10.0, dt=0.002, num_times=160)
SLOW = np.full(SURVEY.shape, 2000.0, dtype=np.float32)
LAYERED = SLOW + 700.0 * (np.arange(12)[:, None] > 6).astype(np.float32)
MODELS = jnp.stack([SLOW, LAYERED, 1.1 * LAYERED])


@pytest.fixture(scope="module")
def wave():
    return ScalarWave(SURVEY, 10.0, pml_width=5)


def native(v):
    return deepwave.scalar(
        v,
        10.0,
        SURVEY.dt,
        source_amplitudes=torch.tensor(SURVEY.wavelet, dtype=v.dtype).repeat(2, 1, 1),
        source_locations=torch.tensor(SURVEY.source_locations),
        receiver_locations=torch.tensor(SURVEY.receiver_locations),
        accuracy=4,
        pml_width=5,
        pml_freq=10.0,
        max_vel=4500.0,
    )[-1]


def misfit(wave):
    return lambda v: jnp.sum(wave(v) ** 2)


def test_value_and_gradient_equal_native_deepwave_to_the_last_bit(wave):
    assert wave.input_shape == (12, 14) and wave.shape == (2, 5, 160)
    v = torch.tensor(LAYERED, requires_grad=True)
    data = native(v)
    seed = torch.linspace(-1.0, 1.0, data.numel()).reshape(data.shape)
    (gradient,) = torch.autograd.grad(data, v, seed)
    ours, pull = jax.vjp(wave, jnp.asarray(LAYERED))
    assert ours.shape == wave.shape and ours.dtype == jnp.float32
    np.testing.assert_array_equal(ours, data.detach().numpy())
    np.testing.assert_array_equal(pull(jnp.asarray(seed.numpy()))[0], gradient.numpy())


def test_jvp_equals_torch_func(wave):
    direction = np.random.default_rng(0).normal(size=LAYERED.shape).astype(np.float32)
    _, theirs = torch.func.jvp(native, (torch.tensor(LAYERED),), (torch.tensor(direction),))
    _, ours = jax.jvp(wave, (jnp.asarray(LAYERED),), (jnp.asarray(direction),))
    np.testing.assert_array_equal(ours, theirs.numpy())


def test_derivatives_against_finite_differences_in_float64(wave):
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        v = jnp.asarray(LAYERED, dtype=jnp.float64)
        direction = jnp.asarray(rng.normal(size=v.shape))
        ahead, behind = wave(v + 1e-2 * direction), wave(v - 1e-2 * direction)
        data, tangent = jax.jvp(wave, (v,), (direction,))
        assert data.dtype == jnp.float64
        # Central differences with a step of 1e-2 m/s at 2 km/s: truncation is about 1e-9.
        scale = float(jnp.abs(tangent).max())
        np.testing.assert_allclose(tangent, (ahead - behind) / 2e-2, atol=1e-6 * scale)


@pytest.mark.parametrize(
    ("dt", "rtol"),
    # A time step that is stable at max_velocity makes the discrete adjoint exact, to rounding; with
    # a longer one Deepwave samples the gradient's time integral at dt only.
    [(0.0008, 1e-9), (0.002, 1e-4)],
)
def test_forward_and_reverse_mode_are_adjoint(dt, rtol):
    rng = np.random.default_rng(2)
    survey = Survey.surface((12, 14), 2, 5, peak_frequency=10.0, dt=dt, num_times=int(0.32 / dt))
    wave = ScalarWave(survey, 10.0, pml_width=5)
    with jax.enable_x64(True):
        v = jnp.asarray(LAYERED, dtype=jnp.float64)
        direction = jnp.asarray(rng.normal(size=v.shape))
        data, tangent = jax.jvp(wave, (v,), (direction,))
        seed = data + jnp.asarray(rng.normal(size=data.shape)) * 0.1 * jnp.std(data)
        (pulled,) = jax.vjp(wave, v)[1](seed)
        np.testing.assert_allclose(jnp.vdot(seed, tangent), jnp.vdot(pulled, direction), rtol=rtol)


@pytest.mark.parametrize("max_memory", [1e9, 1.0], ids=["together", "one by one"])
def test_vmap_equals_a_loop(max_memory):
    wave = ScalarWave(SURVEY, 10.0, pml_width=5, max_memory=max_memory)
    data = jax.jit(jax.vmap(wave))(MODELS)
    gradients = jax.jit(jax.vmap(jax.grad(misfit(wave))))(MODELS)
    for i, v in enumerate(MODELS):
        np.testing.assert_array_equal(data[i], wave(v))
        # Alone, Deepwave adds the shots' gradients up itself, in another order: float32 rounding.
        alone = jax.grad(misfit(wave))(v)
        np.testing.assert_allclose(gradients[i], alone, atol=1e-5 * float(jnp.abs(alone).max()))


@pytest.mark.parametrize("bad", [-1.0, 0.0, 4600.0, np.nan, np.inf])
def test_an_impossible_model_gives_nan_and_leaves_the_batch_alone(wave, bad):
    models = MODELS.at[1, 3, 4].set(bad)
    data = jax.vmap(wave)(models)
    assert np.all(np.isnan(data[1]))
    np.testing.assert_array_equal(data[0], wave(MODELS[0]))
    np.testing.assert_array_equal(data[2], wave(MODELS[2]))
    gradients = jax.vmap(jax.grad(misfit(wave)))(models)
    assert np.all(np.isnan(gradients[1])) and np.all(np.isfinite(gradients[::2]))
    assert np.all(np.isnan(jax.jit(wave)(models[1])))
    assert np.all(np.isnan(jax.vmap(wave)(models[1:2])))


def test_jacobian_along_one_parameter_in_both_modes(wave):
    def along(scale):
        return wave(scale * jnp.asarray(LAYERED))[0, 0, 70:90]

    forward, reverse = jax.jacfwd(along)(1.0), jax.jacrev(along)(1.0)
    # Two float32 recurrences of some 500 steps, run in opposite directions.
    np.testing.assert_allclose(forward, reverse, atol=1e-3 * float(jnp.abs(forward).max()))


def test_pickle_rebuilds_the_function(wave):
    copy = pickle.loads(pickle.dumps(wave))
    assert copy == wave and hash(copy) == hash(wave)
    np.testing.assert_array_equal(copy(LAYERED), wave(LAYERED))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SLOW[None], "Use jax.vmap"),
        (SLOW[:3], r"shape \(12, 14\).*got \(3, 14\)"),
        (SLOW * np.nan, "168 non-finite"),
        (SLOW - 2000.0, "lowest velocity is 0 m/s"),
        (SLOW * 3.0, "6000 m/s, above max_velocity = 4500"),
        (SLOW / 1000, "highest velocity is 2 m/s, .* nothing below 100 m/s .* in km/s"),
    ],
)
def test_concrete_models_are_checked(wave, model, message):
    with pytest.raises(ValueError, match=message):
        wave(model)


def test_shape_is_checked_while_tracing(wave):
    with pytest.raises(ValueError, match="is expected"):
        jax.jit(wave)(SLOW[:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid_spacing": 0.0}, "grid_spacing must be positive"),
        ({"max_velocity": -1.0}, "max_velocity must be positive"),
        ({"accuracy": 3}, "2, 4, 6 or 8"),
        ({"pml_width": -1}, "pml_width"),
        ({"min_velocity": 0.0}, "min_velocity must be positive"),
        ({"min_velocity": 1.5}, "min_velocity = 1.5 m/s .* in km/s"),
        ({"min_velocity": 5000.0}, "must not be above max_velocity = 4500 m/s"),
        ({"max_velocity": 4.5}, r"4.5 m/s is a wavelength of 0.045 grid cells .* in km/s"),
        ({"grid_spacing": 0.01}, r"4.5e\+04 grid cells .*grid_spacing in km"),
        ({"frequencies": [0.004, 0.005]}, "up to 0.005 Hz hold nothing .* in kHz"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        ScalarWave(SURVEY, **change)


def test_a_model_in_another_unit_gives_nan_with_a_warning_and_a_sampler_passes(wave):
    # The third is a sampler's odd proposal among good ones: rejected without a word.
    models = MODELS.at[2].set(MODELS[2] / 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        data = jax.jit(jax.vmap(wave))(models)
    np.testing.assert_array_equal(np.isnan(data).all((1, 2, 3)), [False, False, True])
    with pytest.warns(UserWarning, match="highest velocity is 2 m/s.*is the model in km/s"):
        assert np.all(np.isnan(jax.jit(wave)(SLOW / 1000)))


@pytest.mark.filterwarnings("ignore:At least six grid cells")
def test_a_coherent_system_of_other_units_and_slow_layers_are_welcome(wave):
    # km, km/s, s: u has the unit of the wavelet times km^2.
    kilometres = ScalarWave(SURVEY, 0.01, pml_width=5, max_velocity=4.5)
    expected = np.asarray(wave(LAYERED))
    np.testing.assert_allclose(
        1e6 * np.asarray(kilometres(LAYERED / 1000)), expected, atol=1e-4 * np.abs(expected).max()
    )
    slow = np.array(LAYERED)
    slow[:3] = 30.0
    assert np.all(np.isfinite(wave(slow)))


def test_a_coarse_grid_is_warned_about():
    with pytest.warns(UserWarning, match="grid dispersion.*32 m.*3.2 grid cells"):
        ScalarWave(SURVEY, 10.0, min_velocity=800.0)
