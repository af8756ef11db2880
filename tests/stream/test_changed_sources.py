"""A sample that was explained and is another one now is noticed on going on; one that is still to come may change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pylrp
from pylrp.layers import Dense, Flatten
from pylrp.stream import BadRecord, DifferentRun, StreamResult

COUNT, BATCH, BROKEN = 14, 4, 9  # two whole blocks before the broken sample
KINDS = ("folder", "npy", "h5", "zarr", "parquet", "parts")
PACKAGES = {"folder": "PIL.Image", "h5": "h5py", "zarr": "zarr", "parquet": "pyarrow.parquet", "parts": "pyarrow"}


def network() -> pylrp.Network:
    return pylrp.Network([Flatten(), Dense(np.random.default_rng(0).normal(size=(2, 12)))], input_shape=(1, 3, 4))


def samples() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (COUNT, 1, 3, 4)).astype(np.uint8)


def source(kind: str, folder: Path) -> Path:
    """Where the samples of this kind lie."""
    return folder / {"folder": "photos", "parts": "parts"}.get(kind, f"x.{kind}")


def write(kind: str, folder: Path, x: np.ndarray, rows: list[int]) -> None:
    """Write some rows of x where they lie, over what is there; NaN stands in all of the broken one."""
    place, values = source(kind, folder), x / 255.0
    broken = [row for row in range(COUNT) if x[row].max() == 0]
    values[broken] = np.nan
    if kind == "folder":
        from PIL import Image

        place.mkdir(exist_ok=True)
        for row in rows:
            Image.fromarray(x[row, 0]).save(place / f"{row:02}.bmp")
            if row in broken:
                (place / f"{row:02}.bmp").write_bytes(b"no picture")
    elif kind == "npy":
        np.save(place, values)
    elif kind == "h5":
        import h5py

        with h5py.File(place, "w") as file:
            file["x"] = values
    elif kind == "zarr":
        import zarr

        if not place.exists():
            zarr.create_array(str(place), shape=values.shape, chunks=(3, 1, 3, 4), dtype=values.dtype)
        zarr.open_array(str(place), mode="r+")[:] = values
    else:
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.table({"x": values.tolist()})
        if kind == "parquet":
            parquet.write_table(table, place)
        else:
            place.mkdir(exist_ok=True)
            parquet.write_table(table[:5], place / "a.parquet")
            parquet.write_table(table[5:], place / "b.parquet")


def run(kind: str, folder: Path) -> StreamResult:
    return pylrp.stream.explain(network(), source(kind, folder), folder / "maps.npy", batch=BATCH)


@pytest.fixture(params=KINDS)
def begun(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[..., None], Callable[[], StreamResult]]:
    """A stream that ended at a broken sample: what writes rows of its source, and what goes on."""
    kind: str = request.param
    pytest.importorskip(PACKAGES.get(kind, "numpy"))
    x = samples()
    x[BROKEN] = 0
    write(kind, tmp_path, x, list(range(COUNT)))
    with pytest.raises(BadRecord):
        run(kind, tmp_path)
    assert StreamResult.open(tmp_path / "maps.npy").count == 2 * BATCH
    return (lambda x, *rows: write(kind, tmp_path, x, list(rows))), (lambda: run(kind, tmp_path))


def test_what_is_still_to_come_may_be_mended(begun) -> None:
    write, go_on = begun
    write(samples(), BROKEN)
    result = go_on()
    assert result.complete
    x = samples() / 255.0
    wanted = np.concatenate([network().explain(x[i : i + BATCH]).relevance for i in range(0, COUNT, BATCH)])
    np.testing.assert_allclose(result.arrays()["relevance"], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("row", [0, 5, 7])
def test_what_was_explained_may_not(begun, row) -> None:
    write, go_on = begun
    x = samples()
    x[row, 0, 1, 2] ^= 255
    write(x, row, BROKEN)
    with pytest.raises(DifferentRun, match=f"samples {row // BATCH * BATCH} to {row // BATCH * BATCH + 3}, ") as raised:
        go_on()
    assert set(raised.value.differences) == {"content"}
    write(samples(), row, BROKEN)  # back again: new files, the old samples
    assert go_on().complete
    write(x, row)
    with pytest.raises(DifferentRun):  # complete, and no longer the result of what is there
        go_on()


def test_a_file_of_the_same_name_size_and_time(tmp_path: Path) -> None:
    """What a copy with ``cp --preserve`` leaves behind."""
    pytest.importorskip("PIL.Image")
    write("folder", tmp_path, samples(), list(range(COUNT)))
    run("folder", tmp_path)
    first, second = tmp_path / "photos" / "02.bmp", tmp_path / "photos" / "03.bmp"
    before = first.stat()
    shutil.copyfile(second, first)
    os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert first.stat().st_size == before.st_size
    with pytest.raises(DifferentRun, match=r"photos.00\.bmp to .*photos.03\.bmp"):
        run("folder", tmp_path)


def test_files_that_did_not_change_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PIL.Image")
    write("folder", tmp_path, samples(), list(range(COUNT)))
    run("folder", tmp_path)
    reads: list[int] = []
    read = pylrp.stream.records.FileSource.read
    monkeypatch.setattr(
        pylrp.stream.records.FileSource, "read", lambda self, *where: (reads.append(where[0]), read(self, *where))[1]
    )
    assert run("folder", tmp_path).complete
    assert reads == []
    os.utime(tmp_path / "photos" / "05.bmp")  # as after a copy: its block is read, and is the same
    assert run("folder", tmp_path).complete
    assert reads == [4]


def test_a_source_of_the_callers_own_is_read_again(tmp_path: Path) -> None:
    class Own:
        count = COUNT
        x = samples() / 255.0

        def read(self, start: int, stop: int) -> pylrp.stream.sources.Read:
            return pylrp.stream.sources.Read(self.x[start:stop], len(self.x[start:stop]), last=stop >= COUNT)

        def name(self, index: int) -> str:
            return f"own {index}"

        def identity(self) -> dict[str, object]:
            return {"source": "own"}

    own = Own()
    first = pylrp.stream.explain(network(), own, tmp_path / "maps.npy", batch=BATCH)
    again = pylrp.stream.explain(network(), own, tmp_path / "maps.npy", batch=BATCH)
    assert first.run["content"] == again.run["content"]
    own.x = own.x + 1
    with pytest.raises(DifferentRun, match="own 0 to own 3"):
        pylrp.stream.explain(network(), own, tmp_path / "maps.npy", batch=BATCH)
