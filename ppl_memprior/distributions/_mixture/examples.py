"""Stored examples as the sums over them want them: in memory, or read batch by batch.

`Examples` are flat rows with a `Table` of what screening needs to know of them. `HostRows` stands
for rows that stay in a memory-mapped or Zarr array: batches of them, or single ones, are read when
a compiled program asks for them. What is done with the rows is left to `screening` and `mixtures`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppl_memprior._arrays import real_array
from ppl_memprior._batches import batch_slices, items_that_fit

#: Fewer examples, or fewer numbers in them, than these are not worth a screening.
MIN_EXAMPLES, MIN_ELEMENTS = 64, 2048


class HostRows:
    """Rows (N, *event) that stay on the host, in anything that NumPy can slice along axis 0.

    To JAX it is a constant without contents: programs that read it hold the object, not the rows.

    Args:
        array: the numbers, shape (N, *event).
        scale: what they are multiplied by when they are read.

    Raises:
        TypeError: if the numbers are not real.
    """

    def __init__(self, array: Any, scale: float = 1.0) -> None:
        self.array = array
        self.scale = scale
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.ndim = len(self.shape)
        self.size = math.prod(self.shape)
        stored = real_array("examples", np.empty(0, array.dtype)).dtype  # in native byte order
        self.dtype = jnp.promote_types(jax.dtypes.canonicalize_dtype(stored), jnp.float32)
        self.prepared: Examples | None = None  # by `prepare_host`

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        rows = self._flat(self.array[:]).reshape(self.shape)
        return rows.astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"HostRows(shape={self.shape}, {type(self.array).__name__})"

    def __getstate__(self) -> dict[str, Any]:
        """Pickle where rows in a mapped file lie, not the rows; leave what can be made again."""
        state = {**self.__dict__, "prepared": None}
        if isinstance(self.array, np.memmap) and self.array.filename and self.array.mode != "c":
            state["array"] = MappedPart.of(self.array)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.array, MappedPart):
            self.array = self.array.open()

    def scaled(self, factor: float) -> HostRows:
        """The same rows times `factor`; these themselves where it is one."""
        return self if factor == 1 else HostRows(self.array, self.scale * factor)

    @property
    def flat_shape(self) -> tuple[int, int]:
        """(N, d)."""
        return self.shape[0], math.prod(self.shape[1:])

    def batches(self) -> Iterator[np.ndarray]:
        """Yield all rows in order, (size, d) at a time."""
        num, d = self.flat_shape
        for rows in batch_slices(num, items_that_fit(d)):
            yield self._flat(self.array[rows])

    def read(self, start: jax.Array, size: int) -> jax.Array:
        """Return `size` rows from the traced index `start` on, (size, d)."""

        def load(begin: Any) -> np.ndarray:
            return self._flat(self.array[int(begin) : int(begin) + size])

        struct = jax.ShapeDtypeStruct((size, self.flat_shape[1]), self.dtype)
        return jax.pure_callback(load, struct, start, vmap_method="sequential")

    def take(self, index: jax.Array | np.ndarray) -> jax.Array:
        """Return the rows at `index`, none of it negative, (*index, d)."""
        if not isinstance(index, jax.core.Tracer):
            return jnp.asarray(self._at(index))
        struct = jax.ShapeDtypeStruct((*index.shape, self.flat_shape[1]), self.dtype)
        return jax.pure_callback(self._at, struct, index, vmap_method="expand_dims")

    def _at(self, index: Any) -> np.ndarray:
        """Read the rows at `index`, each once, and neighbours together: they may share a chunk."""
        needed, back = np.unique(np.asarray(index), return_inverse=True)
        runs = np.split(needed, 1 + np.flatnonzero(np.diff(needed) > 1))
        parts = [self._flat(self.array[int(r[0]) : int(r[-1]) + 1]) for r in runs if r.size]
        rows = np.concatenate([np.empty((0, self.flat_shape[1]), self.dtype), *parts])
        return rows[back.reshape(np.shape(index))]

    def _flat(self, rows: Any) -> np.ndarray:
        rows = np.asarray(rows)
        flat = rows.reshape(len(rows), -1).astype(self.dtype, copy=False)
        return flat if self.scale == 1 else flat * self.dtype.type(self.scale)


class MappedPart(NamedTuple):
    """Where an array lies in a file: what another process needs to map it too."""

    filename: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def of(cls, array: np.memmap) -> MappedPart:
        """The part of its file that a memory-mapped array, or a view of one, stands for."""
        whole: Any = array
        while isinstance(whole.base, np.memmap):
            whole = whole.base
        # a view inherits the offset of the array that mapped the file
        offset = whole.offset + array.ctypes.data - whole.ctypes.data
        return cls(str(array.filename), offset, array.shape, array.strides, array.dtype)

    def open(self) -> np.ndarray:
        """Map the file, for reading only.

        Raises:
            FileNotFoundError: the file is not there, on another machine for example.
        """
        raw = np.memmap(self.filename, np.uint8, "r")
        return np.ndarray(self.shape, self.dtype, raw, self.offset, self.strides)


def on_host(values: Any) -> bool:
    """Whether `values` lie in a file: memory-mapped, or in chunks as Zarr and HDF5 keep them."""
    if isinstance(values, np.memmap):
        return True
    if hasattr(values, "to_numpy") and getattr(values, "chunks", None) is None:
        return False  # of pandas, or of xarray without chunks
    return hasattr(values, "chunks") and hasattr(values, "shape") and hasattr(values, "dtype")


jax.tree_util.register_pytree_node(HostRows, lambda rows: ((), rows), lambda rows, _: rows)


class Table(NamedTuple):
    """What screening knows of N examples.

    Attributes:
        centre: their mean, (d,).
        centred: (rows - centre) / unit, (N, d); None for rows on the host.
        norms: |rows - centre| / unit, (N,).
        unit: power of two near the largest |rows - centre|, (); squares of numbers in this unit
            neither under- nor overflow, whatever the unit of the examples.
    """

    centre: jax.Array
    centred: jax.Array | None
    norms: jax.Array
    unit: jax.Array


class Examples(NamedTuple):
    """Flat examples, and their table if they are screened.

    Attributes:
        rows: (N, d), or (N, *event) on the host.
        table: None where there are too few of them to be worth it.
    """

    rows: Any
    table: Table | None = None

    @property
    def num(self) -> int:
        """The number N of examples."""
        return self.rows.shape[0]

    @property
    def d(self) -> int:
        """The number of dimensions."""
        return math.prod(self.rows.shape[1:])

    @property
    def core_dims(self) -> tuple[int, ...]:
        """Number of axes of each leaf, without batch axes."""
        own = () if isinstance(self.rows, HostRows) else (2,)
        if self.table is None:
            return own
        return own + ((1, 1, 0) if self.table.centred is None else (1, 2, 1, 0))

    def take(self, index: jax.Array) -> jax.Array:
        """Return the examples at `index`, (*index, d)."""
        if isinstance(self.rows, HostRows):
            return self.rows.take(index)
        return self.rows[index]

    def batch(self, start: jax.Array, size: int) -> jax.Array:
        """Return `size` examples from `start` on, (size, d)."""
        if isinstance(self.rows, HostRows):
            return self.rows.read(start, size)
        return jax.lax.dynamic_slice_in_dim(self.rows, start, size)

    def centred_batch(self, start: jax.Array, size: int) -> jax.Array:
        """Return `size` rows of `(rows - centre) / unit` from `start` on, (size, d)."""
        assert self.table is not None
        if self.table.centred is None:
            return (self.batch(start, size) - self.table.centre) / self.table.unit
        return jax.lax.dynamic_slice_in_dim(self.table.centred, start, size)


def is_screened(num: int, d: int) -> bool:
    """Whether a table of this size is worth a screening."""
    return num >= MIN_EXAMPLES and num * d >= MIN_ELEMENTS


@jax.jit
def prepare(rows: jax.Array) -> Examples:
    """Return `rows` (N, d) with their table, if they are enough to be screened."""
    if not is_screened(*rows.shape):
        return Examples(rows)
    centre = jnp.mean(rows, axis=0)
    difference = rows - centre
    extent = jax.lax.stop_gradient(jnp.max(jnp.abs(difference))) * math.sqrt(rows.shape[1])
    unit = _power_of_two(extent)
    centred = difference / unit
    norms = jnp.linalg.norm(jax.lax.stop_gradient(centred), axis=1)
    return Examples(rows, Table(centre, centred, norms, unit))


def prepare_host(rows: HostRows) -> Examples:
    """Return rows on the host with their table; reads them twice, the first time it is called.

    Raises:
        ValueError: if a number is NaN or infinite.
    """
    if rows.prepared is not None:
        return rows.prepared
    num, d = rows.flat_shape
    total, seen = np.zeros(d), 0
    for batch in rows.batches():
        finite = np.isfinite(batch)
        if not finite.all():
            row = seen + int(np.argmin(finite.all(axis=1)))
            raise ValueError(
                f"examples of shape {rows.shape} (as {rows.dtype}) must be finite, but the one at "
                f"index {row} holds NaN or infinite values; remove or repair it."
            )
        total += batch.sum(axis=0, dtype=np.float64)
        seen += len(batch)
    centre = (total / num).astype(rows.dtype)
    norms, extent = [], 0.0
    for batch in rows.batches():
        difference = batch - centre
        extent = max(extent, float(np.abs(difference).max()))
        norms.append(np.sqrt(np.einsum("nd,nd->n", difference, difference, dtype=np.float64)))
    unit = np.ldexp(1.0, round(math.log2(extent * math.sqrt(d))) if extent > 0 else 0)
    fields = (centre, np.concatenate(norms) / unit, unit)
    with jax.ensure_compile_time_eval():  # constants, even if what needs them is being traced
        centred_at, scaled, scale = (jnp.asarray(field, rows.dtype) for field in fields)
    rows.prepared = Examples(rows, Table(centred_at, None, scaled, scale))
    return rows.prepared


def _power_of_two(extent: jax.Array) -> jax.Array:
    exponent = jnp.round(jnp.log2(jnp.where(extent > 0, extent, 1)))
    return jnp.ldexp(jnp.ones_like(extent), exponent.astype(jnp.int32))  # exp2 is not exact
