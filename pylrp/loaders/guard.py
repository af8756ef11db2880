"""What stands around every loader: how much a model may take, and one exception for files that are broken.

``pylrp.load`` reads within :func:`reading`. Loaders raise :class:`pylrp.BrokenFile` themselves where they know the
place; whatever else a file leads them or their libraries to becomes one here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pylrp._files import is_of_system
from pylrp._limits import TooLarge, at_most, default_limit
from pylrp.errors import BrokenFile, UnsupportedLayer
from pylrp.present.text import shown

__all__ = ["reading", "require_file"]

_NO_LIMIT = 1 << 62


@contextmanager
def reading(source: Any, max_bytes: int | None) -> Iterator[None]:
    """Limit what a source's network may take, and turn what goes wrong with a file into :class:`pylrp.BrokenFile`.

    Parameters
    ----------
    source : object
        As for :func:`pylrp.load`.
    max_bytes : int, optional
        For the constants and the values of one sample. Default: for a file 4 GiB or 16 times its size, whichever is
        more; for an object in memory no limit.
    """
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    try:
        with at_most(_limit(source, path, max_bytes)):
            yield
    except (BrokenFile, UnsupportedLayer) as error:
        if path is None or getattr(error, "path", "") is not None:
            raise
        raise _with_path(error, path) from error
    except OSError as error:
        if path is None or is_of_system(error):
            raise
        raise BrokenFile(path, "", f"can't be read: {error}") from error
    except (ImportError, TypeError, ValueError) as error:
        if path is not None and isinstance(error, TooLarge | UnicodeError):
            raise BrokenFile(path, "", str(error)) from error
        if len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (shown(error.args[0]),)
        raise
    except Exception as error:  # what the file leads to, here or in the library that reads it
        if path is None:
            raise
        why = "there is not enough memory for it" if isinstance(error, MemoryError) else _words(error)
        raise BrokenFile(path, "", f"can't be read: {why}") from error


def require_file(path: Path) -> None:
    """Raise if this is no ordinary file: reading a pipe or a device may never end.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If it is something else.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {shown(str(path))}")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no ordinary file (a pipe or a device)"
        raise ValueError(f"{shown(str(path))} is {what}")


def _limit(source: Any, path: Path | None, max_bytes: int | None) -> int:
    if max_bytes is not None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes!r}, expected a number of bytes, such as 8 * 2**30")
        return max_bytes
    return _NO_LIMIT if path is None else default_limit(path.stat().st_size)


def _with_path(error: Any, path: Path) -> BrokenFile:
    """Return the same error with the file's path."""
    kind, arguments = error.__reduce__()
    if kind is BrokenFile:
        return BrokenFile(path, *arguments[1:])
    made: BrokenFile = kind(*arguments[:-1], path)
    return made


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
