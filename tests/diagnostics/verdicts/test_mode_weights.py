"""Chains agree on the weights between modes, or do not, or visit them too seldom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ppl_memprior.diagnostics.verdicts.mode_weights import judge_mode_weights

NAN = float("nan")
AGREEING = {"mode_rhat": 1.002, "mode_ess": 900.0, "between_chain_tv": 0.03}


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ({}, "mode-weights-agree"),
        ({"mode_rhat": 1.4, "between_chain_tv": 0.41}, "mode-weights-disagree"),
        ({"mode_rhat": 1.0101, "between_chain_tv": 0.0501}, "mode-weights-disagree"),
        # an R-hat above its threshold with weights that differ by nothing to speak of
        ({"mode_rhat": 1.02, "between_chain_tv": 0.05}, "mode-weights-agree"),
        ({"mode_rhat": 1.01, "between_chain_tv": 0.41}, "mode-weights-agree"),
        ({"mode_ess": 399.8}, "mode-weights-uncertain"),
    ],
)
def test_what_the_chains_are_said_to_weigh(codes, chains, numbers, code):
    s = replace(chains, **{**AGREEING, **numbers})
    assert codes(judge_mode_weights, s) == [(code, "nuts")]


def test_sentences_hold_the_numbers(ask, chains):
    bad = replace(chains, mode_rhat=1.4, mode_ess=9.0, between_chain_tv=0.41, round_trips=3.0)
    (verdict,) = ask(judge_mode_weights, bad)
    assert "up to 0.41 in total variation" in verdict.sentence
    assert "(mode R-hat 1.400, mode ESS 9, 3 round trips)" in verdict.sentence
    (verdict,) = ask(judge_mode_weights, replace(chains, **AGREEING))
    assert "within 0.03 in total variation (mode R-hat 1.002, mode ESS 900)" in verdict.sentence
    (verdict,) = ask(judge_mode_weights, replace(chains, **{**AGREEING, "mode_ess": 399.8}))
    assert "mode ESS 399.8, want 400; mode R-hat 1.002" in verdict.sentence


def test_chains_that_disagree_get_their_remedy(ask, chains):
    bad = replace(chains, mode_rhat=1.4, between_chain_tv=0.41, remedy="use more particles")
    (verdict,) = ask(judge_mode_weights, bad)
    assert verdict.advice == "Use more particles."


def test_nothing_is_said_where_nothing_is_known_of_the_modes(codes, chains, lookup):
    assert codes(judge_mode_weights, chains, lookup) == []
