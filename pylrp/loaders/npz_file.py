"""An ``.npz`` member by member: what is asked for is read, and only after its size has been looked at.

``native.py`` and ``arrays.py`` read weights with it, ``inputs/arrays.py`` samples. No pickle is ever opened.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pylrp._files import is_of_system
from pylrp._limits import require
from pylrp._text import shown
from pylrp.errors import BrokenFile

__all__ = ["NpzFile"]

Array = NDArray[Any]
_SUFFIX = ".npy"


class NpzFile:
    """A zip file of arrays, open for reading.

    Parameters
    ----------
    path : str or PathLike

    Attributes
    ----------
    names : list of str
        Of the arrays, without ``.npy``.

    Raises
    ------
    BrokenFile
        If it is no zip file, or cut short.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._taken = 0
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
                shape, dtype = _head(stream)
                if dtype.hasobject:
                    return None
                size = dtype.itemsize
                for n in shape:
                    size *= n
                if size > info.file_size:
                    raise ValueError(f"it has {info.file_size} bytes, {dtype} of shape {shape} takes {size}")
                self._taken += size
                require(self._taken, f"the arrays up to {shown(name)!r}")
                stream.seek(0)
                array: Array = npy.read_array(stream, allow_pickle=False)
                return array
        except OSError as error:
            if is_of_system(error):
                raise
            raise self._broken(place, f"can't be read: {error}") from error
        except Exception as error:  # zip, zlib and npy each have their own for a file cut short, altered or encrypted
            raise self._broken(place, f"can't be read: {error or type(error).__name__}") from error

    def _broken(self, place: str, reason: str) -> BrokenFile:
        return BrokenFile(self.path, place, reason)


def _head(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and dtype that an array's header declares."""
    version = npy.read_magic(stream)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:  # 3.0 is for names of fields, which weights have none of
        raise ValueError(f"it has version {version} of .npy, arrays of numbers have (1, 0) or (2, 0)")
    shape, _, dtype = readers[version](stream)
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise ValueError(f"it has shape {shape}")
    return shape, dtype
