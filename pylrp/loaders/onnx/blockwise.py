"""onnxruntime's operators with weights of few bits, a scale a block (MatMulNBits, GatherBlockQuantized): plain ones.

The weights become the numbers that they stand for, in single precision as in the file's own kernels; the node becomes
MatMul, Add or Gather. ``onnx/reader.py`` puts these in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from pylrp.loaders.onnx.constants import Constant
from pylrp.loaders.onnx.node import Call
from pylrp.loaders.onnx.quantised import WEIGHTS, note
from pylrp.loaders.onnx.written_out import Writer

__all__ = ["BLOCKWISE"]

Array = NDArray[Any]
_BITS = (2, 4, 8)
_WAY_OUT = "take the model before quantisation"


def _unpacked(packed: Array, bits: int) -> Array:
    """Return the whole numbers of bytes, the lowest bits first, along the last axis."""
    if packed.dtype != np.uint8 or bits == 8:
        return packed.astype(np.int16)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    whole = packed[..., None] >> shifts & np.uint8(2**bits - 1)
    return whole.reshape(*packed.shape[:-1], -1).astype(np.int16)


def _bits(call: Call) -> int:
    bits = int(call.attribute("bits", 4))
    if bits not in _BITS:
        raise call.unsupported(f"has weights of {bits} bits", _WAY_OUT)
    return bits


def _keep(call: Call, write: Writer, array: Array, part: str) -> str:
    """Keep an array as a constant of the network and return its name."""
    name = f"{call.node.output[0]}:{part}"
    call.translation.constants[name] = Constant(array, array)
    note(call, WEIGHTS)
    return name


def _matmul(call: Call) -> list[NodeProto]:
    """A product with the matrix that packed rows stand for: one row an output, in blocks along the inputs."""
    write, bits, size = Writer(call.node), _bits(call), int(call.required("block_size"))
    rows, columns = int(call.required("N")), int(call.required("K"))
    order = call.constant(4)
    if order is not None and not np.array_equal(order, np.arange(len(order)) // size):
        raise call.unsupported("takes its blocks in an order of its own (g_idx)", _WAY_OUT)
    blocks = -(-columns // size)
    packed, scale = call.constant(1), call.constant(2)
    if packed is None or scale is None or packed.size * 8 != rows * blocks * size * bits or scale.size != rows * blocks:
        raise call.broken(f"does not hold {rows} x {columns} numbers of {bits} bits in blocks of {size}")
    whole = _unpacked(packed.reshape(rows, blocks, -1), bits)
    zero = call.constant(3)
    offset: Any = 2 ** (bits - 1)
    if zero is not None:
        offset = _unpacked(zero.reshape(rows, -1), bits)[:, :blocks] if zero.dtype == np.uint8 else zero
        offset = offset.reshape(rows, blocks, 1)
    numbers = (whole - offset).astype(np.float32) * scale.astype(np.float32).reshape(rows, blocks, 1)
    matrix = np.ascontiguousarray(numbers.reshape(rows, -1)[:, :columns].T)
    bias = call.node.input[5] if call.has(5) else ""
    out = call.node.output[0]
    made = write.add("MatMul", call.node.input[0], _keep(call, write, matrix, "weights"),
                     part="product" if bias else "", output="" if bias else out)  # fmt: skip
    if bias:
        write.add("Add", made, bias, part="", output=out)
    return write.nodes


def _gather(call: Call) -> list[NodeProto]:
    """Rows of the table that blocks stand for."""
    write, bits = Writer(call.node), _bits(call)
    size, axis = int(call.attribute("block_size", 128)), int(call.attribute("gather_axis", 0))
    packed, scale, zero = (call.constant(at) for at in (0, 2, 3))
    if packed is None or scale is None:
        raise call.broken("has no table")
    is_packed = packed.dtype == np.uint8
    whole = _unpacked(packed, bits)
    along = int(call.attribute("quantize_axis", 1)) % whole.ndim
    cut = tuple(slice(n) for n in whole.shape)
    offset: Any = 2 ** (bits - 1) if is_packed else 0
    if zero is not None:
        offset = np.repeat(_unpacked(zero, bits), size, along)[cut]
    factor = np.repeat(scale.astype(np.float32), size, along)[cut]
    if factor.shape != whole.shape:
        raise call.broken(f"has scales of shape {scale.shape} for a table of shape {whole.shape}")
    table = (whole - offset).astype(np.float32) * factor
    write.add("Gather", _keep(call, write, table, "table"), call.node.input[1], part="", output=call.node.output[0],
              axis=axis)  # fmt: skip
    return write.nodes


#: As ``WRITTEN_OUT``.
BLOCKWISE: dict[str, Callable[[Call], list[NodeProto]]] = {
    "com.microsoft.GatherBlockQuantized": _gather,
    "com.microsoft.MatMulNBits": _matmul,
}
