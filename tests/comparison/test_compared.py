"""The comparison: what it takes and refuses, its table, text, JSON, CSV, figures and page."""

from __future__ import annotations

import json

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

from ppl_memprior import DiffusionMixturePrior, InverseProblem, compare, run
from ppl_memprior.comparison import ReportFigure


def test_table_has_a_row_for_each_posterior(cubic_runs):
    table = compare(cubic_runs, reference="linearized").table
    assert list(table.index) == list(cubic_runs)
    assert table.loc["lookup", "NN ratio"] == 0
    assert table.loc["lookup", "chi2/m"] > table.loc["dps", "chi2/m"]
    assert np.isnan(table.loc["linearized", "distance"])
    assert 0 < table.loc["lookup", "distance"] < 1
    assert np.isnan(table.loc["lookup", "R-hat"]) and table.loc["nuts", "R-hat"] > 0.9
    assert table.loc["psis", "k-hat"] < 0.7 and np.isnan(table.loc["linearized", "k-hat"])
    assert 0 < table.loc["psis", "± se"] < 0.1
    # 100 of 400 weighted draws, about 360 of them effective: 1 / (1 / 360 + 1 / 100)
    assert 70 < table.loc["psis", "ESS"] < 80
    assert table.loc["lookup", "examples"] == pytest.approx(2.1, abs=0.2)


def test_columns_of_the_correction_are_left_out_without_one(cubic_runs):
    few = compare({name: cubic_runs[name] for name in ("lookup", "linearized")})
    assert not {"k-hat", "± se"} & set(few.table.columns) and "k-hat" not in few.to_text()
    assert len(few.formatted_rows()[0]) == 1 + len(few.columns)


def test_text_and_json(cubic_runs):
    comparison = compare(cubic_runs, reference="linearized")
    text = comparison.to_text()
    assert all(name in text for name in cubic_runs) and "Verdict" in text
    content = json.loads(comparison.to_json())
    assert content["reference"] == "linearized"
    assert content["posteriors"][0]["rhat"] is None
    assert content["verdicts"][-1]["sentence"] in text


def test_page_is_complete_and_self_contained(cubic_runs, tmp_path):
    path = compare(cubic_runs, reference="nuts").to_html(
        tmp_path / "report.html", title="A <title>", notes={"seed": 3}
    )
    page = path.read_text()
    assert "The reference is nuts." in page
    assert "A &lt;title&gt;" in page and "<dt>seed</dt><dd>3</dd>" in page
    assert page.count("data:image/png;base64,") == 6  # no fields in one dimension
    assert "http" not in page and "<script" not in page
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_nuisances_stand_in_text_and_page(cubic_runs, tmp_path):
    nuts = cubic_runs["nuts"].copy()
    scale = np.random.default_rng(0).gamma(2.0, size=(2, 100))
    posterior = nuts["posterior"].to_dataset().assign({"<scale>": (("chain", "draw"), scale)})
    nuts["posterior"] = xr.DataTree(posterior)
    nuts.attrs = {**nuts.attrs, "latent_sites": json.dumps(["x", "<scale>"])}
    comparison = compare({"nuts": nuts})
    assert "Other latent sites" in comparison.to_text() and "<scale>" in comparison.to_text()
    page = comparison.to_html(tmp_path / "report.html").read_text()
    assert "Other latent sites" in page and "&lt;scale&gt;" in page and "<scale>" not in page
    assert "Other latent sites" not in compare(cubic_runs).to_text()


@pytest.fixture(scope="module")
def field_runs(short):
    key = jax.random.key(0)
    examples = jax.random.normal(key, (6, 4, 5))

    def model(data=None):
        v = numpyro.sample("v", DiffusionMixturePrior(examples, 0.2))
        numpyro.sample("y", dist.Normal(v.sum(0), 0.3).to_event(1), obs=data)

    return run(
        InverseProblem(model, data=examples[0].sum(0)),
        short("lookup", "linearized"),
        key,
        truth=examples[1],
        units={"v": "m/s"},
        progress=False,
    )


def test_field_panels_show_what_their_titles_say(field_runs):
    figure = compare(field_runs).figures()["fields"]
    shown = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}
    draws = field_runs["linearized"]["posterior"].to_dataset()["v"]
    np.testing.assert_allclose(shown["truth"], field_runs["lookup"]["truth"]["v"])
    np.testing.assert_allclose(shown["mean\nlinearized"], draws.mean(("chain", "draw")))
    np.testing.assert_allclose(
        shown["standard deviation\nlinearized"], draws.std(("chain", "draw"))
    )
    np.testing.assert_allclose(shown["example 1, nearest\nto the truth"], shown["truth"])
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert "v (m/s)" in labels and "sd of v (m/s)" in labels


def test_chains_are_drawn_only_where_there_are_any(cubic_runs, field_runs):
    drawn, without = compare(cubic_runs).figures(), compare(field_runs).figures()
    for name in ("chains", "occupancy", "ranks"):
        assert name in drawn and name not in without
    # rows of the occupancy are shares of one chain's draws, over all the examples here
    table = drawn["occupancy"].axes[0].images[0].get_array()
    assert table.shape[0] == 2
    np.testing.assert_allclose(table.sum(axis=1), 1)
    assert "fields" not in compare(cubic_runs).figures()


def test_refuses_posteriors_of_different_problems(cubic_runs):
    one = cubic_runs["nuts"]
    fewer = one.copy()
    fewer["examples"] = xr.DataTree(one["examples"].to_dataset().isel(example=slice(3)))
    with pytest.raises(
        ValueError, match=r"'a' has the unknown 'x' of shape \(\) and 5 examples; 'b'"
    ):
        compare({"a": one, "b": fewer})
    with pytest.raises(TypeError, match="posterior 'a' is a int; give a DataTree, an Inference"):
        compare({"a": 1})
    with pytest.raises(TypeError, match="posteriors by name"):
        compare([one])


def test_refuses_runs_of_different_problems(cubic_runs, cubic_problem, short):
    """Same sites, shapes and examples, other data: only the fingerprint knows."""
    lookup, options = short("lookup"), {"progress": False}
    one = cubic_runs["lookup"]
    same = run(cubic_problem(0.0, 0.3), lookup, jax.random.key(5), **options)["lookup"]
    other = run(cubic_problem(0.4, 0.3), lookup, jax.random.key(0), **options)["lookup"]
    assert list(compare({"a": one, "b": same}).table.index) == ["a", "b"]
    with pytest.raises(ValueError) as refused:
        compare({"a": one, "b": other, "c": same})
    ids = [tree.attrs["problem"][:8] for tree in (one, other)]
    assert f"{ids[0]} (float32) of ['a', 'c']; {ids[1]} (float32) of ['b']" in str(refused.value)
    assert "another processor or version of JAX rounds differently" in str(refused.value)

    earlier = other.copy()
    del earlier.attrs["problem"]  # as an earlier version stored it
    settings = other.copy()
    settings.attrs["settings"] = "{}"  # as a later one did, whose fingerprint was another
    assert list(compare({"a": one, "b": settings}).table.index) == ["a", "b"]
    assert list(compare({"a": one, "b": earlier}).table.index) == ["a", "b"]


def test_refuses_runs_whose_units_or_truth_differ(field_runs):
    one = field_runs["lookup"]
    other = one.copy(deep=True)
    other["posterior"]["v"].attrs["units"] = "km/s"
    with pytest.raises(ValueError, match=r"units of 'v': 'm/s' of \['a'\]; 'km/s' of \['b'\]"):
        compare({"a": one, "b": other})
    del other["posterior"]["v"].attrs["units"]
    compare({"a": one, "b": other})
    other["truth"]["v"] = one["truth"]["v"] + 1
    with pytest.raises(ValueError, match="differ in the truth of 'v': 4x5 numbers"):
        compare({"a": one, "b": other})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": "."}, ValueError, "the report . is a folder; give a file's path"),
        ({"path": __file__ + "/report.html"}, ValueError, "is a file; give another path"),
        ({"path": 3}, TypeError, "the report must be a path, got int 3"),
        ({"title": None}, TypeError, "title must be text, got NoneType None"),
        ({"notes": ["seed"]}, TypeError, "notes must be a dict of names and values"),
    ],
    ids=str,
)
def test_arguments_of_the_page_are_checked_before_any_figure(
    cubic_runs, tmp_path, monkeypatch, arguments, error, message
):
    comparison = compare({"lookup": cubic_runs["lookup"]})
    monkeypatch.setattr(ReportFigure, "drawn", lambda *_: pytest.fail("drawn"))
    with pytest.raises(error, match=message):
        comparison.to_html(**{"path": tmp_path / "report.html", **arguments})


def test_refuses_nothing_and_unknown_references(cubic_runs):
    with pytest.raises(ValueError, match="at least one posterior"):
        compare({})
    with pytest.raises(ValueError, match="'smc' is not among"):
        compare(cubic_runs, reference="smc")
    with pytest.raises(ValueError, match=r"\['nuts'\] is not among"):
        compare(cubic_runs, reference=["nuts"])
    with pytest.raises(TypeError, match="names must be text, got 3"):
        compare({3: cubic_runs["nuts"]})
