"""What importing the package does to JAX: nothing."""

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil
import jax, numpyro
import ppl_memprior

for module in pkgutil.walk_packages(ppl_memprior.__path__, "ppl_memprior."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from jax._src import xla_bridge

assert not xla_bridge._backends, list(xla_bridge._backends)
jax.config.update("jax_platforms", "cpu")
numpyro.set_host_device_count(3)
assert jax.device_count() == 3
assert not jax.live_arrays(), jax.live_arrays()
"""


def test_every_module_leaves_the_backend_to_the_user():
    """An array at a module's top would start JAX before a platform can be chosen."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
