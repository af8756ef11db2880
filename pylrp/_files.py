"""Files that appear whole or not at all, whoever writes beside us.

``Network.save``, ``Explanation.save``, reports and the command line write through :func:`atomically`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO

__all__ = ["atomically"]


def atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a new file beside ``path``, then move it there.

    The file beside it has a name of its own for each call: two processes may write to one folder, and to one path,
    where the last one stays.

    Parameters
    ----------
    path : Path
    write : callable
        Takes the file, open for writing bytes.

    Raises
    ------
    OSError
        If the folder can't be written to, or the disk is full; ``filename`` is ``path``, which the user knows.
    """
    # A name may be as long as the system allows: this one must be no longer.
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            write(file)
        os.replace(part, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror or os.strerror(error.errno), str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # a folder that has become read-only says so once
            part.unlink(missing_ok=True)
