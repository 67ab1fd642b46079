"""A verdict holds what programs look at, and refuses what a report could not show."""

from __future__ import annotations

import json

import pytest

from ppl_memprior.diagnostics import Verdict

GIVEN = {"code": "too-slow", "severity": "note", "sentence": "nuts: it took 5 hours."}


def test_text_is_the_sentence_and_the_advice():
    assert Verdict(**GIVEN).text == "nuts: it took 5 hours."
    assert Verdict(**GIVEN, advice="Wait.").text == "nuts: it took 5 hours. Wait."


def test_fields_go_through_json():
    verdict = Verdict(**GIVEN, advice="Wait.", about=("nuts", "smc"))
    stored = json.loads(json.dumps(verdict.as_dict()))
    assert stored == {**GIVEN, "advice": "Wait.", "about": ["nuts", "smc"]}
    assert list(stored) == ["code", "severity", "sentence", "advice", "about"]
    assert Verdict(**{**stored, "about": tuple(stored["about"])}) == verdict


@pytest.mark.parametrize(
    ("field", "error", "message"),
    [
        ({"code": "Too slow"}, ValueError, "joined by hyphens, 'chains-disagree', got 'Too slow'"),
        ({"code": None}, TypeError, "code of a Verdict must be text, got NoneType None"),
        ({"severity": "bad"}, ValueError, "one of conflict, warning, good, note; got 'bad'"),
        ({"sentence": 3}, TypeError, "sentence of a Verdict must be text, got int 3"),
        ({"about": "nuts"}, TypeError, r"a tuple of names, \('nuts',\), got str 'nuts'"),
        ({"about": (3,)}, TypeError, r"got tuple \(3,\)"),
    ],
    ids=str,
)
def test_fields_that_no_report_can_show_are_refused(field, error, message):
    with pytest.raises(error, match=message):
        Verdict(**{**GIVEN, **field})
