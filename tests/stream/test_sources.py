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


@pytest.mark.parametrize(
    ("name", "kind", "package"),
    [
        ("a.npy", ".npy", "numpy"),
        ("a.h5", "HDF5", "h5py"),
        ("a.parquet", "Parquet", "pyarrow"),
        ("a.zarr", "Zarr", "zarr"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, kind: str, package: str) -> None:
    pytest.importorskip(package)
    if name == "a.zarr":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(ValueError, match=rf"{name} can't be read as (an )?{kind}: "):
        pylrp.stream.explain(network(), tmp_path / name, tmp_path / "b.npy")
    if name != "a.npy":
        with pytest.raises(FileNotFoundError, match=f"there is no file .*missing-{name}"):
            pylrp.stream.explain(network(), tmp_path / f"missing-{name}", tmp_path / "b.npy")


def test_a_folder_without_parts(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").mkdir()
    with pytest.raises(ValueError, match=r"a\.parquet is a folder without a \.parquet file in it"):
        pylrp.stream.explain(network(), tmp_path / "a.parquet", tmp_path / "b.npy")


def test_columns_of_parquet_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from pylrp.cli import main

    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    network().save("net.pylrp.npz")
    x = samples()
    columns = {"who": list("abcdefghijklmnopqrstuvw"), "r": x[:, 2], "p": x[:, 0], "q": x[:, 1]}
    parquet.write_table(pyarrow.table(columns), "x.parquet")
    words = ["explain", "net.pylrp.npz", "x.parquet", "--stream", "-q"]
    assert main([*words, "-o", "a.npy", "--columns", "p,q,r"]) == 0
    assert main([*words, "-o", "b.npy", "--drop", "who"]) == 0
    expected = network().explain(x).relevance
    np.testing.assert_allclose(np.load("a.npy"), expected, rtol=1e-12)
    np.testing.assert_allclose(np.load("b.npy"), network().explain(x[:, [2, 0, 1]]).relevance, rtol=1e-12)
    capsys.readouterr()
    assert main([*words, "-o", "c.npy"]) == 1
    assert "column 'who' holds 'a', no number" in capsys.readouterr().err
    assert main([*words, "-o", "c.npy", "--drop", "whom"]) == 1
    assert "no column whom" in capsys.readouterr().err


def test_a_column_of_lists_is_told_briefly() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [np.zeros((40, 40)).tolist()] * 3, "b": 1.0, "c": 2.0})
    with pytest.raises(TypeError, match="column 'a' holds") as raised:
        network().explain(frame)
    assert len(str(raised.value)) < 400


def test_an_hdf5_file_is_closed_at_the_end(tmp_path: Path) -> None:
    """Also after an error, whose traceback holds the source: the file could not be mended otherwise."""
    h5py = pytest.importorskip("h5py")
    x = samples()
    x[20] = np.nan
    for rows in (x, samples()):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["x"] = rows
        if rows is x:
            with pytest.raises(pylrp.stream.BadRecord) as raised:
                pylrp.stream.explain(network(), tmp_path / "a.h5", tmp_path / "a.npy", batch=4)
            assert raised.value.__traceback__ is not None
        else:
            assert pylrp.stream.explain(network(), tmp_path / "a.h5", tmp_path / "a.npy", batch=4).complete
