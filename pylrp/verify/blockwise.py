"""Weights of few bits with a scale a block as the arrays that they stand for, bit by bit; ``quantised.py`` calls in."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from pylrp.verify.fused import Parts
from pylrp.verify.step import Array

__all__ = ["gather", "matmul"]


def _whole(tensor: onnx.TensorProto, bits: int) -> Array:
    """Return the whole numbers of a tensor, which are those of its bytes where it holds bytes."""
    array = numpy_helper.to_array(tensor)
    if tensor.data_type != onnx.TensorProto.UINT8:
        return array.astype(np.float64)
    each = np.unpackbits(array[..., None], axis=-1, bitorder="little").reshape(*array.shape[:-1], -1, bits)
    return np.asarray((each * 2.0 ** np.arange(bits)).sum(-1))


def _stands_for(whole: Array, scale: Array, zero: Array | float, size: int, axis: int) -> Array:
    """Return ``scale (q - zero)`` in single precision, entry by entry; scale and zero are those of its block."""
    block = np.arange(whole.shape[axis]) // size
    offset = np.take(zero, block, axis) if isinstance(zero, np.ndarray) else zero
    return np.asarray((whole - offset).astype(np.float32) * np.take(scale.astype(np.float32), block, axis))


def matmul(parts: Parts) -> None:
    """Write MatMulNBits as a product with a matrix, and a bias."""
    rows, columns, size, bits = (int(parts.get(name, 4)) for name in ("N", "K", "block_size", "bits"))
    blocks = -(-columns // size)
    order = parts.input(4)
    if order and not np.array_equal(numpy_helper.to_array(parts.tensors[order]), np.arange(columns) // size):
        raise parts.refuse("takes its blocks in an order of its own")
    tensors = parts.tensors
    whole = _whole(tensors[parts.input(1)], bits).reshape(rows, -1)[:, :columns]
    scale = numpy_helper.to_array(tensors[parts.input(2)]).reshape(rows, blocks)
    zero: Array | float = 2.0 ** (bits - 1)
    if parts.input(3):
        given = tensors[parts.input(3)]
        if given.data_type == onnx.TensorProto.UINT8:
            packed = numpy_helper.from_array(numpy_helper.to_array(given).reshape(rows, -1))
            zero = _whole(packed, bits)[:, :blocks]
        else:
            zero = numpy_helper.to_array(given).astype(np.float64).reshape(rows, blocks)
    matrix = parts.constant(_stands_for(whole, scale, zero, size, 1).T, np.float32)
    made = parts.step("MatMul", parts.input(0), matrix, part="product" if parts.input(5) else "",
                      output="" if parts.input(5) else parts.node.output[0])  # fmt: skip
    if parts.input(5):
        parts.step("Add", made, parts.input(5), output=parts.node.output[0])


def gather(parts: Parts) -> None:
    """Write GatherBlockQuantized as rows of a table."""
    bits, size = int(parts.get("bits", 4)), int(parts.get("block_size", 128))
    table = parts.tensors[parts.input(0)]
    whole = _whole(table, bits)
    axis = int(parts.get("quantize_axis", 1)) % whole.ndim
    zero: Array | float = 2.0 ** (bits - 1) if table.data_type == onnx.TensorProto.UINT8 else 0.0
    if parts.input(3):
        zero = _whole(parts.tensors[parts.input(3)], bits)
    numbers = _stands_for(whole, numpy_helper.to_array(parts.tensors[parts.input(2)]), zero, size, axis)
    parts.step("Gather", parts.constant(numbers, np.float32), parts.input(1), output=parts.node.output[0],
               axis=parts.get("gather_axis", 0))  # fmt: skip
