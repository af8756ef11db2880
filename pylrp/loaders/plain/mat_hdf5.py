"""MATLAB files of version 7.3, which are HDF5: arrays lie transposed, cells are references.

``plain/mat_file.py`` calls in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pylrp._limits import require_shape
from pylrp.errors import BrokenFile
from pylrp.loaders.hdf5_file import require_own
from pylrp.loaders.hdf5_trial import require_end
from pylrp.present.text import shown

__all__ = ["read_hdf5"]

_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_CLASSES = {"double", "single", "logical", "char", "", *_INTEGERS}  # others are objects
_DEEPEST, _MOST_CELLS = 64, 1 << 17


def read_hdf5(path: Path) -> dict[str, Any]:
    """Return the variables of a file; None for those of other kinds.

    Raises
    ------
    ImportError
        If h5py is missing.
    BrokenFile
        If it is not as MATLAB writes it, or its data lie elsewhere.
    """
    try:
        import h5py
    except ImportError:
        raise ImportError("reading .mat of version 7.3 needs h5py: pip install h5py") from None
    place = ""
    try:
        require_end(path)
        with h5py.File(path) as file:
            require_own(h5py, file)
            reader = _Reader(h5py, file)
            found = {}
            for name in file:
                place = f"variable {name!r}"
                if not name.startswith("#"):
                    found[name] = reader.read(file[name], 0)
            return found
    except Exception as error:  # h5py has many kinds, for a file cut short or altered
        raise BrokenFile(path, place, f"can't be read as a MATLAB file: {error}") from error


class _Reader:
    """Values of one file."""

    def __init__(self, h5py: Any, file: Any):
        self.h5py, self.file = h5py, file
        self.cells = 0

    def read(self, item: Any, depth: int) -> Any:
        """Return a variable, cell or field as a plain value."""
        self.cells += 1
        if depth > _DEEPEST or self.cells > _MOST_CELLS:
            raise ValueError("it is nested deeper, or has more cells, than any network")
        kind = _kind(item)
        if isinstance(item, self.h5py.Group):
            return self.struct(item, depth) if kind == "struct" else None
        if not isinstance(item, self.h5py.Dataset) or item.shape is None:  # a type with a name; nothing
            return None
        if "MATLAB_empty" in item.attrs:
            return "" if kind == "char" else [] if kind == "cell" else _empty(item)
        if kind == "cell":
            if item.dtype != self.h5py.ref_dtype:
                raise ValueError(f"a cell array holds {item.dtype}, not references")
            return [self.follow(reference, depth) for reference in item[()].ravel()]
        if item.dtype.kind not in "fiu" or kind not in _CLASSES:
            return None
        values = item[()]
        if kind == "char":
            if values.ndim != 2 or values.dtype.kind not in "iu" or (values.size and values.max() > 0x10FFFF):
                raise ValueError(f"a text holds {values.dtype} of shape {values.shape}")
            rows = ["".join(map(chr, row)) for row in values.T]
            return "".join(rows) if len(rows) < 2 else [row.strip() for row in rows]
        return values.T

    def follow(self, reference: Any, depth: int) -> Any:
        """Return what a reference is to."""
        if not reference:
            raise ValueError("a cell refers to nothing")
        return self.read(self.file[reference], depth + 1)

    def struct(self, group: Any, depth: int) -> Any:
        """Return a dict, or for a struct array a list of them: there a field is an array of references."""
        fields = list(group.values())
        if not fields or any(
            not isinstance(part, self.h5py.Dataset) or part.dtype != self.h5py.ref_dtype or "MATLAB_class" in part.attrs
            for part in fields
        ):
            return {name: self.read(part, depth + 1) for name, part in group.items()}
        links = {name: part[()].ravel() for name, part in group.items()}
        return [
            {name: self.follow(of[i], depth) for name, of in links.items()}
            for i in range(min(part.size for part in fields))
        ]


def _kind(item: Any) -> str:
    """Return MATLAB's class of a variable, empty where none is given."""
    kind = item.attrs.get("MATLAB_class", b"")
    if isinstance(kind, str):
        return kind
    if not isinstance(kind, bytes):
        raise ValueError(f"MATLAB_class is {kind!r}")
    return shown(kind.decode("utf-8", "backslashreplace"))


def _empty(item: Any) -> Any:
    """Return an array without entries; its dataset holds the sizes."""
    sizes = [int(n) for n in np.ravel(item[()])]
    if item.dtype.kind not in "iu" or not sizes or min(sizes) < 0 or all(sizes):
        raise ValueError(f"an empty array has the sizes {sizes}")
    require_shape(sizes, 8, "an empty array")
    return np.empty(sizes)
