"""What a stream reads: another content is another run, arrays within groups, data frames of several types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pylrp
from pylrp.layers import Dense
from pylrp.stream import DifferentRun

COUNT, FEATURES = 23, 3


def network() -> pylrp.Network:
    return pylrp.Network([Dense(np.random.default_rng(0).normal(size=(2, FEATURES)))])


def samples() -> np.ndarray:
    return np.random.default_rng(1).random((COUNT, FEATURES))


@pytest.mark.parametrize("row", [0, 5, 16, COUNT - 1])
@pytest.mark.parametrize("kind", ["array", "dict", "numbers", "words"])
def test_any_row_in_memory_that_was_changed_is_noticed(tmp_path: Path, kind: str, row: int) -> None:
    """The result of the old rows would be returned as that of the new ones."""

    def source(x: np.ndarray) -> object:
        if kind in ("array", "dict"):
            return x if kind == "array" else {"input": x}
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(x, columns=["a", "b", "c"])
        return frame if kind == "numbers" else frame.astype({"b": "Float64"})

    pylrp.stream.explain(network(), source(samples()), tmp_path / "a.npy", batch=4)
    pylrp.stream.explain(network(), source(samples()), tmp_path / "a.npy", batch=4)  # the same again
    changed = samples()
    changed[row, 1] += 1
    with pytest.raises(DifferentRun):
        pylrp.stream.explain(network(), source(changed), tmp_path / "a.npy", batch=4)


@pytest.mark.parametrize("package", ["h5py", "zarr"])
def test_arrays_within_groups(tmp_path: Path, package: str) -> None:
    if package == "h5py":
        path = tmp_path / "a.h5"
        with pytest.importorskip(package).File(path, "w") as file:
            file["train/x"] = samples()
    else:
        path = tmp_path / "a.zarr"
        group = pytest.importorskip(package).open_group(str(path), mode="w").create_group("train")
        group.create_array("x", data=samples())
    result = pylrp.stream.explain(network(), path, tmp_path / "a.npy", batch=4)  # the only one
    expected = network().explain(samples()).relevance
    np.testing.assert_array_equal(result.arrays()["relevance"][:], expected)


def test_several_arrays_within_groups_are_told(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train/x"], file["y"] = samples(), np.arange(COUNT)
    with pytest.raises(ValueError, match=r"holds train/x, y: say which, dataset="):
        pylrp.stream.explain(network(), tmp_path / "a.h5", tmp_path / "a.npy")
    with pytest.raises(ValueError, match="no array 'z'; there is train/x, y"):
        pylrp.stream.explain(network(), tmp_path / "a.h5", tmp_path / "a.npy", dataset="z")
    result = pylrp.stream.explain(network(), tmp_path / "a.h5", tmp_path / "a.npy", dataset="train/x")
    np.testing.assert_array_equal(result.arrays()["relevance"][:], network().explain(samples()).relevance)


def test_data_frame_of_several_types(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": np.arange(COUNT), "ill": np.arange(COUNT) % 2 == 0, "dose": samples()[:, 0]})
    result = pylrp.stream.explain(network(), frame, tmp_path / "a.npy", batch=4)
    expected = network().explain(frame.to_numpy(dtype=float)).relevance
    np.testing.assert_array_equal(result.arrays()["relevance"][:], expected)
