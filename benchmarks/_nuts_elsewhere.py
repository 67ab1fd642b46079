"""NUTS as NumPyro and BlackJAX run it themselves, compiled so that other data may come later.

Both take a NumPyro model with the argument `data`. What is measured on them is left to the
benchmarks.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, init_to_sample
from numpyro.infer.util import log_density

TREE_DEPTHS = (5, 10)  # in warmup and after it, as the package's `nuts` has them

#: Runs the chains on data with a key, and returns their draws.
Run = Callable[[np.ndarray, jax.Array], Any]


class Chains(NamedTuple):
    """Numbers of warmup iterations and of draws of each chain, and of chains."""

    num_warmup: int
    num_samples: int
    num_chains: int


def numpyro_nuts(model: Callable[..., None], chains: Chains, progress_bar: bool) -> Run:
    """NumPyro's `MCMC`, which keeps its compiled functions from run to run.

    With the progress bar, the compiled function makes one iteration; without it, all of them.
    """
    mcmc = MCMC(
        NUTS(model, init_strategy=init_to_sample, max_tree_depth=TREE_DEPTHS),
        **chains._asdict(),
        chain_method="vectorized",
        jit_model_args=True,
        progress_bar=progress_bar,
    )

    def run(data: np.ndarray, key: jax.Array) -> Any:
        with redirect_stderr(io.StringIO()):  # where the bar is drawn
            mcmc.run(key, data=jnp.asarray(data))
        return mcmc.get_samples()

    return run


def blackjax_nuts(model: Callable[..., None], site: str, chains: Chains) -> Run:
    """BlackJAX's window adaptation and a scan over its steps, in one compiled function.

    The chains start from draws of the model's prior. `site` is the model's only latent site.
    """

    def chain(data: jax.Array, key: jax.Array) -> jax.Array:
        def log_joint(value: jax.Array) -> jax.Array:
            return log_density(model, (), {"data": data}, {site: value})[0]

        def iterate(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            state, _ = step(key, state)
            return state, state.position

        start_key, warmup_key, key = jax.random.split(key, 3)
        start = handlers.trace(handlers.seed(model, start_key)).get_trace()[site]["value"]
        warmup = blackjax.window_adaptation(blackjax.nuts, log_joint)
        (state, parameters), _ = warmup.run(warmup_key, start, chains.num_warmup)
        step = blackjax.nuts(log_joint, **parameters).step
        return jax.lax.scan(iterate, state, jax.random.split(key, chains.num_samples))[1]

    all_chains = jax.jit(jax.vmap(chain, in_axes=(None, 0)))
    return lambda data, key: all_chains(jnp.asarray(data), jax.random.split(key, chains.num_chains))
