"""A column: what it accepts, how it computes and writes a number, and what it says of bad ones."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields, replace

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from ppl_memprior.comparison import Column, Posterior
from ppl_memprior.comparison.report import COLUMNS
from ppl_memprior.diagnostics import PosteriorSummary

COLUMN = Column(name="draws squared", compute=lambda _: 9, format=".1f", help="A toy.", unit="m")


def posterior(value=2.0, **attributes):
    """A posterior whose summary has one value everywhere, and whose tree has these attributes."""
    summary = PosteriorSummary(**{field.name: value for field in fields(PosteriorSummary)})
    tree = xr.DataTree()
    tree.attrs = attributes
    return Posterior("nuts", tree, summary, None)


def test_a_column_cannot_be_changed_and_has_names_for_its_arguments():
    with pytest.raises(FrozenInstanceError):
        COLUMN.name = "other"
    with pytest.raises(TypeError, match="positional"):
        Column("a", abs, ".1f", "A toy.")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": " "}, ValueError, "the name of a column must be a text, got ' '"),
        ({"name": 3}, TypeError, "the name of a column must be text, got int 3"),
        ({"help": ""}, ValueError, "the help of the column 'draws squared' must be a text"),
        ({"compute": 3}, TypeError, "'draws squared' needs a function of a Posterior .* got int 3"),
        ({"format": None}, TypeError, "the format of the column 'draws squared' must be text"),
        ({"format": "s"}, ValueError, "format 's' of the column 'draws squared' formats no number"),
        ({"format": "{:.1f}"}, ValueError, "such as '.3f' or ',d'"),
        ({"unit": None}, TypeError, "the unit of the column 'draws squared' must be text"),
        ({"optional": 1}, TypeError, "optional of the column 'draws squared' must be True or"),
    ],
    ids=str,
)
def test_a_column_that_cannot_be_one_is_refused_when_it_is_made(changes, error, message):
    with pytest.raises(error, match=message):
        replace(COLUMN, **changes)


@pytest.mark.parametrize(
    "computed",
    [2.5, np.float32(2.5), np.array(2.5), jnp.float32(2.5), xr.DataArray(2.5)],
    ids=lambda value: type(value).__name__,
)
def test_numbers_of_any_library_become_a_float(computed):
    value = replace(COLUMN, compute=lambda _: computed).value(posterior())
    assert type(value) is float and value == 2.5


def test_whole_numbers_stay_whole():
    value = replace(COLUMN, compute=lambda _: np.int32(3)).value(posterior())
    assert type(value) is int and value == 3


@pytest.mark.parametrize("computed", [None, "2", True, np.ones(2), 1j], ids=str)
def test_what_is_no_number_is_refused_with_the_column_and_the_posterior(computed):
    column = replace(COLUMN, compute=lambda _: computed)
    with pytest.raises(TypeError, match="'draws squared' of the posterior 'nuts' must be a number"):
        column.value(posterior())


def test_an_error_of_compute_names_the_column_and_the_posterior():
    column = replace(COLUMN, compute=lambda p: p.tree.attrs["length"])
    message = "'draws squared' of the posterior 'nuts' cannot be computed: KeyError: 'length'"
    with pytest.raises(RuntimeError, match=message) as raised:
        column.value(posterior())
    assert isinstance(raised.value.__cause__, KeyError)


def test_a_fraction_in_a_column_of_whole_numbers_is_refused():
    column = replace(COLUMN, format=",d", compute=lambda _: 2.5)
    with pytest.raises(ValueError, match="is 2.5, which its format ',d' does not write"):
        column.value(posterior())


@pytest.mark.parametrize(
    ("how", "value", "cell"),
    [
        (",d", math.nan, "-"),
        (",d", 1234.0, "1,234"),
        (",d", 1234, "1,234"),
        (",d", math.inf, "inf"),
        (".1f", math.nan, "-"),
        (".1f", 3, "3.0"),
        ("+.1f", -1e30, "-1.00e+30"),
    ],
)
def test_cells_of_missing_and_whole_numbers(how, value, cell):
    assert replace(COLUMN, format=how).cell(value) == cell


def test_the_built_in_columns_keep_their_names_and_order():
    assert [column.name for column in COLUMNS] == [
        *("draws", "ESS", "R-hat", "MCSE/sd", "mode ESS", "mode TV", "log evidence", "± se"),
        *("k-hat", "chi2/m", "misfit z", "examples", "NN ratio", "distance", "seconds"),
        *("forwards", "gradients", "predictions"),
    ]
    assert [column.name for column in COLUMNS if column.optional] == [
        "± se",
        "k-hat",
        "predictions",
    ]


def test_every_built_in_column_shows_a_dash_where_its_number_is_unknown():
    unknown = posterior(math.nan)
    assert {column.cell(column.value(unknown)) for column in COLUMNS} == {"-"}


def test_predictions_are_read_from_the_draws():
    (column,) = (column for column in COLUMNS if column.name == "predictions")
    assert column.cell(column.value(posterior(num_predictive_evaluations=1200))) == "1,200"


def test_sentences_of_the_help_have_at_most_25_words():
    sentences = [s for column in COLUMNS for s in column.help.replace("? ", ". ").split(". ")]
    assert max(len(sentence.split()) for sentence in sentences) <= 25
    assert all(column.help.endswith(".") for column in COLUMNS)
