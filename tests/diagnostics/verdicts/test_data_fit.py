"""Prior-data conflict is said when, and only when, the noise cannot explain a misfit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ppl_memprior.diagnostics.verdicts.data_fit import judge_data_fit

NAN = float("nan")


def test_a_misfit_of_some_names_who_is_concerned(ask, chains, lookup):
    bad = replace(lookup, misfit_z=32.0, reduced_chi_square=1.2)
    (verdict,) = ask(judge_data_fit, bad, chains)
    assert verdict.code == "prior-data-conflict-of-some" and verdict.severity == "conflict"
    assert verdict.about == ("lookup", "nuts")
    assert "misfit of lookup (chi2/m 1.2, z = +32.0)" in verdict.sentence
    assert "explained by nuts (chi2/m 1, z = +0.4)" in verdict.sentence


def test_a_misfit_of_all_is_the_priors_fault(ask, chains, lookup):
    far, near = replace(lookup, misfit_z=32.0), replace(chains, misfit_z=9.0)
    (verdict,) = ask(judge_data_fit, far, near)
    assert verdict.code == "prior-data-conflict" and verdict.severity == "conflict"
    assert verdict.about == ("lookup", "nuts")
    assert "nuts, has a reduced chi-square of 1, 9.0 standard" in verdict.sentence


def test_no_conflict_and_overfit(codes, chains):
    assert codes(judge_data_fit, chains) == [("data-explained", "nuts")]
    over = replace(chains, misfit_z=-5.0)
    assert codes(judge_data_fit, over) == [("data-explained", "nuts"), ("overfit", "nuts")]


@pytest.mark.parametrize(
    ("z", "code"),
    [(3.0, "data-explained"), (3.01, "prior-data-conflict"), (-3.0, "data-explained")],
)
def test_the_noise_allows_three_standard_deviations(codes, chains, z, code):
    assert codes(judge_data_fit, replace(chains, misfit_z=z)) == [(code, "nuts")]


def test_without_gaussian_noise_there_is_no_chi_square(codes, chains, lookup):
    unknown = replace(chains, misfit_z=NAN, reduced_chi_square=NAN)
    assert codes(judge_data_fit, unknown) == [("misfit-unknown", "nuts")]
    assert codes(judge_data_fit, unknown, lookup) == [("data-explained", "lookup")]
