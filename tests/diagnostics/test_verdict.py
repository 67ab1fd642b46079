"""Every sentence appears when, and only when, its numbers call for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ppl_memprior.diagnostics import PosteriorSummary, verdicts
from ppl_memprior.diagnostics._wording import beside

NAN = float("nan")
CHAINS = PosteriorSummary(
    method="nuts",
    independent=False,
    draws=4000,
    ess=2000.0,
    rhat=1.001,
    relative_mcse=0.02,
    log_evidence=NAN,
    log_evidence_error=NAN,
    khat=NAN,
    importance_draws=0,
    importance_ess=NAN,
    reduced_chi_square=1.0,
    misfit_z=0.4,
    effective_examples=6.0,
    top_example=3,
    top_share=0.3,
    nearest_ratio=0.8,
    null_share=0.5,
    distance=NAN,
    distance_noise=NAN,
    weights_distance=NAN,
    linearization_error=NAN,
    divergences=0,
    seconds=1.0,
    forward_evaluations=10,
    gradient_evaluations=10,
    num_examples=20,
    distinct_examples=20,
    bandwidth=0.1,
    thinned_draws=400,
)
LOOKUP = replace(
    CHAINS,
    method="lookup",
    independent=True,
    rhat=NAN,
    effective_examples=1.0,
    top_share=1.0,
    nearest_ratio=0.0,
    null_share=0.0,
    distance=0.5,
    distance_noise=0.01,
    weights_distance=0.7,
)
LINEARIZED = replace(
    LOOKUP,
    method="linearized",
    linearization_error=0.1,
    effective_examples=4.0,
    nearest_ratio=0.7,
    null_share=0.4,
    distance=0.005,
    weights_distance=0.02,
)
NOT_LINEAR = replace(LINEARIZED, linearization_error=3.0)
CORRECTED = replace(
    LINEARIZED,
    method="psis",
    linearization_error=NAN,
    ess=800.0,
    log_evidence=-10.0,
    log_evidence_error=0.02,
    khat=0.3,
    importance_draws=4000,
    importance_ess=3000.0,
)


def text(*summaries, reference=None):
    return "\n".join(f"{v.level}: {v.text}" for v in verdicts(summaries, reference))


def test_conflict_comes_first_and_names_who_is_concerned():
    said = text(replace(LOOKUP, misfit_z=32.0, reduced_chi_square=1.2), CHAINS)
    first = said.splitlines()[0]
    assert first.startswith("conflict: Prior-data conflict") and "lookup (chi2/m 1.2" in first
    assert "explained by nuts" in first
    assert "Believe nuts" in said.splitlines()[-1]


def test_conflict_of_all_is_the_priors_fault():
    said = text(*(replace(s, misfit_z=9.0) for s in (LOOKUP, CHAINS)))
    assert "no posterior explains the data" in said.splitlines()[0]
    assert "look at the prior" in said.splitlines()[-1]


def test_no_conflict_and_overfit():
    assert text(CHAINS).startswith("good: No prior-data conflict")
    assert "Fits better than the noise allows" in text(replace(CHAINS, misfit_z=-5.0))
    assert "Fits better" not in text(CHAINS)


def test_lookup_and_inference():
    said = text(LOOKUP, CHAINS)
    assert "A lookup, not inference: lookup (example 3 carries all the weight)" in said
    assert "move freely between the examples that they rest on: nuts (6.0 examples)" in said
    assert "A weighted lookup: nuts" in text(replace(CHAINS, null_share=0.01))
    assert "One example dominates: nuts" in text(replace(CHAINS, effective_examples=1.1))


def test_chains_that_disagree_are_not_believed():
    bad = replace(CHAINS, rhat=1.79, ess=7.0)
    said = text(bad, LINEARIZED)
    assert "split R-hat 1.79 is above 1.01" in said
    assert "Believe linearized" in said.splitlines()[-1]
    nothing = text(bad, NOT_LINEAR)
    assert "Believe none of them yet" in nothing and "run nuts longer (R-hat 1.79" in nothing
    assert "off by 3 nats" in nothing
    taken = ("linearized", "psis", "mode-jump", "nuts")
    informed = text(replace(bad, methods=taken), replace(NOT_LINEAR, methods=taken))
    assert "add mode-jump, whose chains move between modes" in informed.splitlines()[-1]
    assert "run mode-jump, which moves between modes" in informed
    jumped = text(replace(bad, method="mode-jump"))
    assert "give ModeJump a better proposal" in jumped and "add mode-jump" not in jumped


def test_a_good_correction_vouches_or_corrects():
    close = replace(LINEARIZED, log_evidence=-10.05)
    said = text(close, CORRECTED)
    assert "psis: the importance weights can be believed (k-hat 0.30, below 0.70; 3,000" in said
    assert "good: psis vouches for linearized: its log evidence is off by -0.05" in said
    assert "and the log-likelihood at its components' means by 0.1 nats" in said
    assert "Believe psis" in said.splitlines()[-1]  # before what linearized says of itself
    off = text(replace(LINEARIZED, log_evidence=-9.0), CORRECTED)
    assert "note: psis corrects linearized: its log evidence is off by +1.00" in off
    bent = text(replace(close, linearization_error=3.0), CORRECTED)
    assert "psis corrects linearized: at its components' means the log-likelihood is off by" in bent
    noisy = text(replace(close, log_evidence=-10.5), replace(CORRECTED, log_evidence_error=0.2))
    assert "psis vouches for linearized" in noisy  # within three standard errors


def test_a_failed_correction_is_not_believed_nor_what_it_started_from():
    said = text(LINEARIZED, replace(CORRECTED, khat=0.9, importance_ess=5.0))
    assert "warning: psis: k-hat 0.90 is above 0.70" in said and "5 effective of 4,000" in said
    assert "does not vouch for the linearized posterior" in said and "corrects" not in said
    assert "Believe none of them yet" in said.splitlines()[-1]
    assert "give psis more draws or a better proposal (k-hat 0.90" in said
    assert "Believe nuts" in text(CHAINS, replace(CORRECTED, khat=0.9)).splitlines()[-1]
    shaky = text(LINEARIZED, replace(CORRECTED, khat=0.9), reference="psis")
    assert "reference psis is not to be trusted itself" in shaky


@pytest.mark.parametrize(
    ("draws", "khat", "believed"),
    # 1 - 1 / log10(400) = 0.616 (Vehtari et al., 2024)
    [(400, 0.6, True), (400, 0.65, False), (4000, 0.65, True), (4000, np.nan, False)],
)
def test_the_limit_of_khat_depends_on_the_number_of_draws(draws, khat, believed):
    said = text(replace(CORRECTED, khat=khat, importance_draws=draws, importance_ess=200.0))
    assert ("importance weights can be believed" in said) == believed


def test_few_effective_weighted_draws_are_warned_of():
    said = text(replace(CORRECTED, importance_ess=30.0))
    assert "30 effective of 4,000 weighted draws are few (want 100)" in said
    assert "Believe none" in said.splitlines()[-1]


def test_chains_that_disagree_on_modes_are_not_believed():
    """Their coordinates may agree all the same: R-hat of the worst one is fine here."""
    bad = replace(CHAINS, mode_rhat=1.4, mode_ess=9.0, between_chain_tv=0.41, round_trips=3.0)
    said = text(bad, LINEARIZED)
    assert "nuts: its chains disagree on how much weight each example has, by up to 0.41" in said
    assert "(mode R-hat 1.400, mode ESS 9, 3 round trips)" in said
    assert "Believe linearized" in said.splitlines()[-1]


def test_chains_that_agree_on_modes():
    agreeing = replace(CHAINS, mode_rhat=1.002, mode_ess=900.0, between_chain_tv=0.03)
    said = text(agreeing)
    assert "good: nuts: its chains agree on the weights of the examples, within 0.03" in said
    assert "round trips" not in said  # exchangeable draws have none
    assert "Believe nuts" in said.splitlines()[-1]
    # an R-hat just above its threshold with weights that differ by nothing to speak of
    assert "disagree on" not in text(replace(agreeing, mode_rhat=1.02))
    assert "too seldom" in text(replace(agreeing, mode_ess=50.0))
    assert "weights of the examples" not in text(CHAINS)  # nothing known of the modes


def test_few_draws_and_divergences_are_warned_of():
    said = text(replace(CHAINS, ess=90.0, divergences=5))
    assert "90 effective draws are few" in said and "5 divergent transitions" in said


def test_failed_simulations_are_counted():
    assert "nuts: 1,234 of its simulations failed" in text(replace(CHAINS, num_failed=1234))
    assert "simulations failed" not in text(CHAINS)


def test_one_chain_divergences_and_unknown_fit_are_not_vouched_for():
    single = text(replace(CHAINS, rhat=NAN))
    assert "a single chain has no R-hat" in single and "Believe none" in single
    assert "Believe none" in text(replace(CHAINS, divergences=900))
    assert "no chi-square says" in text(replace(CHAINS, misfit_z=NAN)).splitlines()[-1]
    assert "Believe nuts: it explains" not in text(replace(CHAINS, misfit_z=-5.0))


def test_a_single_example_is_not_judged():
    said = text(replace(LOOKUP, nearest_ratio=NAN, null_share=NAN), CHAINS)
    assert "Too few distinct examples to tell a lookup from inference (lookup)" in said


def test_agreement_with_the_reference():
    said = text(CHAINS, LOOKUP, LINEARIZED, reference="nuts")
    assert "lookup differs from nuts" in said and "linearized agrees with nuts" in said
    assert "between 400 and 400 nearly independent draws" in said
    few = text(CHAINS, replace(LINEARIZED, thinned_draws=4), reference="nuts")
    assert "note: linearized cannot be told from nuts, with 4 and 400 nearly" in few
    assert "agrees with" not in few
    shaky = text(replace(CHAINS, rhat=1.5), LOOKUP, reference="nuts")
    assert "reference nuts is not to be trusted itself" in shaky and "differs from" not in shaky


def test_without_gaussian_noise_there_is_no_chi_square():
    said = text(replace(CHAINS, misfit_z=NAN, reduced_chi_square=NAN))
    assert said.startswith("note: The noise is not Gaussian")


@pytest.mark.parametrize("rhat", [1.0, 1.5])
def test_every_verdict_ends_with_advice(rhat):
    assert "Believe" in verdicts([replace(CHAINS, rhat=rhat), LOOKUP])[-1].text


def test_few_effective_weighted_draws_vouch_for_nothing():
    few = replace(CORRECTED, khat=0.5, importance_ess=60.0, log_evidence_error=0.2)
    apart = replace(LINEARIZED, log_evidence=CORRECTED.log_evidence - 5.0)
    said = text(apart, few)
    assert "vouches for linearized" not in said and "corrects" not in said
    # but an evidence that differs by this much keeps a linearization from being believed
    assert "Believe none of them yet" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("value", "limit", "decimals", "written"),
    [
        (1.0104, 1.01, 2, ("1.0104", "1.01")),
        (1.79, 1.01, 2, ("1.79", "1.01")),
        (0.00412, 0.00396, 3, ("0.0041", "0.004")),
        (399.6, 400.0, 0, ("399.6", "400")),
        (1234.5, 400.0, 0, ("1,234", "400")),
        (0.7, 0.7, 2, ("0.70", "0.70")),
        (np.inf, 1.01, 2, ("inf", "1.01")),
        (NAN, 0.7, 2, ("nan", "0.70")),
    ],
)
def test_numbers_that_are_compared_are_written_apart(value, limit, decimals, written):
    assert beside(value, limit, decimals) == written


def test_sentences_are_true_as_they_are_written():
    said = text(replace(CHAINS, rhat=1.0104))
    assert "split R-hat 1.0104 is above 1.01" in said and "(R-hat 1.0104, 2000" in said
    close = replace(LINEARIZED, distance=0.00412, distance_noise=0.00396)
    assert "0.0041 between" in text(CHAINS, close, reference="nuts")
    assert "above the 0.004 of sampling noise" in text(CHAINS, close, reference="nuts")
    assert "399.7 effective draws are few (want 400)" in text(replace(CHAINS, ess=399.7))
    assert "mode ESS 399.8; want a mode ESS of 400" in text(
        replace(CHAINS, mode_rhat=1.001, mode_ess=399.8, between_chain_tv=0.01)
    )
    worse = text(replace(CORRECTED, khat=0.7004))
    assert "k-hat 0.7004 is above 0.70" in worse
    assert "k-hat 0.70 is not below 0.70" in text(replace(CORRECTED, khat=0.7))
    assert "99.7 effective of 4,000 weighted draws are few (want 100)" in text(
        replace(CORRECTED, importance_ess=99.7)
    )


def test_a_right_posterior_that_is_a_lookup_is_said_to_be_both():
    single = replace(CHAINS, effective_examples=1.0, top_share=1.0, null_share=0.0)
    advice = text(single).splitlines()[-1]
    assert advice.startswith("note: Believe nuts as the right posterior under this prior")
    assert "its chains agree" in advice and "a lookup: it stays next to example 3" in advice
    weighted = text(replace(single, effective_examples=6.0)).splitlines()[-1]
    assert "a weighted lookup: it stays next to its 6.0 examples" in weighted
    assert "lookup" not in text(CHAINS)


def test_repeated_examples_are_counted():
    said = text(replace(CHAINS, num_examples=63, distinct_examples=60, bandwidth=0.02))
    assert "note: 63 examples, 60 of them distinct at the bandwidth 0.02: examples" in said
    copies = text(replace(LOOKUP, num_examples=7, distinct_examples=5, bandwidth=0.0), CHAINS)
    assert "7 examples, 5 of them distinct: copies count as one." in copies
    assert "distinct" not in text(CHAINS)


def test_no_method_is_advised_that_refuses_the_problem():
    """Of a MemorizedPrior beside other latents, only gibbs takes the problem."""
    gibbs = replace(CHAINS, method="gibbs", methods=("gibbs",))
    bad = replace(gibbs, rhat=1.2, ess=20.0, mode_rhat=1.2, mode_ess=10.0, between_chain_tv=0.4)
    for s in (gibbs, bad, replace(gibbs, rhat=NAN), replace(gibbs, divergences=3)):
        said = text(s)
        for name in ("mode-jump", "psis", "smc", "nuts"):
            assert name not in said
    assert "run it longer" in text(bad)
    unknown = text(replace(bad, method="nuts", methods=None))
    assert "run more and longer chains" in unknown and "mode-jump" not in unknown
    lookup = text(replace(LOOKUP, methods=("lookup", "smc", "nuts")))
    assert "add a method that has one: smc or nuts" in lookup.splitlines()[-1]
    assert "several chains of a sampler" in text(LOOKUP).splitlines()[-1]
