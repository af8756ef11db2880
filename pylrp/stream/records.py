"""Sources of a stream in files: folders of images, arrays in .npy, HDF5 and Zarr, rows of Parquet and data frames.

``sources.py`` hands paths on to :func:`open_path`. ``pylrp.inputs`` reads images, as the command line does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pylrp._files import is_of_system
from pylrp.info import get_threads
from pylrp.inputs import Preparation, TableOptions, Wanted, read_inputs
from pylrp.network.columns import Table
from pylrp.network.network import Network
from pylrp.stream.sources import ArraySource, Read, Source, missing
from pylrp.stream.stamps import stamp_of

__all__ = ["FileSource", "ParquetSource", "TableSource", "open_path"]

_HDF5 = (".h5", ".hdf5", ".hdf")


def open_path(
    path: str | list[str],
    network: Network,
    *,
    preparation: Preparation | None = None,
    table: TableOptions | None = None,
    recursive: bool = False,
    dataset: str | None = None,
    columns: Sequence[str] | None = None,
) -> Source:
    """Return the source in a file, a folder, or those that a pattern fits.

    Parameters
    ----------
    path : str or list of str
    network : Network
    preparation : Preparation, optional
        How pixels become numbers.
    table : TableOptions, optional
        Which columns of a .csv or of Parquet are no features.
    recursive : bool
        Go into the folders of a folder of images.
    dataset : str, optional
        The array in an HDF5 file or a Zarr group; needed where there are several.
    columns : sequence of str, optional
        Of Parquet: the features, in order. Default: those that the network knows by name, else all but ``table``'s.
    """
    if isinstance(path, str):
        place = Path(path)
        suffix = place.suffix.lower()
        if suffix == ".npy" and place.is_file():
            with _opening(place, "an .npy"):
                return ArraySource(np.load(place, mmap_mode="r", allow_pickle=False), str(place))
        if suffix in _HDF5:
            file = _hdf5(place)
            try:
                array = _dataset(file, dataset, place)
            except ValueError:
                file.close()
                raise
            return ArraySource(array, f"{place}/{dataset or ''}".rstrip("/"), file.close)
        if suffix == ".zarr" or (place / "zarr.json").exists() or (place / ".zarray").exists():
            return ArraySource(_dataset(_zarr(place), dataset, place), f"{place}/{dataset or ''}".rstrip("/"))
        if suffix == ".parquet" or (place.is_dir() and any(place.glob("*.parquet"))):
            return ParquetSource(place, network, columns, table)
    return FileSource([path] if isinstance(path, str) else path, network, preparation, table, recursive)


@contextmanager
def _opening(path: Path, kind: str) -> Iterator[None]:
    """Let errors name the file: what h5py, zarr, pyarrow and NumPy say of a broken one does not."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        yield
    except Exception as error:  # broken files raise many kinds
        if isinstance(error, OSError) and is_of_system(error):
            raise
        reason = "it is broken, or holds Python objects" if "pickle" in str(error) else str(error)
        raise ValueError(f"{path} can't be read as {kind}: {reason or type(error).__name__}") from None


def _hdf5(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise missing("h5py", "HDF5 is read", error) from None
    with _opening(path, "HDF5"):
        return h5py.File(path, "r")


def _zarr(path: Path) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise missing("zarr", "Zarr is read", error) from None
    with _opening(path, "Zarr"):
        return zarr.open(str(path), mode="r")


def _dataset(found: Any, name: str | None, path: Path) -> Any:
    """Return an array: what was opened, the one of a name, or the only one."""
    if hasattr(found, "dtype"):
        return found
    if name is not None:
        if name not in found:
            raise ValueError(f"{path} holds no array {name!r}; there is {', '.join(_arrays_in(found)) or 'nothing'}")
        return found[name]
    arrays = list(_arrays_in(found))
    if len(arrays) != 1:
        if not arrays:
            raise ValueError(f"{path} holds no arrays")
        raise ValueError(f"{path} holds {', '.join(arrays)}: say which, dataset={arrays[0]!r} (--dataset {arrays[0]})")
    return found[arrays[0]]


def _arrays_in(group: Any, within: str = "") -> Iterator[str]:
    """Yield the names of a group's arrays, those in groups within it too."""
    for key in group:
        if hasattr(group[key], "dtype"):
            yield f"{within}{key}"
        else:
            yield from _arrays_in(group[key], f"{within}{key}/")


def _loaded(entry: Any) -> Any:
    """Return a file's arrays by input, or the error."""
    try:
        return entry.load().x
    except (OSError, ValueError) as error:
        return error


class FileSource:
    """Files of one sample each: images, and rows of small tables and arrays, as ``pylrp explain`` reads them.

    Several are read and decoded at one time.
    """

    def __init__(
        self,
        words: Sequence[str],
        network: Network,
        preparation: Preparation | None = None,
        table: TableOptions | None = None,
        recursive: bool = False,
    ):
        wanted = Wanted.of(network)
        self._entries = read_inputs(words, wanted, preparation, table=table, recursive=recursive)
        self._settings = repr((preparation or Preparation(), table or TableOptions()))
        self._words = list(words)
        self._inputs = list(network.graph.inputs)
        self._empty = {name: np.empty((0, *shape), wanted.dtype) for name, shape in wanted.shapes.items()}

    @property
    def count(self) -> int:
        """Return how many samples there are."""
        return len(self._entries)

    def read(self, start: int, stop: int) -> Read:
        """Return those of the files that can be read."""
        items: list[dict[str, Any]] = []
        bad: dict[int, tuple[str, str]] = {}
        chosen = self._entries[start:stop]
        with ThreadPoolExecutor(min(8, get_threads()), "pylrp.stream decodes") as pool:  # Pillow does without the lock
            loaded = list(pool.map(_loaded, chosen))
        for i, (entry, made) in enumerate(zip(chosen, loaded, strict=True)):
            if isinstance(made, Exception):
                bad[i] = (entry.name, str(made) or type(made).__name__)
            else:
                items.append(made)
        x = {name: np.stack([item[name] for item in items]) for name in self._inputs} if items else self._empty
        return Read(x if len(x) > 1 else next(iter(x.values())), len(chosen), bad, stop >= self.count)

    def name(self, index: int) -> str:
        """Return the file."""
        return self._entries[index].name

    def identity(self) -> dict[str, Any]:
        """Return the number of files, a hash of their names, and how they are read."""
        names = json.dumps([entry.name for entry in self._entries]).encode()
        found = {"source": self._words, "files": self.count, "names": hashlib.sha256(names).hexdigest()[:16]}
        return {**found, "preparation": self._settings}

    def stamp(self, start: int, stop: int) -> str:
        """Return that of these samples' files, as they are now."""
        return stamp_of(dict.fromkeys(entry.path for entry in self._entries[start:stop]))


class TableSource:
    """A data frame of pandas or polars; its columns keep their names."""

    def __init__(self, frame: Any):
        self._frame = frame

    @property
    def count(self) -> int:
        """Return how many rows there are."""
        return len(self._frame)

    def read(self, start: int, stop: int) -> Read:
        """Return rows as a data frame."""
        rows = self._frame.iloc[start:stop] if hasattr(self._frame, "iloc") else self._frame[start:stop]
        return Read(rows, len(rows), last=stop >= self.count)

    def name(self, index: int) -> str:
        """Return the row."""
        return f"row {index}"

    def identity(self) -> dict[str, Any]:
        """Return columns and the number of rows."""
        return {"source": "a data frame", "columns": list(map(str, self._frame.columns)), "rows": self.count}

    def stamp(self, start: int, stop: int) -> str:
        """Return nothing: a frame is in memory."""
        return ""


def _of_lists(kind: Any) -> bool:
    """Return whether a column's entries are lists, of one length or of any."""
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _rows_of_lists(column: Any) -> tuple[Any, dict[int, str]]:
    """Return a column of lists as an array with a row a list, and what is wrong with the rows that are left out."""
    import pyarrow.compute as compute

    sizes = compute.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
    usual = int(np.bincount(sizes[sizes >= 0]).argmax()) if (sizes >= 0).any() else 0
    kept = sizes == usual
    bad = {int(i): f"its list has {sizes[i]} entries, others' {usual}" for i in np.flatnonzero(~kept & (sizes >= 0))}
    bad |= {int(i): "it has no list" for i in np.flatnonzero(sizes < 0)}
    shape, inner = [int(kept.sum()), usual], column.filter(kept).flatten()
    while _of_lists(inner.type):  # lists of lists
        count, inner = len(inner), inner.flatten()
        if len(inner) % max(count, 1):
            raise ValueError("lists within the rows have different lengths")
        shape.append(len(inner) // max(count, 1))
    return inner.to_numpy(zero_copy_only=False).reshape(shape), bad


class ParquetSource:
    """Rows of a Parquet file, or of a folder of its parts, in the order of their names; a row group at a time."""

    def __init__(
        self, path: Path, network: Network, columns: Sequence[str] | None = None, table: TableOptions | None = None
    ):
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise missing("pyarrow", "Parquet is read", error) from None
        self._path = path
        paths = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not paths:
            raise ValueError(f"{path} is a folder without a .parquet file in it")
        self._files = []
        for part in paths:
            with _opening(part, "Parquet"):
                self._files.append(parquet.ParquetFile(part))
        self._stamp = stamp_of(paths)
        names = self._files[0].schema_arrow.names
        self._shape = network.graph.user_shape(next(iter(network.graph.inputs)))
        known = next((list(f) for f in network.graph.facts.features.values()), None)
        left = [] if table is None else [*table.drop, *([] if table.label is None else [table.label])]
        self._columns = list(columns) if columns is not None else known or [n for n in names if n not in left]
        unknown = [name for name in [*self._columns, *left] if name not in names]
        if unknown:
            raise ValueError(f"{path} has no column {', '.join(unknown)}; there are {', '.join(names)}")
        self._groups = [
            (file, group, file.metadata.row_group(group).num_rows)
            for file in self._files
            for group in range(file.metadata.num_row_groups)
        ]
        self._ends = np.cumsum([rows for *_, rows in self._groups], dtype=np.int64)
        self._held: tuple[int, Any] = (-1, None)

    @property
    def count(self) -> int:
        """Return how many rows there are."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def _group(self, number: int) -> Any:
        """Return a row group as a table; the last one is kept."""
        if self._held[0] != number:
            file, group, _ = self._groups[number]
            self._held = number, file.read_row_group(group, columns=self._columns)
        return self._held[1]

    def read(self, start: int, stop: int) -> Read:
        """Return rows: a data frame of their numbers by column, or the arrays of a column of lists."""
        import pyarrow

        stop, parts = min(stop, self.count), []
        for number in range(int(np.searchsorted(self._ends, start, "right")), len(self._groups)):
            begin = int(self._ends[number]) - self._groups[number][2]
            if begin >= stop:
                break
            first = max(start - begin, 0)
            parts.append(self._group(number).slice(first, stop - begin - first))
        table = pyarrow.concat_tables(parts) if parts else self._files[0].schema_arrow.empty_table()
        if len(self._columns) == 1 and _of_lists(table.schema.field(0).type):
            x, odd = _rows_of_lists(table.column(0).combine_chunks())
            x = x.reshape(len(x), *self._shape) if x[:1].size == np.prod(self._shape) else x
            bad = {i: (self.name(start + i), reason) for i, reason in odd.items()}
            return Read(x, stop - start, bad, stop == self.count)
        arrays = [table.column(name).to_numpy() for name in self._columns]
        return Read(Table(np.column_stack(arrays), self._columns), stop - start, last=stop == self.count)

    def name(self, index: int) -> str:
        """Return the row."""
        return f"{self._path}, row {index}"

    def identity(self) -> dict[str, Any]:
        """Return path, rows of each part, and columns."""
        rows = [file.metadata.num_rows for file in self._files]
        return {"source": str(self._path), "rows": rows, "columns": self._columns}

    def stamp(self, start: int, stop: int) -> str:
        """Return one stamp for all, that of the files when they were opened."""
        return self._stamp
