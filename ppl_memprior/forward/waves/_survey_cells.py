"""Positions of sources and receivers as grid cells, checked.

What a survey is made of besides is in `survey`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_memprior._arrays import real_array


def grid_of(shape: Any) -> tuple[int, int]:
    """Cells of a grid (nz, nx), checked."""
    grid = tuple(int(n) for n in shape)
    if len(grid) != 2 or min(grid) < 1:
        raise ValueError(f"shape must be two positive numbers of cells (nz, nx), got {shape}.")
    return grid[0], grid[1]


def nearest_cells(
    positions: ArrayLike, name: str, grid: tuple[int, int], grid_spacing: float
) -> NDArray[np.int64]:
    """Cells nearest to positions in metres, of shape (..., 2)."""
    given = np.asarray(real_array(name, positions), dtype=np.float64)
    if given.ndim not in (2, 3) or given.shape[-1] != 2 or not given.size:
        raise ValueError(
            f"{name} must be positions (depth, distance) in m, of shape (n, 2) or (shots, n, 2), "
            f"got shape {given.shape}."
        )
    if not (np.isfinite(grid_spacing) and grid_spacing > 0):
        raise ValueError(f"grid_spacing must be positive and finite, got {grid_spacing}.")
    cells = np.rint(given / grid_spacing)
    # Not a number is outside as well.
    outside = ~np.all((cells >= 0) & (cells < np.array(grid)), axis=-1)
    if np.any(outside):
        depth, distance = given[outside][0]
        extent = [(n - 1) * grid_spacing for n in grid]
        raise ValueError(
            f"{name}: the position at depth {depth:g} m and distance {distance:g} m lies outside "
            f"the grid, whose cells reach from 0 to {extent[0]:g} m and from 0 to {extent[1]:g} m; "
            f"{np.count_nonzero(outside)} positions do."
        )
    return cells.astype(np.int64)


def check_extent(
    sources: ArrayLike,
    receivers: ArrayLike,
    cells: tuple[NDArray[np.int64], NDArray[np.int64]],
    grid_spacing: float,
) -> None:
    """Refuse different positions that all are in one cell: nothing can be learned from them."""
    given = [np.asarray(real_array("positions", x)).reshape(-1, 2) for x in (sources, receivers)]
    distinct = len(np.unique(np.concatenate(given), axis=0))
    taken = np.unique(np.concatenate([x.reshape(-1, 2) for x in cells]), axis=0)
    if distinct > 1 and len(taken) == 1:
        raise ValueError(
            f"all {distinct} positions of sources and receivers lie in one grid cell of "
            f"{grid_spacing:g} m, {tuple(int(i) for i in taken[0])}. Positions are in m: are they "
            "in km?"
        )


def locations_of(locations: ArrayLike, name: str, grid: tuple[int, int]) -> NDArray[np.int64]:
    """Check grid cells of shape (shots, n, 2) and return them as read-only integers."""
    given = np.asarray(real_array(name, locations))
    if given.ndim != 3 or given.shape[-1] != 2 or not given.size:
        raise ValueError(
            f"{name} must have shape (shots, per shot, 2) with (depth, distance) cells last, "
            f"got {given.shape}."
        )
    if not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"{name} must be integer grid cells, got {given.dtype}.")
    outside = np.any((given < 0) | (given >= np.array(grid)), axis=-1)
    if np.any(outside):
        raise ValueError(
            f"{name}: cell {tuple(int(i) for i in given[outside][0])} lies outside the grid of "
            f"{grid} cells (depth, distance); {np.count_nonzero(outside)} positions do."
        )
    cells = given.astype(np.int64)
    cells.setflags(write=False)
    return cells


def spread(grid: tuple[int, int], row: int, count: int, what: str) -> NDArray[np.int64]:
    """`count` cells (depth, distance) evenly spread over the columns of one row."""
    columns = grid[1]
    if not 1 <= count <= columns:
        raise ValueError(f"{count} {what} do not fit a row of {columns} cells, one a cell.")
    if not 0 <= row < grid[0]:
        raise ValueError(f"row {row} of the {what} lies outside the grid's {grid[0]} rows.")
    at = np.linspace(0, columns - 1, count) if count > 1 else np.array([(columns - 1) / 2])
    return np.stack([np.full(count, row), np.rint(at).astype(np.int64)], axis=-1)
