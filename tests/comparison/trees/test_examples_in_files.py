"""Trees of problems whose examples stay in a file: what they hold, and what is read for them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from ppl_memprior import (
    DiffusionMixturePrior,
    InverseProblem,
    MemorizedPrior,
    _batches,
    compare,
)
from ppl_memprior.comparison.trees.constant_data import constant_data
from ppl_memprior.comparison.trees.datatree import to_datatree
from ppl_memprior.comparison.trees.storage import load_trees, save_trees
from ppl_memprior.inference.draws import Cost, Draws

from ...counted_file import CountedFile

pytestmark = pytest.mark.arithmetic  # another Python computes the same

NUM, EVENT = 80, (5, 6)
TWENTY = 20  # examples in a batch
ROWS = np.random.default_rng(0).normal(size=(NUM, *EVENT)).astype(np.float32)
ROWS[71] = ROWS[4]  # a copy, in another batch
DRAWS = np.concatenate([ROWS[[7, 71, 30, 7, 55, 7]], ROWS[:6] + np.float32(0.1)])
OFFSET = np.zeros(2)
KINDS = {
    "memorized": MemorizedPrior,
    "mixture": lambda rows: DiffusionMixturePrior(rows, 0.05),
    "scaled": lambda rows: DiffusionMixturePrior(rows, 0.05, alpha=0.5),
}


def problem_of(prior, offset=OFFSET):
    def model(offset, data=None):
        x = numpyro.sample("x", prior)
        numpyro.deterministic("twice", 2 * x)
        total = numpyro.deterministic("total", jnp.sum(x))
        numpyro.sample("y", dist.Normal(total + jnp.mean(offset), 0.5), obs=data)

    return InverseProblem(model, offset, data=0.3)


def tree_of(problem):
    draws = Draws(latents={"x": DRAWS.reshape(2, 6, *EVENT)}, cost=Cost())
    return to_datatree(problem, draws, truth={"x": DRAWS[0]})


@pytest.fixture
def file(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", ROWS)
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", TWENTY * 30)
    return CountedFile(tmp_path / "x.npy")


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_says_the_same_of_examples_in_a_file(kind, file, monkeypatch):
    problem = problem_of(KINDS[kind](file))
    file.forget()
    tree = tree_of(problem)
    assert file.largest <= TWENTY
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 2**24)
    whole = tree_of(problem_of(KINDS[kind](ROWS)))
    assert "left_out" not in whole["examples"].attrs
    found, expected = tree["examples"].to_dataset(), whole["examples"].to_dataset()
    assert set(expected) - set(found) == {"x", "twice"}
    assert set(found) - set(expected) == {"leave_one_out_ratio"}
    assert found.attrs["left_out"] == "x, twice: of more than 600 numbers"
    assert tree["constant_data"].attrs["left_out"] == "x_examples: of more than 600 numbers"
    assert found["representative"][71] == 4
    np.testing.assert_array_equal(found["representative"], expected["representative"])
    for name in ("total", "mean_responsibility", "prior_weight"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)
    for name in ("nearest_example", "nearest_ratio"):
        np.testing.assert_allclose(
            tree["sample_stats"][name], whole["sample_stats"][name], rtol=1e-5, atol=1e-6
        )
    for name in ("num_example_evaluations", "bandwidth"):
        assert tree.attrs[name] == whole.attrs[name]


def test_a_report_needs_no_examples(file, tmp_path, monkeypatch):
    tree = tree_of(problem_of(KINDS["mixture"](file)))
    save_trees({"nuts": tree}, tmp_path / "runs.nc")
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", 2**24)
    whole = tree_of(problem_of(KINDS["mixture"](ROWS)))
    stored = load_trees(tmp_path / "runs.nc")["nuts"]
    assert stored["examples"].attrs["left_out"].startswith("x, twice")
    summaries = [compare({"nuts": each}).summaries[0] for each in (stored, whole)]
    for name in ("nearest_ratio", "null_share", "effective_examples", "distinct_examples"):
        values = [getattr(summary, name) for summary in summaries]
        np.testing.assert_allclose(*values, rtol=1e-5)
    compare({"nuts": stored}).to_html(tmp_path / "report.html")
    assert "Marginals of every latent site" in (tmp_path / "report.html").read_text()


def test_an_argument_that_holds_the_examples_is_told_from_one_like_it(file):
    prior = KINDS["mixture"](file)
    for argument, names in ((ROWS, "x_examples"), (ROWS + 1, "x_examples, offset")):
        problem = problem_of(prior, argument)
        file.forget()
        constants = constant_data(problem, 600)
        assert constants.attrs["left_out"] == f"{names}: of more than 600 numbers"
        assert not constants.data_vars
        assert file.largest <= TWENTY


def test_sites_that_are_too_large_are_not_solved_for(file, monkeypatch):
    problem = problem_of(KINDS["mixture"](file))
    monkeypatch.setattr(_batches, "BATCH_ELEMENTS", NUM - 1)
    tree = tree_of(problem)
    assert tree["examples"].attrs["left_out"] == "x, twice, total: of more than 79 numbers"
    assert tree.attrs["num_example_evaluations"] == 1  # at the truth
    assert tree["truth"]["twice"].shape == EVENT
