"""Whether the samples that were explained are still those of the source, when a run goes on.

A line of the journal holds a hash of its samples as they were read, and a stamp of the files behind them: size, times
and number on the disk, which cost no reading. Where the stamp is the same, so are the samples; where it is not, or
where there is no file, they are read again and the hash decides. What has not been explained yet may be another one: a
broken file is mended, and the run goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pylrp.network.columns import Table
from pylrp.network.identity import digest
from pylrp.stream.journal import Block, DifferentRun
from pylrp.stream.sources import Read, Source

__all__ = ["compare", "read_marked"]


def read_marked(source: Source, start: int, stop: int) -> Read:
    """Return samples with their marks; the stamp is older than the reading, so that no change between is missed."""
    before = _stamp(source, start, stop)
    read = source.read(start, stop)
    return replace(read, content="" if source.count is None else _content(read), stamp=before)


def _content(read: Read) -> str:
    """Return a hash of samples as they were read, and of which of them could not be."""
    return digest([_plain(read.x), sorted(read.bad)])[:16]


def _plain(x: Any) -> Any:
    """Return arrays and texts that stand for samples."""
    if isinstance(x, Mapping):
        return {str(name): _plain(part) for name, part in x.items()}
    if isinstance(x, Table) or (hasattr(x, "columns") and hasattr(x, "to_numpy")):
        return [[str(name) for name in x.columns], _plain(x.to_numpy())]
    if getattr(getattr(x, "dtype", None), "hasobject", False):
        return repr(x.tolist())
    return x


def compare(
    source: Source, blocks: Sequence[Block], batch: int, result: Path, report: Callable[[int, int | None], None]
) -> None:
    """Raise DifferentRun where a sample that was explained is another one now."""
    if source.count is None:
        return
    for block in blocks:
        start = block.number * batch
        if not block.stamp or _stamp(source, start, block.stop) != block.stamp:
            now = _content(source.read(start, block.stop))
            if now != block.content:
                which = f"samples {start} to {block.stop - 1}, {source.name(start)} to {source.name(block.stop - 1)}"
                raise DifferentRun(result, {"content": (f"{block.content} of {which}", now)})
        report(block.stop, source.count)


def _stamp(source: Source, start: int, stop: int) -> str:
    """Return a source's stamp of some samples; none where a caller's own source has no such method."""
    method = getattr(source, "stamp", None)
    return "" if method is None else str(method(start, stop))
