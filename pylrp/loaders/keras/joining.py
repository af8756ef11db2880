"""What Keras's layers of several values are in :mod:`pylrp.layers`: sums, products, concatenations.

Registered in the table of ``keras/builder.py``; ``keras/operations.py`` comes here for the functions of ``keras.ops``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pylrp.layers import Add, Affine, Concat, Divide, Expand, MatMul, Multiply, Reshape, Transpose
from pylrp.loaders.keras.builder import Builder, Value, reads

__all__ = ["concatenate", "joined", "total"]


@reads("Add")
def add(build: Builder, layer: Any, name: str, *values: Value) -> Value:
    """Their sum; sizes of 1 are repeated."""
    return total(build, layer, name, values)


def total(build: Builder, layer: Any, name: str, values: tuple[Value, ...]) -> Value:
    """Add values of shapes that may have to be repeated."""
    if len({build.rank(value) for value in values}) > 1:
        build.refuse(name, layer, "adds values with different numbers of axes, which can't be explained")
    parts = build.aligned(values)
    shape = np.broadcast_shapes(*(build.shapes[part.name] for part in parts))
    parts = [
        part if build.shapes[part.name] == shape else build.emit(f"{name}.expand", Expand(shape), part)
        for part in parts
    ]
    return build.emit(name, Add(), *parts)


@reads("Multiply")
def multiply(build: Builder, layer: Any, name: str, *values: Value) -> Value:
    """Their product, from the first on; sizes of 1 are repeated."""
    made = values[0]
    for number, value in enumerate(values[1:], start=2):
        made = joined(build, layer, name if number == len(values) else f"{name}.{number}", Multiply(), made, value)
    return made


def joined(build: Builder, layer: Any, name: str, how: Multiply | Divide, *values: Value) -> Value:
    """Multiply or divide two values of shapes that may have to be repeated."""
    if len({build.rank(value) for value in values}) > 1:
        build.refuse(name, layer, "joins values with different numbers of axes, which can't be explained")
    return build.emit(name, how, *build.aligned(values))


@reads("Average")
def average(build: Builder, layer: Any, name: str, *values: Value) -> Value:
    """Their mean."""
    summed = total(build, layer, f"{name}.add", values)
    return build.emit(name, Affine(1.0 / len(values), 0.0), summed)


@reads("Subtract")
def subtract(build: Builder, layer: Any, name: str, one: Value, other: Value) -> Value:
    """One and the other's negative."""
    return total(build, layer, name, (one, build.emit(f"{name}.negative", Affine(-1.0, 0.0), other)))


@reads("CustomScaleLayer")
def scaled_sum(build: Builder, layer: Any, name: str, one: Value, other: Value) -> Value:
    """One and a share of the other: a layer of ``keras.applications.InceptionResNetV2``."""
    return total(build, layer, name, (one, build.emit(f"{name}.scale", Affine(float(layer.scale), 0.0), other)))


@reads("Dot")
def dot(build: Builder, layer: Any, name: str, one: Value, other: Value) -> Value:
    """Products summed along an axis of each: attention's sum of steps by their shares, for example."""
    if layer.normalize:
        build.refuse(name, layer, "divides by lengths", "call it without normalize=True, behind UnitNormalization")
    parts = [build.in_order(one), build.in_order(other)]
    ranks = [build.rank(part) for part in parts]
    if max(ranks) > 2:
        build.refuse(name, layer, "multiplies values of more than two axes")
    axes = (layer.axes, layer.axes) if isinstance(layer.axes, int) else layer.axes
    kept: list[int] = []
    for k, (part, rank, axis) in enumerate(zip(parts, ranks, axes, strict=True)):
        shape = build.shapes[part.name]
        at = axis + rank if axis < 0 else axis - 1
        if not 0 <= at < rank:
            build.refuse(name, layer, "sums along the batch")
        kept += shape[:at] + shape[at + 1 :]
        last = k == 0  # a row of the first by a column of the second
        if rank == 1:
            parts[k] = build.emit(f"{name}.{k}", Reshape((1, *shape) if last else (*shape, 1)), part)
        elif at != (1 if last else 0):
            parts[k] = build.emit(f"{name}.{k}", Transpose((1, 0)), part)
    shape = tuple(kept) or (1,)
    product = build.emit(name if len(shape) == 2 else f"{name}.product", MatMul(), *parts, last=False)
    return product if len(shape) == 2 else build.emit(name, Reshape(shape), product)


@reads("Concatenate")
def concatenate(build: Builder, layer: Any, name: str, *values: Value) -> Value:
    """Along any axis."""
    parts = build.aligned(values)
    return build.emit(name, Concat(build.axis(parts[0], layer.axis)), *parts)
