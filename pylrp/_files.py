"""Files that appear whole or not at all, whatever is written beside them.

``Network.save``, ``Explanation.save``, reports and the command line write through :func:`atomically`.
Readers tell by :func:`is_of_system` which errors are the system's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["atomically", "is_of_system", "save_arrays"]


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
    if whole.suffix != ".npz":
        whole = whole.with_name(f"{whole.name}.npz")
    atomically(whole, lambda part: np.savez_compressed(part, **arrays))


def is_of_system(error: OSError) -> bool:
    """Tell whether the system can't read a file, rather than that a reader was led astray by what is in it.

    Readers raise OSError without a number for broken files; and they jump to places that a file names, which the system
    calls invalid (EINVAL) where they lie before its begin.
    """
    return error.errno not in (None, errno.EINVAL, errno.EOVERFLOW)
