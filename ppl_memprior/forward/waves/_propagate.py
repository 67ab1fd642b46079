"""Wave propagation on tensors: one model or many, all shots or a few at a time.

`Propagation` turns one physics, a function that propagates some shots through some models, into
the two functions of tensors that a wave equation gives to the bridge. It knows which models are
valid, folds models into Deepwave's shot dimension, bounds memory and takes Fourier components;
what is solved is left to `deepwave`, what the user may ask for to `wave_equation`.
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
        holds: function of the fields, arrays or tensors, that says where it holds.
        message: function of the fields, arrays, that says where it does not.
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
        fields: limits of every field of a model, in the order of the arguments.
        solve: function (fields, shots, settings) to the data of these shots, of shape (shots,
            components, receivers, nt). The fields have shape (nz, nx) or (shots, nz, nx).
        max_velocity: the velocity, m/s, for which the time step must be stable.
        histories: wavefields that a gradient needs at every time sample.
        cells: cells of the grid, without absorbing boundaries.
        relation: a condition on several fields, or None.
        components: how many are recorded; None where data have no axis for them.
        linear: whether data are a linear function of the fields.
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
        physics: what to solve.
        survey: sources and receivers.
        settings: what every Deepwave call is given.
        shots_per_group: shots that propagate, and are stored, together.
        segments: parts of the time axis of which one is stored at a time.
        frequencies: Fourier components to take, Hz, or None for all time samples.
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
        """Data of one model, fields of shape (nz, nx); NaN where the model is not valid."""
        if not self._valid(fields):
            return self._nothing([field[None] for field in fields])[0]
        return self._data(fields, None)[0]

    def many(self, *fields: Any) -> Any:
        """Data of n models, fields of shape (n, nz, nx), propagated together."""
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
        """For every model, whether all of its values are allowed."""
        values = [field.detach() for field in fields]
        limits = self.physics.fields
        allowed = [limit.inside(v) for limit, v in zip(limits, values, strict=True)]
        if self.physics.relation is not None:
            allowed.append(self.physics.relation.holds(*values))
        valid = functools.reduce(lambda a, b: a & b, (a.flatten(-2).all(-1) for a in allowed))
        for limit, v in zip(limits, values, strict=True):
            highest = v.flatten(-2).amax(-1)
            wrong = limit.in_another_unit(highest)
            if bool(wrong.all()):  # not a sampler on its way through
                warnings.warn(limit.unit_message(float(highest.max())), stacklevel=2)
            valid = valid & ~wrong
        return valid

    def _nothing(self, fields: Sequence[Any]) -> Any:
        """NaN in the place of data, and in the place of gradients."""
        nan = sum(field.sum((1, 2)) for field in fields) * float("nan")
        return nan.reshape(-1, *(1 for _ in self.shape)).expand(-1, *self.shape)

    def _data(self, fields: Sequence[Any], models: int | None) -> Any:
        """Data (models, *shape) of valid models; fields have a models' axis unless it is None."""
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
        """Data (models, shots of the group, components, receivers, nt), in one Deepwave call."""
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
        """Fourier components (..., frequencies, 2) of data (..., nt)."""
        torch = require("torch")
        basis = torch.tensor(fourier_basis(self.frequencies or (), self.survey))
        basis = basis.to(dtype=data.dtype, device=data.device)
        return (data @ basis.flatten(1)).unflatten(-1, basis.shape[1:])


def fourier_basis(frequencies: Sequence[float], survey: Survey) -> NDArray[np.float64]:
    """Real and imaginary part of exp(-2 pi i f n dt), shape (nt, frequencies, 2)."""
    cycles = np.outer(np.arange(survey.num_times), np.asarray(frequencies) * survey.dt)
    # Whole cycles are taken off before they cost digits.
    phase = 2 * np.pi * (cycles - np.rint(cycles))
    return np.stack([np.cos(phase), -np.sin(phase)], axis=-1)


@functools.cache
def deepwave() -> ModuleType:
    """Deepwave, imported without what it announces.

    Raises:
        ImportError: PyTorch or Deepwave is not installed.
    """
    require("torch")
    with warnings.catch_warnings():
        # Deepwave's import announces that torch.jit.script is deprecated, many times.
        warnings.simplefilter("ignore", DeprecationWarning)
        return require("deepwave")


@functools.cache
def _recomputed() -> Any:
    """An autograd function that stores no wavefields until its gradient is asked for.

    `torch.utils.checkpoint` cannot let go of what Deepwave stores, and Deepwave's own checkpointing
    in time refuses to work under `torch.autograd.grad`, which the bridge uses. So the graph is made
    and differentiated in here, for the latter in a thread that is under no `grad`.
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
