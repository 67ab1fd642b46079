"""Importance weights are believed up to their limits, and only then judge a linearization."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ppl_memprior.diagnostics.verdicts.importance import judge_importance

NAN = float("nan")
HOLDS = ("importance-weights-hold", "psis")


@pytest.mark.parametrize(
    ("draws", "khat", "believed"),
    # 1 - 1 / log10(400) = 0.616 (Vehtari et al., 2024)
    [
        (400, 0.6, True),
        (400, 0.65, False),
        (4000, 0.65, True),
        (4000, 0.7, False),
        (4000, NAN, False),
    ],
)
def test_the_limit_of_khat_depends_on_the_number_of_draws(codes, corrected, draws, khat, believed):
    s = replace(corrected, khat=khat, importance_draws=draws, importance_ess=200.0)
    expected = "importance-weights-hold" if believed else "khat-too-high"
    assert codes(judge_importance, s) == [(expected, "psis")]


@pytest.mark.parametrize(
    ("numbers", "correction", "code"),
    [
        ({"log_evidence": -10.099}, {}, "vouches-for-linearization"),
        ({"log_evidence": -10.101}, {}, "corrects-linearization"),
        ({"log_evidence": -10.599}, {"log_evidence_error": 0.2}, "vouches-for-linearization"),
        ({"log_evidence": -10.601}, {"log_evidence_error": 0.2}, "corrects-linearization"),
        (
            {"log_evidence": -10.05, "linearization_error": 3.0},
            {},
            "corrects-linearization",
        ),
    ],
    ids=["close", "off", "within three standard errors", "beyond them", "bent"],
)
def test_weights_that_hold_judge_the_linearization(
    codes, linearized, corrected, numbers, correction, code
):
    base, s = replace(linearized, **numbers), replace(corrected, **correction)
    assert codes(judge_importance, base, s) == [HOLDS, (code, "psis", "linearized")]


def test_sentences_hold_the_numbers_and_are_true_as_they_are_written(ask, linearized, corrected):
    base = replace(linearized, log_evidence=-10.05)
    holds, vouches = ask(judge_importance, base, corrected)
    assert "(k-hat 0.30, below 0.70; 3,000 effective of 4,000 weighted draws)" in holds.sentence
    assert "linearized is off by -0.05 (standard error 0.020)" in vouches.sentence
    assert "off by 0.1 nats" in vouches.sentence
    bent = replace(linearized, log_evidence=-9.0, linearization_error=3.0)
    _, corrects = ask(judge_importance, bent, corrected)
    assert "off by +1.00" in corrects.sentence and "off by 3 nats" in corrects.sentence
    (high,) = ask(judge_importance, replace(corrected, khat=0.7004, importance_ess=5.0))
    assert "k-hat 0.7004 is above 0.70" in high.sentence
    assert "5 effective of 4,000 weighted draws" in high.sentence
    (equal,) = ask(judge_importance, replace(corrected, khat=0.7))
    assert "k-hat 0.70 is not below 0.70" in equal.sentence
    (few,) = ask(judge_importance, replace(corrected, importance_ess=99.7))
    assert "99.7 effective of 4,000 weighted draws are few (want 100)" in few.sentence


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ({"khat": 0.9, "importance_ess": 5.0}, "khat-too-high"),
        ({"khat": 0.5, "importance_ess": 60.0}, "few-effective-weights"),
    ],
)
def test_weights_that_fail_judge_no_linearization(codes, linearized, corrected, numbers, code):
    base = replace(linearized, log_evidence=-10.05)
    assert codes(judge_importance, base, replace(corrected, **numbers)) == [(code, "psis")]


def test_nothing_is_said_without_weights(codes, chains, linearized):
    assert codes(judge_importance, chains, linearized) == []
