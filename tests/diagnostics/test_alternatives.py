"""The methods that a tree lists, in its order."""

from __future__ import annotations

import json

import xarray as xr

from ppl_memprior.diagnostics import Alternative
from ppl_memprior.diagnostics.alternatives import read_alternatives


def tree(methods):
    return xr.DataTree(xr.Dataset(attrs={"methods_that_apply": json.dumps(methods)}))


def test_properties_are_read_in_the_trees_order():
    moves = "which moves between modes"
    found = read_alternatives(
        tree({"smc": {"moves_between_modes": moves, "diagnosed": True}, "dps": {}})
    )
    assert found == (
        Alternative(name="smc", moves_between_modes=moves, diagnosed=True),
        Alternative(name="dps", moves_between_modes="", diagnosed=False),
    )


def test_earlier_trees_list_names_or_nothing():
    assert read_alternatives(tree(["smc", "nuts"])) == (
        Alternative(name="smc"),
        Alternative(name="nuts"),
    )
    assert read_alternatives(xr.DataTree()) == ()
