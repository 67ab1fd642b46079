"""Examples that are one mode count as one, in every number and sentence."""

from __future__ import annotations

from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

from ppl_memprior import DiffusionMixturePrior, InverseProblem, MemorizedPrior, compare
from ppl_memprior.comparison.methods.registry import alternatives
from ppl_memprior.comparison.trees.datatree import to_datatree
from ppl_memprior.diagnostics import distinct_examples, summarize
from ppl_memprior.diagnostics.modes import example_groups, same_within, visited_modes
from ppl_memprior.inference.draws import Cost, Draws

pytestmark = pytest.mark.arithmetic  # another Python computes the same

SIGMA = 0.02


def images(num, seed=0):
    """Smooth images of 8 x 8 pixels between 0 and 1."""
    rough = np.random.default_rng(seed).normal(size=(num, 8, 8))
    smooth = gaussian_filter(rough, (0, 1.2, 1.2))
    low, high = smooth.min((1, 2), keepdims=True), smooth.max((1, 2), keepdims=True)
    return ((smooth - low) / (high - low)).astype(np.float32)


def jitter(examples, distance, seed=1):
    """Examples moved by a distance in a random direction each."""
    step = np.random.default_rng(seed).normal(size=examples.shape)
    norm = np.sqrt(np.sum(step**2, axis=(1, 2), keepdims=True))
    return (examples + distance * step / norm).astype(np.float32)


def test_coincident_examples_are_one():
    np.testing.assert_array_equal(distinct_examples([0.0, 1.0, 0.0, 2.0, 1.0]), [0, 1, 0, 3, 1])
    rounded = [1 / 3, float(np.float32(1 / 3)), 0.3334]
    np.testing.assert_array_equal(distinct_examples(rounded), [0, 0, 2])
    np.testing.assert_array_equal(distinct_examples(np.zeros((3, 0))), [0, 0, 0])


@pytest.mark.parametrize("size", [1, 40, 1000])
def test_components_are_one_within_the_distance_that_is_documented(size):
    far = 10 * np.random.default_rng(0).normal(size=(5, size))
    limit = 2 + np.sqrt(2 * (size - 1))
    for distance, same in (
        (0.01, True),
        (limit - 0.01, True),
        (limit, True),
        (limit + 0.01, False),
    ):
        step = np.zeros(size)
        step[0] = distance * SIGMA
        labels = distinct_examples(np.concatenate([far, far[:1] + step]), SIGMA)
        assert (labels[5] == 0) == same and list(labels[:5]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [64, 1024, 3876])
@pytest.mark.parametrize("noise", [0.1, 0.3, 0.7])
def test_copies_with_noise_in_every_coordinate_are_one(size, noise):
    rng = np.random.default_rng(3)
    plain = rng.uniform(size=(20, size))
    copies = plain[[7] * 5 + [2]] + noise * SIGMA * rng.normal(size=(6, size))
    labels = distinct_examples(np.concatenate([plain, copies]), SIGMA)
    np.testing.assert_array_equal(labels, [*range(20), 7, 7, 7, 7, 7, 2])


def test_a_wide_bandwidth_makes_no_copies():
    """Its draws reach far, but the examples have nothing in common."""
    plain = np.random.default_rng(4).uniform(size=(50, 400))
    np.testing.assert_array_equal(distinct_examples(plain, 1.0), np.arange(50))


def test_a_chain_of_near_examples_is_not_one():
    """A dense set is a density, not a mode; its copies are found all the same."""
    line = np.linspace(0, 10, 21)
    np.testing.assert_array_equal(distinct_examples(line, 1.1), np.arange(21))
    doubled = np.concatenate([line, line[3:5] + 0.001])
    np.testing.assert_array_equal(distinct_examples(doubled, 1.1), [*range(21), 3, 4])


def test_groups_agree_with_all_pairs_of_distances():
    rng = np.random.default_rng(2)
    for size in (1, 2, 40):
        centres = 3 * rng.normal(size=(300, size)) / np.sqrt(size)
        points = centres[rng.integers(300, size=700)] + 0.01 * rng.normal(size=(700, size))
        limit = same_within(points, 0.1)
        near = np.sum((points[:, None] - points) ** 2, axis=-1) <= limit**2
        same = (near[:, None] == near).all(axis=-1)
        np.testing.assert_array_equal(distinct_examples(points, 0.1), same.argmax(axis=1))


def test_bandwidths_that_cannot_be_are_refused():
    for bandwidth in (-1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="bandwidth must be finite and not negative"):
            distinct_examples([0.0, 1.0], bandwidth)


def trees(examples, weights, digit):
    """Exact draws around one digit and half of them around another, and a reference."""

    def model(data=None):
        x = numpyro.sample("x", DiffusionMixturePrior(examples, SIGMA, weights=weights))
        half = x.reshape(-1)[:32]
        numpyro.sample("data", dist.Normal(half, 0.2).to_event(1), obs=data)

    rng = np.random.default_rng(3)
    problem = InverseProblem(model, data=images(60)[digit].reshape(-1)[:32])
    found = {}
    for name, other in (("one", 0.0), ("two", 0.5)):
        which = np.where(rng.random((4, 60)) < other, 20, digit)
        x = images(60)[which] + SIGMA * rng.normal(size=(4, 60, 8, 8))
        draws = Draws(
            latents={"x": x.astype(np.float32)},
            cost=Cost(num_forward_evaluations=1, num_gradient_evaluations=1),
            numbers={"seconds": 1.0},
        )
        found[name] = to_datatree(problem, draws)
        found[name].attrs["methods_that_apply"] = alternatives(problem)
    return found


def report(examples, weights=None, digit=7):
    comparison = compare(trees(examples, weights, digit), reference="two")
    numbers = [
        {key: value for key, value in asdict(s).items() if isinstance(value, int | float)}
        for s in comparison.summaries
    ]
    sentences = [v for v in comparison.verdicts if v.code != "repeated-examples"]
    return numbers, sentences, comparison


def kinds(verdicts):
    return [(v.code, v.severity, v.about) for v in verdicts]


def check_counts(comparison, total):
    """Of all the examples 60 are distinct, and `one` stays at the one that its draws surround."""
    said = {v.code: v for v in comparison.verdicts}
    assert f"{total} examples, 60 of them distinct at the bandwidth 0.02" in (
        said["repeated-examples"].sentence
    )
    assert said["lookup"].about == ("one",)
    assert "one (example 7 carries all the weight)" in said["lookup"].sentence


PLAIN = images(60)
ORDER = np.random.default_rng(5).permutation(60)


@pytest.fixture(scope="module")
def plain_report():
    return report(PLAIN)


def split(repeats):
    """Weights of examples of which some are stored several times, with the weight of one."""
    return np.concatenate([1 / repeats, np.repeat(1 / repeats, repeats - 1)])


@pytest.mark.parametrize(
    ("repeats", "distance"),
    [
        (np.where(np.isin(np.arange(60), [3, 20, 41]), 2, 1), 0.0),
        (np.where(np.arange(60) == 7, 6, 1), 0.0),
        (np.where(np.arange(60) < 30, 2, 1), 0.01),
    ],
    ids=["three other digits twice", "the digit six times", "near-copies of half of them"],
)
def test_repeated_examples_change_no_number_and_no_sentence(plain_report, repeats, distance):
    copies = jitter(np.repeat(PLAIN, repeats - 1, axis=0), distance * SIGMA)
    numbers, sentences, comparison = report(np.concatenate([PLAIN, copies]), split(repeats))
    for found, expected in zip(numbers, plain_report[0], strict=True):
        assert found.pop("num_examples") == repeats.sum()
        for name, value in found.items():
            # near-copies move distances by a hundredth of a bandwidth, which is 1 / 800 of theirs
            close = pytest.approx(expected[name], rel=2e-3, abs=1e-4, nan_ok=True)
            assert value == close, name
    assert kinds(sentences) == kinds(plain_report[1])
    check_counts(comparison, repeats.sum())
    weighted = next(v for v in sentences if v.code == "weighted-lookup")
    assert weighted.about == ("two",) and "two (2.0 examples)" in weighted.sentence


def test_noisy_copies_change_no_verdict(plain_report):
    """Noise of a third of a bandwidth in every pixel."""
    repeats = np.where(np.arange(60) == 7, 6, np.where(np.isin(np.arange(60), [3, 41]), 2, 1))
    copies = jitter(np.repeat(PLAIN, repeats - 1, axis=0), 0.3 * np.sqrt(64) * SIGMA)
    _, sentences, comparison = report(np.concatenate([PLAIN, copies]), split(repeats))
    assert kinds(sentences) == kinds(plain_report[1])
    check_counts(comparison, 67)


def test_the_order_of_the_examples_changes_no_number(plain_report):
    numbers, sentences, _ = report(PLAIN[ORDER])
    for found, expected in zip(numbers, plain_report[0], strict=True):
        assert ORDER[found.pop("top_example")] == expected["top_example"]
        for name in found:
            assert found[name] == pytest.approx(expected[name], rel=1e-4, nan_ok=True), name
    assert kinds(sentences) == kinds(plain_report[1])


def test_copies_are_told_by_their_first_number():
    """Also in trees of earlier versions, which know the nearest example only."""
    examples = np.concatenate([PLAIN[:21], PLAIN[7:8]])
    new = trees(examples, None, 7)["two"]
    assert set(np.unique(new["sample_stats"]["nearest_example"])) == {7, 20}
    old = new.copy()
    del old.attrs["methods_that_apply"]
    old["examples"] = xr.DataTree(new["examples"].to_dataset().drop_vars("representative"))
    old["sample_stats"]["nearest_example"][:, ::2] = new["sample_stats"]["nearest_example"][
        :, ::2
    ].where(new["sample_stats"]["nearest_example"][:, ::2] != 7, 21)
    assert 21 in old["sample_stats"]["nearest_example"]
    np.testing.assert_array_equal(example_groups(old), [*range(21), 7])
    assert set(np.unique(visited_modes(old))) == {7, 20}
    before, after = summarize("old", old, None), summarize("new", new, None)
    assert before.mode_ess == after.mode_ess
    assert before.alternatives == () and "nuts" in [a.name for a in after.alternatives]
    # draws are thinned by the nearest example's indicators as well
    assert after.thinned_draws <= after.mode_ess / 2


def one_draw(prior, **latents):
    def model(data=None):
        others = {name: numpyro.sample(name, dist.LogNormal(0.0, 1.0)) for name in latents}
        x = numpyro.sample("x", prior(**others))
        numpyro.sample("data", dist.Normal(x, 1.0), obs=data)

    values = {"x": np.zeros((1, 4)), **latents}
    return to_datatree(
        InverseProblem(model, data=0.0),
        Draws(
            latents={k: np.asarray(v, np.float32) for k, v in values.items()},
            cost=Cost(),
            independent=True,
        ),
    )


def test_a_latent_bandwidth_counts_with_its_mean():
    examples = jnp.array([0.0, 0.5, 4.0, 4.0, 9.0])
    sigma = np.array([[0.1, 0.3, 0.5, 0.7]])
    tree = one_draw(lambda sigma: DiffusionMixturePrior(examples, sigma), sigma=sigma)
    assert tree.attrs["bandwidth"] == pytest.approx(0.4)
    np.testing.assert_array_equal(tree["examples"]["representative"], [0, 0, 2, 2, 4])
    tree = one_draw(lambda other: MemorizedPrior(examples), other=sigma)
    np.testing.assert_array_equal(tree["examples"]["representative"], [0, 1, 2, 2, 4])
    assert jax.tree.leaves(tree.attrs["bandwidth"]) == [0.0]
