"""A figure of the report as an object: what it accepts, and what it says of bad drawings."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from ppl_memprior.comparison import ReportFigure
from ppl_memprior.comparison.report import FIGURES


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ("", "A toy.", lambda *_: None),
            ValueError,
            "the name of a figure must be a text",
        ),
        (("toy", None, lambda *_: None), TypeError, "the caption of the figure 'toy' must be text"),
        (("toy", "A toy.", Figure()), TypeError, "figure 'toy' needs a function .* as draw, got"),
    ],
    ids=["name", "caption", "draw"],
)
def test_a_figure_that_cannot_be_one_is_refused_when_it_is_made(arguments, error, message):
    with pytest.raises(error, match=message):
        ReportFigure(*arguments)


def test_draw_gets_the_posteriors_and_the_reference():
    got = []
    figure = ReportFigure("toy", "A toy.", lambda *given: got.append(given))
    runs = {"nuts": object()}
    assert figure.drawn(runs, "nuts") is None
    assert got == [(runs, "nuts")]


def test_the_caption_describes_a_figure_without_a_label():
    labelled = Figure()
    labelled.set_label("What it shows.")
    for made, label in ((labelled, "What it shows."), (Figure(), "A toy.")):
        figure = ReportFigure("toy", "A toy.", lambda *_, made=made: made)
        assert figure.drawn({}, None).get_label() == label


def test_what_is_no_figure_is_refused_and_errors_name_the_figure():
    with pytest.raises(TypeError, match="figure 'toy' must be a Matplotlib Figure or None"):
        ReportFigure("toy", "A toy.", lambda *_: 3).drawn({}, None)
    with pytest.raises(RuntimeError, match="'toy' cannot be drawn: ZeroDivisionError: division"):
        ReportFigure("toy", "A toy.", lambda *_: 1 / 0).drawn({}, None)


def test_the_built_in_figures_have_names_of_their_own_and_captions():
    assert len({figure.name for figure in FIGURES}) == len(FIGURES) == 7
    assert all(figure.caption.endswith(".") for figure in FIGURES)
