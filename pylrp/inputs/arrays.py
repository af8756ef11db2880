"""Samples in ``.npy`` and ``.npz`` files; called by ``files.py``. Arrays are taken as they are, nothing is scaled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.format import MAGIC_PREFIX

from pylrp._files import is_of_system
from pylrp._limits import at_most, default_limit
from pylrp.errors import BrokenFile
from pylrp.inputs.base import Array, Entry, Item, Wanted, as_network_takes_it, refuse
from pylrp.loaders.plain.npz_file import NpzFile
from pylrp.network.layout import moving_call, with_other_order

__all__ = ["npy_entries", "npz_entries"]


def npy_entries(path: Path, wanted: Wanted) -> list[Entry]:
    """Return one sample, or one for each row of the first axis."""
    name = wanted.only_input("an .npy")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        if is_of_system(error):
            raise
        raise ValueError(_unreadable("npy", error)) from None
    except Exception as error:  # broken headers raise many kinds
        raise ValueError(_unreadable("npy", error)) from None
    if not isinstance(array, np.ndarray):
        array.close()
        refuse("it is an .npz by another name: rename it")
    return _entries(path, {name: array}, wanted)


def npz_entries(path: Path, wanted: Wanted) -> list[Entry]:
    """Return the samples of all the network's inputs, found by name; a file's only array may have any name."""
    try:
        with at_most(default_limit(path.stat().st_size)), NpzFile(path) as file:
            names = file.names
            if len(wanted.shapes) == 1 and len(names) == 1:
                return _entries(path, {next(iter(wanted.shapes)): _member(file, names[0])}, wanted)
            missing = [name for name in wanted.shapes if name not in names]
            if missing:
                refuse(
                    f"there is no array {missing[0]!r} in it; there is {', '.join(names) or 'nothing'}, "
                    f"the network takes {', '.join(wanted.shapes)}"
                )
            return _entries(path, {name: _member(file, name) for name in wanted.shapes}, wanted)
    except BrokenFile as error:
        if _holds_array(path):  # the content decides, not the name
            refuse("it is an .npy by another name: rename it")
        where = f"{error.place} " if error.place else ""
        raise ValueError(f"it can't be read as .npz: {where}{error.reason}") from None


def _holds_array(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX


def _member(file: NpzFile, name: str) -> Array:
    array = file.read(name)
    if array is None:
        refuse(_unreadable("npz", ValueError("Python objects")))
    return array


def _entries(path: Path, arrays: Mapping[str, Array], wanted: Wanted) -> list[Entry]:
    counts = {name: _count(array, name, wanted) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(
            f"{n} of {name}" if n else f"one without a batch axis of {name}" for name, n in counts.items()
        )
        refuse(f"its arrays hold different numbers of samples: {found}")
    count = next(iter(counts.values()))
    if count is None:
        return [Entry(str(path), path.stem, path, partial(_item, arrays, wanted))]
    if count == 0:
        refuse("it holds no sample: its first axis has length 0")
    return [Entry(f"{path}[{i}]", f"{path.stem}-{i}", path, partial(_item, arrays, wanted, i)) for i in range(count)]


def _count(array: Array, name: str, wanted: Wanted) -> int | None:
    """Return the number of samples, None for one without a batch axis."""
    shape = wanted.shapes[name]
    if array.shape == shape:
        return None
    if array.shape[1:] == shape:
        return len(array)
    text = f"shape {array.shape}, the network takes (n, {', '.join(map(str, shape))})"
    last = name in wanted.channels_last
    other = with_other_order(shape, last)
    if len(shape) > 1 and other in (array.shape, array.shape[1:]):
        where = "last" if last else "first"
        text += f": move its channels {where}, {moving_call(len(shape), last)}, and save it again"
    refuse(text if len(wanted.shapes) == 1 else f"{name} has {text}")


def _item(arrays: Mapping[str, Array], wanted: Wanted, index: int | None = None) -> Item:
    x = {}
    for name, array in arrays.items():
        what = "it" if len(arrays) == 1 else name
        x[name] = as_network_takes_it(np.asarray(array if index is None else array[index]), wanted.dtype, what)
    return Item(x)


def _unreadable(kind: str, error: Exception) -> str:
    text = str(error)
    if any(word in text for word in ("allow_pickle", "Object arrays", "Python objects", "pickled")):
        return f"it is no .{kind} of numbers (it holds Python objects, or something else altogether)"
    return f"it can't be read as .{kind}: {text}"
