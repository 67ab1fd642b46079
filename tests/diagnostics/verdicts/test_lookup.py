"""Each posterior is a lookup or an inference, or cannot be told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ppl_memprior.diagnostics.verdicts.lookup import judge_lookup

NAN = float("nan")


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ({"effective_examples": 1.49, "null_share": 0.049}, "lookup"),
        ({"effective_examples": 1.5, "null_share": 0.049}, "weighted-lookup"),
        ({"effective_examples": 1.49, "null_share": 0.05}, "one-example-dominates"),
        ({"effective_examples": 1.5, "null_share": 0.05}, "moves-between-examples"),
        # a ratio of zero needs no null: the draws are the examples
        ({"effective_examples": 1.0, "nearest_ratio": 0.0}, "lookup"),
        ({"nearest_ratio": NAN, "null_share": NAN}, "lookup-unclear"),
    ],
)
def test_what_the_draws_rest_on(codes, chains, numbers, code):
    assert codes(judge_lookup, replace(chains, **numbers)) == [(code, "nuts")]


def test_one_sentence_for_each_answer_with_its_numbers(ask, chains, lookup, linearized):
    single, free = ask(judge_lookup, chains, lookup, linearized)
    assert single.about == ("lookup",) and single.severity == "warning"
    assert "lookup (example 3 carries all the weight)" in single.sentence
    assert free.about == ("nuts", "linearized") and free.severity == "note"
    assert "nuts (6.0 examples); linearized (4.0 examples)" in free.sentence
    (share,) = ask(judge_lookup, replace(lookup, top_share=0.984))
    assert "example 3 carries 98.4 % of the weight" in share.sentence
