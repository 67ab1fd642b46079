"""The package's public names, which are imported when they are first used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ppl_memprior


def test_every_name_is_there_and_no_other():
    assert all(getattr(ppl_memprior, name) is not None for name in ppl_memprior.__all__)
    assert set(ppl_memprior.__all__) <= set(dir(ppl_memprior))
    with pytest.raises(AttributeError, match="'ppl_memprior' has no attribute 'nonsense'"):
        _ = ppl_memprior.nonsense


SCRIPT = """
import importlib, pkgutil, sys
import ppl_memprior as mp, ppl_memprior.cli

heavy = {"jax", "numpy", "numpyro", "xarray", "arviz", "typer"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
mp.inference.mode_jump, mp.run, mp.compare
assert "arviz" not in sys.modules

for module in pkgutil.walk_packages(mp.__path__, "ppl_memprior."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import jax, numpyro
from jax._src import xla_bridge

assert not xla_bridge._backends, list(xla_bridge._backends)
jax.config.update("jax_platforms", "cpu")
numpyro.set_host_device_count(3)
assert jax.device_count() == 3
assert not jax.live_arrays(), jax.live_arrays()
"""


def test_imports_come_late_and_leave_the_backend_to_the_user():
    """An array at a module's top would start JAX before a platform can be chosen."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
