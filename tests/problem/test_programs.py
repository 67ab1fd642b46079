"""Compiled programs that take a problem: one for all numbers, another one for another model."""

from __future__ import annotations

import gc
import weakref
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.infer.util import log_density

from ppl_memprior import DiffusionMixturePrior, InverseProblem, MemorizedPrior, linearize, lookup
from ppl_memprior.diffusion import dps
from ppl_memprior.inference import evidence, gibbs, mode_jump, nuts, psis, tempered_smc

from .small_model import DATA, EXAMPLES, MATRIX, PRIOR, X, forward, normal_model, scale_model

COMPILATION = "/jax/core/compile/backend_compile_duration"
CHAINS = {"num_samples": 6, "num_warmup": 4, "num_chains": 2}


class Compilations:
    """Counts what XLA compiles while it is entered."""

    counted = 0
    listening = False

    def __enter__(self):
        if not Compilations.listening:
            jax.monitoring.register_event_duration_secs_listener(self._count)
            Compilations.listening = True
        self._before = Compilations.counted
        return self

    def __exit__(self, *_):
        self.number = Compilations.counted - self._before

    @staticmethod
    def _count(event, duration, **_):
        Compilations.counted += event == COMPILATION


@jax.jit
def everything(problem, x):
    value, gradient = jax.value_and_grad(problem.log_likelihood)(x)
    return value, gradient, problem.residual(x), problem.prior.log_prob(x)


def directly(problem, x):
    value, gradient = jax.value_and_grad(problem.log_likelihood)(x)
    return value, gradient, problem.residual(x), problem.prior.log_prob(x)


def check(problem, x=X):
    for found, expected in zip(everything(problem, x), directly(problem, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    return everything(problem, x)


def made(noise, sigma, scale, examples=EXAMPLES, data=DATA):
    """Everything that a model may close over, other at each call."""
    matrix = scale * MATRIX

    def predict(x):
        return jnp.tanh(matrix @ x)

    def model(y=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray(examples), sigma))
        numpyro.sample("y", dist.Normal(predict(x), noise).to_event(1), obs=y)

    return InverseProblem(model, y=data)


def test_other_numbers_take_the_same_program():
    check(made(0.3, 0.2, 1.0))
    others = [
        made(0.5, 0.2, 1.0),
        made(0.3, 0.7, 1.0),
        made(0.3, 0.2, 2.0),
        made(0.3, 0.2, 1.0, examples=EXAMPLES + 1),
        made(0.3, 0.2, 1.0, data=2 * DATA),
    ]
    with Compilations() as compilations:
        found = [everything(problem, X) for problem in others]
    assert compilations.number == 0
    with Compilations() as compilations:
        everything(made(0.3, 0.2, 1.0, examples=EXAMPLES[:2]), X)
    assert compilations.number > 0  # so that the zeros mean something
    for problem, values in zip(others, found, strict=True):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5), values, directly(problem, X))
    assert len({float(values[0]) for values in found}) == 4  # one has the bandwidth alone changed


def test_log_likelihood_of_a_program_is_numpyros():
    problem = made(0.4, 0.3, 1.5)
    model = handlers.seed(problem.model, 0)
    total, _ = log_density(model, problem.args, problem.kwargs, {"x": X})
    value, _, _, prior = everything(problem, X)
    np.testing.assert_allclose(value + prior, total, rtol=1e-5)


def test_a_global_variable_of_another_value_is_another_program(monkeypatch):
    """A function's globals are no part of it; its trace shows their values."""
    before = check(InverseProblem(normal_model, data=DATA))
    monkeypatch.setitem(normal_model.__globals__, "MATRIX", 2 * MATRIX)
    after = check(InverseProblem(normal_model, data=DATA))
    assert abs(float(before[0] - after[0])) > 0.1


def test_another_function_of_the_same_text_is_told_apart():
    def problem(predict):
        def model(y=None):
            x = numpyro.sample("x", PRIOR)
            numpyro.sample("y", dist.Normal(predict(MATRIX @ x), 0.3).to_event(1), obs=y)

        return InverseProblem(model, y=DATA)

    assert check(problem(jnp.tanh))[0] != check(problem(jnp.sin))[0]


def test_arguments_in_a_dictionary_keep_their_order():
    """The order decides which random numbers a site draws."""

    def model(scales, y=None):
        x = numpyro.sample("x", PRIOR)
        total = sum(numpyro.sample(name, dist.Normal(0, s)) for name, s in scales.items())
        numpyro.sample("y", dist.Normal(forward(x) + total, 0.3).to_event(1), obs=y)

    @jax.jit
    def drawn(problem, key):
        trace = problem.prior_trace(key)
        return {name: trace[name]["value"] for name in ("b", "a")}

    key = jax.random.key(0)
    for scale in (1.0, 2.0):
        problem = InverseProblem(model, {"b": scale, "a": jnp.asarray(0.5)}, y=DATA)
        trace = problem.prior_trace(key)
        for name, value in drawn(problem, key).items():
            np.testing.assert_allclose(value, trace[name]["value"], rtol=1e-6)


def test_derivative_rules_are_told_apart():
    def problem(slope):
        @jax.custom_jvp
        def predict(x):
            return MATRIX @ x

        predict.defjvp(lambda x, dx: (predict(*x), slope * (MATRIX @ dx[0])))

        def model(y=None):
            x = numpyro.sample("x", PRIOR)
            numpyro.sample("y", dist.Normal(predict(x), 0.3).to_event(1), obs=y)

        return InverseProblem(model, y=DATA)

    one, two = (check(problem(slope))[1] for slope in (1.0, 2.0))
    np.testing.assert_allclose(2 * one, two, rtol=1e-5)


def test_numbers_that_decide_stay_in_the_program():
    """A float that a condition asks for, and an array that NumPy computes with."""

    def model(y=None, power=1.0, order=None):
        x = numpyro.sample("x", PRIOR)
        predicted = MATRIX @ x if power > 1.5 else jnp.tanh(MATRIX @ x)
        numpyro.sample("y", dist.Normal(predicted[np.argsort(order)], 0.3).to_event(1), obs=y)

    orders = np.array([0.3, 0.1, 0.2]), np.array([0.1, 0.3, 0.2])
    values = [
        check(InverseProblem(model, y=DATA, power=power, order=order))[0]
        for power in (1.0, 2.0)
        for order in orders
    ]
    assert len({float(value) for value in values}) == 4


def test_double_arithmetic_of_python_stays_what_it_is():
    """The difference of two time stamps, which single precision does not tell apart."""

    def problem(begin, end):
        def model(y=None):
            x = numpyro.sample("x", PRIOR)
            numpyro.sample("y", dist.Normal((end - begin) * (MATRIX @ x), 0.3).to_event(1), obs=y)

        return InverseProblem(model, y=DATA)

    late, early = (check(problem(t, t + 1.5)) for t in (1732570000.0, 0.0))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), late, early)


def test_models_may_ask_what_a_number_is():
    def problem(k):
        def model(y=None):
            x = numpyro.sample("x", PRIOR)
            factor = k if isinstance(k, float) else jnp.sqrt(k)
            numpyro.sample("y", dist.Normal(factor * (MATRIX @ x), 0.3).to_event(1), obs=y)

        return InverseProblem(model, y=DATA)

    assert check(problem(4.0))[0] != check(problem(jnp.asarray(4.0)))[0]


def test_a_name_made_of_a_number():
    def problem(frequency):
        def model(y=None):
            x = numpyro.sample("x", PRIOR)
            numpyro.deterministic("unit", "m/s")
            numpyro.sample(f"y_{frequency}", dist.Normal(MATRIX @ x, 0.3).to_event(1), obs=y)

        return InverseProblem(model, y=DATA)

    for frequency in (5.0, 8.0):
        check(problem(frequency))


def test_a_callback_to_numpy_may_close_over_arrays():
    def problem(matrix):
        def model(y=None):
            x = numpyro.sample("x", PRIOR)
            like = jax.ShapeDtypeStruct((3,), jnp.float32)
            predicted = jax.pure_callback(lambda x: matrix @ x, like, x, vmap_method="sequential")
            numpyro.sample("y", dist.Normal(predicted, 0.3).to_event(1), obs=y)

        return InverseProblem(model, y=DATA)

    value = jax.jit(lambda problem, x: problem.log_likelihood(x))
    for scale in (1.0, 2.0):
        found = problem(scale * np.asarray(MATRIX))
        np.testing.assert_allclose(value(found, X), found.log_likelihood(X), rtol=1e-5)


def test_a_model_that_has_changed_is_refused(monkeypatch):
    """Else its new program would be taken for that of the old model."""
    problem = InverseProblem(normal_model, data=DATA)
    jax.tree.leaves(problem)
    monkeypatch.setitem(normal_model.__globals__, "MATRIX", 3 * MATRIX)
    with pytest.raises(RuntimeError, match="Make the InverseProblem anew"):
        jax.jit(lambda problem: problem.log_likelihood(X))(problem)
    check(InverseProblem(normal_model, data=DATA))


class Tempered(DiffusionMixturePrior):
    """A mixture with a field that its pytree does not name."""

    power = 1.0

    def log_prob(self, value):
        return self.power * super().log_prob(value)


def test_a_prior_with_fields_of_its_own_keeps_them():
    def problem(power):
        prior = Tempered(EXAMPLES, 0.2)
        prior.power = power

        def model(y=None):
            x = numpyro.sample("x", prior)
            numpyro.sample("y", dist.Normal(MATRIX @ x, 0.3).to_event(1), obs=y)

        return InverseProblem(model, y=DATA)

    one, two = (check(problem(power))[3] for power in (1.0, 2.0))
    np.testing.assert_allclose(2 * one, two, rtol=1e-5)


def test_a_problem_keeps_the_data_that_it_was_made_with():
    data = DATA.copy()
    problem = InverseProblem(normal_model, data=data)
    before = problem.log_likelihood(X)
    data *= 0
    np.testing.assert_array_equal(check(problem)[0], before)


def test_double_precision_has_programs_of_its_own():
    problem = InverseProblem(normal_model, data=DATA)
    single = everything(problem, X)[0]
    with jax.enable_x64(True):
        double = everything(problem, jnp.asarray(X, float))[0]
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=1e-5)


def test_models_may_write_into_what_they_close_over():
    """A callback that counts in a list, in a variable of the function around it, and by name."""
    calls, count = [], 0

    def predict(x):
        nonlocal count
        count += 1
        calls.append(np.asarray(x))
        return np.asarray(2 * x, np.float32)

    def model(y=None):
        x = numpyro.sample("x", PRIOR)
        like = jax.ShapeDtypeStruct((2,), jnp.float32)
        predicted = jax.pure_callback(predict, like, x, vmap_method="sequential")
        numpyro.sample("y", dist.Normal(predicted, 0.3).to_event(1), obs=y)

    @jax.jit
    def value(problem, x):
        return problem.log_likelihood(x)

    for data in (DATA[:2], 2 * DATA[:2]):
        value(InverseProblem(model, y=data), X)
    assert len(calls) == count == 2


def test_a_problem_is_freed_with_its_examples():
    problem = made(0.3, 0.2, 1.0, examples=np.array(EXAMPLES))
    everything(problem, X)
    lookup(problem)
    prior = weakref.ref(problem.prior)
    del problem
    gc.collect()
    assert prior() is None


def test_screened_examples_are_prepared_outside_of_the_program():
    rows = np.random.default_rng(0).normal(size=(128, 32)).astype(np.float32)

    def model(y=None):
        x = numpyro.sample("x", DiffusionMixturePrior(rows, 0.2))
        numpyro.sample("y", dist.Normal(x[:2], 0.3).to_event(1), obs=y)

    problem = InverseProblem(model, y=np.zeros(2))
    x = jnp.asarray(rows[3] + 0.1)
    check(problem, x)
    # against float64
    logits = -0.5 * np.sum((np.asarray(x, float) - rows) ** 2, 1) / 0.2**2
    expected = logsumexp(logits) - np.log(128) - 32 * np.log(0.2 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(everything(problem, x)[3], expected, rtol=1e-5)


@pytest.mark.parametrize("named", [True, False], ids=["by name", "alone"])
def test_other_data_for_the_same_problem(named):
    problem = InverseProblem(normal_model, data=DATA)
    everything(problem, X)
    new = DATA[::-1].copy()
    with Compilations() as compilations:
        other = problem.with_data(y=new) if named else problem.with_data(new)
        found = everything(other, X)
    assert compilations.number == 0
    expected = everything(InverseProblem(normal_model, data=new), X)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5), found, expected)
    np.testing.assert_array_equal(problem.data["y"], DATA)


def test_a_batch_of_data_by_vmap():
    problem = InverseProblem(normal_model, data=DATA)
    batch = np.stack([DATA, DATA + 1, DATA - 2])
    found = jax.vmap(lambda y: problem.with_data(y=y).log_likelihood(X))(batch)
    expected = [InverseProblem(normal_model, data=y).log_likelihood(X) for y in batch]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_data_that_are_a_python_float():
    def model(y=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(x[0], 0.3), obs=y)

    problem, batch = InverseProblem(model, y=0.1), np.array([0.3, 1.2], np.float32)
    expected = [InverseProblem(model, y=float(y)).log_likelihood(X) for y in batch]
    found = [everything(problem.with_data(y=float(y)), X)[0] for y in batch]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    found = jax.vmap(lambda y: problem.with_data(y=y).log_likelihood(X))(batch)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_lookups_of_a_batch_of_data():
    problem = InverseProblem(normal_model, data=DATA)
    batch = np.stack([DATA, DATA + 0.1, 0 * DATA])
    found = jax.vmap(lambda y: lookup(problem.with_data(y=y)).weights)(batch)
    expected = [lookup(InverseProblem(normal_model, data=y)).weights for y in batch]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("jumps", [False, True], ids=["nuts", "mode-jump"])
def test_chains_of_a_batch_of_data_are_those_of_each_alone(jumps):
    """The same keys give the same draws, up to rounding that chains of this length do not grow."""
    problem = InverseProblem(normal_model, data=DATA)
    batch, keys = np.stack([DATA, DATA + 0.1]), jax.random.split(jax.random.key(3), 2)
    proposal = linearize(problem)

    def draw(y, key):
        other = problem.with_data(y=y)
        if jumps:
            return mode_jump(other, key, proposal=proposal, **CHAINS)
        return nuts(other, key, **CHAINS)

    found = jax.vmap(lambda y, key: draw(y, key).latents["x"])(batch, keys)
    assert found.shape == (2, 2, 6, 2)
    expected = np.stack([draw(y, key).latents["x"] for y, key in zip(batch, keys, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_methods_that_need_known_numbers_say_so():
    problem = InverseProblem(normal_model, data=DATA)
    with pytest.raises(TypeError, match="in a loop over problem.with_data"):
        jax.vmap(lambda y: linearize(problem.with_data(y=y)).mean)(np.stack([DATA, DATA]))


def test_data_that_a_model_uses_twice_are_replaced_twice():
    def model(y=None):
        x = numpyro.sample("x", PRIOR)
        scale = 0.1 * jnp.max(jnp.abs(y))
        numpyro.sample("y", dist.Normal(MATRIX @ x, scale).to_event(1), obs=y)

    problem = InverseProblem(model, y=DATA).with_data(y=3 * DATA)
    expected = InverseProblem(model, y=3 * DATA).log_likelihood(X)
    np.testing.assert_allclose(problem.log_likelihood(X), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"y": DATA[:2]}, "shape"),
        ({"y": DATA * np.nan}, "NaN"),
        ({"z": DATA}, "no observed site 'z'"),
    ],
    ids=["shape", "nan", "name"],
)
def test_unfit_data_are_refused(data, words):
    with pytest.raises(ValueError, match=words):
        InverseProblem(normal_model, data=DATA).with_data(**data)


def test_traced_arguments_are_named():
    with pytest.raises(TypeError, match="arguments data are traced"):
        jax.jit(lambda y: InverseProblem(normal_model, data=y).log_likelihood(X))(DATA)


def test_data_made_in_the_model_are_refused():
    def model(y=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(MATRIX @ x, 0.3).to_event(1), obs=jnp.log(y))

    problem = InverseProblem(model, y=np.exp(DATA))
    with pytest.raises(ValueError, match="computed inside the model"):
        problem.with_data(y=DATA)


def mixture_problem(noise, shift):
    return made(noise, 0.4 + 0.1 * noise, 1.0, EXAMPLES + np.float32(shift), DATA + shift)


def memorized_problem(noise, shift):
    def model(y=None):
        x = numpyro.sample("x", MemorizedPrior(jnp.asarray(EXAMPLES) + shift))
        scale = numpyro.sample("scale", dist.HalfNormal(noise))
        numpyro.sample("y", dist.Normal(MATRIX @ x, scale).to_event(1), obs=y)

    return InverseProblem(model, y=DATA + shift)


def hierarchy(noise, shift):
    return InverseProblem(scale_model, data=DATA + shift)


METHODS = {
    "lookup": (mixture_problem, lambda problem, key: lookup(problem)),
    "linearize": (mixture_problem, lambda problem, key: linearize(problem, iterations=2)),
    "low-rank": (mixture_problem, lambda problem, key: linearize(problem, max_rank=2)),
    "psis": (mixture_problem, lambda problem, key: psis(problem, linearize(problem), key)),
    "evidence": (mixture_problem, lambda problem, key: evidence(problem, [0.2, 0.5])),
    "dps": (mixture_problem, lambda problem, key: dps(problem, key, num_samples=3, num_steps=5)),
    "nuts": (hierarchy, lambda problem, key: nuts(problem, key, **CHAINS)),
    "mode-jump": (mixture_problem, lambda problem, key: mode_jump(problem, key, **CHAINS)),
    "smc": (
        mixture_problem,
        lambda problem, key: tempered_smc(
            problem, key, num_particles=40, num_repeats=2, target_ess=0.2
        ),
    ),
    "gibbs": (memorized_problem, lambda problem, key: gibbs(problem, key, **CHAINS)),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_compiled_once(method):
    """A second call with other data, examples, noise, bandwidth and key compiles nothing."""
    problem, run = METHODS[method]
    run(problem(0.3, 0.0), jax.random.key(0))
    with Compilations() as compilations:
        run(problem(0.35, 0.1), jax.random.key(1))
    assert compilations.number == 0
