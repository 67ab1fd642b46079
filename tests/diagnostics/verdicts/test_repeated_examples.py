"""Repeated examples are counted, where there are any."""

from __future__ import annotations

from dataclasses import replace

from ppl_memprior.diagnostics.verdicts.repeated_examples import judge_repeated_examples


def test_repeated_examples_are_counted_once_for_each_bandwidth(ask, chains, lookup, linearized):
    repeated = {"num_examples": 63, "distinct_examples": 60, "bandwidth": 0.02}
    wide = replace(chains, num_examples=63, distinct_examples=50)
    both = replace(lookup, **repeated), replace(linearized, **repeated)
    first, second = ask(judge_repeated_examples, *both, wide)
    assert first.code == second.code == "repeated-examples"
    assert first.about == ("lookup", "linearized") and second.about == ("nuts",)
    assert "63 examples, 60 of them distinct at the bandwidth 0.02" in first.sentence
    assert "63 examples, 50 of them distinct at the bandwidth 0.1" in second.sentence


def test_copies_need_no_bandwidth(ask, lookup):
    copies = replace(lookup, num_examples=7, distinct_examples=5, bandwidth=0.0)
    (verdict,) = ask(judge_repeated_examples, copies)
    assert "7 examples, 5 of them distinct." in verdict.sentence


def test_nothing_is_said_of_distinct_examples(codes, chains):
    assert codes(judge_repeated_examples, chains) == []
