"""Summaries of four kinds of posteriors, each of them one to believe, and how to ask a rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ppl_memprior.diagnostics import Alternative, PosteriorSummary, Reading

NAN = float("nan")
CHAINS = PosteriorSummary(
    method="nuts",
    kind="nuts",
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
    kind="lookup",
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
    kind="linearized",
    linearization_error=0.1,
    effective_examples=4.0,
    nearest_ratio=0.7,
    null_share=0.4,
    distance=0.005,
    weights_distance=0.02,
)
CORRECTED = replace(
    LINEARIZED,
    method="psis",
    kind="psis",
    linearization_error=NAN,
    ess=800.0,
    log_evidence=-10.0,
    log_evidence_error=0.02,
    khat=0.3,
    importance_draws=4000,
    importance_ess=3000.0,
)


@pytest.fixture
def chains():
    """Four long chains of a sampler, with neither modes nor divergences."""
    return CHAINS


@pytest.fixture
def lookup():
    """Independent draws of one example, without any diagnostic."""
    return LOOKUP


@pytest.fixture
def linearized():
    """Independent draws of a linearization that holds."""
    return LINEARIZED


@pytest.fixture
def corrected():
    """Independent draws with importance weights that hold."""
    return CORRECTED


@pytest.fixture
def entry():
    """A function that gives a method as trees list it, by its name."""
    moves = {
        "mode-jump": "which moves between modes",
        "smc": "whose particles start in every mode",
        "gibbs": "which draws the example from its exact conditional",
    }

    def entry(name):
        return Alternative(
            name=name,
            moves_between_modes=moves.get(name, ""),
            diagnosed=name in (*moves, "psis", "nuts"),
        )

    return entry


@pytest.fixture
def ask():
    """A function that gives a rule some summaries to read."""

    def ask(rule, *summaries, reference=None):
        return rule(Reading(summaries, reference))

    return ask


@pytest.fixture
def codes(ask):
    """A function that gives what a rule says, without its words: codes and names."""

    def codes(rule, *summaries, reference=None):
        return [(v.code, *v.about) for v in ask(rule, *summaries, reference=reference)]

    return codes
