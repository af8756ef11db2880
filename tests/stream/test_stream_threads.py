"""Streams read, explain and write at the same time; what fails in one thread ends the others."""

from __future__ import annotations

import threading
import time

import pytest
from stream.test_stream import BATCH, COUNT, assert_same, dense, expected, samples

import pylrp
from pylrp.stream import StreamResult


class Watched:
    """A source that is asked, and blocks where a later block has to be read before an earlier one is written."""

    count = COUNT

    def __init__(self):
        self.third = threading.Event()

    def read(self, start, stop):
        from pylrp.stream.sources import Read

        if start >= 2 * BATCH:
            self.third.set()
        rows = samples()[start:stop]
        return Read(rows, len(rows), last=stop >= COUNT)

    def name(self, index):
        return str(index)

    def identity(self):
        return {"source": "watched"}


def test_reading_explaining_and_writing_overlap(tmp_path, monkeypatch):
    """The first block is only written when the third is being read: without threads this would never end."""
    from pylrp.stream.sinks import NpySink

    source, write = Watched(), NpySink.write
    blocks: list[int] = []

    def waits(self, number, start, arrays):
        if number == 0:
            assert source.third.wait(60), "the third block was not read while the first was written"
        blocks.append(number)
        write(self, number, start, arrays)

    monkeypatch.setattr(NpySink, "write", waits)
    net = dense()
    assert_same(pylrp.stream.explain(net, source, tmp_path / "a.npy", batch=BATCH), expected(net, samples()))
    assert blocks == list(range(6))


def test_errors_of_threads_reach_the_caller(tmp_path, monkeypatch):
    from pylrp.stream.sinks import NpySink

    def full(self, number, start, arrays):
        if number == 2:
            raise OSError(28, "No space left on device")
        write(self, number, start, arrays)

    write = NpySink.write
    monkeypatch.setattr(NpySink, "write", full)
    before = threading.active_count()
    with pytest.raises(OSError, match="space"):
        pylrp.stream.explain(dense(), samples(), tmp_path / "a.npy", batch=BATCH)
    assert threading.active_count() == before
    monkeypatch.undo()
    assert StreamResult.open(tmp_path / "a.npy").count == 2 * BATCH
    assert_same(pylrp.stream.explain(dense(), samples(), tmp_path / "a.npy", batch=BATCH), expected(dense(), samples()))


def test_a_sink_that_fails_while_the_next_block_is_read(tmp_path, monkeypatch):
    from pylrp.stream.sinks import NpySink

    failed = threading.Event()

    class Slow(Watched):
        def read(self, start, stop):
            if start == 2 * BATCH:
                assert failed.wait(60)
                time.sleep(0.5)  # until the failure is noted
            return super().read(start, stop)

    def full(self, number, start, arrays):
        failed.set()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(NpySink, "write", full)
    seen: list[BaseException] = []

    def runs():
        try:
            pylrp.stream.explain(dense(), Slow(), tmp_path / "a.npy", batch=BATCH)
        except OSError as error:
            seen.append(error)

    run = threading.Thread(target=runs, daemon=True)
    run.start()
    run.join(60)
    assert not run.is_alive()
    assert [error.errno for error in seen] == [28]
