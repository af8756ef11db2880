"""An ``.npz`` member by member: what is asked for is read, and only after its size has been looked at.

``plain/native.py`` and ``arrays.py`` read weights with it, ``inputs/arrays.py`` samples. No pickle is ever opened.
"""

from __future__ import annotations

import mmap
import os
import re
import zipfile
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pylrp._files import is_of_system
from pylrp._limits import require
from pylrp.errors import BrokenFile
from pylrp.present.text import shown

__all__ = ["NpzFile"]

Array = NDArray[Any]
_SUFFIX = ".npy"
_PIECE = 1 << 20  # bytes
#: How NumPy writes the header of numbers: dtype, whether columns come first, shape.
_PLAIN = re.compile(
    rb"\{'descr': '([<>|=][fiub][1248])', 'fortran_order': (False|True), "
    rb"'shape': \(((?:\d{1,18}, ?)*\d{0,18})\), \} *\n"
)


class NpzFile:
    """A zip file of arrays, open for reading.

    Parameters
    ----------
    path : str or PathLike
    mapped : bool, default False
        Arrays are parts of the file, mapped and read-only, where they are neither compressed nor badly aligned.

    Attributes
    ----------
    names : list of str
        Of the arrays, without ``.npy``.

    Raises
    ------
    BrokenFile
        If it is no zip file, or cut short.
    """

    def __init__(self, path: str | os.PathLike[str], *, mapped: bool = False):
        self.path = Path(path)
        self._taken = 0
        self._map: mmap.mmap | None = None
        try:
            with self.path.open("rb") as file:
                if file.read(6) == b"\x93NUMPY":
                    raise ValueError("it holds a single array without a name")
            self._zip = zipfile.ZipFile(self.path)
            members = self._zip.infolist()
        except OSError as error:
            if is_of_system(error):
                raise
            raise self._broken("", f"is no readable .npz file: {error}") from error
        except Exception as error:  # a zip file cut short or altered has many
            raise self._broken("", f"is no readable .npz file: {error}: write it with np.savez(path, ...)") from error
        if mapped:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._members = {info.filename.removesuffix(_SUFFIX): info for info in members}
        self.names = list(self._members)

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._zip.close()

    def read(self, name: str) -> Array | None:
        """Return an array, None where it holds Python objects.

        Raises
        ------
        BrokenFile
            If it is no array, cut short, or larger than the network may be.
        """
        place = f"entry {name!r}"
        info = self._members[name]
        try:
            with self._zip.open(info) as stream:
                shape, by_columns, dtype = _head(stream)
                if dtype.hasobject:
                    return None
                size = dtype.itemsize
                for n in shape:
                    size *= n
                if size > info.file_size:
                    raise ValueError(f"it has {info.file_size} bytes, {dtype} of shape {shape} takes {size}")
                self._taken += size
                require(self._taken, f"the arrays up to {shown(name)!r}")
                if self._map is not None and size:
                    begin = _data_offset(self._map, info) + stream.tell()
                    if info.compress_type == zipfile.ZIP_STORED and begin % dtype.itemsize == 0:
                        order: Any = "F" if by_columns else "C"
                        return np.ndarray(shape, dtype, self._map, begin, order=order)
                return _data(stream, size, dtype, shape, by_columns=by_columns)
        except OSError as error:
            if is_of_system(error):
                raise
            raise self._broken(place, f"can't be read: {error}") from error
        except Exception as error:  # zip, zlib and npy each have their own for a file cut short, altered or encrypted
            raise self._broken(place, f"can't be read: {error or type(error).__name__}") from error

    def _broken(self, place: str, reason: str) -> BrokenFile:
        return BrokenFile(self.path, place, reason)


def _data_offset(file: mmap.mmap, info: zipfile.ZipInfo) -> int:
    """Return where a member's content begins: behind its local header, whose extra field is its own."""
    at = info.header_offset + 26
    name, extra = (int.from_bytes(file[at + i : at + i + 2], "little") for i in (0, 2))
    return info.header_offset + 30 + name + extra


def _head(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape, whether columns come first, and the dtype that an array's header declares."""
    version = npy.read_magic(stream)
    readers = {(1, 0): (2, npy.read_array_header_1_0), (2, 0): (4, npy.read_array_header_2_0)}
    if version not in readers:  # 3.0 is for names of fields, which weights have none of
        raise ValueError(f"it has version {version} of .npy, arrays of numbers have (1, 0) or (2, 0)")
    width, reader = readers[version]
    length = stream.read(width)
    head = stream.read(int.from_bytes(length, "little"))
    if plain := _PLAIN.fullmatch(head):  # thousands of members take their time in Python's parser
        kind, by_columns, sizes = plain.groups()
        shape = tuple(int(n) for n in sizes.split(b",") if n.strip())
        return shape, by_columns == b"True", np.dtype(kind.decode())
    shape, columns, dtype = reader(BytesIO(length + head))
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise ValueError(f"it has shape {shape}")
    return shape, columns, dtype


def _data(stream: IO[bytes], size: int, dtype: np.dtype[Any], shape: tuple[int, ...], *, by_columns: bool) -> Array:
    """Return the array behind a header; its size has been looked at."""
    array: Array = np.empty(shape, dtype, "F" if by_columns else "C")
    into, at = memoryview(array.reshape(-1, order="A").view(np.uint8)), 0  # type: ignore[arg-type]
    while at < size:
        piece = stream.read(min(size - at, _PIECE))
        if not piece:
            raise ValueError(f"it ends after {at} bytes of {size}")
        into[at : at + len(piece)] = piece
        at += len(piece)
    return array
