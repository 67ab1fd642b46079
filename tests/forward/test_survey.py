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


def test_positions_in_metres():
    given = {"shape": (20, 11), "grid_spacing": 10.0, "peak_frequency": 10.0, "dt": 0.002}
    survey = Survey.from_metres(
        **given, sources=[[12.0, 0.0], [8.0, 104.9]], receivers=[[190.0, 34.0]], num_times=200
    )
    assert survey.source_locations.tolist() == [[[1, 0]], [[1, 10]]]
    assert survey.receiver_locations.tolist() == [[[19, 3]], [[19, 3]]]
    np.testing.assert_array_equal(survey.wavelet, ricker(10.0, 200, 0.002))
    np.testing.assert_allclose(survey.times[[0, -1]], [0.0, 0.398])
    pairs = Survey.from_metres(
        **given, sources=[[[0, 0], [0, 20]]], receivers=[[[0, 50]]], wavelet=np.ones(7)
    )
    assert pairs.source_locations.tolist() == [[[0, 0], [0, 2]]] and pairs.num_times == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": [[0.0, 106.0]]}, r"distance 106 m lies outside .* from 0 to 100 m; 1 pos"),
        ({"receivers": [[np.nan, 0.0]]}, "receivers: the position at depth nan m"),
        ({"receivers": [1.0, 2.0]}, r"got shape \(2,\)"),
        ({"grid_spacing": 0.0}, "grid_spacing must be positive and finite, got 0"),
        ({"num_times": None}, "one of num_times"),
        (
            {"sources": [[0.0, 0.01]], "receivers": [[0.0, 0.0], [0.0, 0.1]]},
            r"all 3 positions .* one grid cell of 10 m, \(0, 0\)\. Positions are in m",
        ),
        ({"num_times": 20}, "Raise num_times"),
    ],
)
def test_positions_in_metres_refuse(change, message):
    values = {
        "shape": (20, 11),
        "grid_spacing": 10.0,
        "sources": [[0.0, 0.0]],
        "receivers": [[0.0, 0.0]],
        "peak_frequency": 10.0,
        "dt": 0.002,
        "num_times": 200,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        Survey.from_metres(**values)


@pytest.mark.torch
def test_arrays_of_any_library():
    torch = pytest.importorskip("torch")
    survey = Survey.surface((20, 20), 3, 5, **LINE)
    given = Survey(
        survey.shape,
        torch.tensor(survey.source_locations),
        survey.receiver_locations.astype(">i8"),
        torch.tensor(survey.wavelet),
        survey.dt,
        survey.peak_frequency,
    )
    assert given == survey


def test_a_source_at_its_receiver_is_welcome():
    survey = Survey.from_metres(
        (20, 11), 10.0, [[0.0, 0.0]], [[0.0, 0.0]], peak_frequency=10.0, dt=0.002, num_times=200
    )
    assert survey.num_receivers == 1


@pytest.mark.parametrize(("grid_spacing", "unit"), [(None, "cells"), (25.0, "m")])
@pytest.mark.parametrize(
    "survey",
    [
        Survey.surface((20, 40), 3, 9, **LINE),
        Survey.transmission((20, 11), 1, 3, **LINE),
        Survey.openfwi((140, 130), num_receivers=10),
        Survey((3, 3), [[[0, 0]]], [[[2, 2]]], [1.0], 0.01, 10.0),
    ],
    ids=["surface", "transmission", "openfwi", "one sample"],
)
def test_picture_is_labelled(survey, grid_spacing, unit, tmp_path):
    figure = survey.plot(grid_spacing)
    geometry, wavelet, spectrum = figure.axes
    assert geometry.get_xlabel() == f"distance ({unit})"
    assert geometry.get_ylabel() == f"depth ({unit})" and geometry.yaxis_inverted()
    assert f"{survey.shape[0]} x {survey.shape[1]} cells" in geometry.get_title()
    scale = grid_spacing or 1.0
    receivers, sources = geometry.get_lines()[:2]
    assert receivers.get_xdata().max() == scale * survey.receiver_locations[..., 1].max()
    assert sources.get_ydata().max() == scale * survey.source_locations[..., 0].max()
    assert wavelet.get_xlabel() == "time (s)" and spectrum.get_xlabel() == "frequency (Hz)"
    figure.savefig(tmp_path / "survey.png")
