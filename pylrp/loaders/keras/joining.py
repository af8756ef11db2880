"""What Keras's layers of several values are in :mod:`pylrp.layers`: sums, products, concatenations.

Registered in the table of ``keras/builder.py``; ``keras/operations.py`` comes here for the functions of ``keras.ops``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pylrp.layers import Add, Affine, Concat, Divide, Expand, Multiply
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


@reads("Concatenate")
def concatenate(build: Builder, layer: Any, name: str, *values: Value) -> Value:
    """Along any axis."""
    parts = build.aligned(values)
    return build.emit(name, Concat(build.axis(parts[0], layer.axis)), *parts)
