"""A kernel's first state, or the site at which the model has no finite log-density.

NumPyro says only that there are no valid initial parameters. This module runs the model once more
and evaluates the log-density of each site.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer import init_to_uniform
from numpyro.infer.mcmc import MCMCKernel


def initialized(
    kernel: MCMCKernel,
    key: jax.Array,
    num_warmup: int,
    init_params: Any,
    model_args: tuple[Any, ...],
    model_kwargs: dict[str, Any],
) -> Any:
    """Return the kernel's first state for one chain.

    Raises:
        ValueError: none of NumPyro's 100 trials has a finite log-density and gradient.
    """
    try:
        return kernel.init(
            key, num_warmup, init_params, model_args=model_args, model_kwargs=model_kwargs
        )
    except RuntimeError as error:
        if "valid initial parameters" not in str(error):
            raise
        strategy = getattr(kernel, "_init_strategy", init_to_uniform)
        model = handlers.substitute(handlers.seed(kernel.model, key), substitute_fn=strategy)
        trace = handlers.trace(model).get_trace(*model_args, **model_kwargs)
        raise ValueError(_explanation(trace)) from error


def check_start(
    state: Any, kernel: MCMCKernel, model_args: tuple[Any, ...], model_kwargs: dict[str, Any]
) -> None:
    """Raise a `ValueError` if the log-density or its gradient is not finite at the start.

    The message names the site whose log-density is not finite, if there is one.

    Args:
        state: the kernel's state of one chain, or of several chains along a leading axis. A traced
            state is not checked.
        kernel: the kernel that made the state.
        model_args: positional arguments of the model.
        model_kwargs: keyword arguments of the model.
    """
    if isinstance(state.potential_energy, jax.core.Tracer):
        return
    finite = np.isfinite(np.atleast_1d(state.potential_energy))
    for gradient in jax.tree.leaves(state.z_grad):
        finite &= np.isfinite(gradient).reshape(len(finite), -1).all(axis=1)
    bad = np.flatnonzero(~finite)
    if bad.size == 0:
        return
    several = np.ndim(state.potential_energy) > 0
    z = jax.tree.map(lambda leaf: leaf[bad[0]], state.z) if several else state.z
    values = kernel.postprocess_fn(model_args, model_kwargs)(z)
    model = handlers.substitute(handlers.seed(kernel.model, rng_seed=0), data=values)
    trace = handlers.trace(model).get_trace(*model_args, **model_kwargs)
    raise ValueError(_explanation(trace))


def _explanation(trace: dict[str, Any]) -> str:
    sites = {name: site for name, site in trace.items() if site["type"] == "sample"}
    log_probs = {name: jnp.sum(s["fn"].log_prob(s["value"])) for name, s in sites.items()}
    bad = [name for name, value in log_probs.items() if not jnp.isfinite(value)]
    where = ", ".join(
        f"{name!r} = {_described(site['value'])}"
        for name, site in sites.items()
        if not site["is_observed"]
    )
    if not bad:
        return (
            "the log-density is finite at the start but its gradient is not, at the latent values "
            f"{where}: check the derivatives of the forward operator there"
        )
    listed = "; ".join(
        f"site {name!r} ({type(sites[name]['fn']).__name__}) has log-density {log_probs[name]} "
        f"at its value {_described(sites[name]['value'])}"
        for name in bad
    )
    return (
        f"the log-density is not finite at the start: {listed}. The latent values are {where}: "
        "check the forward operator there, or start elsewhere (init_strategy of the inner kernel, "
        "init_params of MCMC.run)"
    )


def _described(value: Any) -> str:
    array = np.asarray(value)
    if array.size == 1:
        return f"{array.item():.4g}"
    finite = array[np.isfinite(array)]
    span = f"from {finite.min():.4g} to {finite.max():.4g}" if finite.size else "none finite"
    lost = array.size - finite.size
    return f"array of shape {array.shape}, {span}" + (f", {lost} not finite" if lost else "")
