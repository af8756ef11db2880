"""What a stream reads: arrays in memory or on disk, and iterators. ``records.py`` has files of one sample and tables.

A source gives samples by index, a block at a time, never all of them. h5py and zarr are used through their arrays'
slices; the extra ``stream`` brings them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pylrp.network.network import Network
from pylrp.stream.stamps import files_behind, stamp_of

__all__ = ["ArraySource", "DictSource", "IteratorSource", "Read", "Source", "missing", "open_source"]

Array = NDArray[Any]


@dataclass
class Read:
    """A block of samples.

    Attributes
    ----------
    x : ndarray, data frame or dict of str to ndarray
        Those that could be read, as the network takes them.
    count : int
        How many there are in the block, those that could not be read included.
    bad : dict of int to (name, reason)
        By position in the block.
    last : bool
        Whether the source ends with it.
    content, stamp : str
        A hash of the samples, and the stamp of the files behind them: ``content.py`` fills them in.
    """

    x: Any
    count: int
    bad: dict[int, tuple[str, str]] = field(default_factory=dict)
    last: bool = False
    content: str = ""
    stamp: str = ""


class Source(Protocol):
    """Samples by index."""

    @property
    def count(self) -> int | None:
        """How many samples there are; None: that is known at the end, and nothing can be read twice."""

    def read(self, start: int, stop: int) -> Read:
        """Return samples start ... stop - 1, or fewer at the end."""

    def name(self, index: int) -> str:
        """Return what a sample is called in errors."""

    def identity(self) -> dict[str, Any]:
        """Return what tells this source from another one, as JSON has it; its samples are compared beside it."""

    def stamp(self, start: int, stop: int) -> str:
        """Return what changes when a file behind these samples does, without reading it; "" where nothing tells that.

        Optional.
        """


def missing(package: str, what: str, error: Exception) -> ImportError:
    """Return the error that names the extra."""
    install = "pip install h5py pyarrow zarr"
    return ImportError(f"{what} with the package {package}, of pylrp's extra stream: {install} ({error})")


class ArraySource:
    """An array that gives slices: NumPy's, in memory or mapped, h5py's, zarr's.

    Parameters
    ----------
    array : array_like with ``shape``, ``dtype`` and slices
    label : str
        For errors and the description of the run.
    close : callable, optional
        Closes the file that was opened for it.
    """

    def __init__(self, array: Any, label: str = "source", close: Callable[[], None] | None = None):
        self._array, self._label, self._close = array, label, close
        if not array.shape:
            raise ValueError(f"{label} has no axis of samples: its shape is ()")
        files = files_behind(array)
        self._stamp = stamp_of(files) if files else ""

    @property
    def count(self) -> int:
        """Return how many samples there are."""
        return int(self._array.shape[0])

    def read(self, start: int, stop: int) -> Read:
        """Return samples as an array in memory."""
        stop = min(stop, self.count)
        try:
            x = np.asarray(self._array[start:stop])
            bad: dict[int, tuple[str, str]] = {}
        except (OSError, ValueError, RuntimeError):  # a broken chunk: which samples can be read?
            x, bad = self._one_by_one(start, stop)
        return Read(x, stop - start, bad, last=stop == self.count)

    def _one_by_one(self, start: int, stop: int) -> tuple[Array, dict[int, tuple[str, str]]]:
        rows, bad = [], {}
        for index in range(start, stop):
            try:
                rows.append(np.asarray(self._array[index : index + 1]))
            except (OSError, ValueError, RuntimeError) as error:
                bad[index - start] = (self.name(index), str(error) or type(error).__name__)
        return np.concatenate(rows) if rows else np.empty((0, *self._array.shape[1:]), self._array.dtype), bad

    def name(self, index: int) -> str:
        """Return what a sample is called."""
        return f"{self._label}[{index}]"

    def identity(self) -> dict[str, Any]:
        """Return label, shape and dtype."""
        return {"source": self._label, "shape": list(map(int, self._array.shape)), "dtype": str(self._array.dtype)}

    def stamp(self, start: int, stop: int) -> str:
        """Return one stamp for all, that of the files when they were opened."""
        return self._stamp

    def close(self) -> None:
        """Close the file; the samples can't be read afterwards."""
        if self._close is not None:
            self._close()


class DictSource:
    """Several inputs by name, each an array with as many samples."""

    def __init__(self, arrays: Mapping[str, Any], label: str = "source"):
        self._parts = {name: ArraySource(as_array(array), f"{label}[{name!r}]") for name, array in arrays.items()}
        counts = {name: part.count for name, part in self._parts.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"inputs have different numbers of samples: {counts}")
        self._label = label

    @property
    def count(self) -> int:
        """Return how many samples there are."""
        return next(iter(self._parts.values())).count

    def read(self, start: int, stop: int) -> Read:
        """Return samples as a dict of arrays."""
        read = {name: part.read(start, stop) for name, part in self._parts.items()}
        bad = {i: told for part in read.values() for i, told in part.bad.items()}
        first = next(iter(read.values()))
        good = [i for i in range(first.count) if i not in bad]
        x = {}
        for name, part in read.items():
            held = [i for i in range(first.count) if i not in part.bad]
            x[name] = part.x if not bad else part.x[np.searchsorted(held, good)]
        return Read(x, first.count, bad, first.last)

    def name(self, index: int) -> str:
        """Return what a sample is called."""
        return f"{self._label}[{index}]"

    def identity(self) -> dict[str, Any]:
        """Return that of each input."""
        return {"source": {name: part.identity() for name, part in self._parts.items()}}

    def stamp(self, start: int, stop: int) -> str:
        """Return the inputs' stamps, none where one has none."""
        stamps = [part.stamp(start, stop) for part in self._parts.values()]
        return " ".join(stamps) if all(stamps) else ""


class IteratorSource:
    """Samples from any iterator, one after the other: arrays, or dicts of arrays by input. It can't be read twice."""

    count = None

    def __init__(self, samples: Iterator[Any]):
        self._samples = samples
        self._at = 0
        self._held: list[Any] = []

    def read(self, start: int, stop: int) -> Read:
        """Return the next samples; one more is taken, to know whether it is the end."""
        if start != self._at:
            raise ValueError("an iterator can't go back")
        taken = self._held + list(islice(self._samples, stop - start + 1 - len(self._held)))
        now, self._held = taken[: stop - start], taken[stop - start :]
        self._at += len(now)
        x: Any = np.empty((0,))
        bad: dict[int, tuple[str, str]] = {}
        if now and isinstance(now[0], Mapping):
            x = {name: np.stack([np.asarray(sample[name]) for sample in now]) for name in now[0]}
        elif now:
            rows = [np.asarray(sample) for sample in now]
            shapes = [row.shape for row in rows]
            usual = max(set(shapes), key=shapes.count)
            bad = {
                i: (self.name(start + i), f"its shape is {s}, others' {usual}")
                for i, s in enumerate(shapes)
                if s != usual
            }
            x = np.stack([row for i, row in enumerate(rows) if i not in bad])
        return Read(x, len(now), bad, last=not self._held)

    def name(self, index: int) -> str:
        """Return what a sample is called."""
        return f"the iterator's {index}"

    def identity(self) -> dict[str, Any]:
        """Return nothing that could be compared."""
        return {"source": "an iterator"}

    def stamp(self, start: int, stop: int) -> str:
        """Return nothing."""
        return ""


def as_array(source: Any) -> Any:
    """Return an array that gives slices."""
    return source if hasattr(source, "shape") and hasattr(source, "dtype") else np.asarray(source)


def open_source(source: Any, network: Network, **options: Any) -> Source:
    """Return the source that a user means.

    Parameters
    ----------
    source : path, array, mapping, data frame, iterator or Source
    network : Network
    **options
        Of files: ``preparation``, ``table``, ``recursive``, ``dataset``, ``columns``.
    """
    from pylrp.stream.records import TableSource, open_path

    if isinstance(source, str | os.PathLike):
        return open_path(os.fspath(source), network, **options)
    if isinstance(source, list | tuple) and source and all(isinstance(word, str | Path) for word in source):
        return open_path([os.fspath(word) for word in source], network, **options)
    if all(hasattr(source, name) for name in ("count", "read", "identity")) and not hasattr(source, "dtype"):
        return source  # type: ignore[no-any-return]
    if isinstance(source, Mapping):
        return DictSource(source)
    if hasattr(source, "columns") and hasattr(source, "to_numpy"):
        return TableSource(source)
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        return ArraySource(source)
    if isinstance(source, list | tuple):
        return ArraySource(np.asarray(source))
    if hasattr(source, "__iter__"):
        return IteratorSource(iter(source))
    raise TypeError(
        f"source is a {type(source).__name__}: give a path (folder of images, .npy, .h5, .zarr, .parquet), an array, a "
        "data frame, a dict of arrays by input, or an iterator over samples"
    )
