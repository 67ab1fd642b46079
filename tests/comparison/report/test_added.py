"""A column, a figure and a rule of the user: one object each, seen in every form of the report."""

from __future__ import annotations

import csv
import html
import json
import math

import pytest
from matplotlib.figure import Figure

from ppl_memprior import compare
from ppl_memprior.comparison import Column, ReportFigure
from ppl_memprior.comparison.report import COLUMNS
from ppl_memprior.diagnostics import Verdict

pytestmark = pytest.mark.arithmetic  # another Python computes the same

SPREAD = Column(
    name="sd of <x>",
    compute=lambda posterior: posterior.tree["posterior"]["x"].std(),
    format=".4f",
    help="Standard deviation of the draws of x & nothing else.",
    unit="m/s",
)


def draw_means(runs, reference):
    figure = Figure(figsize=(4, 2))
    means = [float(tree["posterior"]["x"].mean()) for tree in runs.values()]
    figure.subplots().plot(means, "o")
    figure.set_label(f"Means of {len(means)} posteriors beside {reference}.")
    return figure


MEANS = ReportFigure("means", "Mean of x & its <place>.", draw_means)


@pytest.fixture(scope="module")
def few(cubic_runs):
    """Two posteriors, which are summarized fast."""
    return {name: cubic_runs[name] for name in ("lookup", "linearized")}


def test_an_added_column_is_the_last_of_table_text_json_and_csv(few, tmp_path):
    comparison = compare(few, columns=[SPREAD])
    expected = {name: float(tree["posterior"]["x"].to_numpy().std()) for name, tree in few.items()}
    # single precision, in which NumPy and xarray may sum in another order
    assert comparison.table[SPREAD.name].to_dict() == pytest.approx(expected, rel=1e-5)
    assert comparison.columns[-1] == SPREAD.name and list(comparison.table)[:1] == ["draws"]
    assert [row[-1] for row in comparison.formatted_rows()] == [
        f"{value:.4f}" for value in expected.values()
    ]
    lines = comparison.to_text().split("\n")
    assert lines[0].endswith(SPREAD.name) and lines[1].endswith(f"{expected['lookup']:.4f}")

    posteriors = json.loads(comparison.to_json())["posteriors"]
    stored = {p["method"]: p["columns"][SPREAD.name] for p in posteriors}
    assert stored == pytest.approx(expected, rel=1e-5)
    assert posteriors[0]["columns"]["R-hat"] is None is posteriors[0]["rhat"]
    assert posteriors[0]["columns"]["draws"] == posteriors[0]["draws"] == 100

    with comparison.to_csv(tmp_path / "new" / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["posterior", *comparison.columns]
    assert [row["posterior"] for row in rows] == list(few)
    assert float(rows[1][SPREAD.name]) == pytest.approx(expected["linearized"], rel=1e-5)
    assert rows[0]["R-hat"] == "" and rows[0]["draws"] == "100"


def test_the_page_explains_each_shown_column_and_each_figure(few, tmp_path):
    comparison = compare(few, columns=[SPREAD], figures=[MEANS])
    page = comparison.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    shown = html.unescape(page)
    for column in (*COLUMNS, SPREAD):
        in_table = column.name in comparison.columns
        assert (f"<dd>{column.help}</dd>" in shown) == in_table, column.name
    assert "<dt>sd of <x> (m/s)</dt>" in shown and "<x>" not in page
    assert f"<figcaption>{MEANS.caption}</figcaption>" in shown and "<place>" not in page
    assert 'alt="Means of 2 posteriors beside None."' in shown
    assert "The reference is" not in page


def test_an_added_figure_is_the_last_of_the_figures(few):
    figures = compare(few, "lookup", figures=(MEANS,)).figures()
    assert list(figures)[-1] == "means"
    assert figures["means"].get_label() == "Means of 2 posteriors beside lookup."


def test_an_added_rule_speaks_before_the_advice(few, tmp_path):
    def judge_count(reading):
        means = [float(tree["posterior"]["x"].mean()) for tree in reading.runs.values()]
        sentence = f"{len(means)} <posteriors> beside {reading.reference}."
        return [Verdict(code="count", severity="warning", sentence=sentence)]

    comparison = compare(few, "lookup", rules=[judge_count])
    assert [verdict.code for verdict in comparison.verdicts].index("count") == (
        len(comparison.verdicts) - 2
    )
    said = "2 <posteriors> beside lookup."
    assert f"!  {said}" in comparison.to_text()
    assert json.loads(comparison.to_json())["verdicts"][-2]["sentence"] == said
    page = comparison.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert f'<li class="warning">{html.escape(said)}</li>' in page
    with pytest.raises(TypeError, match="extra_rules must be a list of functions"):
        compare(few, rules=judge_count)


def test_a_column_reads_name_summary_and_reference(few):
    seen = {}

    def compute(posterior):
        seen[posterior.name] = posterior
        return posterior.summary.draws

    column = Column(name="seen", compute=compute, format="d", help="A toy.")
    comparison = compare(few, "lookup", columns=[column])
    assert list(seen) == list(few) == list(comparison.table.index)
    assert all(p.tree is few[name] and p.summary.method == name for name, p in seen.items())
    assert all(p.reference is few["lookup"] for p in seen.values())
    compare(few, columns=[column])
    assert seen["lookup"].reference is None


def test_an_optional_column_is_shown_only_where_some_posterior_has_it(few):
    column = Column(
        name="half",
        compute=lambda p: 0.5 if p.name == "lookup" else math.nan,
        format=".1f",
        help="A toy.",
        optional=True,
    )
    assert "half" in compare(few, columns=[column]).columns
    without = compare({"linearized": few["linearized"]}, columns=[column])
    assert "half" not in without.columns and "half" not in without.table
    assert json.loads(without.to_json())["posteriors"][0]["columns"]["half"] is None


def test_predictions_are_shown_where_the_draws_count_them(few):
    bare = {name: tree.copy() for name, tree in few.items()}
    for tree in bare.values():  # as earlier versions stored them
        tree.attrs = {k: v for k, v in tree.attrs.items() if k != "num_predictive_evaluations"}
    assert "predictions" not in compare(bare).columns
    bare["lookup"].attrs["num_predictive_evaluations"] = 5
    comparison = compare({name: bare[name] for name in ("lookup", "linearized")})
    assert [row[-1] for row in comparison.formatted_rows()] == ["5", "-"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"columns": SPREAD}, TypeError, r"got Column; write columns=\[Column\(...\)\]"),
        ({"columns": [MEANS]}, TypeError, "columns must hold Column objects, got ReportFigure"),
        ({"columns": [SPREAD, SPREAD]}, ValueError, "the name 'sd of <x>' is taken"),
        ({"figures": [SPREAD]}, TypeError, "figures must hold ReportFigure objects, got Column"),
        ({"figures": draw_means}, TypeError, r"got function; write figures=\[ReportFigure\(...\)"),
    ],
    ids=["one", "other", "twice", "column", "function"],
)
def test_objects_that_cannot_be_added_are_refused_before_any_work(
    few, monkeypatch, arguments, error, message
):
    monkeypatch.setattr(
        "ppl_memprior.comparison.compared.summarize_all", lambda *_: pytest.fail("summarized")
    )
    with pytest.raises(error, match=message):
        compare(few, **arguments)


@pytest.mark.parametrize("name", ["ESS", "k-hat", "posterior"])
def test_names_of_built_in_columns_are_taken(few, name):
    column = Column(name=name, compute=len, format="d", help="A toy.")
    with pytest.raises(ValueError, match=f"the name '{name}' is taken"):
        compare(few, columns=[column])


def test_names_of_built_in_figures_are_taken(few):
    with pytest.raises(ValueError, match="the name 'misfit' is taken"):
        compare(few, figures=[ReportFigure("misfit", "A toy.", draw_means)])


def test_a_column_that_fails_says_which_and_for_which_posterior(few):
    column = Column(name="broken", compute=lambda _: 1 / 0, format="d", help="A toy.")
    with pytest.raises(RuntimeError, match="'broken' of the posterior 'lookup' cannot be computed"):
        compare(few, columns=[column])


def test_the_path_of_the_csv_is_checked(few, tmp_path):
    with pytest.raises(ValueError, match="is a folder; give a file's path"):
        compare(few).to_csv(tmp_path)
