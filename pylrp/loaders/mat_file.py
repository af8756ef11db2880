"""MATLAB files as plain Python values: arrays, strings, lists for cells, dicts for structs, lists of dicts for arrays
of structs.

``arrays.py`` calls in and finds the weights. Versions 4 to 7 are read with SciPy; 7.3 is HDF5 and read with h5py, where
arrays lie transposed and cells are references.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_mat"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_CLASSES = {"double", "single", "logical", "char", "", *_INTEGERS}  # others are objects
_WAY_OUT = 'save it in MATLAB with save("net.mat", ...), in Octave with save -v7 net.mat'


def read_mat(path: Path) -> dict[str, Any]:
    """Return the variables of a MATLAB file; None for those of other kinds (objects, functions).

    Raises
    ------
    ImportError
        If SciPy, or h5py for a file of version 7.3, is missing.
    ValueError
        If it is no MATLAB file.
    """
    with path.open("rb") as file:
        head = file.read(520)
    if head.startswith(_HDF5):
        raise ValueError(f"{path} is HDF5 but not MATLAB's: {_WAY_OUT}")
    if head[512:] == _HDF5:
        return _read_hdf5(path)
    if head.startswith((b"# Created by Octave", b"Octave-1")):
        raise ValueError(f"{path} is in Octave's own format: {_WAY_OUT}")
    return _read_scipy(path)


def _read_scipy(path: Path) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise ImportError('reading .mat needs SciPy: pip install "pylrp[mat]"') from None
    try:
        found = loadmat(path)
    except Exception as error:  # many kinds, for a file cut short or altered
        raise ValueError(f"{path} can't be read as a MATLAB file: {error}") from error
    return {name: _plain(value) for name, value in found.items() if not name.startswith("__")}


def _plain(value: Any) -> Any:
    if hasattr(value, "toarray"):  # sparse
        return value.toarray()
    if type(value) is not np.ndarray:
        return None
    if value.dtype.names is not None:
        items = [{name: _plain(item[name]) for name in value.dtype.names} for item in value.ravel("F")]
        return items[0] if len(items) == 1 else items
    if value.dtype.kind == "O":
        return [_plain(item) for item in value.ravel("F")]
    if value.dtype.kind == "U":
        return _text(list(value.ravel()))
    return value


def _text(rows: list[str]) -> str | list[str]:
    """Return what a character array says: a row is a string, more rows are padded to one length."""
    return "".join(rows) if len(rows) < 2 else [row.strip() for row in rows]


def _read_hdf5(path: Path) -> dict[str, Any]:
    try:
        import h5py
    except ImportError:
        raise ImportError('reading .mat of version 7.3 needs h5py: pip install "pylrp[mat]"') from None

    def read(item: Any) -> Any:
        kind = item.attrs.get("MATLAB_class", b"").decode()
        if isinstance(item, h5py.Group):
            return struct(item) if kind == "struct" else None
        if "MATLAB_empty" in item.attrs:
            return "" if kind == "char" else [] if kind == "cell" else np.empty([int(n) for n in item[()]])
        if kind == "cell":
            return [read(file[reference]) for reference in item[()].ravel()]
        values = item[()]
        if values.dtype.names is not None or values.dtype.kind not in "fiu" or kind not in _CLASSES:
            return None
        if kind == "char":
            return _text(["".join(map(chr, row)) for row in values.T])
        return values.T

    def struct(group: Any) -> Any:
        """Return a dict, or for a struct array a list of them: there a field is an array of references."""
        fields = list(group.values())
        if not fields or any(
            isinstance(part, h5py.Group) or part.dtype != h5py.ref_dtype or "MATLAB_class" in part.attrs
            for part in fields
        ):
            return {name: read(part) for name, part in group.items()}
        links = {name: part[()].ravel() for name, part in group.items()}
        return [
            {name: read(file[of[i]]) for name, of in links.items()} for i in range(min(part.size for part in fields))
        ]

    try:
        with h5py.File(path) as file:
            return {name: read(item) for name, item in file.items() if not name.startswith("#")}
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path} can't be read as a MATLAB file: {error}") from error
