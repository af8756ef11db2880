"""The structure of MATLAB files of version 4 to 7, looked through before SciPy reads them.

SciPy's reader is compiled code that trusts the file: a flipped bit can end the whole process. ``mat_file.py`` calls
:func:`require_structure` first. Every tag, size and index is checked here; nothing is allocated that the file does not
have. Source: "MAT-File Format", The MathWorks.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylrp._limits import require

__all__ = ["require_structure"]

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {16: 1, 17: 2, 18: 4}  # UTF-8, UTF-16, UTF-32: bytes of a unit
_UINT32 = 6
_NAMES, _SIZES = (1, 16), (5, 6)  # what SciPy and other writers take for them, too
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE = 1, 2, 3, 4, 5
_NUMERIC, _FUNCTION, _OPAQUE = range(6, 16), 16, 17
_COMPLEX = 0x0800
_DEEPEST, _MOST_PARTS = 64, 1 << 20


class _Element(NamedTuple):
    """A piece of data with its type."""

    kind: int
    data: memoryview
    end: int  # where the next one begins


def require_structure(path: Path) -> None:
    """Raise ValueError if the file is not what the format says.

    Parameters
    ----------
    path : Path
        A file of version 4 to 7.
    """
    data = memoryview(path.read_bytes())
    # SciPy tells version 4 by a zero among the first four bytes.
    if len(data) >= 4 and 0 in data[:4]:
        _require_level4(data)
        return
    if len(data) < _HEADER:
        raise ValueError("it is too short")
    order = {b"IM": "<", b"MI": ">"}.get(bytes(data[126:128]))
    if order is None:
        raise ValueError("it has no mark of the order of its bytes")
    version = data[125 if order == "<" else 124]
    if version != 1:
        raise ValueError(f"it has version {version}.{data[124 if order == '<' else 125]}")
    walk = _Walk(order)
    at = _HEADER
    while at < len(data):
        kind, size = walk.numbers(data, at, "II")
        inner = data[at + 8 : at + 8 + size]
        if len(inner) != size:
            raise ValueError(f"a variable at byte {at} is cut short")
        if kind == _COMPRESSED:
            walk.compressed(inner)
        elif kind == _MATRIX:
            walk.matrix(inner, 0)
        else:
            raise ValueError(f"at byte {at} there is no variable (type {kind})")
        at += 8 + size


class _Walk:
    """Through variables and what is in them."""

    def __init__(self, order: str):
        self.order = order
        self.parts = 0

    def numbers(self, data: memoryview, at: int, kinds: str) -> tuple[Any, ...]:
        """Return numbers at a place; what lies beyond the end is an error."""
        try:
            return struct.unpack_from(self.order + kinds, data, at)
        except struct.error:
            raise ValueError("it is cut short") from None

    def element(self, data: memoryview, at: int) -> _Element:
        """Return the element that begins there."""
        self.parts += 1
        if self.parts > _MOST_PARTS:
            raise ValueError(f"it has more than {_MOST_PARTS} parts")
        (word,) = self.numbers(data, at, "I")
        small = word >> 16
        if small:
            kind, size, begin, end = word & 0xFFFF, small, at + 4, at + 8
            if size > 4:
                raise ValueError(f"a small element has {size} bytes")
        else:
            kind, (size,) = word, self.numbers(data, at + 4, "I")
            begin = at + 8
            end = begin + (size if kind == _MATRIX else -(-size // 8) * 8)
        found = data[begin : begin + size]
        if len(found) != size or (small and end > len(data)):
            raise ValueError("an element is cut short")
        return _Element(kind, found, min(end, len(data)) if begin + size == len(data) else end)

    def array(self, element: _Element) -> NDArray[Any]:
        """Return an element of numbers."""
        if element.kind not in _NUMBERS:
            raise ValueError(f"there is no type of numbers {element.kind}")
        dtype = np.dtype(self.order + _NUMBERS[element.kind])
        if len(element.data) % dtype.itemsize:
            raise ValueError(f"{len(element.data)} bytes are no numbers of {dtype.itemsize}")
        return np.frombuffer(element.data, dtype)

    def compressed(self, data: memoryview) -> None:
        """Look through a variable that is packed; it is unpacked no further than allowed."""
        unpack = zlib.decompressobj()
        try:
            head = unpack.decompress(data, 8)
            kind, size = self.numbers(memoryview(head), 0, "II")
            require(size, "a variable")
            whole = unpack.decompress(unpack.unconsumed_tail, size + 1) if size else b""
        except zlib.error as error:
            raise ValueError(f"a variable can't be unpacked: {error}") from None
        if kind != _MATRIX or len(whole) != size or not (unpack.eof or not size or _ends(unpack)):
            raise ValueError("a packed variable is cut short, or is none")
        self.matrix(memoryview(whole), 0)

    def matrix(self, data: memoryview, depth: int) -> None:
        """Look through a variable, a cell or a field."""
        if not data:  # an empty cell
            return
        if depth > _DEEPEST:
            raise ValueError(f"it is nested deeper than {_DEEPEST}")
        flags = self.element(data, 0)
        if flags.kind != _UINT32 or len(flags.data) != 8:
            raise ValueError("a variable has no flags")
        (bits,) = self.numbers(flags.data, 0, "I")
        kind = bits & 0xFF
        if kind == _OPAQUE:
            self.rest(data, flags.end, depth)
            return
        sizes = self.element(data, flags.end)
        dims = [int(n) for n in self.array(sizes)]
        if sizes.kind not in _SIZES or not 2 <= len(dims) <= 32 or min(dims) < 0:
            raise ValueError(f"a variable has the sizes {dims}")
        name = self.element(data, sizes.end)
        if name.kind not in _NAMES:
            raise ValueError("a variable has no name")
        count, at = math.prod(dims), name.end
        if kind in _NUMERIC:
            at = self.values(data, at, count)
            if bits & _COMPLEX:
                self.values(data, at, count)
        elif kind == _CHAR:
            self.text(data, at, count)
        elif kind == _SPARSE:
            self.sparse(data, at, dims, bool(bits & _COMPLEX))
        elif kind == _CELL:
            self.items(data, at, count, depth)
        elif kind in (_STRUCT, _OBJECT):
            self.fields(data, at, count, depth, named=kind == _OBJECT)
        elif kind == _FUNCTION:
            self.rest(data, at, depth)
        else:
            raise ValueError(f"there is no class of variables {kind}")

    def values(self, data: memoryview, at: int, count: int) -> int:
        """Look at the numbers of an array; return where the next element begins."""
        element = self.element(data, at)
        if self.array(element).size != count:
            raise ValueError(f"an array of {count} numbers has {self.array(element).size}")
        return element.end

    def text(self, data: memoryview, at: int, count: int) -> None:
        """Look at the characters of an array."""
        element = self.element(data, at)
        if not element.data:  # so it is filled with blanks
            require(4 * count, "a text")
            return
        width = _TEXTS.get(element.kind) or np.dtype(_NUMBERS.get(element.kind, "f8")).itemsize
        units = len(element.data) // width
        if len(element.data) % width or width > 4 or (units < count if element.kind in _TEXTS else units != count):
            raise ValueError(f"a text of {count} characters has {len(element.data)} bytes of type {element.kind}")

    def sparse(self, data: memoryview, at: int, dims: list[int], both: bool) -> None:
        """Look at the places and numbers of a sparse matrix."""
        places = self.element(data, at)
        begins = self.element(data, places.end)
        numbers = self.element(data, begins.end)
        rows, ends, values = self.array(places), self.array(begins), self.array(numbers)
        if len(dims) != 2 or rows.dtype.kind not in "iu" or ends.dtype.kind not in "iu":
            raise ValueError("a sparse matrix has no places")
        if both and self.array(self.element(data, numbers.end)).size != values.size:
            raise ValueError("a sparse matrix has other imaginary than real parts")
        used = int(ends[-1]) if ends.size else -1
        if (
            ends.size != dims[1] + 1
            or ends[0] != 0
            or bool((ends[1:] < ends[:-1]).any())
            or used > min(rows.size, values.size)
            or bool(((rows < 0) | (rows >= dims[0]))[:used].any())
        ):
            raise ValueError(f"the places of a sparse matrix of {dims} don't fit it")

    def items(self, data: memoryview, at: int, count: int, depth: int) -> None:
        """Look through so many variables in a row."""
        if count > _MOST_PARTS:
            raise ValueError(f"it has more than {_MOST_PARTS} parts")
        for _ in range(count):
            element = self.element(data, at)
            if element.kind != _MATRIX:
                raise ValueError(f"a cell or field has type {element.kind}")
            self.matrix(element.data, depth + 1)
            at = element.end

    def fields(self, data: memoryview, at: int, count: int, depth: int, *, named: bool) -> None:
        """Look through an array of structs."""
        if named:
            at = self.element(data, at).end
        width = self.element(data, at)
        names = self.element(data, width.end)
        lengths = self.array(width)
        if width.kind not in _SIZES or lengths.size != 1 or lengths[0] < 1 or names.kind not in _NAMES:
            raise ValueError("a struct has no names of fields")
        number, left = divmod(len(names.data), int(lengths[0]))
        if left or count > _MOST_PARTS:
            raise ValueError(f"{count} structs have {len(names.data)} bytes of names of {lengths[0]} each")
        self.items(data, names.end, count * number, depth)

    def rest(self, data: memoryview, at: int, depth: int) -> None:
        """Look through elements up to the end: those of functions and objects, of which little is known."""
        while at < len(data):
            element = self.element(data, at)
            if element.kind == _MATRIX:
                self.matrix(element.data, depth + 1)
            elif element.kind not in (*_NUMBERS, *_TEXTS):
                raise ValueError(f"there is no type {element.kind}")
            at = element.end


def _ends(unpack: Any) -> bool:
    """Tell whether nothing but the check sum follows."""
    return not unpack.decompress(unpack.unconsumed_tail, 1) and bool(unpack.eof)


def _require_level4(data: memoryview) -> None:
    at = 0
    while at < len(data):
        if len(data) - at < 20:
            raise ValueError("it is cut short")
        order = "<" if 0 <= struct.unpack_from("<i", data, at)[0] <= 5000 else ">"
        kind, rows, columns, both, length = struct.unpack_from(f"{order}5i", data, at)
        thousands, hundreds, number, form = kind // 1000, kind // 100 % 10, kind // 10 % 10, kind % 10
        if not (0 <= kind <= 5000 and thousands < 2 and hundreds == 0 and number < 6 and form < 3):
            raise ValueError(f"at byte {at} there is no variable (type {kind})")
        if rows < 0 or columns < 0 or both not in (0, 1) or length < 1:
            raise ValueError(f"a variable has the sizes {rows}, {columns}")
        itemsize = (8, 4, 4, 2, 2, 1)[number]
        at += 20 + length + rows * columns * itemsize * (1 + both)
        if at > len(data):
            raise ValueError("a variable is cut short")
