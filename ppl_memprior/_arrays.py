"""What users hand over, as arrays: the one conversion at the package's border.

Lists, NumPy, JAX and PyTorch arrays, pandas and xarray objects, arrays in files of any byte order:
all become NumPy or JAX arrays of real numbers here, or are refused with a sentence. Shapes, ranges
and units are checked where their meaning is known.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = np.ndarray | jax.Array


def real_array(name: str, values: Any) -> Array:
    """Return `values` as an array of real numbers in the machine's byte order.

    Args:
        name: what the values are called in messages.
        values: numbers, nested lists of them, or any array: of NumPy, JAX, PyTorch (on any
            device), pandas or xarray. JAX arrays, traced ones included, come back as they are.

    Returns:
        A `jax.Array` where one was given, otherwise a NumPy array; integers and booleans keep
        their type.

    Raises:
        TypeError: complex numbers, text, dates, Python objects or ragged lists.
        ValueError: a masked array that masks something.
    """
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(values)):
        try:
            values = jnp.asarray(values)  # as it is, or a list of arrays, which may be traced
        except (TypeError, ValueError) as error:
            raise TypeError(_refusal(name, values, f" ({_one_line(error)})")) from None
        _require_real(name, values, values.dtype)
        return values
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(
            f"{name} masks {int(np.ma.count_masked(values))} of its {values.size} values, and what "
            "lies under a mask is not a number to compute with; fill them, values.filled(...), and "
            "use numpyro.handlers.mask for data that shall not count"
        )
    array = _as_numpy(name, values)
    _require_real(name, values, array.dtype)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array


def _as_numpy(name: str, values: Any) -> np.ndarray:
    try:
        if hasattr(values, "detach") and hasattr(values, "cpu"):  # a PyTorch tensor
            values = values.detach().cpu()
            if not hasattr(np, str(values.dtype).removeprefix("torch.")):
                values = values.float()  # bfloat16 and the like, which NumPy does not have
        elif hasattr(values, "to_numpy"):  # of pandas or xarray
            values = values.to_numpy()
        elif isinstance(values, list | tuple) and any(hasattr(v, "detach") for v in values):
            values = [_as_numpy(name, value) for value in values]
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise TypeError(_refusal(name, values, f" ({_one_line(error)})")) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _require_real(name: str, values: Any, dtype: Any) -> None:
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(
            f"{name} must be real, got dtype {dtype}; pass its real part, or real and imaginary "
            "part as two numbers"
        )
    # JAX's notion of a number: it knows the small types of machine learning, which NumPy does not
    if not (jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)):
        raise TypeError(_refusal(name, values, f" of dtype {dtype}"))


def _refusal(name: str, values: Any, detail: str) -> str:
    return (
        f"{name} must be an array of real numbers, got {type(values).__name__}{detail}; pass an "
        "array (or nested lists of equal lengths) that numpy.asarray turns into numbers"
    )
