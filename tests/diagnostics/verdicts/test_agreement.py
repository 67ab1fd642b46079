"""Posteriors agree with the reference, differ from it, or cannot be told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ppl_memprior.diagnostics.verdicts.agreement import judge_agreement


def test_each_posterior_is_compared_with_the_reference(ask, chains, lookup, linearized):
    differs, agrees = ask(judge_agreement, chains, lookup, linearized, reference="nuts")
    assert differs.code == "differs-from-reference" and differs.about == ("lookup", "nuts")
    assert agrees.code == "agrees-with-reference" and agrees.about == ("linearized", "nuts")
    assert "0.005 between 400 and 400 nearly independent draws" in agrees.sentence
    assert "within the 0.010 of sampling noise" in agrees.sentence
    assert "differ by 0.02 in total variation" in agrees.sentence


def test_numbers_that_are_close_are_written_apart(ask, chains, linearized):
    close = replace(linearized, distance=0.00412, distance_noise=0.00396)
    (verdict,) = ask(judge_agreement, chains, close, reference="nuts")
    assert verdict.code == "differs-from-reference"
    assert "0.0041 between" in verdict.sentence
    assert "above the 0.004 of sampling noise" in verdict.sentence


@pytest.mark.parametrize(
    ("draws", "code"), [(49, "indistinct-from-reference"), (50, "agrees-with-reference")]
)
def test_few_draws_agree_with_nothing(codes, chains, linearized, draws, code):
    few = replace(linearized, thinned_draws=draws)
    assert codes(judge_agreement, chains, few, reference="nuts") == [(code, "linearized", "nuts")]
    few = replace(chains, thinned_draws=draws)
    assert codes(judge_agreement, few, linearized, reference="nuts") == [
        (code, "linearized", "nuts")
    ]


@pytest.mark.parametrize(
    "numbers",
    [
        {"rhat": 1.5},
        {"mode_rhat": 1.4, "between_chain_tv": 0.4},
        {"importance_draws": 4000, "khat": 0.9},
    ],
)
def test_a_reference_that_fails_ranks_nobody(ask, chains, lookup, linearized, numbers):
    shaky = replace(chains, **numbers)
    (verdict,) = ask(judge_agreement, lookup, shaky, linearized, reference="nuts")
    assert verdict.code == "reference-not-trusted"
    assert verdict.about == ("nuts", "lookup", "linearized")
    assert "lookup (0.500); linearized (0.005)" in verdict.sentence
    assert ask(judge_agreement, shaky, reference="nuts") == []


def test_nothing_is_compared_without_a_reference(codes, chains, lookup):
    assert codes(judge_agreement, chains, lookup) == []
