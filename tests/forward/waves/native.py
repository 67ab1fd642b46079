"""Each wave equation, and the same one by Deepwave called from PyTorch."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from ppl_memprior.forward import (
    AcousticWave,
    ElasticWave,
    ScalarBorn,
    ScalarWave,
    Survey,
    WaveEquation,
)

torch = pytest.importorskip("torch")
deepwave = pytest.importorskip("deepwave")
SHAPE = (11, 13)
# Velocity receivers in the last row and column included.
SURVEY = Survey(
    SHAPE,
    [[[1, 2]], [[2, 10]], [[8, 6]]],
    [[[1, 1], [1, 7], [10, 12], [6, 3]]] * 3,
    Survey.surface(SHAPE, 1, 1, peak_frequency=12.0, dt=0.002, num_times=130).wavelet,
    0.002,
    12.0,
)
RANDOM = np.random.default_rng(0)


def smooth(low, high):
    """Blocks of random values, float32."""
    rows, columns = (n // 3 + 1 for n in SHAPE)
    blocks = np.kron(RANDOM.uniform(low, high, (rows, columns)), np.ones((3, 3)))
    return blocks[: SHAPE[0], : SHAPE[1]].astype(np.float32)


VP = smooth(2000.0, 3000.0)
VS = smooth(1000.0, 1500.0)
RHO = smooth(1800.0, 2400.0)
DV = smooth(-100.0, 100.0)
SETTINGS = {"pml_width": 5, "max_velocity": 3500.0}
DENSITY = {"density_range": (1500.0, 2500.0)}
# The factors by which the velocity that a staggered time step must be stable for exceeds that of
# the model: 0.6 / (6 / 7) sqrt(contrast), and sqrt(2) times that in solids.
ACOUSTIC_BOUND = 3500.0 * (1 + 1e-6)
ELASTIC_BOUND = 3500.0 * 0.7 * np.sqrt(2 * 2500 / 1500) * (1 + 1e-6)


def tensors(dtype):
    return {
        "source": torch.tensor(SURVEY.wavelet, dtype=dtype).repeat(3, 1, 1),
        "at": torch.tensor(SURVEY.source_locations),
        "heard": torch.tensor(SURVEY.receiver_locations),
        "settings": {"accuracy": 4, "pml_width": 5, "pml_freq": 12.0},
    }


def native_scalar(v):
    given = tensors(v.dtype)
    return deepwave.scalar(
        v,
        10.0,
        SURVEY.dt,
        source_amplitudes=given["source"],
        source_locations=given["at"],
        receiver_locations=given["heard"],
        max_vel=3500.0,
        **given["settings"],
    )[-1]


def native_born(dv):
    given = tensors(dv.dtype)
    return deepwave.scalar_born(
        torch.tensor(VP, dtype=dv.dtype),
        10.0,
        SURVEY.dt,
        dv=dv,
        source_amplitudes=given["source"],
        source_locations=given["at"],
        sc_receiver_locations=given["heard"],
        max_vel=3500.0,
        **given["settings"],
    )[-1]


def native_acoustic(v, rho):
    given = tensors(v.dtype)
    return deepwave.acoustic(
        v,
        rho,
        10.0,
        SURVEY.dt,
        source_amplitudes_volume_rate=given["source"],
        source_locations_volume_rate=given["at"],
        receiver_locations_p=given["heard"],
        max_vel=ACOUSTIC_BOUND,
        **given["settings"],
    ).receiver_amplitudes_p


def native_elastic(vp, vs, rho):
    given = tensors(vp.dtype)
    padded = [
        torch.nn.functional.pad(field[None, None], (0, 1, 0, 1), mode="replicate")[0, 0]
        for field in (vp, vs, rho)
    ]
    recorded = deepwave.elastic(
        *deepwave.vpvsrho_to_lambmubuoyancy(*padded),
        10.0,
        SURVEY.dt,
        source_amplitudes_pressure_rate=given["source"],
        source_locations_pressure_rate=given["at"],
        receiver_locations_y=given["heard"],
        receiver_locations_x=given["heard"],
        max_vel=ELASTIC_BOUND,
        **given["settings"],
    )
    return torch.stack([recorded.receiver_amplitudes_y, recorded.receiver_amplitudes_x])


class Case(NamedTuple):
    """A wave equation, the same by Deepwave, a model and what lies beside it."""

    wave: WaveEquation
    native: Any
    model: tuple[np.ndarray, ...]


CASES = {
    "scalar": lambda **more: Case(ScalarWave(SURVEY, **SETTINGS, **more), native_scalar, (VP,)),
    "born": lambda **more: Case(
        ScalarBorn(SURVEY, **SETTINGS, velocity=VP, **more), native_born, (DV,)
    ),
    "acoustic": lambda **more: Case(
        AcousticWave(SURVEY, **SETTINGS, **DENSITY, **more), native_acoustic, (VP, RHO)
    ),
    "elastic": lambda **more: Case(
        ElasticWave(SURVEY, **SETTINGS, **DENSITY, **more), native_elastic, (VP, VS, RHO)
    ),
}
