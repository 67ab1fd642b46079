"""Chains are judged by R-hat and effective sample size, and advised by their attributes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ppl_memprior.diagnostics import Alternative
from ppl_memprior.diagnostics.verdicts.chains import judge_chains

NAN = float("nan")


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ({}, "chains-agree"),
        ({"rhat": 1.01, "ess": 400.0}, "chains-agree"),
        ({"rhat": 1.0104}, "chains-disagree"),
        ({"rhat": 1.79, "ess": 7.0}, "chains-disagree"),
        ({"ess": 399.7}, "few-effective-draws"),
        ({"rhat": NAN}, "single-chain"),
    ],
)
def test_what_chains_are_said_to_be(codes, chains, numbers, code):
    assert codes(judge_chains, replace(chains, **numbers)) == [(code, "nuts")]


def test_sentences_hold_the_numbers_and_are_true_as_they_are_written(ask, chains):
    (agree,) = ask(judge_chains, chains)
    assert "(R-hat 1.001, ESS 2000)" in agree.sentence and not agree.advice
    (disagree,) = ask(judge_chains, replace(chains, rhat=1.0104))
    assert "split R-hat 1.0104 is above 1.01" in disagree.sentence
    (few,) = ask(judge_chains, replace(chains, ess=399.7))
    assert "399.7 effective draws are few (want 400)" in few.sentence


def test_independent_draws_have_no_chains(codes, lookup):
    assert codes(judge_chains, lookup) == []


def test_a_remedy_of_its_own_comes_before_any_other_method(ask, chains, entry):
    bad = replace(chains, rhat=1.79, alternatives=(entry("mode-jump"), entry("nuts")))
    (verdict,) = ask(judge_chains, replace(bad, remedy="use a shorter step"))
    assert verdict.advice == "Use a shorter step."
    (verdict,) = ask(judge_chains, bad)
    assert verdict.advice == "Run mode-jump, which moves between modes."


def test_the_first_method_that_moves_between_modes_is_advised(ask, chains, entry):
    listed = tuple(map(entry, ("psis", "smc", "gibbs", "nuts")))
    (verdict,) = ask(judge_chains, replace(chains, rhat=1.79, alternatives=listed))
    assert verdict.advice == "Run smc, whose particles start in every mode."


@pytest.mark.parametrize("listed", [(), (Alternative(name="nuts"), Alternative(name="mode-jump"))])
def test_without_a_method_that_is_known_to_move_longer_chains_are_advised(ask, chains, listed):
    (verdict,) = ask(judge_chains, replace(chains, rhat=1.79, alternatives=listed))
    assert verdict.advice == "Run more and longer chains."


def test_a_method_that_moves_itself_is_not_told_to_use_another(ask, chains, entry):
    """Its label in the report may be any."""
    bad = replace(
        chains,
        method="my jumps",
        kind="smc",
        rhat=1.79,
        alternatives=(entry("mode-jump"), entry("smc")),
    )
    (verdict,) = ask(judge_chains, bad)
    assert verdict.about == ("my jumps",) and "mode-jump" not in verdict.advice
