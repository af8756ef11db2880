"""Entries of an activation at places that come with the call: the last token that is no padding, the end of a text.

A place is computed of ids or masks. The activation is multiplied with zeros but for that place, which get no relevance,
and averaged: all relevance goes to the entry that was taken. ``onnx/movement.py`` has Gather for places
that are constant; :data:`PLACES` is part of the table of ``onnx/operators.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pylrp.layers import Expand, GlobalAveragePool, Layer, Reshape, ScaleBy, Take, Transpose
from pylrp.layers.base import product
from pylrp.loaders.onnx.node import Call, Value
from pylrp.loaders.onnx.views import PLAIN, Times, View

__all__ = ["PLACES", "gather_by_side"]

_PAIR = 2  # (sample, place)


def gather_by_side(call: Call) -> Value:
    """Translate Gather where the places come with the call: of (batch * tokens, ...), by one number for both."""
    value = call.viewed()
    axis = call.axis_in_file(call.attribute("axis", 0), value.rank)
    if axis != 0 or value.view not in (PLAIN, View(0, 0, 1)):
        raise call.mixes_batch(f"takes entries along axis {axis} at {call.node.input[1]!r}, others for each sample,")
    if value.view == PLAIN:  # of one token a sample
        value = call.emit(Reshape((1, *value.shape)), value, part="one")
    return _taken(call, value, "flat", call.translation.sides.sizes(call.node.input[1]))


def _gather_nd(call: Call) -> Value:
    """Translate GatherND by (sample, place), or by a place where samples are apart already."""
    value, apart = call.value(), call.attribute("batch_dims", 0)
    if not call.is_side(1):
        raise call.unsupported(f"takes entries at {call.node.input[1]!r}, which is not computed of ids or masks")
    *sizes, count = call.translation.sides.sizes(call.node.input[1])
    if (apart, count) not in ((0, _PAIR), (1, 1)):
        raise call.unsupported(f"takes entries by {count} numbers each with batch_dims={apart}")
    return _taken(call, value, "last" if apart else "pairs", sizes)


def _taken(call: Call, value: Value, kind: str, sizes: Any) -> Value:
    """Return (*places, features) of a value (tokens, *features)."""
    if not sizes or sizes[0] != Times() or not all(isinstance(n, int) for n in sizes[1:]):
        raise call.mixes_batch(f"takes entries at {call.node.input[1]!r}, which are not those of each sample,")
    tokens, *rest = value.shape
    places = [int(n) for n in sizes[1:]]
    name = _mask(call, kind, tokens)
    grid = (product(places), tokens, product(rest))
    value = call.emit(Reshape((1, *grid[1:])), value, part="tokens", view=PLAIN)
    return _averaged(call, value, name, grid, (*places, *rest))


def _gather_elements(call: Call) -> Value:
    """Translate GatherElements along the first axis of a sample."""
    if call.is_constant(1):
        return _gather_fixed(call)
    value = call.value()
    if not call.is_side(1):
        raise call.unsupported(f"takes entries at {call.node.input[1]!r}, which is not computed of ids or masks")
    sizes, axis = call.translation.sides.sizes(call.node.input[1]), call.axis(call.attribute("axis", 0))
    if axis != 0 or len(sizes) != value.rank or sizes[0] != Times() or sizes[2:] != list(value.shape[1:]):
        raise call.unsupported(f"takes entries of {value.shape} along axis {axis}, by {call.node.input[1]!r}")
    tokens, *rest = value.shape
    count = int(sizes[1]) if isinstance(sizes[1], int) else 0
    name = _mask(call, "elements", tokens)
    value = call.emit(Reshape((1, tokens, product(rest))), value, part="tokens")
    return _averaged(call, value, name, (count, tokens, product(rest)), (count, *rest))


def _mask(call: Call, kind: str, tokens: int) -> str:
    """Return the name of a side value, (batch, places, tokens, features or 1), 0 but where it is taken, of mean 1."""
    sides = call.translation.sides
    name = call.translation.unique(f"{call.name}:places")
    sides.step("Places", {"kind": kind, "size": tokens}, [call.node.input[1]], name)
    return name


def _gather_fixed(call: Call) -> Value:
    """Translate GatherElements at places that are constant: those of relative positions, for example.

    Axes along which all places are alike stay what they are; the others are one axis, of which places are taken.
    """
    value = call.viewed()
    axis = call.axis(call.attribute("axis", 0))
    places, n = _of_each_sample(call, value), value.shape[axis]
    others = [a for a in range(places.ndim) if a != axis]
    if ((places < -n) | (places >= n)).any() or any(places.shape[a] > value.shape[a] for a in others):
        raise call.broken(f"takes entries of {value.shape} (without the batch) that it does not have")
    places = places % n
    free = [a for a in others if places.shape[a] == value.shape[a] and (places == places.take([0], a)).all()]
    tied = [a for a in others if a not in free]
    front = [*free, *tied, axis]
    rows = places.transpose(front)[(0,) * len(free)]
    made = rows.shape
    for a, stride in zip(range(len(tied)), np.cumprod([n, *(value.shape[b] for b in tied[:0:-1])])[::-1], strict=False):
        rows = rows + stride * np.arange(made[a]).reshape(-1, *(1,) * (rows.ndim - a - 1))
    kept = tuple(value.shape[a] for a in free)
    steps: list[tuple[str, Layer]] = [
        ("turned", Transpose(front)),
        ("flat", Reshape((product(kept), product([value.shape[a] for a in (*tied, axis)])))),
        ("taken", Take(rows.reshape(-1), 1)),
        ("axes", Reshape((*kept, *made))),
        ("", Transpose([int(a) for a in np.argsort(front)])),
    ]
    return call.emit_all(steps, value, view=value.view)


def _of_each_sample(call: Call, value: Value) -> Any:
    """Return constant places with the axes of a value (without the batch)."""
    places, view = np.asarray(call.constant(1, per_sample=True)), value.view
    if places.ndim != value.rank or places.dtype.kind not in "iu":
        raise call.broken(f"takes entries by {places.dtype} of shape {places.shape} from {value.rank} axes")
    merged = tuple(value.shape[a] for a in view.block())
    samples = 1 if call.is_per_sample(1) else call.translation.batch
    if samples is None or places.shape[view.batch] != samples * product(merged) or view.before:
        raise call.mixes_batch(f"takes entries at {call.node.input[1]!r}, which are not those of each sample,")
    apart = places.reshape(*places.shape[: view.batch], samples, *merged, *places.shape[view.batch + 1 :])
    if (apart != apart.take([0], view.batch)).any():
        raise call.mixes_batch(f"takes entries at {call.node.input[1]!r}, others for each sample,")
    return apart.take(0, view.batch)


def _averaged(call: Call, value: Value, mask: str, grid: tuple[int, int, int], shape: tuple[int, ...]) -> Value:
    """Return the mean over tokens of a value (1, tokens, features) times a mask (places, tokens, features or 1)."""
    count, tokens, features = grid
    if count > 1:
        value = call.emit(Expand(grid), value, part="places")
    value = call.emit(ScaleBy(), value, call.fed(mask, value, adds=False), part="taken")
    value = call.emit(Transpose((0, 2, 1)), value, part="turned")
    value = call.emit(Reshape((count * features, tokens)), value, part="rows")
    value = call.emit(GlobalAveragePool(), value, part="mean")
    return call.emit(Reshape(shape), value, view=PLAIN)


PLACES: dict[str, Callable[[Call], Value]] = {"GatherElements": _gather_elements, "GatherND": _gather_nd}
