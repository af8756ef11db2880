"""A stream that is killed (SIGKILL) goes on behind the last block that counts, and ends with the same bits.

By day at five moments of a block, at night fifty times at any time; stream/killed.py is the program that dies.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from stream.killed import BATCH, COUNT, MOMENTS, stream

from pylrp.stream import StreamResult

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
PROGRAM = Path(__file__).with_name("killed.py")


def require(ending: str) -> None:
    if ending != "npy":
        pytest.importorskip({"zarr": "zarr", "parquet": "pyarrow"}[ending], reason='pip install ".[stream]"')


def content(result: StreamResult) -> dict[str, bytes]:
    """Every array's bytes, and every number of the reductions."""
    found = {name: np.asarray(array[:]).tobytes() for name, array in result.arrays().items()}
    curves, means = result.reductions["curves"], result.reductions["class_means"]
    found |= {f"mean {index}": array.tobytes() for index, array in means.items()}
    found["ledger sum"] = result.reductions["ledger"].data.tobytes()
    found["curves"] = b"".join(
        curve.tobytes() for part in ("mean", "standard_error") for curve in curves[part].values()
    )
    found["features"] = repr(result.reductions["top_features"]).encode()
    states = list(result.path.with_name(f"{result.path.name}.journal").glob("state-*"))
    assert [path.name for path in states] == [f"state-{(COUNT - 1) // BATCH}.npz"]
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("whole")
    made: dict[str, dict[str, bytes]] = {}

    def get(ending: str) -> dict[str, bytes]:
        if ending not in made:
            result = stream(folder / f"maps.{ending}")
            assert result.count == COUNT
            assert [index for index, *_ in result.skipped] == [13]
            made[ending] = content(result)
        return made[ending]

    return get  # type: ignore[return-value]


def killed(sink: Path, moment: str, block: int) -> None:
    done = subprocess.run([sys.executable, PROGRAM, sink, moment, str(block)], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "moment"),
    [*(("npy", moment) for moment in MOMENTS), ("zarr", MOMENTS[0]), ("zarr", MOMENTS[2]), ("parquet", MOMENTS[0])],
)
def test_five_moments(whole, tmp_path, ending, moment):
    require(ending)
    sink = tmp_path / f"maps.{ending}"
    killed(sink, moment, 2)
    counts = 3 if moment == "after the line" else 2
    assert StreamResult.open(sink).count == counts * BATCH
    if moment == "after the state":
        (tmp_path / f"maps.{ending}.journal" / "state-0.npz").write_bytes(b"killed before it was removed")
    if moment == "within the line":
        killed(sink, moment, 7)  # the last block, of a process that had gone on
    result = stream(sink)
    assert result.complete
    assert content(result) == whole(ending)


@pytest.mark.slow
def test_killed_in_the_first_block(whole, tmp_path):
    for moment in (MOMENTS[0], MOMENTS[2]):
        sink = tmp_path / f"{moment.replace(' ', '-')}.npy"
        killed(sink, moment, 0)
        assert StreamResult.open(sink).count == 0
        assert content(stream(sink)) == whole("npy")


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(50))
def test_any_time(whole, tmp_path, seed):
    """Killed again and again at any time until it ends by itself."""
    draw = random.Random(seed)
    ending = ["npy", "zarr", "parquet"][seed % 3]
    require(ending)
    sink = tmp_path / f"maps.{ending}"
    for _ in range(12):
        program = subprocess.Popen([sys.executable, PROGRAM, sink, "none", "0"])
        time.sleep(draw.uniform(0.3, 2.0))
        program.kill()
        if program.wait() == 0:
            break
    assert content(stream(sink)) == whole(ending)
