"""A linearization holds up to half a nat."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ppl_memprior.diagnostics.verdicts.linearization import judge_linearization


@pytest.mark.parametrize(
    ("error", "code"),
    [(0.5, "linearization-holds"), (0.51, "linearization-fails"), (float("nan"), None)],
)
def test_when_a_linearization_holds(codes, linearized, error, code):
    found = codes(judge_linearization, replace(linearized, linearization_error=error))
    assert found == ([] if code is None else [(code, "linearized")])


def test_sentences_hold_the_error(ask, linearized):
    good, bad = ask(judge_linearization, linearized, replace(linearized, linearization_error=3.0))
    assert "off by 0.1 nats" in good.sentence and good.severity == "good"
    assert "off by 3 nats" in bad.sentence and bad.severity == "warning"
