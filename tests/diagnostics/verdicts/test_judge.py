"""All rules are asked in order, a user's own before the advice."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import xarray as xr

from ppl_memprior.diagnostics import RULES, Reading, Verdict, judge

NAN = float("nan")


def judge_height(reading):
    """A user's rule: computes from the draws."""
    highest = {name: float(tree["posterior"]["x"].max()) for name, tree in reading.runs.items()}
    return [
        Verdict(code="too-high", severity="warning", sentence=f"{name}: {high}.", about=(name,))
        for name, high in highest.items()
        if high > 3
    ]


def codes(reading, *rules, **options):
    return [v.code for v in judge(reading, *rules, **options)]


def test_the_most_important_question_comes_first_and_the_advice_last(
    chains, lookup, linearized, corrected
):
    repeated = replace(lookup, distinct_examples=18, num_failed=2)
    jumping = replace(chains, mode_rhat=1.0, mode_ess=900.0, between_chain_tv=0.01)
    reading = Reading((jumping, repeated, linearized, corrected), "nuts")
    assert codes(reading) == [
        "data-explained",
        "lookup",
        "moves-between-examples",
        "repeated-examples",
        "chains-agree",
        "mode-weights-agree",
        "failed-simulations",
        "linearization-holds",
        "importance-weights-hold",
        "vouches-for-linearization",
        "differs-from-reference",
        "agrees-with-reference",
        "agrees-with-reference",
        "believe",
    ]


def test_a_rule_of_a_users_own_is_asked_before_the_advice(chains, lookup):
    values = {"nuts": [1.0, 5.0], "lookup": [1.0, 2.0]}
    runs = {
        name: xr.DataTree.from_dict({"/posterior": xr.Dataset({"x": ("draw", np.array(x))})})
        for name, x in values.items()
    }
    reading = Reading((chains, lookup), None, runs)
    said = judge(reading, extra_rules=[judge_height])
    assert [(v.code, v.about) for v in said[-2:]] == [
        ("too-high", ("nuts",)),
        ("believe", ("nuts",)),
    ]
    assert [*said[:-2], said[-1]] == judge(reading)
    assert codes(reading, [judge_height]) == ["too-high"]
    # where nobody advises, the extra rules come last
    assert codes(reading, RULES[:1], extra_rules=(judge_height,)) == ["data-explained", "too-high"]
    assert codes(reading, [RULES[-1], judge_height]) == ["believe", "too-high"]


def never(reading):
    pytest.fail("asked before all rules were checked")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rules": [never, 3]}, r"rules\[1\] must be a function that takes a Reading, got int 3"),
        ({"rules": [never], "extra_rules": ["a"]}, r"extra_rules\[0\] must be a function"),
        ({"extra_rules": never}, "extra_rules must be a list of functions, .* got function"),
        ({"rules": None}, "rules must be a list of functions, .* got NoneType None"),
    ],
    ids=["a number", "a name", "a function alone", "nothing"],
)
def test_rules_that_are_no_functions_are_refused_before_any_is_asked(chains, options, message):
    with pytest.raises(TypeError, match=message):
        judge(Reading((chains,)), **options)


def say(answer, reading):
    return answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "returned NoneType None"),
        ("slow", "returned str 'slow'"),
        (Verdict(code="a", severity="note", sentence="A."), "returned Verdict "),
        (["slow"], "returned a list with str 'slow'"),
        ([None], "returned a list with NoneType None"),
    ],
    ids=str,
)
def test_a_rule_that_answers_with_something_else_is_named(chains, answer, message):
    def odd_rule(reading):
        return answer

    with pytest.raises(TypeError, match=rf"the rule .*odd_rule must return a list.*{message}"):
        judge(Reading((chains,)), extra_rules=[odd_rule])
    with pytest.raises(TypeError, match=rf"the rule functools.partial\(<function say.*{message}"):
        judge(Reading((chains,)), extra_rules=[partial(say, answer)])


def test_a_reading_knows_its_reference(chains, lookup):
    assert Reading((chains, lookup), "lookup").reference_summary is lookup
    assert Reading((chains, lookup)).reference_summary is None
    with pytest.raises(ValueError, match=r"'smc' is not among the posteriors \['nuts', 'lookup'\]"):
        Reading((chains, lookup), "smc")


def test_nothing_to_judge_is_refused(chains):
    with pytest.raises(ValueError, match="at least one posterior"):
        judge(Reading(()))
    with pytest.raises(TypeError, match="judge takes a Reading, got tuple"):
        judge((chains,))


def test_no_method_is_advised_that_refuses_the_problem(chains, entry):
    """Of a MemorizedPrior beside other latents, only gibbs takes the problem."""
    gibbs = replace(
        chains,
        method="gibbs",
        kind="gibbs",
        remedy="run it longer",
        alternatives=(entry("gibbs"),),
    )
    bad = replace(gibbs, rhat=1.2, ess=20.0, mode_rhat=1.2, mode_ess=10.0, between_chain_tv=0.4)
    for s in (gibbs, bad, replace(gibbs, rhat=NAN), replace(gibbs, divergences=3)):
        said = " ".join(v.text for v in judge(Reading((s,))))
        for name in ("mode-jump", "psis", "smc", "nuts"):
            assert name not in said


def test_a_rule_that_raises_or_speaks_of_nobody_is_named(chains):
    reading = Reading((chains,))

    def judge_badly(reading):
        return 1 / 0

    def judge_nobody(reading):
        return [Verdict(code="odd", severity="note", sentence="Odd.", about=("nobody",))]

    with pytest.raises(RuntimeError, match="judge_badly cannot be asked: ZeroDivisionError"):
        judge(reading, extra_rules=[judge_badly])
    with pytest.raises(ValueError, match="judge_nobody speaks about 'nobody', which is none of"):
        judge(reading, extra_rules=[judge_nobody])
