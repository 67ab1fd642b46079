"""The conversion at the border: everything that holds real numbers, and nothing else."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from ppl_memprior._arrays import real_array

VALUES = np.array([1.0, 2.5], np.float32)


@pytest.mark.parametrize(
    "given",
    [
        [1.0, 2.5],
        (np.float32(1.0), np.float32(2.5)),
        VALUES.astype(">f4"),
        VALUES.astype(">f8"),
        pd.Series([1.0, 2.5]),
        xr.DataArray(VALUES, dims="place"),
        jnp.asarray(VALUES),
        [jnp.asarray(1.0), jnp.asarray(2.5)],
        np.ma.array(VALUES, mask=[False, False]),
    ],
    ids=lambda v: type(v).__name__,
)
def test_real_numbers_come_back_in_the_machines_byte_order(given: Any) -> None:
    array = real_array("data", given)
    assert isinstance(array, np.ndarray | jax.Array)
    assert np.dtype(array.dtype).isnative
    np.testing.assert_array_equal(np.asarray(array), VALUES)


@pytest.mark.torch
def test_tensors_come_back_without_their_graph() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([1.0, 2.5], requires_grad=True)
    for given in (tensor, tensor.to(torch.bfloat16), [tensor[0], tensor[1]]):
        np.testing.assert_array_equal(real_array("data", given), VALUES)


def test_traced_values_stay_traced() -> None:
    @jax.jit
    def total(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.asarray(real_array("x", [x, 2.0 * x])))

    assert float(total(jnp.asarray(1.5))) == 4.5


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (1j, TypeError, "must be real"),
        (jnp.asarray(1j), TypeError, "must be real"),
        (["a"], TypeError, "real numbers, got list"),
        ([[1.0], [1.0, 2.0]], TypeError, "real numbers, got list"),
        ({"a": 1.0}, TypeError, "real numbers, got dict"),
        (None, TypeError, "real numbers, got NoneType"),
        (np.array(["2020-01-01"], "M8[D]"), TypeError, "datetime64"),
        (pd.DataFrame({"a": ["x"]}), TypeError, "real numbers, got DataFrame"),
        (jax.random.key(0), TypeError, "real numbers, got"),
        (np.ma.array(VALUES, mask=[False, True]), ValueError, "masks 1 of its 2 values"),
    ],
    ids=str,
)
def test_what_holds_no_real_numbers_is_refused(
    given: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^data .*{message}"):
        real_array("data", given)
