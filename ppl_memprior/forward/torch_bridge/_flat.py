"""A PyTorch function of pytrees as the bridge's primitives carry it: from arrays to arrays.

A `FlatFunction` belongs to one structure of arguments. It knows the shapes of its results and runs
the evaluators on tensors. It turns a failure in PyTorch into one Python error. The user calls a
`TorchFunction`, which is in `_torch_function`.
"""

from __future__ import annotations

import collections
import functools
import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive

from ppl_memprior.forward.torch_bridge._functions import Functions, Layout, require
from ppl_memprior.forward.torch_bridge._graphs import STORE

_numbers = itertools.count(1)


class Signature(NamedTuple):
    """What a function returns for one combination of input shapes and dtypes."""

    tree: Any
    outputs: tuple[jax.ShapeDtypeStruct, ...]
    constant: tuple[int, ...] = ()


class FlatFunction:
    """A PyTorch function with one structure of arguments.

    Args:
        fn: the function of tensors, in any pytrees.
        batched: the same with one more leading axis, or None.
        max_batch: the longest leading axis for `batched`, or None.
        result: pytree of the results' shapes and dtypes, or None.
        tree: structure of (positional arguments, keyword arguments).
        constant: which results are constant: a bool for all of them, or a pytree of bools with the
            results' structure or a prefix of it.
        linear: whether the function is linear in all its arguments of floating dtype together.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        batched: Callable[..., Any] | None,
        max_batch: int | None,
        result: Any,
        tree: Any,
        constant: Any,
        linear: bool,
    ) -> None:
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)
        self._fn = fn
        self._tree = tree
        self._result = result
        self._constant = constant
        self.linear = linear
        number = next(_numbers)
        single, many = self._flat(fn), None if batched is None else self._flat(batched)
        self.functions = Functions(number, self.__name__, single, many, max_batch, linear)
        self._signatures: dict[Any, Signature] = {}
        self._result_trees: set[Any] = set()
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._failures: collections.deque[Exception] = collections.deque(maxlen=4)
        weakref.finalize(self, STORE.forget, number)

    def outputs(self, avals: Sequence[Any]) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Return the shapes and dtypes of the results in JAX's current precision.

        Args:
            avals: anything with `shape` and `dtype`, one for each argument.
        """
        return tuple(
            jax.ShapeDtypeStruct(out.shape, jax.dtypes.canonicalize_dtype(out.dtype))
            for out in self.signature(avals).outputs
        )

    def signature(self, avals: Sequence[Any]) -> Signature:
        """Return the results' structure, shapes and dtypes, as the user gave or a call showed them.

        Args:
            avals: anything with `shape` and `dtype`, one for each argument.

        Raises:
            TypeError: PyTorch cannot take an argument, or JAX cannot take a result.
        """
        key = tuple((tuple(aval.shape), str(aval.dtype)) for aval in avals)
        if key not in self._signatures:
            for shape, dtype in key:
                self._check_argument(shape, dtype)
            signature = self._infer(key) if self._result is None else self._given()
            self._result_trees.add(signature.tree)
            self._signatures[key] = signature._replace(constant=self._constants(signature.tree))
        return self._signatures[key]

    def fill(self, evaluator: Callable[..., None], layout: Layout, ins: Any, outs: Any) -> None:
        """Run one evaluator on tensors. A failure is a `RuntimeError` with PyTorch's message."""
        try:
            evaluator(self.functions, layout, ins, outs)
        except Exception as error:
            failure = RuntimeError(
                f"{self.__name__} failed in PyTorch: {str(error) or repr(error)}"
            )
            failure.__cause__ = error
            self._failures.append(failure)
            raise failure from error

    def dispatch(self, primitive: Primitive, layout: Layout, operands: Sequence[Any]) -> Any:
        """Evaluate one primitive outside of `jit`: compile it alone and run it."""
        key = primitive, layout
        if key not in self._compiled:
            bind = functools.partial(primitive.bind, function=self, layout=layout)
            self._compiled[key] = jax.jit(bind)
        with jax.disable_jit(False):
            try:
                return jax.block_until_ready(self._compiled[key](*operands))
            except jax.errors.JaxRuntimeError as error:
                # JAX passes on the text alone. Several threads may have failed by now, so the text
                # tells which failure this is.
                failed = [f for f in reversed(self._failures) if str(f) in str(error)]
                if not failed:
                    raise
        raise RuntimeError(str(failed[0])) from failed[0].__cause__

    # --- results ----------------------------------------------------------------------------------

    def _check_argument(self, shape: tuple[int, ...], dtype: str) -> None:
        if dtype.startswith("complex"):
            raise TypeError(
                f"{self.__name__}: an argument of shape {shape} is {dtype}; only real arrays cross "
                "to PyTorch. Pass real and imaginary parts."
            )
        if not hasattr(require("torch"), dtype):
            raise TypeError(
                f"{self.__name__}: an argument of shape {shape} is {dtype}, which PyTorch does "
                "not have."
            )

    def _constants(self, tree: Any) -> tuple[int, ...]:
        """Return the numbers of the constant results."""
        results = jax.tree.unflatten(tree, range(tree.num_leaves))
        try:
            flags = jax.tree.leaves(jax.tree.broadcast(self._constant, results))
        except ValueError:
            flags = [None]
        if not all(isinstance(flag, bool) for flag in flags):
            raise ValueError(
                f"{self.__name__}: constant must be True, False or a pytree of them with the "
                f"results' structure {tree} or a prefix of it, got {self._constant}."
            )
        return tuple(k for k, flag in enumerate(flags) if flag)

    def _given(self) -> Signature:
        leaves, tree = jax.tree.flatten(self._result)
        return Signature(tree, tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves))

    def _infer(self, key: Sequence[tuple[tuple[int, ...], str]]) -> Signature:
        """Learn the results from a call on tensors without data, or else on zeros, or on ones."""
        torch = require("torch")
        on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
        device = "cuda" if on_gpu else "cpu"
        attempts = ((torch.empty, "meta"), (torch.zeros, device), (torch.ones, device))
        failures: list[Exception] = []
        for make, where in attempts:
            tensors = [make(s, dtype=getattr(torch, d), device=where) for s, d in key]
            args, kwargs = jax.tree.unflatten(self._tree, tensors)
            try:
                with torch.no_grad():
                    returned = self._fn(*args, **kwargs)
                break
            except Exception as error:
                failures.append(error)
        else:
            raise failures[1]
        leaves, tree = jax.tree.flatten(returned)
        outputs = []
        for out in (self._tensor(leaf) for leaf in leaves):
            if out.is_complex():
                raise TypeError(
                    f"{self.__name__}: returned a {out.dtype} tensor; only real tensors cross to "
                    "JAX. Return torch.view_as_real(...) of it."
                )
            dtype = jnp.dtype(str(out.dtype).removeprefix("torch."))
            outputs.append(jax.ShapeDtypeStruct(tuple(out.shape), dtype))
        return Signature(tree, tuple(outputs))

    def _flat(self, fn: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
        """Return the function from tensors to a tuple of tensors."""

        def flat(*tensors: Any) -> tuple[Any, ...]:
            args, kwargs = jax.tree.unflatten(self._tree, tensors)
            leaves, tree = jax.tree.flatten(fn(*args, **kwargs))
            if tree not in self._result_trees:
                expected = " or ".join(map(str, self._result_trees))
                raise ValueError(
                    f"{self.__name__}: returned {tree} where {expected} is expected; the structure "
                    "of the result may depend on the shapes of the arguments only."
                )
            return tuple(self._tensor(leaf) for leaf in leaves)

        return flat

    def _tensor(self, leaf: Any) -> Any:
        torch = require("torch")
        if isinstance(leaf, (bool, int, float)):
            return torch.as_tensor(leaf)
        if not isinstance(leaf, torch.Tensor):
            raise TypeError(
                f"{self.__name__}: expected a tensor or a pytree of tensors, got "
                f"{type(leaf).__name__}."
            )
        return leaf
