"""The methods that can take a posterior's problem, as its tree lists them.

A verdict may advise one of them. Which methods there are, and what each can do, is left to the
trees: this module only reads what they say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import xarray as xr


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A method that can take the problem.

    Attributes:
        name: its registered name.
        moves_between_modes: how it does so, as a relative clause ("which moves between modes");
            empty where it does not.
        diagnosed: its draws have a diagnostic of their own, such as R-hat or k-hat.
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
        One for each method, in the tree's order; none where the tree does not say. Of a list only
        the names are known.
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
