"""Any PyTorch function as a JAX function.

`torch_function` wraps a function of tensors for `jit`, `grad`, `jvp`, `vmap`, `linearize`,
`jacfwd`, `jacrev`, `lax.scan` and NumPyro's samplers. The derivatives are PyTorch's own.
`_primitives` shows the function to JAX, and `_evaluate` evaluates it in PyTorch. Inputs, units and
batches of a simulator are left to the simulator's own module.
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

    `fn` gets copies of JAX's arrays, on a CPU or a CUDA device. Its results are copied once into
    JAX's output buffers. So `fn` cannot change an array of the caller.

    `fn` must be pure. It must not change its arguments in place: a change raises an error, on a CPU
    also a change by NumPy. It must not call JAX, because JAX is waiting for its result. If `fn` is
    differentiated, all its operations on its arguments must be differentiable in PyTorch. A result
    without an autograd graph is refused, and never taken for a constant.

    Args:
        fn: function of real tensors that returns a pytree of tensors. Arguments may be in any
            pytrees that JAX knows: tuples, lists, dicts, registered dataclasses. The structure and
            shapes of the results may depend on the arguments' structure and shapes alone. Arguments
            and results of integer or boolean dtype are allowed; they have no derivative.
        result: shape and dtype of the results: a `jax.ShapeDtypeStruct`, or a pytree of them.
            Without it, `fn` is called once for every new combination of input shapes and dtypes. It
            gets tensors without data (`torch.device("meta")`) or, if it cannot take them, zeros or
            ones. A float64 result becomes float32 unless JAX's 64-bit mode is on.
        batched: function equivalent to `fn` on every slice of its arguments. All its arguments and
            results have one more leading axis, of the same length. With `batched`, a vmapped call
            becomes one call of `batched`. Without it, `fn` is called once for each slice.
        max_batch: longest leading axis that `batched` gets. Longer batches are split into
            consecutive calls, so PyTorch's memory is bounded. None means no limit.
        constant: which results do not depend on the arguments, or shall not be differentiated.
            Their derivative with respect to all arguments is zero. True or False holds for all
            results. A pytree of booleans, such as `(False, True)`, has the results' structure or a
            prefix of it. Integer results need no declaration. For an argument without derivative
            use `jax.lax.stop_gradient` at the call.
        linear: whether `fn` is linear in all its arguments of floating dtype together. Then
            `jax.linear_transpose` works, and second derivatives are zero. The derivative along a
            tangent is the value at the tangent, so `fn` needs no forward mode.

    Returns:
        A function of arrays, differentiable once, in both modes. A value and its gradient take one
        forward and one backward pass. A value and its tangent take one pass of forward mode. Second
        derivatives of functions that are not linear raise `NotImplementedError`. An exception in
        `fn`, or a result without a derivative, becomes a `RuntimeError` with its message.

    Raises:
        ImportError: PyTorch is not installed.
        ValueError: `max_batch` is less than one. At the first call: `constant` does not fit the
            results.

    Example::

        energy = mp.forward.torch_function(lambda x: (x**2).sum())
        jax.grad(energy)(jnp.ones(3))  # [2, 2, 2]
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
            TypeError: there is no array among the arguments, or PyTorch cannot take one of them.
            RuntimeError: the PyTorch function raised an error. The message contains its message.
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
