"""Any PyTorch function as a JAX function.

`torch_function` wraps a function of tensors so that `jit`, `grad`, `jvp`, `vmap`, `linearize`,
`jacfwd`, `jacrev`, `lax.scan` and NumPyro's samplers treat it like one written in JAX. The
derivatives are PyTorch's own. How JAX sees the function is left to `_primitives`, how PyTorch
evaluates it to `_evaluate`, and what a simulator needs to know about its inputs, units and
batches to the module that wraps it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ppl_memprior._arrays import real_array
from ppl_memprior.forward.torch_bridge import _partial, _transpose  # noqa: F401  (JAX learns the rules by import)
from ppl_memprior.forward.torch_bridge._flat import FlatFunction
from ppl_memprior.forward.torch_bridge._functions import Layout, require
from ppl_memprior.forward.torch_bridge._primitives import value_p


def torch_function(
    fn: Callable[..., Any],
    *,
    result: Any = None,
    batched: Callable[..., Any] | None = None,
    max_batch: int | None = None,
    constant: Any = False,
    linear: bool = False,
) -> TorchFunction:
    """Turn a PyTorch function of tensors into a JAX function of arrays.

    `fn` gets copies of JAX's arrays, on a CPU or a CUDA device, and its results are copied once
    into JAX's output buffers. So nothing that `fn` does changes an array of the caller.

    `fn` must be pure: it must not change its arguments in place (which is raised as an error, also
    where NumPy does it, on a CPU), and must not call JAX, which is waiting for it. All that it
    computes from its arguments must be differentiable PyTorch operations if it is differentiated: a
    result without an autograd graph is refused, never taken for a constant.

    Args:
        fn: function of real tensors, in any pytrees (as NumPyro and JAX know them: tuples, lists,
            dicts, registered dataclasses), that returns a pytree of tensors whose structure and
            shapes depend on the arguments' structure and shapes alone. Arguments and results of
            integer or boolean dtype are allowed; they have no derivative.
        result: shape and dtype of what `fn` returns: a `jax.ShapeDtypeStruct`, or a pytree of them.
            Where it is not given, `fn` is called once for every new combination of input shapes
            and dtypes: on tensors without data (`torch.device("meta")`) or, where it cannot do
            that, on zeros or ones. A float64 result becomes float32 unless JAX's 64-bit mode is on.
        batched: function equivalent to `fn` on every slice of arguments that all have one more
            leading axis, of the same length; its results have that leading axis too. With it, a
            vmapped call becomes one call of `batched`; without it, `fn` is called once a slice.
        max_batch: the longest leading axis that `batched` is given; longer batches are split into
            consecutive calls, which bounds PyTorch's memory. None means no limit.
        constant: which results have a derivative of zero with respect to all arguments, because
            they do not depend on them or because they shall not be differentiated: True or False
            for all results, or a pytree of them that is the result's structure or a prefix of it,
            `constant=(False, True)`. Integer results need no declaration. For an argument that does
            not matter use `jax.lax.stop_gradient` at the call.
        linear: whether `fn` is linear in all its arguments of floating dtype together. Then
            `jax.linear_transpose` works, second derivatives are zero, and the derivative along a
            tangent is the value at the tangent: `fn` needs no forward mode.

    Returns:
        A function of arrays, differentiable once, in both modes. A value and its gradient take one
        forward and one backward pass, a value and its tangent one pass of forward mode. Second
        derivatives, of functions that are not linear, raise `NotImplementedError`. An exception in
        `fn`, or a result without a derivative, becomes a `RuntimeError` with its message.

    Raises:
        ImportError: PyTorch is not installed.
        ValueError: `max_batch` is less than one; at the first call, a `constant` that does not fit
            the results.
    """
    return TorchFunction(
        fn, result=result, batched=batched, max_batch=max_batch, constant=constant, linear=linear
    )


class TorchFunction:
    """A PyTorch function that JAX can call, transform and compile; made by `torch_function`."""

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        result: Any = None,
        batched: Callable[..., Any] | None = None,
        max_batch: int | None = None,
        constant: Any = False,
        linear: bool = False,
    ) -> None:
        require("torch")
        if max_batch is not None and max_batch < 1:
            raise ValueError(f"max_batch must be at least 1 or None, got {max_batch}.")
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)
        self._arguments = fn, batched, max_batch, result, constant, linear
        self._by_structure: dict[Any, FlatFunction] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the PyTorch function on arrays.

        Args:
            *args: real arrays or Python numbers, in the pytrees that the function takes.
            **kwargs: the same, by name.

        Returns:
            What the function returns, with an array in the place of every tensor.

        Raises:
            TypeError: no array among the arguments, or one that cannot cross to PyTorch.
            RuntimeError: the PyTorch function raised; the message is its own.
        """
        leaves, tree = jax.tree.flatten((args, kwargs))
        if not leaves:
            raise TypeError(f"{self.__name__}: a PyTorch function needs at least one array.")
        arrays = [
            jnp.asarray(leaf if isinstance(leaf, jax.Array) else real_array("an argument", leaf))
            for leaf in leaves
        ]
        function = self._flat(tree)
        signature = function.signature(arrays)
        layout = Layout(None, (False,) * len(arrays), len(arrays), constant=signature.constant)
        outputs = value_p.bind(*arrays, function=function, layout=layout)
        return jax.tree.unflatten(signature.tree, outputs)

    def __repr__(self) -> str:
        return f"torch_function({self.__name__})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._arguments

    def _flat(self, tree: Any) -> FlatFunction:
        if tree not in self._by_structure:
            fn, batched, max_batch, result, constant, linear = self._arguments
            flat = FlatFunction(fn, batched, max_batch, result, tree, constant, linear)
            return self._by_structure.setdefault(tree, flat)
        return self._by_structure[tree]


def _rebuild(
    fn: Any, batched: Any, max_batch: Any, result: Any, constant: Any, linear: bool
) -> TorchFunction:
    return TorchFunction(
        fn, result=result, batched=batched, max_batch=max_batch, constant=constant, linear=linear
    )
