"""The problems that the command line demonstrates: one small, one full waveform inversion.

Each function builds a complete problem with its truth, labels and methods; running, storing
and reporting it is left to `workspace.py` and `cli.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from ppl_memprior import forward
from ppl_memprior.comparison.methods import Method, configured
from ppl_memprior.datasets import load_openfwi
from ppl_memprior.distributions import DiffusionMixturePrior
from ppl_memprior.problem.inverse_problem import InverseProblem

ALL_METHODS = ("lookup", "linearized", "psis", "mode-jump", "nuts", "dps")


@dataclass(frozen=True)
class Study:
    """A problem with everything that a comparison of its posteriors wants to know.

    Attributes:
        title: heading of the report.
        problem: the inverse problem.
        methods: the methods to run.
        reference: label of the one that distances are measured to, or None.
        truth: true value of the prior's site, or None.
        coords, units, dims: labels for the draws.
        num_prior_draws: draws from the prior that the run keeps.
        notes: what to print as provenance, name and value.
    """

    title: str
    problem: InverseProblem
    methods: Sequence[Method]
    reference: str | None
    truth: Any = None
    coords: Mapping[str, Any] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    dims: Mapping[str, Sequence[str]] = field(default_factory=dict)
    num_prior_draws: int = 100
    notes: Mapping[str, Any] = field(default_factory=dict)


def stylized(seed: int) -> Study:
    """The one-dimensional problem y = x + 0.3 x^3 + noise with five examples.

    The observation is 0, where two examples explain it about equally well; the bandwidth is 0.3.
    """
    examples = jnp.asarray(forward.stylized.EXAMPLES, jnp.float32)
    noise, bandwidth = float(forward.stylized.NOISE), 0.3
    prior = DiffusionMixturePrior(examples, bandwidth)

    def model(data: Any = None) -> None:
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(forward.stylized.cubic(x), noise), obs=data)

    return Study(
        title="One-dimensional stylized problem",
        problem=InverseProblem(model, data=0.0),
        methods=configured(
            ALL_METHODS, {"dps": {"num_samples": 1000}}, num_samples=2500, num_warmup=1000
        ),
        reference="mode-jump",
        notes={
            "forward operator": "x + 0.3 x^3",
            "noise": noise,
            "bandwidth sigma": bandwidth,
            "seed": seed,
        },
    )


# the generated full waveform inversion: a box of 1 km with smooth random velocities
FWI_SHAPE = (16, 16)
FWI_SPACING = 60.0  # m
FWI_VELOCITY = (1600.0, 3600.0)  # m/s, never left
FWI_TERMS = 6
FWI_EXAMPLES = 50


@dataclass(frozen=True)
class FwiSetting:
    """What makes one generated inversion differ from another.

    Attributes:
        title: heading of the report.
        noise_fraction: standard deviation of the noise, relative to the data's peak.
        bandwidth: the prior's sigma, in standard deviations of a latent.
        methods: what to run.
        reference: what to measure distances to.
    """

    title: str
    noise_fraction: float
    bandwidth: float
    methods: tuple[str, ...]
    reference: str


SEVERAL_EXAMPLES = FwiSetting(
    "Full waveform inversion, noisy data", 0.4, 0.3, ALL_METHODS, "mode-jump"
)
ONE_EXAMPLE = FwiSetting(
    "Full waveform inversion, good data: the lookup collapses",
    0.05,
    0.3,
    ("lookup", "linearized", "psis", "mode-jump", "dps"),
    "mode-jump",
)


def fwi(setting: FwiSetting, seed: int) -> Study:
    """Generated full waveform inversion: transmission through random velocity models.

    The unknown is the latent of a Karhunen-Loeve expansion with smooth covariance; the training
    examples are 50 draws of it, the truth is another draw.

    Args:
        setting: noise and bandwidth.
        seed: of the examples, the truth and the noise.
    """
    survey = forward.Survey.transmission(
        FWI_SHAPE, num_shots=1, num_receivers=8, peak_frequency=4.4, dt=0.006, num_times=135
    )
    wave = forward.ScalarWave(survey, FWI_SPACING, max_velocity=FWI_VELOCITY[1], pml_width=6)
    velocity = forward.KarhunenLoeve(
        FWI_SHAPE,
        FWI_SPACING,
        correlation_length=300.0,
        num_terms=FWI_TERMS,
        mean=2500.0,
        std=150.0,
        bounds=FWI_VELOCITY,
    )
    example_key, truth_key, noise_key = jax.random.split(jax.random.key(seed), 3)
    truth = jax.random.normal(truth_key, (FWI_TERMS,))
    study = _field_study(
        setting.title,
        wave,
        velocity,
        examples=jax.random.normal(example_key, (FWI_EXAMPLES, FWI_TERMS)),
        bandwidth=setting.bandwidth,
        # jumps bring nearly independent draws, which long trajectories between them would not
        # improve; NUTS alone gets as many simulations
        methods=_field_methods(setting.methods, num_samples=200, max_tree_depth=2),
        truth={"z": truth, "velocity": velocity(truth)},
        noise_fraction=setting.noise_fraction,
        noise_key=noise_key,
        notes={
            "examples": f"{FWI_EXAMPLES} Karhunen-Loeve latents of {FWI_TERMS} terms",
            "seed": seed,
        },
    )
    return replace(study, reference=setting.reference)


# OpenFWI's models at a third of their resolution, with its survey thinned out to match
OPENFWI_EXAMPLES = 50
OPENFWI_STRIDE = 3
OPENFWI_SPACING = 10.0  # m, of the models as they are
OPENFWI_COMPONENTS = 10
OPENFWI_VELOCITY = 5000.0  # m/s; the models end at 4500, draws around them may go beyond


def openfwi(path: str | os.PathLike[str], seed: int) -> Study:
    """Full waveform inversion with OpenFWI velocity models as training examples.

    The first 50 models are the examples and the next one is the truth. The unknown is a vector of
    scores on the examples' leading principal components, scaled so that distances between scores
    are root-mean-square velocity differences in m/s. The data come from the true model itself,
    which is not in the span of the components.

    Args:
        path: an OpenFWI `.npy` file of velocity models, or a folder of them.
        seed: of the noise.

    Raises:
        ValueError: not OpenFWI models, or fewer than 51 of them.
    """
    models = load_openfwi(path, max_models=OPENFWI_EXAMPLES + 1)
    if len(models) <= OPENFWI_EXAMPLES:
        raise ValueError(
            f"{os.fspath(path)} holds {len(models)} models; the demonstration needs "
            f"{OPENFWI_EXAMPLES} training examples and one more for the truth"
        )
    coarse = models[:, ::OPENFWI_STRIDE, ::OPENFWI_STRIDE]
    shape = coarse.shape[1:]
    spacing = OPENFWI_SPACING * OPENFWI_STRIDE
    survey = forward.Survey.surface(
        shape, num_shots=2, num_receivers=12, peak_frequency=6.0, dt=0.0035, num_times=250
    )
    wave = forward.ScalarWave(survey, spacing, max_velocity=OPENFWI_VELOCITY, pml_width=8)
    components = forward.PrincipalComponents.fit(coarse[:-1], OPENFWI_COMPONENTS)
    size = np.sqrt(np.mean(components.basis**2, axis=(1, 2)))  # m/s of one unit of each latent

    def velocity(scores: jax.Array) -> jax.Array:
        return components(scores / size.astype(np.float32))

    scores = jnp.stack([components.encode(model) for model in coarse]) * size.astype(np.float32)
    return _field_study(
        f"Full waveform inversion on {os.path.basename(os.path.normpath(path))}",
        wave,
        velocity,
        examples=scores[:-1],
        bandwidth=30.0,
        # the posterior is narrow in some directions and as wide as the bandwidth in others: longer
        # trajectories than elsewhere, but full ones would take a thousand simulations of four
        # chains for each draw
        methods=_field_methods(ALL_METHODS, num_samples=50, max_tree_depth=3),
        truth={"z": scores[-1], "velocity": coarse[-1]},
        noise_fraction=0.2,
        noise_key=jax.random.key(seed),
        notes={
            "examples": f"the first {OPENFWI_EXAMPLES} models of {os.path.basename(path)}, "
            f"every {OPENFWI_STRIDE}rd cell, as {OPENFWI_COMPONENTS} principal components",
            "truth": f"model {OPENFWI_EXAMPLES}, itself no example",
            "variance explained": f"{components.explained_variance_ratio.sum():.3f}",
            "seed": seed,
        },
    )


def _field_methods(names: Sequence[str], **sizes: int) -> tuple[Method, ...]:
    """Methods with as many simulations as a demonstration can wait for."""
    return configured(
        names,
        {"dps": {"num_samples": 32, "num_steps": 60}},
        num_warmup=60,
        num_importance_draws=400,
        **sizes,
    )


def _field_study(
    title: str,
    wave: forward.ScalarWave,
    velocity: Callable[[jax.Array], jax.Array],
    *,
    examples: jax.Array,
    bandwidth: float,
    methods: Sequence[Method],
    truth: Mapping[str, Any],
    noise_fraction: float,
    noise_key: jax.Array,
    notes: Mapping[str, Any],
) -> Study:
    """Data from the true field with white noise, and the model that inverts them for latents."""
    clean = wave(jnp.asarray(truth["velocity"]))
    noise = noise_fraction * float(jnp.abs(clean).max())
    data = clean + noise * jax.random.normal(noise_key, clean.shape, clean.dtype)
    prior = DiffusionMixturePrior(examples, bandwidth)

    def model(data: Any = None) -> None:
        z = numpyro.sample("z", prior)
        field = numpyro.deterministic("velocity", velocity(z))
        numpyro.sample("data", dist.Normal(wave(field), noise).to_event(3), obs=data)

    depth, distance = (np.arange(cells) * wave.grid_spacing for cells in wave.input_shape)
    shots, receivers, times = wave.shape
    return Study(
        title=title,
        problem=InverseProblem(model, data=data),
        methods=methods,
        reference="mode-jump",
        truth=truth,
        coords={"depth": depth, "distance": distance},
        units={"velocity": "m/s"},
        dims={"data": ("shot", "receiver", "time")},
        notes={
            **notes,
            "survey": f"{shots} shot{'s' if shots > 1 else ''}, {receivers} receivers, "
            f"{times} samples of {wave.survey.dt:g} s, "
            f"Ricker wavelet of {wave.survey.peak_frequency:g} Hz",
            "grid": f"{wave.input_shape[0]} x {wave.input_shape[1]} cells of "
            f"{wave.grid_spacing:g} m",
            "noise": f"{100 * noise_fraction:g} % of the data's peak",
            "bandwidth sigma": bandwidth,
        },
    )
