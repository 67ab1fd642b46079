"""Divergent transitions and failed simulations are counted, where there are any."""

from __future__ import annotations

from dataclasses import replace

from ppl_memprior.diagnostics.verdicts.failures import judge_failures


def test_failures_are_counted(ask, chains, lookup):
    bad = replace(chains, divergences=5, num_failed=1234)
    diverged, failed, other = ask(judge_failures, bad, replace(lookup, num_failed=1))
    assert (diverged.code, diverged.severity) == ("divergences", "warning")
    assert "nuts: 5 of its transitions diverged" in diverged.sentence
    assert (failed.code, failed.severity) == ("failed-simulations", "note")
    assert "nuts: 1,234 of its simulations failed" in failed.sentence
    assert "forward operator" in failed.advice
    assert diverged.about == failed.about == ("nuts",) and other.about == ("lookup",)


def test_nothing_is_said_where_nothing_failed(codes, chains, lookup):
    assert codes(judge_failures, chains, lookup) == []
