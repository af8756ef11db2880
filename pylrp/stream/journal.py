"""The journal beside a result: which blocks are safely written, and the state of reductions that belongs to them.

A folder ``NAME.journal`` beside the result. ``run.json`` says what is computed; ``journal`` has a line a block, each
with a checksum, appended and synchronised after the block's arrays and the reductions' state have reached the disk.
What a line does not speak of counts as not done, whatever is in the files: a block is written again, to the same bits.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from pylrp._files import atomically

__all__ = ["JOURNAL", "BadRecord", "Block", "DifferentRun", "Journal", "sync_file", "sync_folder"]

#: What a line holds, counted up when that changes.
JOURNAL = 2
_RUN, _LINES, _LOCK = "run.json", "journal", "lock"


class BadRecord(ValueError):
    """A sample of a stream can't be read, or can't be explained.

    Attributes
    ----------
    index : int
        Its place in the source, from 0.
    name : str
        A file, or the array with the index.
    reason : str
    """

    def __init__(self, index: int, name: str, reason: str):
        super().__init__(f"sample {index}, {name}: {reason}. on_error='skip' keeps its row as NaN and goes on")
        self.index, self.name, self.reason = index, name, reason

    def __reduce__(self) -> tuple[type[BadRecord], tuple[int, str, str]]:
        return BadRecord, (self.index, self.name, self.reason)


class DifferentRun(ValueError):
    """What was begun was begun otherwise: another network, source, setting, size of batches, version.

    Attributes
    ----------
    differences : dict of str to (before, now)
    """

    def __init__(self, path: Path, differences: dict[str, tuple[Any, Any]]):
        self.path, self.differences = path, differences
        super().__init__(f"{self.told()}. resume=False begins anew")

    def told(self) -> str:
        """Return what is wrong, without a way out."""
        told = "; ".join(f"{name} was {before!r}, now {now!r}" for name, (before, now) in self.differences.items())
        return f"{self.path} was begun otherwise, so that it can't go on: {told}"

    def __reduce__(self) -> tuple[type[DifferentRun], tuple[Path, dict[str, tuple[Any, Any]]]]:
        return DifferentRun, (self.path, self.differences)


@dataclass(frozen=True)
class Block:
    """A line of the journal.

    Attributes
    ----------
    number : int
        From 0.
    stop : int
        The index behind its last sample.
    skipped : list of (index, name, reason)
    last : bool
        Whether the source ends with it.
    content, stamp : str
        Of its samples, as they were read, and of the files behind them; ``content.py`` compares them.
    """

    number: int
    stop: int
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    last: bool = False
    content: str = ""
    stamp: str = ""


class Journal:
    """What is done of a run, on disk.

    Parameters
    ----------
    result : Path
        The file or folder beside which it lies.
    """

    def __init__(self, result: Path):
        self.folder = result.with_name(f"{result.name}.journal")
        self.result = result
        self.blocks: list[Block] = []
        self._lines: IO[bytes] | None = None

    @property
    def exists(self) -> bool:
        """Return whether a run has been begun here."""
        return (self.folder / _RUN).exists()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from writing the same result meanwhile; the system ends that with this process.

        Raises
        ------
        BlockingIOError
            If another process does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("ab") as file:
            try:
                _lock(file)
            except OSError as error:
                raise BlockingIOError(error.errno, "another process is writing it", str(self.result)) from None
            try:
                yield
            finally:
                self.close()

    def begin(self, run: Mapping[str, Any]) -> None:
        """Forget what was done, and say what is."""
        self.close()
        for path in self.folder.iterdir():
            if path.name != _LOCK:
                path.unlink()
        sync_folder(self.folder)
        atomically(self.folder / _RUN, lambda part: _write_synced(part, json.dumps(run, indent=1).encode()))
        sync_folder(self.folder)
        self.blocks = []

    def go_on(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Read what was done, and return what was said of it.

        Raises
        ------
        DifferentRun
            If something else is to be done now.
        """
        stored = self.stored()
        before, now = stored["run"], json.loads(json.dumps(run))
        differences = {
            name: (before.get(name), now.get(name)) for name in {**before, **now} if before.get(name) != now.get(name)
        }
        if differences:
            raise DifferentRun(self.result, differences)
        self._read()
        for path in self.folder.glob("state-*"):  # what a killed process had not come to remove
            if path != self._state(len(self.blocks) - 1):
                path.unlink()
        return stored

    def stored(self) -> dict[str, Any]:
        """Return what :meth:`begin` was given; reads the lines where that was not done."""
        found: dict[str, Any] = json.loads((self.folder / _RUN).read_bytes())
        if not self.blocks:
            self._read(cut=False)
        return found

    def _read(self, cut: bool = True) -> None:
        """Read the lines up to the first that is not whole, and cut the rest off unless another process may write."""
        path, end = self.folder / _LINES, 0
        self.blocks = []
        if not path.exists():
            return
        data = path.read_bytes()
        for line in data.splitlines(keepends=True):
            block = _parsed(line, len(self.blocks))
            if block is None:
                break
            self.blocks.append(block)
            end += len(line)
        if cut and end < len(data):
            with path.open("r+b") as file:
                file.truncate(end)
                os.fsync(file.fileno())

    def commit(self, block: Block, state: Mapping[str, Any]) -> None:
        """Let a block count, whose arrays are on the disk: with the state of reductions after it."""
        number = block.number
        if state:
            path = self._state(number)
            atomically(path, lambda part: _write_arrays(part, state))
            sync_folder(self.folder)
        if self._lines is None:
            fresh = not (self.folder / _LINES).exists()
            self._lines = (self.folder / _LINES).open("ab")
            if fresh:
                sync_folder(self.folder)
        content = json.dumps([number, block.stop, block.skipped, block.last, block.content, block.stamp]).encode()
        self._lines.write(b"%08x %s\n" % (zlib.crc32(content), content))
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self.blocks.append(block)
        if state and number > 0:
            self._state(number - 1).unlink(missing_ok=True)

    def state(self) -> dict[str, Any]:
        """Return the state of reductions after the last block that counts."""
        if not self.blocks or not self._state(len(self.blocks) - 1).exists():
            return {}
        with np.load(self._state(len(self.blocks) - 1), allow_pickle=False) as file:
            return dict(file)

    def _state(self, number: int) -> Path:
        return self.folder / f"state-{number}.npz"

    def close(self) -> None:
        """Close the file of lines."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None


def _parsed(line: bytes, number: int) -> Block | None:
    """Return a line's block, None where the line is torn or none of ours."""
    check, _, content = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(content):
        return None
    found, stop, skipped, *rest = json.loads(content)
    return Block(found, stop, [(i, name, why) for i, name, why in skipped], *rest) if found == number else None


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Return when a file's content has reached the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Return when the names in a folder have reached the disk."""
    if os.name == "nt":  # has no handle for that
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(file: IO[bytes]) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
