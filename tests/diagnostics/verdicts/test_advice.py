"""The last word: a posterior that is sound and explains the data, or what helps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ppl_memprior.diagnostics.verdicts.advice import advise

NAN = float("nan")
DISAGREEING = {"mode_rhat": 1.4, "mode_ess": 9.0, "between_chain_tv": 0.41}


@pytest.fixture
def not_linear(linearized):
    return replace(linearized, linearization_error=3.0)


def test_chains_come_first_then_weights_then_a_linearization(
    codes, chains, linearized, corrected, lookup
):
    close = replace(linearized, log_evidence=-10.05)
    assert codes(advise, lookup, close, corrected, chains) == [("believe", "nuts")]
    assert codes(advise, lookup, close, corrected) == [("believe", "psis")]
    assert codes(advise, lookup, close) == [("believe", "linearized")]
    assert codes(advise, lookup) == [("believe-none-yet",)]


@pytest.mark.parametrize(
    "numbers",
    [{"rhat": 1.79}, {"rhat": NAN}, {"ess": 399.0}, {"divergences": 1}, DISAGREEING],
    ids=str,
)
def test_chains_that_fail_are_not_believed(codes, chains, linearized, numbers):
    """R-hat of the worst coordinate may be fine where the chains disagree on the modes."""
    bad = replace(chains, **numbers)
    assert codes(advise, bad, linearized) == [("believe", "linearized")]
    assert codes(advise, bad)[0][0] == "believe-none-yet"


@pytest.mark.parametrize(
    "numbers",
    [
        {"khat": 0.9, "importance_ess": 5.0},
        # effective draws that are few, and an evidence that is another one
        {"importance_ess": 60.0, "log_evidence": -5.0},
        {"log_evidence": -5.0, "misfit_z": 9.0},
    ],
    ids=str,
)
def test_a_linearization_is_not_believed_against_its_correction(
    codes, chains, linearized, corrected, numbers
):
    base, s = replace(linearized, log_evidence=-10.0), replace(corrected, **numbers)
    assert codes(advise, base, s)[0][0] != "believe"
    assert codes(advise, base, s, chains) == [("believe", "nuts")]


def test_the_data_come_before_all(codes, chains, lookup):
    assert codes(advise, replace(chains, misfit_z=9.0), lookup) == [("believe-none", "nuts")]
    assert codes(advise, replace(chains, misfit_z=-5.0)) == [("believe-none", "nuts")]


def test_sentences_say_why(ask, chains):
    (verdict,) = ask(advise, chains)
    assert "explains the data within the noise and its chains agree" in verdict.sentence
    (verdict,) = ask(advise, replace(chains, misfit_z=NAN))
    assert verdict.code == "believe" and "no chi-square says" in verdict.sentence


def test_a_right_posterior_that_is_a_lookup_is_said_to_be_both(ask, chains):
    single = replace(chains, effective_examples=1.0, top_share=1.0, null_share=0.0)
    (verdict,) = ask(advise, single)
    assert verdict.code == "believe-lookup" and verdict.severity == "note"
    assert "a lookup: it stays next to example 3" in verdict.sentence
    (verdict,) = ask(advise, replace(single, effective_examples=6.0))
    assert "a weighted lookup: it stays next to its 6.0 examples" in verdict.sentence


def test_what_helps_holds_the_numbers(ask, chains, not_linear, corrected):
    bad = replace(chains, rhat=1.0104, ess=7.0)
    failed = replace(corrected, khat=0.9, importance_ess=5.0)
    (verdict,) = ask(advise, bad, not_linear, failed)
    assert verdict.code == "believe-none-yet" and verdict.about == ("nuts", "linearized", "psis")
    assert "Run nuts longer (R-hat 1.0104, 7 effective draws)." in verdict.advice
    assert "Take linearized as a guide only (off by 3 nats)." in verdict.advice
    assert "(k-hat 0.90, 5 effective)." in verdict.advice


def added(verdicts):
    """The methods that a verdict advises to add."""
    hints = verdicts[-1].advice.split(". ")
    return [hint.split(",")[0].removeprefix("Add ") for hint in hints if hint.startswith("Add ")]


def test_a_method_that_moves_is_added_where_chains_that_do_not_disagree(
    ask, chains, not_linear, entry
):
    listed = tuple(map(entry, ("psis", "mode-jump", "smc", "nuts", "linearized")))
    bad = replace(chains, rhat=1.79, alternatives=listed)
    others = replace(not_linear, alternatives=listed)
    assert added(ask(advise, bad, others)) == ["mode-jump"]
    apart = replace(bad, rhat=1.0, **DISAGREEING)
    assert added(ask(advise, apart, others)) == ["mode-jump"]
    # two of them that do not move need one hint
    assert added(ask(advise, bad, replace(bad, method="again"))) == ["mode-jump"]


def test_no_method_that_moves_is_added_to_another_one(ask, chains, not_linear, entry):
    listed = tuple(map(entry, ("mode-jump", "smc", "nuts")))
    bad = replace(chains, rhat=1.79, alternatives=listed)
    jumps = replace(bad, method="my jumps", kind="mode-jump")
    assert added(ask(advise, bad, jumps)) == []  # present, under another name
    assert added(ask(advise, replace(bad, kind="smc"))) == []  # moves itself
    assert added(ask(advise, replace(bad, rhat=1.0, ess=90.0))) == []  # chains agree
    refused = replace(not_linear, alternatives=(entry("nuts"),))
    assert added(ask(advise, bad, refused)) == []  # refuses what the others' problem is
    assert added(ask(advise, replace(bad, alternatives=()))) == []


def test_a_method_with_a_diagnostic_is_added_where_there_is_none(ask, lookup, entry):
    known = replace(lookup, alternatives=tuple(map(entry, ("smc", "nuts", "gibbs", "lookup"))))
    (verdict,) = ask(advise, known)
    assert verdict.code == "believe-none-yet" and verdict.about == ()
    assert "smc or nuts." in verdict.advice
    undiagnosed = replace(lookup, alternatives=(entry("lookup"), entry("dps")))
    for s in (lookup, undiagnosed):
        (verdict,) = ask(advise, s)
        assert "dps" not in verdict.advice and "several chains" in verdict.advice
