"""Survey geometries, their wavelet and what they refuse."""

import pickle

import numpy as np
import pytest

from ppl_memprior.forward import Survey, ricker

LINE = {"peak_frequency": 10.0, "dt": 0.002, "num_times": 200}


def test_openfwi_survey_is_the_published_one():
    survey = Survey.openfwi()
    assert (survey.num_shots, survey.num_receivers, survey.num_times) == (5, 70, 1000)
    assert (survey.dt, survey.peak_frequency) == (0.001, 15.0)
    assert survey.source_locations.tolist() == [[[1, c]] for c in (0, 17, 34, 52, 69)]
    assert survey.receiver_locations[3].tolist() == [[1, c] for c in range(70)]


def test_transmission_and_single_shots():
    survey = Survey.transmission((20, 11), 1, 3, **LINE, depth=2)
    assert survey.source_locations.tolist() == [[[2, 5]]]
    assert survey.receiver_locations.tolist() == [[[17, 0], [17, 5], [17, 10]]]


def test_surveys_compare_hash_and_pickle_by_value():
    survey = Survey.surface((20, 20), 3, 5, **LINE)
    copy = pickle.loads(pickle.dumps(survey))
    assert copy == survey and hash(copy) == hash(survey)
    assert survey != Survey.surface((20, 20), 3, 6, **LINE)
    assert "3 shots" in repr(survey)
    with pytest.raises(ValueError, match="read-only"):
        survey.wavelet[0] = 1.0


@pytest.mark.torch
def test_ricker_equals_deepwave():
    wavelets = pytest.importorskip("deepwave").wavelets
    torch = pytest.importorskip("torch")
    theirs = wavelets.ricker(12.0, 300, 0.002, 1.5 / 12.0, dtype=torch.float64).numpy()
    # Both in float64, a few operations apart.
    np.testing.assert_allclose(ricker(12.0, 300, 0.002), theirs, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_receivers": 21}, "21 receivers do not fit a row of 20"),
        ({"num_shots": 0}, "0 shots"),
        ({"depth": 20}, "row 20"),
        ({"dt": 0.03}, "dt = 0.03 s is too long"),
        ({"dt": -1.0}, "positive time step"),
        ({"peak_frequency": float("nan")}, "peak_frequency must be positive"),
        ({"num_times": 20}, "Raise num_times"),
        ({"shape": (20,)}, r"\(nz, nx\)"),
    ],
)
def test_surface_refuses(change, message):
    values = {"shape": (20, 20), "num_shots": 2, "num_receivers": 5, **LINE, **change}
    with pytest.raises(ValueError, match=message):
        Survey.surface(**values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_locations": [[[1, 20]]]}, r"cell \(1, 20\) lies outside the grid"),
        ({"receiver_locations": [[[-1, 2]]]}, r"receiver_locations: cell \(-1, 2\)"),
        ({"receiver_locations": [[[1.5, 2.0]]]}, "integer grid cells"),
        ({"source_locations": [[1, 2]]}, r"\(shots, per shot, 2\)"),
        ({"receiver_locations": [[[1, 2]], [[1, 3]]]}, "1 shots and receiver_locations 2"),
        ({"wavelet": [1.0, np.inf]}, "1 non-finite"),
    ],
)
def test_survey_refuses(change, message):
    values = {
        "shape": (20, 20),
        "source_locations": [[[1, 2]]],
        "receiver_locations": [[[1, 2]]],
        "wavelet": np.ones(5),
        "dt": 0.002,
        "peak_frequency": 10.0,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        Survey(**values)
