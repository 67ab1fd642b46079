"""Data and values of any kind of array, and what is no array of real numbers."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr

from ppl_memprior import InverseProblem

from .small_model import DATA, PRIOR, X, forward, normal_model, scale_model


def test_data_that_the_model_touches_are_read_all_the_same():
    def model(data):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(forward(x), 0.3).to_event(1), obs=jnp.log(data))

    given = np.exp(np.asarray(DATA, np.float32))
    np.testing.assert_allclose(InverseProblem(model, given).data["y"], DATA, rtol=1e-5)
    with pytest.raises(ValueError, match=r"site 'y' \(shape \(3,\)\) hold 1 NaN"):
        InverseProblem(model, np.where(np.arange(3) == 1, np.nan, given))


def foreign_arrays():
    yield "list", DATA.tolist()
    yield "big-endian", DATA.astype(">f4")
    yield "float64", DATA.astype(float)
    yield "series", pd.Series(DATA, index=[3, 1, 2])
    yield "dataarray", xr.DataArray(DATA, dims="receiver")
    yield "frame", pd.DataFrame({"y": DATA}).to_numpy()[:, 0]
    try:
        import torch
    except ImportError:
        return
    yield "tensor", torch.tensor(DATA, requires_grad=True)
    yield "list of tensors", list(torch.tensor(DATA))


@pytest.mark.parametrize("data", [pytest.param(value, id=name) for name, value in foreign_arrays()])
def test_data_of_any_kind_of_array(data):
    def compute_first(data):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(forward(x), 0.3).to_event(1), obs=2.0 * data)

    def by_closure():
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(forward(x), 0.3).to_event(1), obs=data)

    expected = InverseProblem(normal_model, data=DATA).residual(X)
    for problem in (InverseProblem(normal_model, data=data), InverseProblem(by_closure)):
        np.testing.assert_allclose(problem.residual(X), expected, rtol=1e-6)
        assert problem.data["y"].dtype.isnative
    twice = InverseProblem(compute_first, data).residual(X) + forward(X) / 0.3
    np.testing.assert_allclose(twice, 2 * DATA / 0.3, rtol=1e-5)


def test_values_of_any_kind_of_array():
    problem = InverseProblem(scale_model, data=DATA)
    expected = problem.log_likelihood(X, scale=0.3)
    for x in (np.asarray(X).tolist(), np.asarray(X).astype(">f4"), pd.Series(np.asarray(X))):
        np.testing.assert_array_equal(
            problem.log_likelihood(x, scale=np.array(0.3, ">f4")), expected
        )
    with pytest.raises(TypeError, match="'x' must be real"):
        problem.predict(np.asarray(X) * 1j, scale=0.3)
    with pytest.raises(TypeError, match="with_prior takes a NumPyro distribution, got a list"):
        problem.with_prior([0.0, 1.0])


def test_settings_reach_the_model_as_they_are():
    given = ((3, 2), "name", None, True, 2, 0.5, {"a": [1, 2]}, ["p", "q"], [jnp.ones(2), 1j], abs)
    seen = []

    def model(*settings, data):
        seen.append(settings)
        normal_model(data)

    InverseProblem(model, *given, data=DATA)
    assert all(a is b for a, b in zip(seen[0], given, strict=True))


@pytest.mark.parametrize(
    "data",
    [
        DATA * 1j,
        jnp.asarray(DATA) * 1j,
        [1j, 2j, 3j],
        np.array(["a", "b", "c"]),
        ["a", "b", "c"],
        np.array([1.0, None, 2.0], object),
        [[1.0, 2.0], [3.0]],
        np.array(["2020-01-01"] * 3, "datetime64[D]"),
        [0.1, None, 0.2],
    ],
    ids=["complex", "jax", "list", "text", "texts", "object", "ragged", "dates", "missing"],
)
def test_data_that_are_no_real_numbers_are_refused(data):
    with pytest.raises(TypeError, match="must be (real|an array of real numbers)"):
        InverseProblem(normal_model, data=data)
