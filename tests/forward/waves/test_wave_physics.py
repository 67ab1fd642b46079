"""What the wave equations solve, against one another and at the limits of their models."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_memprior.forward import AcousticWave, ElasticWave, ScalarBorn, ScalarWave, Survey

pytest.importorskip("torch")
pytest.importorskip("deepwave")
pytestmark = pytest.mark.torch

SHAPE = (11, 13)
SURVEY = Survey.transmission(SHAPE, 2, 4, peak_frequency=12.0, dt=0.002, num_times=130)
RANDOM = np.random.default_rng(0)
VP = RANDOM.uniform(2000.0, 3000.0, SHAPE).astype(np.float32)
DV = RANDOM.uniform(-100.0, 100.0, SHAPE).astype(np.float32)
SETTINGS = {"pml_width": 5, "max_velocity": 3500.0}
DENSITY = {"density_range": (1500.0, 2500.0)}


def test_born_is_the_derivative_of_scalar_waves_and_linear():
    born, scalar = ScalarBorn(SURVEY, **SETTINGS, velocity=VP), ScalarWave(SURVEY, **SETTINGS)
    _, tangent = jax.jvp(scalar, (VP,), (DV,))
    scattered = born(DV)
    # Two ways through float32 recurrences of some 300 steps.
    size = float(jnp.abs(scattered).max())
    np.testing.assert_allclose(scattered, tangent, atol=1e-5 * size)
    other = RANDOM.normal(size=SHAPE).astype(np.float32)
    np.testing.assert_allclose(
        born(2 * DV - 3 * other), 2 * scattered - 3 * born(other), atol=1e-5 * size
    )
    np.testing.assert_array_equal(born(np.zeros(SHAPE, np.float32)), jnp.zeros(born.shape))


def test_a_fluid_is_acoustic():
    acoustic = AcousticWave(SURVEY, **SETTINGS, **DENSITY)
    elastic = ElasticWave(SURVEY, **SETTINGS, **DENSITY, components=["pressure"])
    uniform = np.full(SHAPE, 2000.0, np.float32), np.full(SHAPE, 2000.0, np.float32)
    expected = np.asarray(acoustic(*uniform))
    bulk_modulus = 2000.0 * 2000.0**2
    pressure = bulk_modulus * np.asarray(elastic(uniform[0], 0 * uniform[0], uniform[1])[0])
    # Other internal time steps and boundary strengths.
    np.testing.assert_allclose(pressure, expected, atol=0.03 * np.abs(expected).max())


def test_uniform_density_is_scalar():
    shape, dt = (21, 21), 0.001
    survey = Survey(shape, [[[10, 6]]], [[[10, 14]]], np.zeros(150), dt, 15.0)
    wavelet = np.exp(-(((np.arange(150) * dt - 0.06) / 0.015) ** 2))
    acoustic = AcousticWave(replace(survey, wavelet=wavelet), max_velocity=2500.0)
    # p has the source -rho ds/dt; s acts half an internal step after p is recorded.
    rate = -2000.0 * np.gradient(wavelet, dt)
    scalar = ScalarWave(replace(survey, wavelet=rate), max_velocity=2500.0)
    v, rho = np.full(shape, 2000.0, np.float32), np.full(shape, 2000.0, np.float32)
    expected = np.asarray(acoustic(v, rho))
    # Different grids and half a step of time.
    np.testing.assert_allclose(scalar(v), expected, atol=0.08 * np.abs(expected).max())


@pytest.mark.parametrize(("source", "moves", "still"), [("fz", 0, 1), ("fx", 1, 0)])
def test_a_force_moves_the_ground_its_way(source, moves, still):
    shape, dt = (13, 13), 0.002
    survey = Survey(shape, [[[6, 6]]], [[[6, 6]]], np.ones(20), dt, 15.0)
    wave = ElasticWave(survey, **SETTINGS, source=source, components=["vz", "vx"])
    solid = (np.full(shape, c, np.float32) for c in (2500.0, 1400.0, 2000.0))
    velocity = np.asarray(wave(*solid))[:, 0, 0]
    assert velocity[moves, -1] > 0
    assert np.abs(velocity[still]).max() < 0.5 * np.abs(velocity[moves]).max()


def test_models_at_the_limits_are_stable_in_any_company():
    # What is stiff in one model and light in the other must not be taken together.
    stiff, light = np.full(SHAPE, 2500.0, np.float32), np.full(SHAPE, 1500.0, np.float32)
    fast = np.full(SHAPE, 3500.0, np.float32)
    rho = jnp.stack([stiff, light, np.where(np.arange(SHAPE[1]) % 2, stiff, light)])
    v = jnp.broadcast_to(jnp.asarray(fast), rho.shape)
    for wave, models in (
        (AcousticWave(SURVEY, **SETTINGS, **DENSITY), (v, rho)),
        (ElasticWave(SURVEY, **SETTINGS, **DENSITY), (v, 0.0 * v, rho)),
        (ElasticWave(SURVEY, **SETTINGS, **DENSITY), (v, 0.86 * v, rho)),
    ):
        data = jax.vmap(wave)(*models)
        assert np.all(np.isfinite(data)) and np.all(np.any(np.asarray(data) != 0, axis=-1))
        size = float(jnp.abs(data).max())
        for i in range(3):
            alone = wave(*(field[i] for field in models))
            np.testing.assert_allclose(data[i], alone, atol=1e-6 * size)


def test_a_highest_velocity_that_float32_rounds_up():
    wave = ScalarWave(SURVEY, pml_width=5, max_velocity=3000.1)
    highest = np.full(SHAPE, 3000.1, np.float32)
    assert float(highest.max()) > 3000.1 and np.all(np.isfinite(jax.jit(wave)(highest)))
