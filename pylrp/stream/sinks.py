"""Where a stream's results go: a Zarr group, or ``.npy`` files; ``parquet.py`` has a folder of Parquet parts.

A sink takes blocks in order, each at its place, and returns from :meth:`write` when they are on the disk. What the
journal does not count is overwritten later, by the same bits. zarr is the extra ``stream``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pylrp.stream.journal import sync_file, sync_folder
from pylrp.stream.sources import missing

__all__ = ["Field", "NpySink", "Sink", "ZarrSink", "open_sink"]

Array = NDArray[Any]
_MOST_CHUNK = 32 << 20  # bytes; a block that is larger becomes several chunks


@dataclass(frozen=True)
class Field:
    """An array of the result.

    Attributes
    ----------
    shape : tuple of int
        Of one sample.
    dtype : str
    missing : float or int
        What stands in the row of a sample that could not be explained.
    """

    shape: tuple[int, ...]
    dtype: str
    missing: float | int

    def rows(self, count: int) -> Array:
        """Return so many rows of samples that could not be explained."""
        return np.full((count, *self.shape), self.missing, np.dtype(self.dtype))


class Sink(Protocol):
    """Arrays on disk, a block of rows at a time."""

    path: Path

    def create(self, fields: Mapping[str, Field], count: int | None, batch: int, about: Mapping[str, Any]) -> None:
        """Make the result anew, for so many samples; None where that is not known yet."""

    def reopen(self, fields: Mapping[str, Field], batch: int, about: Mapping[str, Any]) -> None:
        """Go on with what is there."""

    def write(self, number: int, start: int, arrays: Mapping[str, Array]) -> None:
        """Write a block, and return when it is on the disk."""

    def finish(self, count: int) -> None:
        """Let there be so many samples."""

    def arrays(self) -> dict[str, Any]:
        """Return what was written, by name, to be read a slice at a time."""


class ZarrSink:
    """A group in Zarr's format 3, a chunk (or a few) a block and array, compressed by zstd."""

    def __init__(self, path: Path):
        try:
            import zarr
        except ImportError as error:
            raise missing("zarr (Python 3.11 or newer)", "Zarr is written", error) from None
        self._zarr = zarr
        self.path = path
        self._group: Any = None
        self._counted = True

    def create(self, fields: Mapping[str, Field], count: int | None, batch: int, about: Mapping[str, Any]) -> None:
        """Make the group and its arrays."""
        self._group = self._zarr.open_group(str(self.path), mode="w", zarr_format=3, attributes=dict(about))
        self._counted = count is not None
        for name, field in fields.items():
            self._group.create_array(
                name,
                shape=(count or 0, *field.shape),
                chunks=(_chunk(batch, field), *(max(size, 1) for size in field.shape)),
                dtype=field.dtype,
                fill_value=field.missing,
            )
        for folder, _, files in os.walk(self.path):
            for file in files:
                sync_file(Path(folder, file))
            sync_folder(Path(folder))
        sync_folder(self.path.absolute().parent)

    def reopen(self, fields: Mapping[str, Field], batch: int, about: Mapping[str, Any]) -> None:
        """Open the group again."""
        self._group = self._zarr.open_group(str(self.path), mode="r+")
        self._counted = False

    def write(self, number: int, start: int, arrays: Mapping[str, Array]) -> None:
        """Write whole chunks, and synchronise their files."""
        for name, rows in arrays.items():
            array, stop = self._group[name], start + len(rows)
            if not self._counted and array.shape[0] < stop:
                array.resize((stop, *array.shape[1:]))
                sync_file(self.path / name / "zarr.json")
            array[start:stop] = rows
            size, place = array.chunks[0], self.path / name / "c"
            for i in range(start // size, -(-stop // size)):
                part = place / str(i)
                found = [part] if part.is_file() else [p for p in part.rglob("*") if p.is_file()]
                for file in found:  # none where all rows are the fill value
                    sync_file(file)
                    sync_folder(file.parent)
            if place.is_dir():
                sync_folder(place)

    def finish(self, count: int) -> None:
        """Cut the arrays to their length."""
        for name in list(self._group):
            array = self._group[name]
            if array.shape[0] != count:
                array.resize((count, *array.shape[1:]))

    def arrays(self) -> dict[str, Any]:
        """Return the group's arrays."""
        group = self._zarr.open_group(str(self.path), mode="r")
        return {name: group[name] for name in group}


def _chunk(batch: int, field: Field) -> int:
    """Return how many rows a chunk has: a divisor of the batch, so that no chunk belongs to two blocks."""
    row = int(np.prod(field.shape, dtype=np.int64)) * np.dtype(field.dtype).itemsize
    rows = max(1, min(batch, _MOST_CHUNK // max(row, 1)))
    return next(size for size in range(rows, 0, -1) if batch % size == 0)


class NpySink:
    """``NAME.npy`` with the relevance, and ``NAME.output.npy`` and so on beside it, to be mapped."""

    def __init__(self, path: Path):
        self.path = path
        self._maps: dict[str, Any] = {}

    def _file(self, name: str) -> Path:
        return (
            self.path if name == "relevance" else self.path.with_name(f"{self.path.stem}.{name.replace('/', '.')}.npy")
        )

    def create(self, fields: Mapping[str, Field], count: int | None, batch: int, about: Mapping[str, Any]) -> None:
        """Make the files at their full length, every row missing."""
        if count is None:
            raise ValueError(
                f"{self.path}: an .npy needs the number of samples, which an iterator does not tell: write to .zarr or "
                ".parquet, or give an array"
            )
        self._maps = {}
        for name, field in fields.items():
            shape = (count, *field.shape)
            if 0 in shape:
                np.save(self._file(name), np.empty(shape, field.dtype))
                continue
            made = np.lib.format.open_memmap(self._file(name), "w+", np.dtype(field.dtype), shape)
            made.flush()
            self._maps[name] = made
        sync_folder(self.path.absolute().parent)

    def reopen(self, fields: Mapping[str, Field], batch: int, about: Mapping[str, Any]) -> None:
        """Map the files again."""
        self._maps = {name: np.load(self._file(name), mmap_mode="r+") for name in fields}

    def write(self, number: int, start: int, arrays: Mapping[str, Array]) -> None:
        """Write rows through the system's own call, so that they don't stay in this process's memory."""
        for name, rows in arrays.items():
            mapped = self._maps.get(name)
            if mapped is None:
                continue
            row = mapped.dtype.itemsize * int(np.prod(mapped.shape[1:], dtype=np.int64))
            with self._file(name).open("r+b") as file:
                file.seek(mapped.offset + start * row)
                file.write(np.ascontiguousarray(rows, mapped.dtype).data)
                file.flush()
                os.fsync(file.fileno())

    def finish(self, count: int) -> None:
        """Unmap the files."""
        self._maps = {}

    def arrays(self) -> dict[str, Any]:
        """Return the files, mapped."""
        start = len(self.path.stem) + 1
        others = sorted(self.path.parent.glob(f"{self.path.stem}.*.npy"))
        found = {path.stem[start:]: np.load(path, mmap_mode="r") for path in others}
        return {"relevance": np.load(self.path, mmap_mode="r"), **found} if self.path.exists() else found


def open_sink(path: str | os.PathLike[str]) -> Sink:
    """Return the sink for a path, by its ending."""
    place = Path(path)
    if place.suffix == ".zarr":
        return ZarrSink(place)
    if place.suffix == ".npy":
        return NpySink(place)
    if place.suffix == ".parquet":
        from pylrp.stream.parquet import ParquetSink

        return ParquetSink(place)
    raise ValueError(f"{place} ends in {place.suffix or 'nothing'}, a stream is written to .zarr, .npy or .parquet")
