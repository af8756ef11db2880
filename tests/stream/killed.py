"""A program that streams and kills itself with SIGKILL at a given moment of a given block: for test_killed.py.

    python killed.py SINK MOMENT BLOCK

MOMENT is "none", or one of MOMENTS. The source, the network and the reductions are the same in every run.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np

import pylrp
from pylrp.layers import Dense, ReLU
from pylrp.stream import ClassMeans, FlippingCurves, LedgerSum, TopFeatures, journal, run

COUNT, BATCH = 37, 5
MOMENTS = ("before the arrays", "after the arrays", "after the state", "within the line", "after the line")


def network() -> pylrp.Network:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((12, 9), (4, 12))]
    return pylrp.Network([Dense(weights[0]), ReLU(), Dense(weights[1])])


def samples() -> np.ndarray:
    x = np.random.default_rng(1).normal(size=(COUNT, 9)).astype(np.float32)
    x[13, 4] = np.nan
    return x


def stream(sink: Path) -> pylrp.stream.StreamResult:
    reductions = [ClassMeans(), TopFeatures(3), LedgerSum(), FlippingCurves(3)]
    return pylrp.stream.explain(network(), samples(), sink, batch=BATCH, on_error="skip", reductions=reductions)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str, block: int) -> None:
    """Let the program die there."""
    write, commit = run._Run._write, journal.Journal.commit

    def writing(self, number, done):
        if moment == "before the arrays" and number == block:
            sink_write = self.sink.write

            def half(number, start, arrays):  # some of the arrays, and half of their rows
                name, rows = next(iter(arrays.items()))
                sink_write(number, start, {name: rows[: len(rows) // 2]})
                die()

            if hasattr(self.sink, "_maps") or hasattr(self.sink, "_group"):
                self.sink.write = half
            else:
                die()
        write(self, number, done)
        if moment == "after the line" and number == block:
            die()

    def committing(self, done, reduced):
        if moment == "after the arrays" and done.number == block:
            die()
        if moment in ("after the state", "within the line") and done.number == block:
            fsync = os.fsync

            class Torn:
                def __init__(self, file):
                    self.file = file

                def write(self, data):
                    if moment == "within the line":
                        self.file.write(data[: len(data) // 2])
                        self.file.flush()
                        fsync(self.file.fileno())
                    die()

            if self._lines is None:
                self._lines = (self.folder / "journal").open("ab")
            self._lines = Torn(self._lines)
        commit(self, done, reduced)

    run._Run._write, journal.Journal.commit = writing, committing


if __name__ == "__main__":
    if sys.argv[2] != "none":
        arm(sys.argv[2], int(sys.argv[3]))
    stream(Path(sys.argv[1]))
