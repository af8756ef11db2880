"""Operators that move values: what they compute. None does arithmetic, so that places can be moved in place of values.

``backward.py`` runs them on the numbers of places to find where relevance came from. ``operators.py`` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pylrp._meant import meant
from pylrp.verify.helpers import MOVING, SIDES
from pylrp.verify.resizing import nearest, upsampled
from pylrp.verify.step import Array, Step

__all__ = ["MOVES", "SIZES", "integers"]

Forward = Callable[..., Any]


def integers(step: Step, name: str, given: Array | None, default: Any = None) -> Any:
    """Return whole numbers that are an input in new opsets and were an attribute in old ones."""
    if given is not None:
        return [int(n) for n in np.ravel(given)]
    found = step.get(name)
    return default if found is None else [int(n) for n in np.ravel(found)]


def _reshape(step: Step, x: Array, given: Array | None = None) -> Array:
    target = integers(step, "shape", given)
    if not step.get("allowzero", 0):
        target = [x.shape[i] if n == 0 else n for i, n in enumerate(target)]
    return x.reshape(target)


def _flatten(step: Step, x: Array) -> Array:
    axis = step.get("axis", 1)
    first = int(np.prod(x.shape[: axis if axis >= 0 else x.ndim + axis], dtype=np.int64))
    return x.reshape(first, -1) if x.size else x.reshape(first, 0)


def _squeeze(step: Step, x: Array, axes: Array | None = None) -> Array:
    gone = integers(step, "axes", axes)
    return np.squeeze(x, None if gone is None else tuple(gone))


def _unsqueeze(step: Step, x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, tuple(integers(step, "axes", axes)))


def _slice(
    step: Step, x: Array, starts: Array | None = None, ends: Array | None = None, axes: Array | None = None,
    steps: Array | None = None,
) -> Array:  # fmt: skip
    first, last = integers(step, "starts", starts), integers(step, "ends", ends)
    where = integers(step, "axes", axes, list(range(len(first))))
    strides = integers(step, "steps", steps, [1] * len(first))
    cut: list[slice] = [slice(None)] * x.ndim
    for low, high, axis, stride in zip(first, last, where, strides, strict=True):
        n = x.shape[axis]
        if stride > 0:
            cut[axis] = slice(min(max(low + n if low < 0 else low, 0), n), high + n if high < 0 else high, stride)
            if cut[axis].stop < 0:
                cut[axis] = slice(0, 0)
        else:
            end = high + n if high < 0 else high
            cut[axis] = slice(min(low + n if low < 0 else low, n - 1), None if end < 0 else end, stride)
    return x[tuple(cut)]


def _split(step: Step, x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    axis = step.get("axis", 0)
    given = integers(step, "split", sizes)
    if given is None:
        count = step.get("num_outputs", len(step.outputs))
        chunk = -(-x.shape[axis] // count)
        given = [min(chunk, x.shape[axis] - i * chunk) for i in range(count)]
    return tuple(np.split(x, np.cumsum(given)[:-1], axis=axis))


def _gather(step: Step, x: Array, indices: Array) -> Array:
    return np.take(x, indices.astype(np.int64), axis=step.get("axis", 0), mode="wrap" if x.size else "raise")


def _gather_elements(step: Step, x: Array, indices: Array) -> Array:
    axis = step.get("axis", 0)
    return np.take_along_axis(x, indices % x.shape[axis], axis=axis)


def _gather_nd(step: Step, x: Array, indices: Array) -> Array:
    if step.get("batch_dims", 0):
        raise step.refuse("has batch_dims")
    return x[tuple(indices[..., i] for i in range(indices.shape[-1]))]


def _pad(step: Step, x: Array, pads: Array | None = None, fill: Array | None = None, axes: Array | None = None) -> Any:
    name = "pads" if step.opset > 1 else "paddings"
    widths = integers(step, name, pads)
    where = integers(step, "axes", axes, list(range(x.ndim)))
    half = len(widths) // 2
    given: list[tuple[int, int]] = [(0, 0)] * x.ndim
    for axis, low, high in zip(where, widths[:half], widths[half:], strict=True):
        given[axis] = (low, high)
    x = x[tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(given, x.shape, strict=True))]
    given = [(max(a, 0), max(b, 0)) for a, b in given]
    mode = step.get("mode", "constant")
    if mode == "constant":
        value = step.get("value", 0.0) if fill is None else np.ravel(fill)[0]
        return np.pad(x, given, constant_values=value)
    return np.pad(x, given, mode=mode)


def _depth_to_space(step: Step, x: Array) -> Array:
    block, (n, c, h, w) = step.get("blocksize"), x.shape
    if step.get("mode", "DCR") == "DCR":
        parts = x.reshape(n, block, block, c // block**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // block**2, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(step: Step, x: Array) -> Array:
    block, (n, c, h, w) = step.get("blocksize"), x.shape
    order = (0, 3, 5, 1, 2, 4) if step.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    parts = x.reshape(n, c, h // block, block, w // block, block).transpose(order)
    return parts.reshape(n, c * block**2, h // block, w // block)


def _expand(step: Step, x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(integers(step, "shape", shape))))


def _same(step: Step, x: Array, *_: Array) -> Array:
    return x


def _cast(step: Step, x: Array, like: Array | None = None) -> Array:
    if like is not None:
        return x if x.dtype == like.dtype else x.astype(like.dtype)
    to = step.get("to")
    if to in (1, 10, 11, 16):
        return x.astype(np.float64)
    return x.astype({9: np.bool_, 6: np.int32, 7: np.int64}.get(to, np.int64))


def _trilu(step: Step, x: Array, k: Array | None = None) -> Array:
    shift = 0 if k is None else int(np.ravel(k)[0])
    return np.triu(x, shift) if step.get("upper", 1) else np.tril(x, shift)


def _transpose(step: Step, x: Array) -> Array:
    order: Sequence[int] | None = step.get("perm")
    return x.transpose(order)


def _concat(step: Step, *parts: Array) -> Array:
    return np.concatenate(parts, axis=step.get("axis", 1))


#: Whatever the values are: places may be moved instead. ``Pad`` and ``Trilu`` fill with a constant.
MOVES: dict[str, Forward] = {
    "Cast": _cast,
    "CastLike": _cast,
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Dropout": _same,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": _same,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": nearest,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda step, x, repeats: np.tile(x, [int(n) for n in repeats]),
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
    "Upsample": upsampled,
    **MOVING,
}


def _constant(step: Step) -> Array:
    from onnx import numpy_helper

    (name,) = step.attributes
    value = step.attributes[name]
    if name == "value":
        return meant(numpy_helper.to_array(value))
    if name in ("value_float", "value_floats"):
        return np.asarray(value, np.float64)
    return np.asarray(value, np.int64)


def _filled(step: Step, shape: Array) -> Array:
    from onnx import numpy_helper

    value = step.get("value")
    fill = np.zeros(1) if value is None else meant(numpy_helper.to_array(value))
    return np.full([int(n) for n in shape], fill.ravel()[0])


def _one_hot(step: Step, index: Array, depth: Array, values: Array) -> Array:
    axis, count = step.get("axis", -1), int(np.ravel(depth)[0])
    made = np.where(np.arange(count) == (index[..., None] % count), values[1], values[0])
    return made if axis == -1 else np.rollaxis(made, -1, axis)


def _shape(step: Step, x: Array) -> Array:
    return np.array(x.shape, np.int64)[step.get("start", 0) : step.get("end")]


#: Values that hold no relevance: sizes, ranges, constants.
SIZES: dict[str, Forward] = {
    "ArgMax": lambda step, x: (
        np.expand_dims(x.argmax(step.get("axis", 0)), step.get("axis", 0))
        if step.get("keepdims", 1)
        else x.argmax(step.get("axis", 0))
    ),
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "EyeLike": lambda step, x: np.eye(x.shape[0], x.shape[1], step.get("k", 0)),
    "IsNaN": lambda step, x: np.isnan(x),
    "IsInf": lambda step, x: np.isinf(x),
    "OneHot": _one_hot,
    "Range": lambda step, low, high, by: np.arange(low.ravel()[0], high.ravel()[0], by.ravel()[0]),
    "Shape": _shape,
    "Size": lambda step, x: np.array(x.size, np.int64),
    **SIDES,
}
