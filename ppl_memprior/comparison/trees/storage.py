"""Posteriors' trees to and from one NetCDF file.

What the trees hold is left to `datatree`; files of earlier versions, with fewer groups, are read
as they are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from ppl_memprior._execution.files import complete_or_nothing


def save_trees(trees: Mapping[str, xr.DataTree], path: str | os.PathLike[str]) -> Path:
    """Write all trees as one NetCDF file, whole or not at all.

    Args:
        trees: by the method's name; each becomes a group of that name.
        path: where to; an existing file is replaced only by a complete one.

    Returns:
        The path.
    """
    with complete_or_nothing(path) as temporary:
        xr.DataTree.from_dict(dict(trees)).to_netcdf(temporary, engine="h5netcdf")
    return Path(path)


def add_tree(name: str, tree: xr.DataTree, path: str | os.PathLike[str]) -> Path:
    """Write a tree into a file of other trees, whole or not at all.

    The other trees are copied as bytes. To write them all again takes longer with each method.

    Args:
        name: the method's name; a tree of that name is replaced.
        tree: the tree.
        path: a file that `save_trees` wrote.

    Returns:
        The path.
    """
    with complete_or_nothing(path) as temporary:
        shutil.copyfile(path, temporary)
        with h5py.File(temporary, "a") as file:
            file.pop(name, None)
        alone = xr.DataTree.from_dict({name: tree})
        alone.to_netcdf(temporary, mode="a", engine="h5netcdf")
    return Path(path)


def load_trees(path: str | os.PathLike[str]) -> dict[str, xr.DataTree]:
    """Read what `save_trees` wrote, in this version or an earlier one.

    Args:
        path: the file.

    Returns:
        The trees by the method's name.

    Raises:
        ValueError: the file is missing, not NetCDF, or holds no draws.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        found = "is a folder" if os.path.isdir(name) else "does not exist"
        raise ValueError(f"{name} cannot be read as stored draws: it {found}")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as root:
            root.load()
            trees = {
                name: xr.DataTree.from_dict(
                    {key.removeprefix(child.path) or "/": ds for key, ds in _datasets(child)}
                )
                for name, child in root.children.items()
            }
            for name, child in root.children.items():
                trees[name].attrs.update({k: _plain(v) for k, v in child.attrs.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} cannot be read as stored draws: {reason}") from error
    if not trees or any(
        not {"posterior", "examples"} <= set(tree.children) or "prior_site" not in tree.attrs
        for tree in trees.values()
    ):
        raise ValueError(
            f"{name} holds no posterior draws as ppl_memprior.run stores them; its groups are "
            f"{list(trees)}"
        )
    return trees


def _datasets(tree: xr.DataTree) -> list[tuple[str, xr.Dataset]]:
    return [(node.path, node.to_dataset(inherit=False)) for node in tree.subtree]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


__all__ = ["add_tree", "load_trees", "save_trees"]
