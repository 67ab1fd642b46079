"""Loading OpenFWI's files: written here in its layout, and the real ones where they are."""

import os

import numpy as np
import pytest

from ppl_memprior.datasets import load_openfwi


def models(first, count=3, shape=(4, 5)):
    """Models whose velocities say which model they are."""
    numbers = np.arange(first, first + count, dtype=np.float32)
    return np.broadcast_to((1500.0 + numbers)[:, None, None, None], (count, 1, *shape))


def numbers(loaded):
    return (loaded[:, 0, 0] - 1500.0).astype(int).tolist()


def test_a_file(tmp_path):
    np.save(tmp_path / "model1.npy", models(0))
    loaded = load_openfwi(tmp_path / "model1.npy")
    assert loaded.shape == (3, 4, 5) and loaded.dtype == np.float32
    assert numbers(loaded) == [0, 1, 2]
    assert loaded.flags.writeable


def test_a_folder_at_any_depth_in_natural_order(tmp_path):
    folder = tmp_path / "CurveVel_A" / "model"
    folder.mkdir(parents=True)
    (tmp_path / "CurveVel_A" / "data").mkdir()
    np.save(tmp_path / "CurveVel_A" / "data" / "data1.npy", np.zeros((2, 5, 10, 7)))
    np.save(folder / "model10.npy", models(3))
    np.save(folder / "model2.npy", models(0))
    for path in (tmp_path, tmp_path / "CurveVel_A", folder):
        assert numbers(load_openfwi(path)) == [0, 1, 2, 3, 4, 5]
    assert numbers(load_openfwi(str(tmp_path), max_models=4)) == [0, 1, 2, 3]


def shots(count=3):
    """Seismic data of as many models."""
    return np.zeros((count, 5, 10, 7), np.float32)


def test_fault_families_keep_models_and_data_in_one_folder(tmp_path):
    folder = tmp_path / "FlatFault_A"
    folder.mkdir()
    for first, number in ((6, "3_1_0"), (3, "2_1_10"), (0, "2_1_9")):
        np.save(folder / f"vel{number}.npy", models(first))
        np.save(folder / f"seis{number}.npy", shots())
    for path in (tmp_path, folder):
        assert numbers(load_openfwi(path)) == list(range(9))
    assert numbers(load_openfwi(folder, max_models=4)) == [0, 1, 2, 3]


def test_no_family_of_several_is_left_out(tmp_path):
    for first, model, data in (
        (0, "CurveVel_A/model/model1", "CurveVel_A/data/data1"),
        (3, "FlatFault_B/vel6_1_0", "FlatFault_B/seis6_1_0"),
        (6, "Style_A/model/model1", "Style_A/data/data1"),
        (9, "mine/salt", "mine/gathers"),
        (12, "mine/train/data/vel2_1_0", "mine/train/data/seis2_1_0"),
    ):
        for name, array in ((model, models(first)), (data, shots())):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "mine" / "mean.npy", np.zeros((4, 5)))
    assert sorted(numbers(load_openfwi(tmp_path))) == list(range(15))


def test_seismic_data_alone_are_named(tmp_path):
    np.save(tmp_path / "data1.npy", shots())
    np.save(tmp_path / "gathers.npy", shots())
    with pytest.raises(FileNotFoundError, match="all its 2 .npy files, data1.npy among them, are"):
        load_openfwi(tmp_path)


@pytest.mark.parametrize(
    ("given", "beside"),
    [("seis2_1_0", "vel2_1_0"), ("data/data12", "model/model12")],
)
def test_a_file_of_seismic_data_points_to_its_models(tmp_path, given, beside):
    for name in (given, beside):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    np.save(tmp_path / f"{given}.npy", shots())
    with pytest.raises(ValueError, match=r"seismic data .* files such as model/model1.npy or vel2"):
        load_openfwi(tmp_path / f"{given}.npy")
    np.save(tmp_path / f"{beside}.npy", models(0))
    with pytest.raises(ValueError, match=rf"Its models are in .*{beside}.npy"):
        load_openfwi(tmp_path / f"{given}.npy")


def test_packed_arrays_are_not_passed_over(tmp_path):
    np.savez(tmp_path / "label1.npz", label=models(0))
    with pytest.raises(FileNotFoundError, match="Its 1 .npz files are not read"):
        load_openfwi(tmp_path)


def test_files_that_are_not_needed_are_not_read(tmp_path):
    np.save(tmp_path / "a1.npy", models(0))
    (tmp_path / "a2.npy").write_bytes(b"broken")
    assert numbers(load_openfwi(tmp_path, max_models=3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="a2.npy cannot be read"):
        load_openfwi(tmp_path, max_models=4)


def test_three_axes_and_float64(tmp_path):
    np.save(tmp_path / "m.npy", models(0)[:, 0].astype(np.float64))
    assert load_openfwi(tmp_path / "m.npy").dtype == np.float32


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 5, 1000, 70), np.float32), "seismic data"),
        (np.full((4, 5), 2000.0), "where velocity models are"),
        (np.zeros((0, 1, 4, 5)), "where velocity models are"),
        (np.full((2, 1, 4, 5), 2.0), "in km/s"),
        (np.full((2, 1, 4, 5), "v"), "real numbers"),
        (np.full((2, 1, 4, 5), np.nan), "40 values are not finite, the first of them in model 0"),
        (np.full((2, 1, 4, 5), {}, object), "cannot be read"),
    ],
)
def test_what_is_not_velocity_is_refused(tmp_path, array, message):
    np.save(tmp_path / "m.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        load_openfwi(tmp_path / "m.npy")


def test_broken_files_are_refused(tmp_path):
    (tmp_path / "text.npy").write_text("not an array")
    with pytest.raises(ValueError, match="text.npy cannot be read as a .npy array: it does not"):
        load_openfwi(tmp_path / "text.npy")
    (tmp_path / "empty.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="empty.npy cannot be read"):
        load_openfwi(tmp_path / "empty.npy")
    np.save(tmp_path / "whole.npy", models(0))
    content = (tmp_path / "whole.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(content[:-20])
    with pytest.raises(ValueError, match="short.npy cannot be read"):
        load_openfwi(tmp_path / "short.npy")
    (tmp_path / "header.npy").write_bytes(content[:40])
    with pytest.raises(ValueError, match="header.npy cannot be read"):
        load_openfwi(tmp_path / "header.npy")


def test_paths_and_counts_are_checked(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_openfwi(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no .npy file"):
        load_openfwi(tmp_path)
    with pytest.raises(ValueError, match="max_models must be at least 1"):
        load_openfwi(tmp_path, max_models=0)
    np.save(tmp_path / "a1.npy", models(0))
    np.save(tmp_path / "a2.npy", models(0, shape=(5, 5)))
    with pytest.raises(ValueError, match="one family at a time"):
        load_openfwi(tmp_path)


@pytest.mark.skipif("OPENFWI_ROOT" not in os.environ, reason="OPENFWI_ROOT names no data folder")
@pytest.mark.parametrize("family", ["CurveVel_A", "FlatVel_A"])
def test_real_files(family):
    loaded = load_openfwi(os.path.join(os.environ["OPENFWI_ROOT"], family), max_models=510)
    assert loaded.shape == (510, 70, 70) and loaded.dtype == np.float32
    assert 1500.0 <= loaded.min() and loaded.max() <= 4500.0
