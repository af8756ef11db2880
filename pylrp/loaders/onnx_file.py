"""An ONNX file without its weights, and each weight read straight into an array when it is asked for.

A file of half a gigabyte is nearly all weights. Parsed as a whole it would be in memory two or three times; here the
protobuf walk cuts the large tensors out before the rest is parsed. ``onnx_constants.py`` asks for the arrays.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["ModelFile"]

Array = NDArray[Any]

_LARGE = 1 << 12
# Numbers of fields in onnx.proto, and the wire types of protobuf.
_GRAPH, _INITIALIZER, _TENSOR_NAME, _RAW_DATA = 7, 5, 8, 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass
class ModelFile:
    """A model whose large weights may still lie in files."""

    model: onnx.ModelProto
    folder: Path = Path()
    #: Where the raw data of a tensor lie: the file, offset and length.
    spans: dict[str, tuple[Path, int, int]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> ModelFile:
        """Read a file, but for its large weights.

        Raises
        ------
        ValueError
            If it is no ONNX model.
        """
        spans: dict[str, tuple[int, int]] = {}
        model = onnx.ModelProto()
        if path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                try:
                    model.ParseFromString(_without_weights(data, spans))
                except Exception:  # protobuf's own error differs from version to version
                    model.Clear()
        if not model.graph.node:
            raise ValueError(f"{path} is no ONNX model: save it with torch.onnx.export or another exporter")
        return cls(model, path.parent, {name: (path, *span) for name, span in spans.items()})

    def array(self, tensor: TensorProto) -> Array:
        """Return a tensor of the model.

        Raises
        ------
        ValueError
            If its data lie in a file that can't be read.
        """
        span = self._external(tensor) if tensor.external_data else self.spans.get(tensor.name)
        if span is None:
            inline: Array = numpy_helper.to_array(tensor)
            return inline
        path, offset, length = span
        try:
            raw = np.fromfile(path, np.uint8, length, offset=offset)
        except OSError as error:
            raise ValueError(f"weight {tensor.name!r} lies in {path}, which can't be read: {error}") from None
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        if len(raw) != math.prod(tensor.dims) * dtype.itemsize:
            raise ValueError(
                f"weight {tensor.name!r} has {len(raw)} bytes in {path}, expected {math.prod(tensor.dims)} numbers of "
                f"{dtype.itemsize}"
            )
        array: Array = raw.view(dtype.newbyteorder("<")).astype(dtype, copy=False)
        return array.reshape(tuple(tensor.dims))

    def _external(self, tensor: TensorProto) -> tuple[Path, int, int]:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = (self.folder / entries.get("location", "")).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise ValueError(f"weight {tensor.name!r} lies in {path}, outside the model's folder {self.folder}")
        return path, int(entries.get("offset", 0)), int(entries.get("length", -1))


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Return a number and where the next thing begins."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield each field of a message: its number, its beginning with the tag, its payload's beginning and end."""
    while at < end:
        begin = at
        tag, at = _varint(data, at)
        payload = at
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(data, at)
        elif kind == _BYTES:
            length, payload = _varint(data, at)
            at = payload + length
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("no protobuf")
        if at > end:
            raise ValueError("cut short")
        yield tag >> 3, begin, payload, at


def _without_weights(data: mmap.mmap, spans: dict[str, tuple[int, int]]) -> bytes:
    """Return the model without large raw data, and note where those lie."""
    pieces = []
    for number, begin, payload, end in _fields(data, 0, len(data)):
        pieces.append(_graph(data, payload, end, spans) if number == _GRAPH else data[begin:end])
    return b"".join(pieces)


def _graph(data: mmap.mmap, begin: int, end: int, spans: dict[str, tuple[int, int]]) -> bytes:
    pieces = []
    for number, start, payload, stop in _fields(data, begin, end):
        large = number == _INITIALIZER and stop - payload > _LARGE
        pieces.append(_tensor(data, payload, stop, spans) if large else data[start:stop])
    return _message(_GRAPH, b"".join(pieces))


def _tensor(data: mmap.mmap, begin: int, end: int, spans: dict[str, tuple[int, int]]) -> bytes:
    pieces, raw, name = [], None, ""
    for number, start, payload, stop in _fields(data, begin, end):
        if number == _RAW_DATA:
            raw = payload, stop - payload
            continue
        if number == _TENSOR_NAME:
            name = data[payload:stop].decode()
        pieces.append(data[start:stop])
    if raw is None or not name:
        return _message(_INITIALIZER, data[begin:end])
    spans[name] = raw
    return _message(_INITIALIZER, b"".join(pieces))


def _message(number: int, payload: bytes) -> bytes:
    head, length = bytearray([number << 3 | _BYTES]), len(payload)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + payload
