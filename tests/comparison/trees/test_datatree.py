"""Groups of the draws' trees, against SciPy and counted forward solves."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from ppl_memprior import DiffusionMixturePrior, InverseProblem, MemorizedPrior, _batches
from ppl_memprior.comparison.trees.datatree import to_datatree
from ppl_memprior.comparison.trees.labels import (
    check_site_names,
    checked_coords,
    checked_dims,
    labelled,
)
from ppl_memprior.comparison.trees.prior_groups import prior_groups
from ppl_memprior.inference.draws import Cost, Draws

pytestmark = pytest.mark.arithmetic  # another Python computes the same

# what the fixtures of conftest.py are made of
SCALE, WEIGHT = 0.5, 0.25
COVARIANCE = np.array([[0.5, 0.2], [0.2, 0.4]])
MASK = np.array([[True, False], [True, True], [False, True]])
KEPT = np.nonzero(MASK)
NAMES = {"x": ["place"], "field": ["place", "part"], "grid": ["place", "part"]}


@pytest.fixture(scope="module")
def tree(kinds_problem, kinds_draws):
    prior = prior_groups(kinds_problem, jax.random.key(5), 50)
    return to_datatree(kinds_problem, kinds_draws, prior=prior)


def field_of(x):
    return 2.0 * np.stack([x, 2 * x + np.array([0.1, 0.2, 0.3])], axis=-1)


def test_log_likelihoods_are_those_of_each_datum(tree, kinds_problem, kinds_draws):
    x = kinds_draws.latents["x"].astype(float)
    field, data = field_of(x), kinds_problem.data
    found = tree["log_likelihood"].to_dataset()
    # rounding of float32 in residuals of up to 20 standard deviations, squared
    close = {"rtol": 1e-4, "atol": 1e-4}
    expected = stats.norm.logpdf(data["grid"], field, SCALE)
    assert found["grid"].dims == ("chain", "draw", "grid_dim_0", "grid_dim_1")
    np.testing.assert_allclose(found["grid"], expected, **close)
    expected = stats.norm.logpdf(data["gappy"], field, SCALE)[..., MASK]
    assert found["gappy"].dims == ("chain", "draw", "gappy_datum")
    np.testing.assert_allclose(found["gappy"], expected, **close)
    pairs = stats.multivariate_normal([0, 0], COVARIANCE)
    assert found["pairs"].dims == ("chain", "draw", "pairs_dim_0")
    expected = WEIGHT * pairs.logpdf(data["pairs"] - field)
    np.testing.assert_allclose(found["pairs"], expected, **close)
    expected = stats.poisson.logpmf(data["count"], np.exp(x))
    np.testing.assert_allclose(found["count"], expected, **close)


def test_log_likelihoods_sum_to_the_problems(tree, kinds_problem, kinds_draws):
    found = tree["log_likelihood"].to_dataset()
    total = sum(
        values.sum([dim for dim in values.dims if dim not in ("chain", "draw")])
        for values in found.values()
    )
    expected = jax.vmap(jax.vmap(kinds_problem.log_likelihood))(kinds_draws.latents["x"])
    # rounding of float32 in a sum of 18 numbers
    np.testing.assert_allclose(total, expected, rtol=1e-4)


def test_masked_data_are_left_out_everywhere(tree, kinds_problem):
    for group in ("log_likelihood", "posterior_predictive", "observed_data", "prior_predictive"):
        values = tree[group].to_dataset()["gappy"]
        assert values.sizes["gappy_datum"] == 4
        np.testing.assert_array_equal(values["gappy_index_0"], KEPT[0])
        np.testing.assert_array_equal(values["gappy_index_1"], KEPT[1])
    np.testing.assert_array_equal(tree["observed_data"]["gappy"], kinds_problem.data["gappy"][MASK])


def test_predictions_have_the_mean_and_the_noise_of_the_model(kinds_problem):
    n = 4000
    x = np.array([0.3, -0.2, 0.5], np.float32)
    draws = Draws(latents={"x": np.tile(x, (1, n, 1))}, cost=Cost(), independent=True)
    tree = to_datatree(kinds_problem, draws)
    assert tree.attrs["num_predictive_evaluations"] == 1
    found = tree["posterior_predictive"].to_dataset().isel(chain=0)
    field = field_of(x)
    # five standard errors of a mean and of a variance of n independent draws
    close = {"rtol": 0, "atol": 5 * SCALE / np.sqrt(n)}
    np.testing.assert_allclose(found["grid"].mean("draw"), field, **close)
    np.testing.assert_allclose(found["gappy"].mean("draw"), field[MASK], **close)
    np.testing.assert_allclose(found["count"].mean("draw"), np.exp(x), atol=5 * 1.3 / np.sqrt(n))
    variances = found["grid"].var("draw")
    np.testing.assert_allclose(variances, SCALE**2, rtol=5 * np.sqrt(2 / n))
    noise = found["pairs"].to_numpy() - field
    covariance = np.einsum("nij,nik->ijk", noise, noise) / n
    np.testing.assert_allclose(covariance, np.tile(COVARIANCE, (3, 1, 1)), atol=5 * 0.5 * 1.5 / 60)
    # repeated draws have noise of their own, and so has each datum
    flat = (found["grid"].to_numpy() - field).reshape(n, -1)
    assert len(np.unique(flat[:, 0])) > 0.99 * n
    correlation = np.corrcoef(np.column_stack([flat[:-1], flat[1:]]).T) - np.eye(12)
    assert np.abs(correlation).max() < 5 / np.sqrt(n)


def test_each_distinct_draw_is_solved_for_once():
    solved = []

    def solve(x):
        solved.append(float(x))
        return np.float32(2 * x)

    def model(data):
        x = numpyro.sample("x", MemorizedPrior(jnp.asarray([0.0, 1.0, 2.0])))
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        y = jax.pure_callback(solve, shape, x, vmap_method="sequential")
        numpyro.deterministic("y", y)
        numpyro.sample("data", dist.Normal(y, 1.0), obs=data)

    problem = InverseProblem(model, 0.5)
    x = np.array([[0.0, 1.0, 1.0, 0.0, 1.0, 2.0]], np.float32)
    examples_alone = to_datatree(problem, Draws(latents={"x": x[:, :1]}, cost=Cost()))
    assert examples_alone.attrs["num_predictive_evaluations"] == 1
    before = len(solved) - 1  # the deterministic site at the examples, kept from here on
    solved.clear()
    tree = to_datatree(problem, Draws(latents={"x": x}, cost=Cost(), independent=True))
    assert before == 3 and len(solved) == 3
    assert tree.attrs["num_predictive_evaluations"] == 3
    np.testing.assert_array_equal(tree["posterior"]["y"], 2 * x)
    assert len(np.unique(tree["posterior_predictive"]["data"])) == 6
    solved.clear()
    assert prior_groups(problem, jax.random.key(0), 7).num_evaluations == 7 == len(solved)


def test_large_groups_keep_evenly_spaced_draws(kinds_problem, kinds_draws, tree, monkeypatch):
    numbers = 2 * (6 + 6 + 6 + 3)  # of one draw of both chains
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 3 * numbers)
    thin = to_datatree(kinds_problem, kinds_draws)
    for group in ("log_likelihood", "posterior_predictive"):
        np.testing.assert_array_equal(thin[group]["draw"], [0, 2, 4])
        assert thin[group].attrs["thinned"].startswith("one draw in 2 of the 6 of a chain")
        assert "thinned" not in tree[group].attrs
    expected = tree["log_likelihood"].to_dataset().sel(draw=[0, 2, 4])
    for name, values in thin["log_likelihood"].to_dataset().items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5)
    assert thin["posterior"].sizes["draw"] == 6
    prior = prior_groups(kinds_problem, jax.random.key(5), 50)
    thin = to_datatree(kinds_problem, kinds_draws, prior=prior)
    np.testing.assert_array_equal(thin["prior_predictive"]["draw"], np.arange(0, 50, 9))
    assert thin["prior"].sizes["draw"] == 50


def test_prior_draws_and_their_predictions(kinds_problem, tree):
    found = prior_groups(kinds_problem, jax.random.key(5), 4000)
    assert list(found.sites) == ["x", "field"] and found.num_evaluations == 4000
    examples = np.asarray(kinds_problem.examples)
    spread = np.sqrt(0.3**2 + examples.var(axis=0))
    # five standard errors of a mean of 4000 independent draws
    atol = 5 * spread.max() / np.sqrt(4000)
    np.testing.assert_allclose(found.sites["x"].mean(0), examples.mean(0), atol=atol)
    noise = found.predictive["grid"] - found.sites["field"]
    np.testing.assert_allclose(noise.std(0), SCALE, rtol=5 / np.sqrt(2 * 4000))
    assert tree["prior"].sizes["draw"] == 50 and tree.attrs["num_prior_evaluations"] == 50
    assert tree["prior_predictive"]["grid"].shape == (1, 50, 3, 2)
    assert prior_groups(kinds_problem, jax.random.key(5), 0) is None
    with pytest.raises(ValueError, match="num_prior_draws must be at least 0, got -1"):
        prior_groups(kinds_problem, jax.random.key(5), -1)
    with pytest.raises(TypeError, match="num_prior_draws must be a whole number, .* got float 2.5"):
        prior_groups(kinds_problem, jax.random.key(5), 2.5)


def test_constant_data_are_what_the_model_takes_besides_its_data(tree, kinds_problem):
    constants = tree["constant_data"].to_dataset()
    assert set(constants) == {"x_examples", "offset"}
    np.testing.assert_array_equal(constants["x_examples"], kinds_problem.examples)
    np.testing.assert_allclose(constants["offset"], [0.1, 0.2, 0.3])
    assert set(tree["observed_data"].to_dataset()) == {"grid", "gappy", "pairs", "count"}


def test_constant_data_leave_large_arrays_out(kinds_problem, kinds_draws, monkeypatch):
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 10)
    constants = to_datatree(kinds_problem, kinds_draws)["constant_data"].to_dataset()
    assert set(constants) == {"offset"}
    assert constants.attrs["left_out"] == "x_examples: of more than 10 numbers"


def test_statistics_have_the_names_of_arviz(tree):
    found = tree["sample_stats"].to_dataset()
    assert {"n_steps", "lp", "acceptance_rate", "diverging", "tree_depth"} <= set(found)
    assert not {"num_steps", "potential_energy", "accept_prob"} & set(found)
    np.testing.assert_array_equal(found["lp"], -3.0)
    np.testing.assert_array_equal(found["tree_depth"][0], [0, 1, 2, 2, 3, 3])


def test_attributes_say_what_the_draws_are_and_cost(tree, kinds_draws, kinds_problem):
    attrs = tree.attrs
    assert attrs["independent_draws"] == 0 and "exchangeable_draws" not in attrs
    assert (attrs["num_forward_evaluations"], attrs["num_gradient_evaluations"]) == (7, 3)
    assert attrs["num_failed"] == 2 and attrs["log_evidence"] == -1.5
    assert attrs["num_predictive_evaluations"] == 11, "12 draws, one of them twice"
    assert json.loads(attrs["latent_sites"]) == ["x"] and attrs["num_data"] == 19
    particles = Draws(latents=kinds_draws.latents, cost=Cost(), exchangeable=True)
    assert to_datatree(kinds_problem, particles).attrs["exchangeable_draws"] == 1


def test_equal_draws_have_equal_predictions_and_others_have_not(kinds_problem, kinds_draws, tree):
    again = to_datatree(kinds_problem, kinds_draws)
    assert (
        again["posterior_predictive"].to_dataset().equals(tree["posterior_predictive"].to_dataset())
    )
    first, second = (tree["posterior_predictive"]["grid"][i, j] for i, j in ((0, 2), (1, 3)))
    assert not np.any(first.to_numpy() == second.to_numpy()), "one draw, two predictions"


class OnlyDensity(dist.Distribution):
    """A normal distribution that cannot be drawn from."""

    arg_constraints = {"loc": dist.constraints.real}
    support = dist.constraints.real

    def __init__(self, loc):
        self.loc = loc
        super().__init__(jnp.shape(loc))

    def log_prob(self, value):
        return dist.Normal(self.loc, 1.0).log_prob(value)


def with_factors(data):
    log_noise = numpyro.sample("log_noise", dist.Normal(0.0, 1.0))
    x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([0.0, 1.0]), 0.5))
    numpyro.sample("data", OnlyDensity(x), obs=data)
    numpyro.sample("noisy", dist.Normal(x, jnp.exp(log_noise)).expand([3]), obs=np.zeros(3))
    numpyro.factor("penalty", -(x**2))


def test_factors_and_distributions_without_draws():
    problem = InverseProblem(with_factors, 0.5)
    x, noise = np.array([[0.0, 0.5, 2.0]]), np.array([[0.1, 1.0, 2.0]])
    tree = to_datatree(problem, Draws(latents={"x": x, "log_noise": np.log(noise)}, cost=Cost()))
    assert set(tree["posterior_predictive"].to_dataset()) == {"noisy"}
    assert set(tree["observed_data"].to_dataset()) == {"data", "noisy"}
    found = tree["log_likelihood"].to_dataset()
    # rounding of float32
    np.testing.assert_allclose(found["data"][..., 0], stats.norm.logpdf(0.5, x, 1.0), rtol=1e-5)
    np.testing.assert_allclose(found["penalty"][..., 0], -(x**2), rtol=1e-5)
    expected = np.repeat(stats.norm.logpdf(0, x, noise)[..., None], 3, axis=-1)
    np.testing.assert_allclose(found["noisy"], expected, rtol=1e-5)


def test_dimensions_take_the_users_names(tree, kinds_problem):
    dims = checked_dims(kinds_problem, {**NAMES, "pairs": ["pair", "part"], "gappy": ["a", "b"]})
    coords = checked_coords(kinds_problem, {"place": [10, 20, 30], "part": [0, 1]}, dims)
    named = labelled(tree, coords, {"grid": "Pa", "x": "m"}, dims)
    assert named["posterior"]["field"].dims == ("chain", "draw", "place", "part")
    assert named["examples"]["x"].dims == ("example", "place")
    assert named["constant_data"]["x_examples"].dims == ("example", "place")
    assert named["constant_data"]["offset"].dims == ("offset_dim_0",)
    assert named["log_likelihood"]["pairs"].dims == ("chain", "draw", "pair")
    assert named["posterior_predictive"]["pairs"].dims == ("chain", "draw", "pair", "part")
    assert named["prior_predictive"]["gappy"].dims == ("chain", "draw", "gappy_datum")
    assert "gappy_index_1" in named["prior_predictive"]["gappy"].coords
    for group in ("posterior_predictive", "observed_data", "log_likelihood"):
        np.testing.assert_array_equal(named[group]["grid"]["place"], [10, 20, 30])
    assert named["observed_data"]["grid"].attrs["units"] == "Pa"
    assert named["prior"]["x"].attrs["units"] == "m"
    assert "units" not in named["log_likelihood"]["grid"].attrs, "it is in nats"
    assert labelled(named, {}, {}).identical(tree), "and gives them up again"


@pytest.mark.parametrize(
    ("dims", "error", "message"),
    [
        ({"y": ["a"]}, ValueError, "names the site 'y', which the model does not have; its sites"),
        ({"x": ["a", "b"]}, ValueError, r"has 2 names, \['a', 'b'\], and the site has the shape"),
        ({"grid": ["a", "a"]}, ValueError, "gives a name twice"),
        ({"x": ["draw"]}, ValueError, "names a dimension 'draw', which is taken"),
        ({"x": ["field"]}, ValueError, "names a dimension 'field', which is taken"),
        ({"x": ["gappy_datum"]}, ValueError, "'gappy_datum', which is taken"),
        ({"x": ["a/b"]}, ValueError, "'a/b', which cannot be stored"),
        ({"grid": ["a", "b"], "pairs": ["b", "a"]}, ValueError, "'b' to an axis of 2 .* of 3"),
        ({"x": ["grid_dim_1"]}, ValueError, "'grid_dim_1' to an axis of 3 elements of 'x'"),
        ({"x": "place"}, TypeError, "must be a list of 1 names, got str 'place'"),
        ({"x": [3]}, TypeError, "must hold names, got 3"),
        ([["a"]], TypeError, "dims must be a dict"),
    ],
    ids=str,
)
def test_names_of_dimensions_are_checked(kinds_problem, dims, error, message):
    with pytest.raises(error, match=message):
        checked_dims(kinds_problem, dims)


def test_observed_sites_need_names_that_can_be_stored():
    def model(data):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([0.0, 1.0]), 0.5))
        numpyro.sample("draw", dist.Normal(x, 1.0), obs=data)

    with pytest.raises(ValueError, match="the site 'draw' cannot be stored under that name"):
        check_site_names(InverseProblem(model, 0.5))


def test_every_forward_solve_is_counted():
    """Also where a deterministic site holds the prediction, at the examples and at the truth."""
    calls = []

    def operator(x):
        calls.append(1)
        return np.asarray(2 * x, np.float32)

    def model(y=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.arange(6.0).reshape(3, 2), 0.5))
        like = jax.ShapeDtypeStruct((2,), jnp.float32)
        predicted = jax.pure_callback(operator, like, x, vmap_method="sequential")
        numpyro.deterministic("predicted", predicted)
        numpyro.sample("y", dist.Normal(predicted, 0.5).to_event(1), obs=y)

    problem = InverseProblem(model, y=jnp.ones(2))
    draws = Draws(latents={"x": np.ones((1, 8, 2), np.float32)}, cost=Cost(), independent=True)
    calls.clear()
    prior = prior_groups(problem, jax.random.key(0), 5)
    first = to_datatree(problem, draws, prior=prior, truth={"x": np.zeros(2)})
    made = len(calls)
    names = ("num_predictive_evaluations", "num_prior_evaluations", "num_example_evaluations")
    assert [first.attrs[name] for name in names] == [1, 5, 3 + 1]
    assert made == sum(first.attrs[name] for name in names)
    # what does not depend on the draws is made once for all trees
    to_datatree(problem, draws, prior=prior)
    assert len(calls) == made + 1


def test_a_single_datum_stands_along_a_dimension():
    def model(y=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([0.0, 1.0]), 0.5))
        numpyro.sample("y", dist.Normal(x, 0.5), obs=y)

    problem = InverseProblem(model, y=0.3)
    x = np.random.default_rng(0).normal(size=(2, 30)).astype(np.float32)
    prior = prior_groups(problem, jax.random.key(0), 7)
    tree = to_datatree(problem, Draws(latents={"x": x}, cost=Cost()), prior=prior)
    for group in ("log_likelihood", "posterior_predictive", "prior_predictive", "observed_data"):
        assert tree[group]["y"].dims[-1] == "y_datum" and tree[group].sizes["y_datum"] == 1
    named = labelled(tree, {}, {"y": "m"}, {"y": ()})
    assert named["observed_data"]["y"].dims == ("y_datum",)
    assert tree["posterior"]["x"].dims == ("chain", "draw")


@pytest.mark.filterwarnings("ignore:.*the simulation failed")
def test_predictions_of_failed_simulations_are_no_numbers():
    """Whole numbers as well, and the draws are counted without a chi-square."""

    def model(y=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.asarray([-1.0, 1.0]), 0.1))
        rate = jnp.where(x > 0, jnp.exp(x), jnp.nan)
        numpyro.sample("y", dist.Poisson(rate).expand([3]).to_event(1), obs=y)

    problem = InverseProblem(model, y=jnp.asarray([1, 2, 3]))
    x = np.array([[1.0, -1.0, 0.9, -0.9]], np.float32)
    prior = prior_groups(problem, jax.random.key(0), 50)
    tree = to_datatree(problem, Draws(latents={"x": x}, cost=Cost(), independent=True), prior=prior)
    assert tree.attrs["num_failed_draws"] == 2
    lost = np.isnan(tree["posterior_predictive"]["y"].to_numpy())
    np.testing.assert_array_equal(lost, np.broadcast_to((x < 0)[..., None], (1, 4, 3)))
    lost = np.isnan(tree["prior_predictive"]["y"].to_numpy()).all(-1)
    np.testing.assert_array_equal(lost, tree["prior"]["x"].to_numpy() < 0)


def test_an_argument_that_is_called_like_a_dimension_is_kept():
    def model(depth, y=None):
        x = numpyro.sample("x", DiffusionMixturePrior(jnp.zeros((2, 3)), 0.5))
        numpyro.sample("y", dist.Normal(x * depth, 0.5).to_event(1), obs=y)

    depth = jnp.asarray([1.0, 2.0, 3.0])
    problem = InverseProblem(model, depth, y=jnp.ones(3))
    draws = Draws(latents={"x": np.ones((1, 4, 3), np.float32)}, cost=Cost(), independent=True)
    dims = checked_dims(problem, {"x": ["depth"]})
    coords = checked_coords(problem, {"depth": [10.0, 20.0, 30.0]}, dims)
    constant = labelled(to_datatree(problem, draws), coords, {}, dims)["constant_data"]
    np.testing.assert_array_equal(constant["depth_argument"], depth)
    np.testing.assert_array_equal(constant["depth"], coords["depth"])
