"""Arguments of a run that do not belong are refused before any work."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import (
    DiffusionMixturePrior,
    InverseProblem,
    MemorizedPrior,
    methods,
    run,
)

from .stand_ins import Counted, field_problem

pytestmark = pytest.mark.arithmetic  # another Python computes the same

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"coords": {"depth": [0.0]}}, ValueError, "1 values of 'depth', which fit no site"),
        ({"coords": {"v_dim_0": [0.0]}}, ValueError, r"must have the shape \(2,\), got \(1,\)"),
        ({"coords": {"deep": [0.0]}}, ValueError, "'deep', which no site has; .*'v_dim_0' \\(2\\)"),
        (
            {"coords": {"depth": ["a", "b"]}},
            TypeError,
            r"coords\['depth'\] must be an array of real",
        ),
        ({"coords": {"depth": [0.0, np.nan]}}, ValueError, "1 of 2 numbers are NaN"),
        ({"coords": [0.0]}, TypeError, "coords must be a dict"),
        (
            {"units": {"w": "m/s"}},
            ValueError,
            r"units names the site 'w', .* \['v', 'profile', 'y'\]",
        ),
        ({"units": {"v": 3}}, TypeError, "must be text such as 'm/s', got int 3"),
        ({"truth": {"v": np.zeros((2, 3)), "w": 1.0}}, ValueError, "truth names the site 'w'"),
        ({"truth": {"profile": np.zeros(2)}}, ValueError, "the prior's site 'v' a value of event"),
        ({"truth": {"v": np.zeros((2, 3)), "profile": 1.0}}, ValueError, r"shape \(2,\), got \(\)"),
        ({"truth": np.full((2, 3), np.inf)}, ValueError, "6 of 6 numbers are NaN or infinite"),
        ({"truth": np.zeros((2, 3), complex)}, TypeError, "must be real, got dtype complex128"),
        ({"rng_key": 3}, TypeError, r"got 3: write jax.random.key\(3\)"),
        ({"rng_key": jax.random.split(KEY, 2)}, TypeError, r"got an array of shape \(2,\)"),
        ({"methods": [["lookup"]]}, TypeError, "is no method"),
        ({"methods": 3}, ValueError, "methods is a list of names"),
        ({"methods": [3]}, TypeError, "3 is no method: it has no name, check, draw"),
        ({"methods": [methods.Dps]}, TypeError, r"a class; give an object, methods.Dps\(\)"),
        ({"methods": [Counted(), Counted()]}, ValueError, "two methods have the label 'counted'"),
        ({"store": 3}, TypeError, "store must be a path, got int 3"),
        ({"store": __file__}, ValueError, "is a file; give another path"),
        ({"store": __file__ + "/below"}, ValueError, "is a file; give another path"),
    ],
    ids=str,
)
def test_arguments_are_checked_before_any_work(arguments, error, message):
    Counted.calls.clear()
    given = {"methods": [Counted()], "rng_key": KEY, "progress": False, **arguments}
    with pytest.raises(error, match=message):
        run(field_problem(), **given)
    assert not Counted.calls


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ValueError, match="cannot be written to: no permission to write into"):
        run(field_problem(), ["lookup"], KEY, store=tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["lookup", "nut"],
            r"unknown method 'nut'. Did you mean 'nuts'\? There are: lookup, linearized, ",
        ),
        ([], "list of names"),
        ("nuts", "list of names"),
        (["nuts"], "nuts needs a prior with a density"),
        (["psis"], "psis needs a prior with a density"),
    ],
)
def test_bad_methods_are_refused_before_any_work(names, message):
    def model(data=None):
        x = numpyro.sample("x", MemorizedPrior(jnp.asarray([-1.0, 0.5])))
        numpyro.sample("y", dist.Normal(x, 0.3), obs=data)

    with pytest.raises(ValueError, match=message):
        run(InverseProblem(model, data=0.4), names, KEY)


@pytest.mark.parametrize("name", ["chain", "example", "chi_square", "earth/velocity"])
def test_names_that_cannot_be_stored_are_refused_before_any_work(name):
    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([0.0, 1.0]), 0.3))
        numpyro.deterministic(name, 2 * x)
        numpyro.sample("y", dist.Normal(x, 0.3), obs=data)

    with pytest.raises(ValueError, match=f"the site '{name}' cannot be stored under that name"):
        run(InverseProblem(model, data=0.3), ["lookup"], KEY)


def test_a_truth_of_another_shape_is_refused(cubic_problem):
    with pytest.raises(ValueError, match=r"event shape \(\), got \(3,\)"):
        run(cubic_problem(0.0, 0.3), ["lookup"], KEY, truth=jnp.zeros(3))
