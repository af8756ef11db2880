"""Stamps of files: what changes when one is written or replaced, and costs no reading. ``content.py`` compares them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pylrp.network.identity import digest

__all__ = ["files_behind", "stamp_of"]


def stamp_of(paths: Iterable[str | os.PathLike[str]]) -> str:
    """Return what changes when one of some files, or a file below one of some folders, is written or replaced."""
    found: list[Any] = []
    for path in paths:
        for each in sorted(Path(path).rglob("*")) if os.path.isdir(path) else (path,):
            try:
                state = os.stat(each)
            except OSError as error:
                found.append([str(each), type(error).__name__])
            else:
                times = (state.st_mtime_ns, state.st_ctime_ns)
                found.append([str(each), state.st_ino, state.st_size, *times])
    return digest(repr(found))[:16]


def files_behind(array: Any) -> list[str]:
    """Return the files and folders that hold an array; none where they are not known, or not all."""
    if isinstance(array, np.memmap):
        return [] if array.filename is None else [os.fspath(array.filename)]
    if hasattr(array, "is_virtual") and hasattr(array, "external"):  # h5py's
        name = array.file.filename
        return [] if array.is_virtual or array.external or not os.path.isfile(name) else [name]
    root, path = getattr(getattr(array, "store", None), "root", None), getattr(array, "path", None)
    if isinstance(root, Path) and isinstance(path, str):  # zarr's, on a disk
        return [str(root / path)]
    return []
