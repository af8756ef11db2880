"""ONNX's Where: entries of one value or another, by a condition that no activation changes.

A choice by constants, or by what is computed of token ids and masks, is linear: ``k a + (1 - k) b`` with k of zeros and
ones. What is chosen gets the relevance; where a constant is filled in, the constant gets it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Add, Expand, ScaleBy, Shape, Shift, ShiftBy
from pylrp.layers.shift import closed
from pylrp.loaders.onnx.arithmetic import affine, alike, computed, curve, operand
from pylrp.loaders.onnx.constants import Constant
from pylrp.loaders.onnx.guards import kept_from_nan
from pylrp.loaders.onnx.node import Call, Value

__all__ = ["CHOICES"]

Array = NDArray[Any]
_ZERO, _ONE = (Constant(a, a) for a in (np.zeros((), np.float64), np.ones((), np.float64)))


def _where(call: Call) -> Value | None:
    """Translate a choice between activations and constants, by a mask; or a function that has a choice in it."""
    kept = kept_from_nan(call)
    if kept is not None:
        return kept
    if any(name in call.translation.pending for name in call.node.input):
        return curve(call)
    sides, constants = call.translation.sides, call.translation.constants
    known = call.is_constant(0) or call.node.input[0] in sides
    chosen = 1 if call.node.input[1] in call.translation.values else 2
    other = call.node.input[3 - chosen]
    if other not in constants and other not in sides:
        if not known:
            raise call.unsupported("chooses between two activations by a third one")
        return _of_two(call)
    value = call.viewed(chosen)
    if not known:
        return None  # perhaps a function of one value
    if call.is_constant(0) and other in constants and not constants[other].follows_batch:
        return _filled(call, value, chosen)
    condition, fill = _known(call, call.node.input[0]), _known(call, other)
    if isinstance(condition, str) or isinstance(fill, str):
        factor = _factor(call, condition, chosen == 1)
        shift = computed(call, "Where", condition, *((_ZERO, fill) if chosen == 1 else (fill, _ZERO)))
        closes = isinstance(fill, Constant) and bool(np.isneginf(fill.first).all())
        if not closes:
            value = call.emit(ScaleBy(), value, call.fed(factor, value, adds=False), part="kept")
        return call.emit(ShiftBy(), value, call.fed(shift, value, adds=True))
    raise call.mixes_batch("chooses by a mask that follows the batch size")


def _known(call: Call, name: str) -> str | Constant:
    return name if name in call.translation.sides else call.translation.constants[name]


def _factor(call: Call, condition: str | Constant, kept: bool) -> str:
    """Return the name of a side value: 1 where a value is kept, else 0."""
    return computed(call, "Where", condition, *((_ONE, _ZERO) if kept else (_ZERO, _ONE)))


def _of_two(call: Call) -> Value:
    """Emit the sum of what is kept of two activations."""
    values = alike(call, [call.viewed(1), call.viewed(2)])
    parts = []
    for value, kept in zip(values, (True, False), strict=True):
        part = "first" if kept else "second"
        if call.is_constant(0):
            keep = np.asarray(operand(call, 0, value), bool) == kept
            parts.append(affine(call, value, keep.astype(np.float64), 0.0, part=part))
        else:
            mask = call.fed(_factor(call, call.node.input[0], kept), value, adds=False)
            shape = np.broadcast_shapes(value.shape, mask.shape)
            if shape != value.shape:
                value = call.emit(Expand(shape), value, part=f"{part}/expand")
            parts.append(call.emit(ScaleBy(), value, mask, part=part))
    return call.emit(Add(), *parts)


def _filled(call: Call, value: Value, chosen: int) -> Value:
    """Emit a value with constants in some places."""
    keep = np.asarray(operand(call, 0, value), bool) == (chosen == 1)
    dtype = call.translation.constants.dtype
    given: Array = np.asarray(call.translation.constants[call.node.input[3 - chosen]].first, np.float64)
    if given.size and (given == given.flat[0]).all():
        given = np.asarray(given.flat[0])
    else:
        given = np.asarray(operand(call, 3 - chosen, value))
    shift = np.where(keep, 0, given)
    if not np.isneginf(given).any():
        return affine(call, value, keep.astype(np.float64), shift)
    shape: Shape = np.broadcast_shapes(value.shape, shift.shape)
    if shape != value.shape:
        value = call.emit(Expand(shape), value, part="expand")
    if not (keep | np.isneginf(given)).all():  # constants beside what is closed
        value = affine(call, value, keep.astype(np.float64), 0.0, part="kept")
    return call.emit(Shift(closed(shift.astype(dtype))), value)


CHOICES: dict[str, Callable[[Call], Value | None]] = {"Where": _where}
