"""What NumPyro expects of any distribution, checked for ours in several shapes."""

import pickle
from contextlib import ExitStack

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions.batch_util import promote_batch_shape, vmap_over
from numpyro.infer import Predictive

from ppl_memprior.distributions import (
    LowRankGaussianMixture,
    MemorizedPrior,
)

from .cases import NUM, build, continuous_case, draw, every_case

log_prob = jax.jit(lambda d, value: d.log_prob(value))


@every_case
def test_shapes_and_dtypes(spec):
    d = build(spec)
    sample_shape = (2, 3)
    assert (d.batch_shape, d.event_shape) == (spec.batch, spec.event)
    value, [index] = d.sample_with_intermediates(jax.random.key(0), sample_shape)
    assert value.shape == d.shape(sample_shape) == sample_shape + spec.batch + spec.event
    assert index.shape == sample_shape + spec.batch
    assert jnp.issubdtype(index.dtype, jnp.integer)
    assert value.dtype == jnp.float32
    assert jnp.array_equal(d.sample(jax.random.key(0), sample_shape), value)
    density = d.log_prob(value)
    assert density.shape == sample_shape + spec.batch
    assert density.dtype == jnp.float32
    assert jnp.all(jnp.isfinite(density))
    assert d.log_prob(value, [index]).shape == density.shape
    r = d.responsibilities(value)
    assert r.shape == sample_shape + spec.batch + (NUM,)
    np.testing.assert_allclose(r.sum(-1), 1, rtol=1e-6)
    assert d.mean.shape == d.variance.shape == spec.batch + spec.event


@every_case
def test_value_broadcasts_with_the_batch(spec):
    d = build(spec)
    value = draw(d).reshape((-1, *spec.event))[0]
    expected = d.log_prob(jnp.broadcast_to(value, spec.batch + spec.event))
    np.testing.assert_array_equal(d.log_prob(value), expected)


@every_case
def test_infer_shapes(spec):
    shapes = {k: np.shape(v) for k, v in spec.params.items() if v is not None}
    assert spec.cls.infer_shapes(**shapes) == (spec.batch, spec.event)


@every_case
def test_support_and_rsample(spec):
    d = build(spec)
    discrete = spec.cls is MemorizedPrior
    assert d.support.event_dim == len(spec.event)
    assert d.support.is_discrete == d.is_discrete == d.has_enumerate_support == discrete
    assert not d.has_rsample
    inside = d.support(draw(d, (4,)))
    assert inside.shape == (4, *spec.batch)
    assert jnp.all(inside)
    assert jnp.all(d.support(d.support.feasible_like(draw(d, (4,)))))


@every_case
def test_jit_takes_and_returns_distributions(spec):
    d = build(spec)
    value = draw(d, (4,))
    # Fusion under jit reorders float32 sums.
    np.testing.assert_allclose(log_prob(d, value), d.log_prob(value), rtol=1e-5, atol=1e-5)
    arrays = {k: v for k, v in spec.params.items() if v is not None}
    traced = jax.jit(lambda params: spec.cls(**params))(arrays)
    assert isinstance(traced, spec.cls)
    np.testing.assert_allclose(traced.log_prob(value), d.log_prob(value), rtol=1e-5, atol=1e-5)
    jitted = jax.jit(lambda d, key: d.sample(key, (4,)))(d, jax.random.key(0))
    np.testing.assert_allclose(jitted, value, rtol=1e-5, atol=1e-6)


@every_case
def test_vmap_over_values(spec):
    d = build(spec)
    value = draw(d, (4,))
    mapped = jax.vmap(d.log_prob)(value)
    np.testing.assert_allclose(mapped, d.log_prob(value), rtol=1e-5, atol=1e-5)


@continuous_case
def test_gradient_against_finite_differences(spec):
    with jax.enable_x64(True):
        d = build(spec)
        value = draw(d)
        direction = np.random.default_rng(2).normal(size=value.shape)
        total = jax.jit(lambda v: d.log_prob(v).sum())
        step = 1e-5
        difference = (total(value + step * direction) - total(value - step * direction)) / (
            2 * step
        )
        # Central differences: truncation step^2 = 1e-10, rounding 1e-16 / step = 1e-11.
        np.testing.assert_allclose(jnp.sum(jax.grad(total)(value) * direction), difference, 1e-7)
        second = jax.jvp(jax.grad(total), (value,), (direction,))[1]
        gradients = [jax.grad(total)(value + sign * step * direction) for sign in (1, -1)]
        np.testing.assert_allclose(
            second, (gradients[0] - gradients[1]) / (2 * step), rtol=1e-6, atol=1e-6
        )


@continuous_case
def test_gradients_in_parameters_against_finite_differences(spec):
    """Through `log_prob`, and through `sample` for what is said to be reparametrized."""
    with jax.enable_x64(True):
        arrays = {k: jnp.asarray(v) for k, v in spec.params.items() if v is not None}
        moved = {k: v for k, v in arrays.items() if k not in ("directions", "weights")}
        fixed = {k: v for k, v in arrays.items() if k not in moved}
        value = draw(build(spec))
        step = 1e-6

        def check(function, params):
            gradient = jax.jit(jax.grad(function))(params)
            function = jax.jit(function)
            for name, array in params.items():
                tangent = np.random.default_rng(3).normal(size=array.shape)
                plus, minus = (
                    function({**params, name: array + s * step * tangent}) for s in (1, -1)
                )
                np.testing.assert_allclose(
                    jnp.sum(gradient[name] * tangent), (plus - minus) / (2 * step), 1e-6, 1e-7
                )

        check(lambda p: spec.cls(**fixed, **p).log_prob(value).sum(), moved)
        smooth = {k: v for k, v in moved.items() if k in spec.cls.reparametrized_params}
        fixed |= {k: v for k, v in moved.items() if k not in smooth}
        check(lambda p: jnp.sum(draw(spec.cls(**fixed, **p), (4,)) ** 2), smooth)


@every_case
def test_moments_against_samples(spec):
    d = build(spec)
    num = 20_000
    draws = np.asarray(draw(d, (num,)), np.float64)
    # Five standard errors of the sample mean and of the sample variance.
    mean_error = draws.std(0) / np.sqrt(num)
    squares = (draws - draws.mean(0)) ** 2
    variance_error = squares.std(0) / np.sqrt(num)
    assert np.all(np.abs(draws.mean(0) - d.mean) <= 5 * mean_error)
    assert np.all(np.abs(draws.var(0) - d.variance) <= 5 * variance_error)


@every_case
def test_expand_mask_and_independent(spec):
    d = build(spec)
    wide = d.expand((2, *spec.batch))
    several = draw(wide, (4,))
    assert several.shape == (4, 2, *spec.batch, *spec.event)
    assert not jnp.array_equal(several[:, 0], several[:, 1])  # drawn independently
    value = several[0]
    np.testing.assert_allclose(wide.log_prob(value), d.log_prob(value), rtol=1e-6)
    assert wide.mean.shape == wide.variance.shape == value.shape
    np.testing.assert_array_equal(wide.mean[1], d.mean)

    independent = wide.to_event(1 + len(spec.batch))
    assert (independent.batch_shape, independent.event_shape) == ((), value.shape)
    np.testing.assert_allclose(
        independent.log_prob(value), wide.log_prob(value).sum(), rtol=1e-5, atol=1e-5
    )

    mask = jnp.array([True, False]).reshape((2,) + (1,) * len(spec.batch))
    masked = wide.mask(jnp.broadcast_to(mask, wide.batch_shape))
    np.testing.assert_allclose(
        masked.log_prob(value), jnp.where(mask, wide.log_prob(value), 0), rtol=1e-6
    )
    with pytest.raises(ValueError, match="(?i)broadcast|expand"):
        wide.expand((3, *spec.batch))


@every_case
def test_pytree_round_trip(spec):
    d = build(spec)
    leaves, structure = jax.tree.flatten(d)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = jax.tree.unflatten(structure, leaves)
    assert (again.batch_shape, again.event_shape) == (d.batch_shape, d.event_shape)
    value = draw(d)
    np.testing.assert_array_equal(again.log_prob(value), d.log_prob(value))
    jax.tree.unflatten(structure, [object()] * len(leaves))  # must not look at the leaves


@every_case
def test_constraints_are_static(spec):
    """What NumPyro asks of `arg_constraints` before any parameter is known."""
    d = build(spec)
    for name, constraint in spec.cls.arg_constraints.items():
        assert not constraint.is_discrete
        assert 0 <= constraint.event_dim <= jnp.ndim(getattr(d, name))


@every_case
def test_distributions_are_made_in_a_loop(spec):
    """`lax.map` returns one from each step, `scan` compares their structures."""
    assert jax.lax.map(lambda _: build(spec), jnp.arange(2)).event_shape == spec.event
    jax.lax.scan(lambda *_: (build(spec), None), build(spec), jnp.arange(2))


@every_case
def test_pickle(spec):
    d = build(spec)
    again = pickle.loads(pickle.dumps(d))
    value = draw(d)
    np.testing.assert_array_equal(again.log_prob(value), d.log_prob(value))


@every_case
def test_repr_is_one_line_without_arrays(spec):
    d = build(spec)
    shown = repr(d)
    for part in (
        spec.cls.__name__,
        f"{NUM} {'components' if spec.cls is LowRankGaussianMixture else 'examples'}",
        f"batch shape {spec.batch}",
        f"event shape {spec.event}",
    ):
        assert part in shown
    assert len(shown) < 150 and "\n" not in shown
    for name, value in spec.params.items():
        if value is not None and np.shape(value) == spec.batch == ():
            assert f"{name}={value}" in shown
    leaves, structure = jax.tree.flatten(d)
    assert spec.cls.__name__ in repr(jax.tree.unflatten(structure, [object()] * len(leaves)))
    jax.jit(lambda d: len(repr(d)))(d)


@every_case
def test_vmap_over_a_parameter_returns_a_batched_distribution(spec):
    name = spec.vmapped
    # Three parameters, stacked; NumPyro then reads the batch shape again.
    stack = jnp.stack([jnp.asarray(spec.params[name]) * c for c in (0.5, 1.0, 2.0)])
    axes = vmap_over(build(spec), **{name: 0})
    stacked = jax.vmap(lambda p: build(spec, **{name: p}), out_axes=axes)(stack)
    stacked = promote_batch_shape(stacked)
    assert (stacked.batch_shape, stacked.event_shape) == ((3, *spec.batch), spec.event)

    each = [build(spec, **{name: p}) for p in stack]
    value = jnp.stack([draw(d, (4,)) for d in each], axis=1)
    expected = jnp.stack([d.log_prob(value[:, i]) for i, d in enumerate(each)], axis=1)
    np.testing.assert_allclose(stacked.log_prob(value), expected, rtol=1e-5, atol=1e-5)
    r = jnp.stack([d.responsibilities(value[:, i]) for i, d in enumerate(each)], axis=1)
    np.testing.assert_allclose(stacked.responsibilities(value), r, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        stacked.mean, jnp.stack([d.mean for d in each]), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        stacked.variance, jnp.stack([d.variance for d in each]), rtol=1e-5, atol=1e-6
    )
    assert draw(stacked, (4,)).shape == (4, 3, *spec.batch, *spec.event)


@every_case
def test_in_a_model_with_plate_and_predictive(spec):
    d = build(spec)

    def model():
        plates = [
            numpyro.plate(f"batch{axis}", size, dim=axis - len(spec.batch))
            for axis, size in enumerate(spec.batch)
        ]
        plates.append(numpyro.plate("copies", 2, dim=-1 - len(spec.batch)))
        with ExitStack() as stack:
            for plate in plates:
                stack.enter_context(plate)
            numpyro.sample("x", d)

    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace()
    value = trace["x"]["value"]
    assert value.shape == (2, *spec.batch, *spec.event)
    np.testing.assert_allclose(trace["x"]["fn"].log_prob(value), d.log_prob(value), rtol=1e-6)
    draws = Predictive(model, num_samples=4)(jax.random.key(0))["x"]
    assert draws.shape == (4, 2, *spec.batch, *spec.event)
    assert jnp.all(jnp.isfinite(d.log_prob(draws)))


@every_case
def test_in_a_scan(spec):
    """NumPyro's `scan` stacks all parameters of a site's distribution along time."""
    d = build(spec)

    def model():
        scan(lambda carry, _: (carry, numpyro.sample("x", d)), 0.0, jnp.arange(3))

    site = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace()["x"]
    assert site["fn"].batch_shape == (3, *spec.batch)
    np.testing.assert_allclose(
        site["fn"].log_prob(site["value"]), d.log_prob(site["value"]), rtol=1e-5, atol=1e-5
    )


@every_case
def test_out_of_support_values_warn_when_validated(spec):
    d = build(spec, validate_args=True)
    with pytest.warns(UserWarning, match="Out-of-support"):
        density = d.log_prob(jnp.full(d.shape(), jnp.nan))
    assert jnp.all(density == -jnp.inf)


@every_case
@pytest.mark.parametrize("dtype", [np.float16, np.int64])
def test_precision_follows_the_examples(spec, dtype):
    """Under x64: integers become doubles, half becomes single, and single stays single."""
    single = dtype in (np.float32, np.float16)
    with jax.enable_x64(True):
        params = {
            k: None if v is None else v.astype(np.float32 if single else np.float64)
            for k, v in spec.params.items()
        }
        centres = "locs" if spec.cls is LowRankGaussianMixture else "examples"
        params[centres] = (10 * spec.params[centres]).astype(dtype)
        d = spec.cls(**params)
        value = draw(d)
        expected = jnp.float32 if single else jnp.float64
        assert value.dtype == d.mean.dtype == d.log_prob(value).dtype == expected
        assert jnp.all(jnp.isfinite(d.log_prob(value)))


@every_case
def test_value_that_does_not_fit_the_event(spec):
    d = build(spec)
    if spec.event:
        with pytest.raises(ValueError, match="value has shape") as error:
            d.log_prob(jnp.zeros((7, *spec.event[:-1], spec.event[-1] + 1)))
        assert str(spec.event) in str(error.value)
    with pytest.raises(TypeError, match="value must be an array of real numbers"):
        d.log_prob("value")
