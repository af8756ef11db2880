"""What Keras's operations of signal front ends are in :mod:`pylrp.layers`: slices, splits, sums over axes, bounds.

Registered in the table of ``keras/builder.py``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pylrp.layers import Affine, Clip, GlobalAveragePool, Reshape, Slice, Transpose
from pylrp.layers.base import product
from pylrp.loaders.keras.builder import Builder, Value, reads

__all__: list[str] = []


@reads("GetItem", module="ops")
def get_item(build: Builder, op: Any, name: str, value: Value, key: Any) -> Value:
    """A part along some axes: ``x[..., :8]``, ``x[:, 2:-1]``."""
    rank = build.rank(value) + 1
    given = list(key) if isinstance(key, list | tuple) else [key]
    if any(part is Ellipsis for part in given):
        at = next(i for i, part in enumerate(given) if part is Ellipsis)
        given[at : at + 1] = [slice(None)] * (rank - len(given) + 1)
    given += [slice(None)] * (rank - len(given))
    whole = slice(None)
    known = all(isinstance(part, slice | int) and not isinstance(part, bool) for part in given)
    if len(given) != rank or given[0] != whole or not known:
        build.refuse(
            name,
            op,
            f"takes the part {key} of a value, slices and numbers on other axes than the batch can be explained",
        )
    value = build.in_order(value)
    singles = [axis for axis, part in enumerate(given[1:]) if isinstance(part, int)]
    sizes = build.shapes[value.name]
    given = [slice(n := part % sizes[i - 1], n + 1) if isinstance(part, int) else part for i, part in enumerate(given)]
    for axis, part in enumerate(given[1:]):
        if part == whole:
            continue
        start, stop, step = part.indices(build.shapes[value.name][axis])
        if step < 0:
            build.refuse(name, op, f"goes backwards, {part}, which can't be explained")
        value = build.emit(name, Slice([start], [max(start, stop)], [axis], [step]), value)
    if not singles:
        return value
    rest = tuple(n for axis, n in enumerate(build.shapes[value.name]) if axis not in singles)
    return build.emit(f"{name}.one", Reshape(rest or (1,)), value)


@reads("Split", module="ops")
def split(build: Builder, op: Any, name: str, value: Value) -> list[Value]:
    """Parts along an axis, of one length or between places."""
    value = build.in_order(value)
    axis = build.axis(value, op.axis)
    size, given = build.shapes[value.name][axis], op.indices_or_sections
    places = np.arange(1, given) * (size // given) if isinstance(given, int) else np.asarray(given)
    edges = [0, *(int(place) for place in places), size]
    return [
        build.emit(f"{name}.{i}", Slice([a], [b], [axis]), value)
        for i, (a, b) in enumerate(zip(edges, edges[1:]))  # noqa: B905, RUF007
    ]


@reads("Sum", "Mean", module="ops")
def reduced(build: Builder, op: Any, name: str, value: Value) -> Value:
    """A sum or mean over some axes: each entry takes its part of it."""
    if op.axis is None:
        build.refuse(name, op, "goes over all axes, the batch among them")
    value = build.in_order(value)
    shape = build.shapes[value.name]
    axes = sorted(build.axis(value, axis) for axis in (op.axis if isinstance(op.axis, tuple | list) else [op.axis]))
    if axes[0] < 0 or 0 in ([op.axis] if isinstance(op.axis, int) else op.axis):
        build.refuse(name, op, "goes over the batch")
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    count = product([shape[axis] for axis in axes])
    value = build.emit(f"{name}.axes_last", Transpose((*kept, *axes)), value)
    value = build.emit(f"{name}.flat", Reshape((product([shape[axis] for axis in kept]), count)), value)
    value = build.emit(f"{name}.mean", GlobalAveragePool(), value)
    if type(op).__name__ == "Sum":
        value = build.emit(f"{name}.sum", Affine(float(count), 0.0), value)
    made = [1 if axis in axes else n for axis, n in enumerate(shape)] if op.keepdims else [shape[a] for a in kept]
    return build.emit(name, Reshape(tuple(made)), value)


@reads("Clip", module="ops")
def bounded(build: Builder, op: Any, name: str, value: Value) -> Value:
    """Between two numbers."""
    low, high = (-math.inf if op.x_min is None else op.x_min, math.inf if op.x_max is None else op.x_max)
    if np.size(low) != 1 or np.size(high) != 1:
        build.refuse(name, op, "has bounds that are arrays")
    return build.emit(name, Clip(float(low), float(high)), value)
