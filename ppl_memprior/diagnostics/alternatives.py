"""The methods that can take a posterior's problem, as its tree lists them.

A verdict may advise one of the methods. This module only reads what a tree says about them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import xarray as xr


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A method that can take the problem.

    Attributes:
        name: registered name of the method.
        moves_between_modes: how the method moves between modes, as the end of a sentence ("which
            moves between modes"). Empty if the method may stay in one mode.
        diagnosed: whether the method's draws have a diagnostic of their own, such as R-hat or
            k-hat.
    """

    name: str
    moves_between_modes: str = ""
    diagnosed: bool = False


def read_alternatives(tree: xr.DataTree) -> tuple[Alternative, ...]:
    """Read the methods that can take a posterior's problem.

    Args:
        tree: draws. The attribute `methods_that_apply` is a JSON object, name to properties, in
            order of preference. Earlier versions store a JSON list of names.

    Returns:
        One `Alternative` for each method, in the tree's order. Empty if the tree lists no methods.
        From a list of names only the names are known.
    """
    stored = json.loads(str(tree.attrs.get("methods_that_apply", "{}")))
    if isinstance(stored, list):
        return tuple(Alternative(name=str(name)) for name in stored)
    return tuple(
        Alternative(
            name=name,
            moves_between_modes=str(properties.get("moves_between_modes", "")),
            diagnosed=bool(properties.get("diagnosed", False)),
        )
        for name, properties in stored.items()
    )
