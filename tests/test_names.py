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


def test_nothing_heavy_is_imported_before_it_is_used():
    code = (
        "import sys, ppl_memprior as mp, ppl_memprior.cli\n"
        "heavy = {'jax', 'numpy', 'numpyro', 'xarray', 'arviz', 'typer'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "mp.inference.mode_jump, mp.run, mp.compare\n"
        "assert 'arviz' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
