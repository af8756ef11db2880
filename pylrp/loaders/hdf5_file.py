"""HDF5 files from strangers: nothing but what is in the file itself, and no more than may be allocated.

``plain/mat_hdf5.py`` and ``keras/file.py`` look through a file with :func:`require_own` before anything is read. HDF5
has ways to keep data elsewhere (external storage, links to other files, virtual datasets): through them a file could
read others as weights.
"""

from __future__ import annotations

import math
from typing import Any

from pylrp._limits import require

__all__ = ["require_own"]

_MOST_OBJECTS, _DEEPEST = 1 << 17, 64


def require_own(h5py: Any, file: Any) -> None:
    """Raise ValueError if data lie elsewhere, groups are in circles, or arrays are larger than the network may be.

    Parameters
    ----------
    h5py : module
    file : h5py.File
    """
    seen: set[Any] = set()
    size = 0
    waiting = [("", file, 0)]
    while waiting:
        path, group, depth = waiting.pop()
        for name in group:
            place = f"{path}/{name}"
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ValueError(f"{place!r} is a link to another file, {link.filename!r}")
            if isinstance(link, h5py.SoftLink):
                raise ValueError(f"{place!r} is a link to {link.path!r}, not a part of its own")
            item = group[name]
            if item.id in seen:
                continue
            seen.add(item.id)
            if len(seen) > _MOST_OBJECTS or depth > _DEEPEST:
                raise ValueError("it has more parts than any network")
            if isinstance(item, h5py.Group):
                waiting.append((place, item, depth + 1))
            elif isinstance(item, h5py.Dataset):
                size += _own_size(item, place)
                require(size, f"the arrays up to {place!r}")


def _own_size(item: Any, place: str) -> int:
    """Return the bytes of a dataset that lies in the file."""
    if item.external is not None and len(item.external):
        raise ValueError(f"the data of {place!r} lie in another file, {item.external[0][0]!r}")
    if item.is_virtual:
        raise ValueError(f"the data of {place!r} are parts of other files")
    return math.prod(int(n) for n in item.shape) * int(item.dtype.itemsize) if item.shape is not None else 0
