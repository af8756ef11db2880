"""Files that appear whole or not at all, whatever is written beside them.

``Network.save``, ``Explanation.save``, reports and the command line write through :func:`atomically`.
Readers tell by :func:`is_of_system` which errors are the system's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["atomically", "is_of_system", "save_aligned", "save_arrays"]


_ALIGNED, _HEADER, _PADDING = 64, 4096, 0xD935


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file beside ``path``, then move it there: an interruption leaves no half of it.

    The file beside it has a name of its own for each call: two processes may write to one folder, and to one path,
    where the last one stays.

    Parameters
    ----------
    path : Path
    write : callable
        Takes the path of the file that it makes, which ends as ``path`` does.

    Raises
    ------
    OSError
        If the folder can't be written to, or the disk is full; ``filename`` is ``path``, which the user knows.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part{path.suffix}")
    try:
        write(part)
        os.replace(part, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno, error.strerror or os.strerror(error.errno), str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # a folder that can't be written to has said so
            part.unlink(missing_ok=True)


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write a compressed ``.npz``, whole or not at all; the ending is added where it is missing, as NumPy does."""
    whole = Path(path)
    if whole.suffix.lower() != ".npz":
        whole = whole.with_name(f"{whole.name}.npz")

    def write(part: Path) -> None:
        with part.open("wb") as file:  # to a name in capitals NumPy would add another ending
            np.savez_compressed(file, **arrays)

    atomically(whole, write)


def save_aligned(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an ``.npz``, not compressed, in which each array begins at a multiple of 64 bytes: it can be mapped.

    What lies between is an extra field of the zip format, as zipalign writes it, which readers skip.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, given in arrays.items():
            array = np.asanyarray(given)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.CRC = info.compress_size = 0
            info.file_size = array.nbytes + _HEADER
            large = info.file_size * 1.05 > zipfile.ZIP64_LIMIT  # the format's other form, with a longer header
            stream: Any = archive.fp
            gap = -(stream.tell() + len(info.FileHeader(large)) + 4) % _ALIGNED
            info.extra = struct.pack("<HH", _PADDING, gap) + bytes(gap)
            with archive.open(info, "w", force_zip64=large) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def is_of_system(error: OSError) -> bool:
    """Tell whether the system can't read a file, rather than that a reader was led astray by what is in it.

    Readers raise OSError without a number for broken files; and they jump to places that a file names, which the system
    calls invalid (EINVAL) where they lie before its begin.
    """
    return error.errno not in (None, errno.EINVAL, errno.EOVERFLOW)
