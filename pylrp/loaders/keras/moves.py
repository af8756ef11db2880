"""What Keras's operations that move values, and products of matrices, are in :mod:`pylrp.layers`.

Registered in the table of ``keras/builder.py``.
"""

from __future__ import annotations

from typing import Any

from pylrp.layers import Dense, MatMul, PositionwiseDense, Reshape, Transpose
from pylrp.loaders.keras.builder import Builder, Value, reads

__all__: list[str] = []
_MOST_AXES = 4


@reads("Matmul", module="ops")
def matmul(build: Builder, op: Any, name: str, one: Any, other: Any) -> Value:
    """With a matrix of weights on the right, or of two values."""
    if isinstance(one, Value) and isinstance(other, Value):
        one, other = build.in_order(one), build.in_order(other)
        if build.rank(one) != build.rank(other) or build.rank(one) < 2:
            build.refuse(name, op, "multiplies values with different numbers of axes, or vectors")
        return build.emit(name, MatMul(), one, other)
    if not isinstance(one, Value) or build.array(other).ndim != 2:
        build.refuse(name, op, "multiplies by constants, of which a matrix on the right can be explained")
    rank = build.rank(one)
    if rank > _MOST_AXES:
        build.refuse(name, op, f"has an input with {rank} axes, 1 to 4 can be explained")
    weight = build.array(other, (1, 0))
    if rank == 1:
        return build.emit(name, Dense(weight), one)
    return build.emit(name, PositionwiseDense.along(rank - 1, weight, None), build.to_front(one))


def _turned(build: Builder, op: Any, name: str, value: Value, order: list[int]) -> Value:
    """Emit a transpose by Keras's axes, the batch being 0."""
    if order[0] != 0:
        build.refuse(name, op, "moves the batch")
    return build.emit(name, Transpose(tuple(axis - 1 for axis in order[1:])), build.in_order(value))


@reads("Transpose", module="ops")
def transpose(build: Builder, op: Any, name: str, value: Value) -> Value:
    """Axes in another order."""
    rank = build.rank(value) + 1
    given = range(rank)[::-1] if op.axes is None else op.axes
    return _turned(build, op, name, value, [axis % rank for axis in given])


@reads("Swapaxes", module="ops")
def swapaxes(build: Builder, op: Any, name: str, value: Value) -> Value:
    """Two axes."""
    order = list(range(build.rank(value) + 1))
    order[op.axis1], order[op.axis2] = order[op.axis2], order[op.axis1]
    return _turned(build, op, name, value, order)


@reads("ExpandDims", "Squeeze", module="ops")
def regrouped(build: Builder, op: Any, name: str, value: Value) -> Value:
    """An axis of size 1 more, or less."""
    value = build.in_order(value)
    shape = [-1, *build.shapes[value.name]]
    rank = len(shape)
    given = op.axis if isinstance(op.axis, tuple | list) else [op.axis]
    if type(op).__name__ == "ExpandDims":
        places = [axis % (rank + 1) for axis in given]
        for place in sorted(places):
            shape.insert(place, 1)
    else:
        places = [i for i, n in enumerate(shape) if n == 1] if op.axis is None else [axis % rank for axis in given]
        shape = [n for i, n in enumerate(shape) if i not in places]
    if 0 in places:
        build.refuse(name, op, "changes the axis of the batch")
    return build.emit(name, Reshape(tuple(shape[1:])), value)


@reads("ExtractPatches", module="ops")
def patches(build: Builder, op: Any, name: str, value: Value) -> Value:
    """Patches side by side: each of the image's entries once."""
    size = op.size if isinstance(op.size, tuple | list) else (op.size, op.size)
    strides = size if op.strides is None else op.strides
    strides = strides if isinstance(strides, tuple | list) else (strides, strides)
    value = build.in_order(value)
    shape = build.shapes[value.name]
    plain = tuple(strides) == tuple(size) and op.dilation_rate in (1, (1, 1)) and op.data_format == "channels_last"
    if not plain or len(size) != 2 or len(shape) != 3 or shape[0] % size[0] or shape[1] % size[1]:
        build.refuse(name, op, "takes patches that overlap, leave something out or have their channels first")
    rows, columns, channels = shape[0] // size[0], shape[1] // size[1], shape[2]
    value = build.emit(f"{name}.cut", Reshape((rows, size[0], columns, size[1], channels)), value)
    value = build.emit(f"{name}.turned", Transpose((0, 2, 1, 3, 4)), value)
    return build.emit(name, Reshape((rows, columns, size[0] * size[1] * channels)), value)
