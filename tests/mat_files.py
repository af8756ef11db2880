"""MATLAB files as MATLAB writes them, for tests: version 5 with SciPy, 7.3 with h5py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io


def cell(items: Any) -> np.ndarray:
    """A 1-by-n cell for savemat."""
    made = np.empty((1, len(items)), object)
    for i, item in enumerate(items):
        made[0, i] = item
    return made


def struct_array(items: list[dict[str, Any]]) -> np.ndarray:
    """A 1-by-n array of structs for savemat."""
    made = np.empty((1, len(items)), [(name, object) for name in items[0]])
    for i, item in enumerate(items):
        made[0, i] = tuple(item.values())
    return made


def write_5(path: Path, entries: dict[str, Any]) -> None:
    """Write a file of version 5: lists become cells."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items()}
        if isinstance(value, tuple):  # an array of structs
            return struct_array([plain(part) for part in value])
        return cell([plain(part) for part in value]) if isinstance(value, list) else value

    scipy.io.savemat(path, plain(entries))


def write_73(path: Path, entries: dict[str, Any]) -> None:
    """Write a file as MATLAB 7.3 does: HDF5 behind 512 bytes, arrays transposed, cells as references.

    A list is a cell, a dict a struct, a tuple of dicts an array of structs: a group whose fields are references.
    """

    def links(values: Any) -> np.ndarray:
        made = [put(refs, f"r{len(refs)}", value).ref for value in values]
        return np.array(made, h5py.ref_dtype).reshape(-1, 1)  # 1 by n

    def put(group: Any, name: str, value: Any) -> Any:
        if isinstance(value, dict):
            made = group.create_group(name)
            made.attrs["MATLAB_class"] = np.bytes_("struct")
            for key, part in value.items():
                put(made, key, part)
        elif isinstance(value, tuple):
            made = group.create_group(name)
            made.attrs["MATLAB_class"] = np.bytes_("struct")
            for key in value[0]:
                made.create_dataset(key, data=links([item[key] for item in value]), dtype=h5py.ref_dtype)
        elif isinstance(value, list):
            made = group.create_dataset(name, data=links(value), dtype=h5py.ref_dtype)
            made.attrs["MATLAB_class"] = np.bytes_("cell")
        elif isinstance(value, str):
            made = group.create_dataset(name, data=np.array([[ord(c)] for c in value], np.uint16))
            made.attrs["MATLAB_class"] = np.bytes_("char")
        elif np.size(value) == 0:
            made = group.create_dataset(name, data=np.array([0, 0], np.uint64))
            made.attrs["MATLAB_class"] = np.bytes_("double")
            made.attrs["MATLAB_empty"] = np.uint8(1)
        else:
            array = np.atleast_2d(value)
            made = group.create_dataset(name, data=array.T)
            made.attrs["MATLAB_class"] = np.bytes_({"f4": "single", "f8": "double"}.get(array.dtype.str[1:], "int32"))
        return made

    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        for name, value in entries.items():
            put(file, name, value)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: now HDF5 schema 1.00 .".ljust(124))
        file.write(b"\x00\x02IM")
