"""Models and settings out of bounds: named, or NaN where a message is impossible."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_memprior.forward import (
    AcousticWave,
)

from .native import CASES, RHO, SHAPE, SURVEY, VP, VS

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("born", 0, np.inf, "velocity perturbation model has 1 non-finite values among 143"),
        ("acoustic", 0, 3600.0, "highest velocity is 3600 m/s, above max_velocity = 3500 m/s"),
        ("acoustic", 1, 1000.0, r"lowest density is 1000 kg/m\^3; below density_range = \(1500,"),
        ("acoustic", 1, 2600.0, r"highest density is 2600 kg/m\^3, above density_range"),
        ("elastic", 0, 0.0, "lowest P velocity is 0 m/s"),
        ("elastic", 1, -5.0, "lowest S velocity is -5 m/s"),
        ("elastic", 1, 2900.0, r"S velocity is 2900 m/s where .* in cell \(3, 4\); .* below"),
        ("elastic", 2, np.nan, "density model has 1 non-finite"),
    ],
)
def test_an_impossible_model_is_named_or_gives_nan_alone(name, field, value, message):
    wave, _, model = CASES[name]()
    bad = [np.array(values) for values in model]
    bad[field][3, 4] = value
    with pytest.raises(ValueError, match=message):
        wave(*bad)
    assert np.all(np.isnan(jax.jit(wave)(*bad)))
    batch = tuple(jnp.stack([good, other]) for good, other in zip(model, bad, strict=True))
    data = jax.vmap(wave)(*batch)
    gradients = jax.vmap(jax.grad(lambda *m: jnp.sum(wave(*m))))(*batch)
    assert np.all(np.isfinite(data[0])) and np.all(np.isnan(data[1]))
    assert np.all(np.isfinite(gradients[0])) and np.all(np.isnan(gradients[1]))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("scalar", {"frequencies": []}, "at least one frequency"),
        ("scalar", {"frequencies": [5.0, 251.0]}, "251 Hz cannot be told.* 0 and 250 Hz"),
        ("scalar", {"shots_per_group": 0}, "shots_per_group must be at least 1, got 0"),
        ("scalar", {"segments": 131}, "between 1 and the 130 time samples, got 131"),
        ("scalar", {"storage": "tape"}, "'disk', got 'tape'"),
        ("born", {"velocity": VP[:3]}, r"background velocity model of shape \(11, 13\)"),
        ("born", {"velocity": 2 * VP}, "highest background velocity is .* above max_velocity"),
        ("acoustic", {"density_range": (0.0, 1.0)}, r"density_range must be two positive"),
        ("acoustic", {"density_range": (1.0, 3.0)}, r"density_range = \(1.0, 3.0\) .* in g/cm\^3"),
        ("elastic", {"density_range": (1.0, 3.0)}, r"density_range = \(1.0, 3.0\) .* in g/cm\^3"),
        ("born", {"velocity": VP / 1000}, "background velocity is .* is the model in km/s"),
        ("acoustic", {"density_range": [1.0]}, r"density_range must be two .* got \[1.0\]"),
        ("elastic", {"density_range": (2.0, 1.0)}, r"lowest first, got \(2.0, 1.0\)"),
        ("elastic", {"components": ("vz", "vy")}, "component must be of .*, got 'vz', 'vy'"),
        ("elastic", {"components": ()}, "got none"),
        ("elastic", {"source": "hammer"}, "source must be of 'explosion', 'fz', 'fx'"),
    ],
)
def test_settings_are_checked(name, change, message):
    with pytest.raises(ValueError, match=message):
        replace(CASES[name]().wave, **change)


@pytest.mark.parametrize(
    ("name", "field", "message"),
    [
        ("acoustic", 0, "highest velocity is .* nothing below 120 m/s .* is the model in km/s"),
        ("acoustic", 1, r"highest density is .* is the model in g/cm\^3"),
        ("elastic", 0, "highest P velocity is .* is the model in km/s"),
        ("elastic", 1, "highest S velocity is .* nothing below 12 m/s .* is the model in km/s"),
    ],
)
def test_a_field_in_another_unit_is_named_or_gives_nan_with_a_warning(name, field, message):
    wave, _, model = CASES[name]()
    other = [values / 1000 if k == field else values for k, values in enumerate(model)]
    with pytest.raises(ValueError, match=message):
        wave(*other)
    with pytest.warns(UserWarning, match=message):
        assert np.all(np.isnan(jax.jit(wave)(*other)))


def test_a_gas_may_be_light():
    air = AcousticWave(SURVEY, 1.0, pml_width=5, max_velocity=400.0, density_range=(1.0, 1.5))
    data = air(np.full(SHAPE, 340.0), np.full(SHAPE, 1.2))
    assert np.all(np.isfinite(data)) and np.any(np.asarray(data) != 0.0)


def test_several_fields_are_checked_by_name():
    wave = CASES["elastic"]().wave
    with pytest.raises(ValueError, match=r"S velocity model of shape \(11, 13\).*got \(3, 13\)"):
        jax.jit(wave)(VP, VS[:3], RHO)
    with pytest.raises(TypeError):
        wave(np.stack([VP, VS, RHO]))
    integers = wave(VP.astype(int), VS.astype(int), RHO.astype(int))
    assert integers.dtype == jnp.float32 and np.all(np.isfinite(integers))
