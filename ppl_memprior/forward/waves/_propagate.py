"""Wave propagation on tensors: one model or many, all shots or a few at a time.

A `Physics` holds a function that propagates some shots through some models. `Propagation` makes two
functions of tensors from it, which a wave equation gives to the bridge: one for a single model and
one for a batch. `Propagation` finds out which models are valid, folds models into Deepwave's shot
dimension, bounds the memory and takes Fourier components. `_operators` states the equations, and
`_wave_equation` checks the user's settings.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppl_memprior.forward.survey import Survey
from ppl_memprior.forward.torch_bridge._functions import require
from ppl_memprior.forward.waves._limits import Limits


class Relation(NamedTuple):
    """A condition on several fields at once.

    Attributes:
        holds: function of the fields (arrays or tensors) that says in which cells it holds.
        message: function of the fields (arrays) that returns the error if it does not hold.
    """

    holds: Callable[..., Any]
    message: Callable[..., str]


class Shots(NamedTuple):
    """The shots of one Deepwave call: locations (shots, n, 2), amplitudes (shots, n, nt)."""

    sources: Any
    receivers: Any
    amplitudes: Any


class Physics(NamedTuple):
    """What distinguishes one wave equation from another.

    Attributes:
        fields: limits of each field of a model, in the order of the arguments.
        solve: function of (fields, shots, settings) that returns the data of these shots, shape
            (shots, components, receivers, nt). The fields have shape (nz, nx) or (shots, nz, nx).
        max_velocity: the velocity, m/s, for which the time step must be stable.
        histories: number of wavefields that a gradient needs at every time sample.
        cells: shape of the grid without absorbing boundaries.
        relation: a condition on several fields, or None.
        components: number of recorded components; None if the data have no axis of components.
        linear: whether the data are a linear function of the fields.
    """

    fields: tuple[Limits, ...]
    solve: Callable[..., Any]
    max_velocity: float
    histories: int
    cells: tuple[int, int]
    relation: Relation | None = None
    components: int | None = None
    linear: bool = False


@dataclass(frozen=True)
class Propagation:
    """One physics and survey as functions of tensors.

    Attributes:
        physics: the equation to solve.
        survey: sources and receivers.
        settings: keyword arguments of every Deepwave call.
        shots_per_group: number of shots that propagate, and are stored, together.
        segments: number of parts of the time axis. A gradient stores one part at a time.
        frequencies: frequencies of the Fourier components to return, Hz, or None for all samples.
    """

    physics: Physics
    survey: Survey
    settings: dict[str, Any]
    shots_per_group: int
    segments: int
    frequencies: tuple[float, ...] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the data of one model."""
        components = self.physics.components
        return (
            *(() if components is None else (components,)),
            self.survey.num_shots,
            self.survey.num_receivers,
            *((self.survey.num_times,) if self.frequencies is None else (len(self.frequencies), 2)),
        )

    def one(self, *fields: Any) -> Any:
        """Return the data of one model, fields of shape (nz, nx): NaN if it is not valid."""
        if not self._valid(fields):
            return self._nothing([field[None] for field in fields])[0]
        return self._data(fields, None)[0]

    def many(self, *fields: Any) -> Any:
        """Return the data of n models, fields of shape (n, nz, nx): NaN for models not valid."""
        torch = require("torch")
        valid = self._valid(fields)
        good = valid.nonzero()[:, 0]
        if len(good) == 0:
            return self._nothing(fields)
        if len(good) == len(valid):
            return self._data(fields, len(good))
        data = self._data([field[good] for field in fields], len(good))
        bad = (~valid).nonzero()[:, 0]
        order = torch.argsort(torch.cat([good, bad]))
        return torch.cat([data, self._nothing([field[bad] for field in fields])])[order]

    def _valid(self, fields: Sequence[Any]) -> Any:
        """Say for each model whether all of its values are allowed."""
        values = [field.detach() for field in fields]
        limits = self.physics.fields
        allowed = [limit.inside(v) for limit, v in zip(limits, values, strict=True)]
        if self.physics.relation is not None:
            allowed.append(self.physics.relation.holds(*values))
        valid = functools.reduce(lambda a, b: a & b, (a.flatten(-2).all(-1) for a in allowed))
        for limit, v in zip(limits, values, strict=True):
            highest = v.flatten(-2).amax(-1)
            wrong = limit.in_another_unit(highest)
            if bool(wrong.all()):  # some wrong models among good ones are a sampler's proposals
                warnings.warn(limit.unit_message(float(highest.max())), stacklevel=2)
            valid = valid & ~wrong
        return valid

    def _nothing(self, fields: Sequence[Any]) -> Any:
        """Return NaN in the place of data. The gradients are NaN too."""
        nan = sum(field.sum((1, 2)) for field in fields) * float("nan")
        return nan.reshape(-1, *(1 for _ in self.shape)).expand(-1, *self.shape)

    def _data(self, fields: Sequence[Any], models: int | None) -> Any:
        """Return the data of valid models, shape (models, *shape).

        The fields have an axis of models, unless `models` is None.
        """
        torch = require("torch")
        groups = list(self._groups())
        bounded = len(groups) > 1 or self.segments > 1
        recorded = torch.is_grad_enabled() and any(field.requires_grad for field in fields)
        parts = []
        for group in groups:
            solve = functools.partial(self._solve, group, models)
            if bounded and recorded:
                parts.append(_recomputed().apply(solve, self.segments, *fields))
            else:
                parts.append(solve(1, *fields))
        data = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        # (models, shots, components, receivers, nt)
        data = data[:, :, 0] if self.physics.components is None else data.movedim(2, 1)
        return data if self.frequencies is None else self._fourier(data)

    def _groups(self) -> Iterator[slice]:
        for start in range(0, self.survey.num_shots, self.shots_per_group):
            yield slice(start, start + self.shots_per_group)

    def _solve(self, group: slice, models: int | None, segments: int, *fields: Any) -> Any:
        """Make one Deepwave call: (models, shots of the group, components, receivers, nt)."""
        torch = require("torch")
        survey, count = self.survey, models or 1
        sources = torch.tensor(survey.source_locations[group], device=fields[0].device)
        receivers = torch.tensor(survey.receiver_locations[group], device=fields[0].device)
        shots = len(sources)
        if models is not None:
            fields = tuple(
                field[:, None].expand(-1, shots, -1, -1).flatten(0, 1) for field in fields
            )
        wavelet = torch.tensor(survey.wavelet, dtype=fields[0].dtype, device=fields[0].device)
        fired = Shots(
            sources.repeat(count, 1, 1),
            receivers.repeat(count, 1, 1),
            wavelet.expand(count * shots, sources.shape[1], -1),
        )
        settings = dict(self.settings)
        if segments > 1:
            settings["checkpoint_segments"] = segments
        data = self.physics.solve(fields, fired, settings)
        return data.unflatten(0, (count, shots))

    def _fourier(self, data: Any) -> Any:
        """Return the Fourier components (..., frequencies, 2) of data (..., nt)."""
        torch = require("torch")
        basis = torch.tensor(fourier_basis(self.frequencies or (), self.survey))
        basis = basis.to(dtype=data.dtype, device=data.device)
        return (data @ basis.flatten(1)).unflatten(-1, basis.shape[1:])


def fourier_basis(frequencies: Sequence[float], survey: Survey) -> NDArray[np.float64]:
    """Return the real and imaginary part of exp(-2 pi i f n dt), shape (nt, frequencies, 2)."""
    cycles = np.outer(np.arange(survey.num_times), np.asarray(frequencies) * survey.dt)
    # Subtract whole cycles first: a large phase would have fewer accurate digits.
    phase = 2 * np.pi * (cycles - np.rint(cycles))
    return np.stack([np.cos(phase), -np.sin(phase)], axis=-1)


@functools.cache
def deepwave() -> ModuleType:
    """Return Deepwave, imported without its warnings.

    Raises:
        ImportError: PyTorch or Deepwave is not installed.
    """
    require("torch")
    with warnings.catch_warnings():
        # Deepwave's import warns many times that torch.jit.script is deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        return require("deepwave")


@functools.cache
def _recomputed() -> Any:
    """Return an autograd function that stores no wavefields until its gradient is asked for.

    `torch.utils.checkpoint` cannot release what Deepwave stores. Deepwave's own checkpointing in
    time refuses to work under `torch.autograd.grad`, which the bridge uses. So the backward pass of
    this function makes the graph and differentiates it. With checkpointing in time, it does so in
    another thread, in which no `torch.autograd.grad` runs.
    """
    torch = require("torch")

    class Recomputed(torch.autograd.Function):  # type: ignore[name-defined]
        @staticmethod
        def forward(ctx: Any, solve: Callable[..., Any], segments: int, *fields: Any) -> Any:
            ctx.solve, ctx.segments = solve, segments
            ctx.save_for_backward(*fields)
            return solve(1, *fields)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, cotangent: Any) -> Any:
            leaves = [
                field.detach().requires_grad_(needed)
                for field, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[2:], strict=True)
            ]

            def differentiate() -> None:
                with torch.enable_grad():
                    torch.autograd.backward(ctx.solve(ctx.segments, *leaves), cotangent)

            if ctx.segments > 1:
                with ThreadPoolExecutor(1) as alone:
                    alone.submit(differentiate).result()
            else:
                differentiate()
            return None, None, *(leaf.grad for leaf in leaves)

    return Recomputed
