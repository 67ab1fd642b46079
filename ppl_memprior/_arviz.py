"""The one place that imports ArviZ, when it is needed; every other module takes `az` from here.

On Python 3.12 and newer ArviZ 1.x is installed; on Python 3.11 the same interface comes as
`arviz.preview` of ArviZ 0.23. Both work on labelled `xarray.DataTree`s. Importing it takes longer
than importing everything else together.
"""

import functools
import importlib
from typing import Any


@functools.cache
def _one_interface() -> Any:
    import arviz

    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz
    return importlib.import_module("arviz.preview")


class _LazyModule:
    """ArviZ, imported when one of its names is first asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_one_interface(), name)


az: Any = _LazyModule()
__all__ = ["az"]
