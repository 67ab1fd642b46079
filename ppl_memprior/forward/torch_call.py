"""Any PyTorch function as a JAX function.

`torch_function` wraps a function of tensors so that `jit`, `grad`, `jvp`, `vmap`, `linearize`,
`jacfwd`, `jacrev`, `lax.scan` and NumPyro's samplers treat it like one written in JAX. The
derivatives are PyTorch's own. How JAX sees the function is left to `_torch_primitives`, how PyTorch
evaluates it to `_torch_evaluate`, and what a simulator needs to know about its inputs, units and
batches to the module that wraps it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive

from . import _torch_evaluate as evaluate
from ._torch_evaluate import Functions, Layout, require
from ._torch_primitives import value_p


def torch_function(
    fn: Callable[..., Any],
    *,
    result: jax.ShapeDtypeStruct | Sequence[jax.ShapeDtypeStruct] | None = None,
    batched: Callable[..., Any] | None = None,
    max_batch: int | None = None,
) -> TorchFunction:
    """Turn a PyTorch function of tensors into a JAX function of arrays.

    On a CPU the tensors that `fn` gets are JAX's own buffers (DLPack, no copy), and its results are
    copied once into JAX's output buffers; on other devices the values travel through host memory.
    `fn` must be pure: it must not change its arguments in place (this is noticed and raised), and
    it must not call JAX, which is waiting for it.

    Args:
        fn: function of one or more real tensors, given by position, that returns a tensor or a
            tuple of tensors whose shapes depend on the arguments' shapes alone. Arguments and
            results of integer or boolean dtype are allowed; they have no derivative.
        result: shape and dtype of what `fn` returns (one, or a tuple of them). Where it is not
            given, `fn` is called once on zeros for every new combination of input shapes and
            dtypes. A float64 result becomes float32 unless JAX's 64-bit mode is on.
        batched: function equivalent to `fn` on every slice of arguments that all have one more
            leading axis, of the same length; its results have that leading axis too. With it, a
            vmapped call becomes one call of `batched`; without it, `fn` is called once a slice.
        max_batch: the longest leading axis that `batched` is given; longer batches are split into
            consecutive calls, which bounds PyTorch's memory. None means no limit.

    Returns:
        A function of arrays, differentiable once, in both modes. Second derivatives raise
        `NotImplementedError`. An exception in `fn` becomes a `RuntimeError` with its message.

    Raises:
        ImportError: PyTorch is not installed.
        ValueError: `max_batch` is less than one.
    """
    return TorchFunction(fn, result=result, batched=batched, max_batch=max_batch)


class _Signature(NamedTuple):
    """What a function returns for one combination of input shapes and dtypes."""

    single: bool
    outputs: tuple[jax.ShapeDtypeStruct, ...]


class TorchFunction:
    """A PyTorch function that JAX can call, transform and compile; made by `torch_function`."""

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        result: jax.ShapeDtypeStruct | Sequence[jax.ShapeDtypeStruct] | None = None,
        batched: Callable[..., Any] | None = None,
        max_batch: int | None = None,
    ) -> None:
        require("torch")
        if max_batch is not None and max_batch < 1:
            raise ValueError(f"max_batch must be at least 1 or None, got {max_batch}.")
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)
        self.functions = Functions(self.__name__, fn, batched, max_batch)
        self.result = result
        self._signatures: dict[Any, _Signature] = {}
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._failure: Exception | None = None

    def __call__(self, *args: Any) -> Any:
        """Call the PyTorch function on arrays.

        Args:
            *args: real arrays, as the function takes them.

        Returns:
            An array, or a tuple of arrays where the function returns a tuple.

        Raises:
            TypeError: no argument, or a complex one.
            RuntimeError: the PyTorch function raised; the message is its own.
        """
        if not args:
            raise TypeError(f"{self.__name__}: a PyTorch function needs at least one array.")
        arrays = [jnp.asarray(arg) for arg in args]
        single = self._signature(arrays).single
        layout = Layout(None, (False,) * len(arrays), len(arrays))
        outputs = value_p.bind(*arrays, function=self, layout=layout)
        return outputs[0] if single else tuple(outputs)

    def __repr__(self) -> str:
        return f"torch_function({self.__name__})"

    def __reduce__(self) -> tuple[Any, ...]:
        _, fn, batched, max_batch = self.functions
        return _rebuild, (fn, self.result, batched, max_batch)

    def outputs(self, avals: Sequence[Any]) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the results, given or learned from one call on zeros.

        Args:
            avals: anything with `shape` and `dtype`, one for each argument.
        """
        return tuple(
            jax.ShapeDtypeStruct(out.shape, jax.dtypes.canonicalize_dtype(out.dtype))
            for out in self._signature(avals).outputs
        )

    def _signature(self, avals: Sequence[Any]) -> _Signature:
        key = tuple((tuple(aval.shape), jnp.dtype(aval.dtype).name) for aval in avals)
        if key not in self._signatures:
            for shape, dtype in key:
                if dtype.startswith("complex"):
                    raise TypeError(
                        f"{self.__name__}: an argument of shape {shape} is {dtype}; only real "
                        "arrays cross to PyTorch. Pass real and imaginary parts."
                    )
            self._signatures[key] = self._given() or self._infer(key)
        return self._signatures[key]

    def _given(self) -> _Signature | None:
        if self.result is None:
            return None
        if isinstance(self.result, Sequence):
            return _Signature(False, tuple(self.result))
        return _Signature(True, (self.result,))

    def _infer(self, key: Sequence[tuple[tuple[int, ...], str]]) -> _Signature:
        torch = require("torch")
        with torch.no_grad():
            returned = self.functions.single(
                *(torch.zeros(shape, dtype=getattr(torch, dtype)) for shape, dtype in key)
            )
        outputs = []
        for out in evaluate.as_tuple(self.__name__, returned):
            if out.is_complex():
                raise TypeError(
                    f"{self.__name__}: returned a {out.dtype} tensor; only real tensors cross to "
                    "JAX. Return torch.view_as_real(...) of it."
                )
            dtype = jnp.dtype(str(out.dtype).removeprefix("torch."))
            outputs.append(jax.ShapeDtypeStruct(tuple(out.shape), dtype))
        return _Signature(not isinstance(returned, (tuple, list)), tuple(outputs))

    def fill(self, evaluator: Callable[..., None], layout: Layout, ins: Any, outs: Any) -> None:
        """Run one evaluator, noticing a changed argument and remembering what failed."""
        versions = [tensor._version for tensor in ins]
        try:
            evaluator(self.functions, layout, ins, outs)
            if versions != [tensor._version for tensor in ins]:
                raise ValueError(
                    f"{self.__name__}: changed an argument in place; the tensors are JAX's own "
                    "arrays and must not be written to. Clone before changing."
                )
        except Exception as error:
            self._failure = error
            raise

    def dispatch(self, primitive: Primitive, layout: Layout, operands: Sequence[Any]) -> Any:
        """Evaluate one primitive outside of `jit`, by compiling it alone."""
        key = primitive, layout
        if key not in self._compiled:
            bind = functools.partial(primitive.bind, function=self, layout=layout)
            self._compiled[key] = jax.jit(bind)
        self._failure = None
        with jax.disable_jit(False):
            try:
                return jax.block_until_ready(self._compiled[key](*operands))
            except jax.errors.JaxRuntimeError as error:
                cause, self._failure = self._failure or error, None
        raise RuntimeError(f"{self.__name__} failed in PyTorch: {cause}") from cause


def _rebuild(fn: Any, result: Any, batched: Any, max_batch: Any) -> TorchFunction:
    return TorchFunction(fn, result=result, batched=batched, max_batch=max_batch)
