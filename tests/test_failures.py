"""What counts as a failed simulation, and how it is told."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_memprior._failures import has_failed, tell_failures, told_plainly, zero_where_failed

VALUES = np.array([-1.0, np.nan, np.inf, -np.inf], np.float32)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_nan_and_plus_infinity_have_failed(array):
    np.testing.assert_array_equal(has_failed(array(VALUES)), [False, True, True, False])
    found = zero_where_failed(array(VALUES))
    np.testing.assert_array_equal(found, [-1.0, -np.inf, -np.inf, -np.inf])
    assert type(found) is type(array(VALUES)) and found.dtype == np.float32


def test_tells_how_many_of_how_many_and_the_first_few():
    failed = np.arange(20) % 2 == 1
    with pytest.warns(UserWarning, match=r"psis: .* 10 of 20 draws \(number 1, 3, 5, 7, 9, ...\)"):
        assert tell_failures("psis", failed, "draws") == 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tell_failures("psis", np.zeros(20, bool), "draws") == 0
    with pytest.raises(ValueError, match="lookup: the simulation failed at all 3 examples"):
        tell_failures("lookup", np.ones(3, bool), "examples")


def test_an_error_in_a_compiled_program_is_one_sentence():
    with pytest.raises(RuntimeError, match=r"^lookup at example 3: G: no derivative$"):
        with told_plainly("lookup at example 3"):
            raise jax.errors.JaxRuntimeError("INTERNAL: callback\n  File x\nG: no derivative\n")
