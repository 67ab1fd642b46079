"""The one place that imports ArviZ; every other module takes `az` from here.

On Python 3.12 and newer ArviZ 1.x is installed; on Python 3.11 the same interface comes as
`arviz.preview` of ArviZ 0.23. Both work on labelled `xarray.DataTree`s.
"""

import importlib
from typing import Any

import arviz


def _one_interface() -> Any:
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz
    return importlib.import_module("arviz.preview")


az: Any = _one_interface()
__all__ = ["az"]
