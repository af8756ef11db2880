"""MATLAB files as plain Python values: arrays, strings, lists for cells, dicts for structs, lists of dicts for arrays
of structs.

``arrays.py`` calls in and finds the weights. Versions 4 to 7 are read with SciPy, after ``mat_structure.py`` has looked
them through; ``mat_hdf5.py`` reads 7.3.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np

from pylrp._limits import require_shape
from pylrp.errors import BrokenFile
from pylrp.loaders.plain.mat_hdf5 import read_hdf5
from pylrp.loaders.plain.mat_structure import require_structure

__all__ = ["read_mat"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_WAY_OUT = "save it in MATLAB or Octave with save('net.mat', ..., '-v7')"


def read_mat(path: Path) -> dict[str, Any]:
    """Return the variables of a MATLAB file; None for those of other kinds (objects, functions).

    Raises
    ------
    ImportError
        If SciPy, or h5py for a file of version 7.3, is missing.
    BrokenFile
        If it is no MATLAB file, or not as the format has it.
    """
    with path.open("rb") as file:
        head = file.read(520)
    if head.startswith(_HDF5):
        raise BrokenFile(path, "", f"is HDF5 but not MATLAB's: {_WAY_OUT}")
    if head[512:] == _HDF5:
        return read_hdf5(path)
    if head.startswith((b"# Created by Octave", b"Octave-1")):
        raise ValueError(f"{path} is in Octave's own format: {_WAY_OUT}")
    return _read_scipy(path)


def _read_scipy(path: Path) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise ImportError("reading .mat needs SciPy: pip install scipy") from None
    try:
        require_structure(path)
        # Newer SciPy wants to be told which kind of sparse matrix; both are made dense.
        kind = {"spmatrix": False} if "spmatrix" in inspect.signature(loadmat).parameters else {}
        found = loadmat(path, **kind)
        return {name: _plain(value) for name, value in found.items() if not name.startswith("__")}
    except Exception as error:  # many kinds, for a file cut short or altered
        raise BrokenFile(path, "", f"can't be read as a MATLAB file: {error}") from error


def _plain(value: Any) -> Any:
    if hasattr(value, "toarray"):  # sparse
        require_shape(value.shape, value.dtype.itemsize, "a sparse matrix")
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
