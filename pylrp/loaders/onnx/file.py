"""An ONNX file without its weights, and each weight read straight into an array when it is asked for.

A file of half a gigabyte is nearly all weights. Parsed as a whole it would be in memory two or three times; here the
protobuf walk cuts the large tensors out before the rest is parsed. ``onnx/constants.py`` asks for the arrays.
"""

from __future__ import annotations

import itertools
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

from pylrp.errors import BrokenFile

__all__ = ["ModelFile"]

Array = NDArray[Any]

_LARGE = 1 << 12
_MOST_FIELDS = 1 << 20
_LEAST_NODE = 6  # bytes, with an operator and an output of one letter each
_MOST_GRAPHS = 1 << 8  # protobuf merges pieces of one, exporters write one
_MOST_BITS = 63
#: Bits of types of which a byte holds several.
_PACKED: dict[int, int] = {TensorProto.INT4: 4, TensorProto.UINT4: 4}
# Numbers of fields in onnx.proto, and the wire types of protobuf.
_GRAPH, _NODE, _INITIALIZER, _TENSOR_NAME, _RAW_DATA = 7, 1, 5, 8, 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass
class ModelFile:
    """A model whose large weights may still lie in files."""

    model: onnx.ModelProto
    path: Path | None = None
    #: Where the raw data of a tensor lie: the file, offset and length.
    spans: dict[str, tuple[Path, int, int]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> ModelFile:
        """Read a file, but for its large weights.

        Raises
        ------
        BrokenFile
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
            raise BrokenFile(path, "", "is no ONNX model: save it with torch.onnx.export or another exporter")
        return cls(model, path, {name: (path, *span) for name, span in spans.items()})

    def require_text(self) -> None:
        """Raise BrokenFile if a name is no UTF-8: protobuf then gives its bytes, or raises.

        Raises
        ------
        BrokenFile
        """
        place = "the graph"
        try:
            for node in itertools.chain(self.model.graph.node, *(f.node for f in self.model.functions)):
                place = f"node {node.name!r}"
                _require_text(node.name, node.op_type, node.domain, *node.input, *node.output)
                _require_text(*(attribute.name for attribute in node.attribute))
            graph, place = self.model.graph, "the graph"
            for parts in (graph.input, graph.output, graph.initializer, graph.value_info, self.model.functions):
                _require_text(*(part.name for part in parts))
            _require_text(*(part.domain for part in (*self.model.functions, *self.model.opset_import)))
            _require_text(*(name for f in self.model.functions for name in (*f.input, *f.output, *f.attribute)))
        except UnicodeError as error:
            raise BrokenFile(self.path, place, "has a name that is no text (UTF-8)") from error

    def array(self, tensor: TensorProto) -> Array:
        """Return a tensor of the model.

        Raises
        ------
        BrokenFile
            If it is not as the standard has it, or its data lie in a file that can't be read.
        """
        place = f"weight {tensor.name!r}" if tensor.name else "a tensor"
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
            if any(n < 0 for n in tensor.dims):
                raise ValueError(f"has the shape {tuple(tensor.dims)}")
            external = tensor.data_location == TensorProto.EXTERNAL or tensor.external_data
            span = self._external(tensor) if external else self.spans.get(tensor.name)
            if span is not None:
                return _from_file(*span, tensor, dtype)
            inline: Array = numpy_helper.to_array(tensor)
        except Exception as error:  # onnx raises whatever a broken tensor leads it to
            text = str(error) or type(error).__name__
            raise BrokenFile(
                self.path, place, text if text.startswith(("lies in", "has ")) else f"can't be read: {text}"
            ) from error
        return inline

    def _external(self, tensor: TensorProto) -> tuple[Path, int, int]:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        folder = Path() if self.path is None else self.path.parent
        path = (folder / entries.get("location", "")).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ValueError(f"lies in {path}, outside the model's folder {folder}")
        return path, int(entries.get("offset", 0)), int(entries.get("length", -1))


def _require_text(*names: str | bytes) -> None:
    for name in names:
        if isinstance(name, bytes):
            name.decode()


def _from_file(path: Path, offset: int, length: int, tensor: TensorProto, dtype: np.dtype[Any]) -> Array:
    """Return an array whose raw data lie in a file; its size is looked at before anything is read."""
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(
            f"lies in {path}, which is {'no ordinary file' if path.exists() else 'missing'}: "
            "keep the model's data file beside it"
        )
    shape, bits = tuple(tensor.dims), _PACKED.get(tensor.data_type, 8 * dtype.itemsize)
    there, wanted = path.stat().st_size - offset, -(-math.prod(shape) * bits // 8)
    given = there if length < 0 else length
    if offset < 0 or given > there or given != wanted:
        raise ValueError(
            f"has {min(given, max(there, 0))} bytes in {path}, expected {math.prod(shape)} numbers of "
            f"{bits} bits: copy the model's data file again"
        )
    try:
        raw = np.fromfile(path, np.uint8, given, offset=offset)
    except OSError as error:
        raise ValueError(f"lies in {path}, which can't be read: {error}") from None
    if tensor.data_type in _PACKED:  # several in a byte
        packed = TensorProto(data_type=tensor.data_type, dims=shape, raw_data=raw.tobytes())
        return np.asarray(numpy_helper.to_array(packed))
    array: Array = raw.view(dtype.newbyteorder("<")).astype(dtype, copy=False)
    return array.reshape(shape)


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
        if shift > _MOST_BITS:
            raise ValueError("no protobuf")


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield each field of a message: its number, its beginning with the tag, its payload's beginning and end."""
    for number in itertools.count():
        if at >= end:
            break
        if number == _MOST_FIELDS:
            raise ValueError("no model has so many parts")
        begin = at
        tag, at = (data[at], at + 1) if data[at] < 0x80 else _varint(data, at)
        payload = at
        kind = tag & 7
        if tag < 8 or tag >> 35:
            raise ValueError("no protobuf")
        if kind == _BYTES:
            length, payload = (data[at], at + 1) if data[at] < 0x80 else _varint(data, at)
            at = payload + length
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("no protobuf")
        if at > end:
            raise ValueError("cut short")
        yield tag >> 3, begin, payload, at


def _without_weights(data: mmap.mmap, spans: dict[str, tuple[int, int]]) -> bytes:
    """Return the model without large raw data, and note where those lie."""
    pieces, done, graphs = [], 0, 0
    for number, begin, payload, end in _fields(data, 0, len(data)):
        if number == _GRAPH and end > payload:
            graphs += 1
            if graphs > _MOST_GRAPHS:
                raise ValueError("no model has so many graphs")
            pieces += [data[done:begin], _message(_GRAPH, _graph(data, payload, end, spans))]
            done = end
    return b"".join((*pieces, data[done : len(data)]))


def _graph(data: mmap.mmap, begin: int, end: int, spans: dict[str, tuple[int, int]]) -> bytes:
    pieces, done = [], begin
    for number, start, payload, stop in _fields(data, begin, end):
        if number == _NODE and stop - payload < _LEAST_NODE:
            raise ValueError("a node without an operator or a value")
        if number == _INITIALIZER and stop - payload > _LARGE:
            pieces += [data[done:start], _tensor(data, payload, stop, spans)]
            done = stop
    return b"".join((*pieces, data[done:end]))


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
