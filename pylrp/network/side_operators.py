"""Operators on side values, token ids and masks, as ONNX defines them, in NumPy. ``sides.py`` runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ELEMENTWISE", "OPERATORS", "Attributes"]

Array = NDArray[Any]
Attributes = Mapping[str, Any]
Operator = Callable[..., Array]


def _ints(array: Array | None, default: Any = None) -> Any:
    return default if array is None else [int(n) for n in np.ravel(array)]


def _axes(attributes: Attributes, given: Array | None) -> tuple[int, ...] | None:
    axes = _ints(given, attributes.get("axes"))
    return None if axes is None else tuple(axes)


def _plain(function: Callable[..., Any]) -> Operator:
    return lambda attributes, *arrays: np.asarray(function(*arrays))


def _fold(function: Callable[..., Any]) -> Operator:
    def of_all(attributes: Attributes, *arrays: Array) -> Array:
        total = arrays[0]
        for array in arrays[1:]:
            total = function(total, array)
        return np.asarray(total)

    return of_all


def _divide(attributes: Attributes, one: Array, other: Array) -> Array:
    if one.dtype.kind in "iu":  # towards zero
        return np.asarray(np.trunc(one / other), dtype=one.dtype)
    return np.asarray(one / other)


def _cast(attributes: Attributes, array: Array) -> Array:
    return array.astype(attributes["to"])


def _clip(attributes: Attributes, array: Array, low: Array | None = None, high: Array | None = None) -> Array:
    low = attributes.get("min") if low is None else low
    high = attributes.get("max") if high is None else high
    return np.asarray(np.clip(array, low, high)).astype(array.dtype, copy=False)


def _unsqueeze(attributes: Attributes, array: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(array, _axes(attributes, axes) or ())


def _squeeze(attributes: Attributes, array: Array, axes: Array | None = None) -> Array:
    return np.asarray(np.squeeze(array, _axes(attributes, axes)))


def _reshape(attributes: Attributes, array: Array, shape: Array | None = None) -> Array:
    sizes = _ints(shape, attributes.get("shape"))
    if not attributes.get("allowzero", 0):
        sizes = [array.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    if not array.size and -1 in sizes and 0 in sizes:  # no samples: -1 stands for what it is for one
        known = int(np.prod([n for n in sizes if n > 0]))
        sizes = [int(np.prod([n for n in array.shape if n])) // known if n == -1 else n for n in sizes]
    return array.reshape(sizes)


def _flatten(attributes: Attributes, array: Array) -> Array:
    axis = attributes.get("axis", 1)
    return array.reshape(int(np.prod(array.shape[:axis])), -1)


def _transpose(attributes: Attributes, array: Array) -> Array:
    return array.transpose(attributes.get("perm"))


def _expand(attributes: Attributes, array: Array, shape: Array) -> Array:
    return np.broadcast_to(array, np.broadcast_shapes(array.shape, tuple(_ints(shape))))


def _tile(attributes: Attributes, array: Array, repeats: Array) -> Array:
    return np.tile(array, _ints(repeats))


def _gather(attributes: Attributes, array: Array, index: Array) -> Array:
    return np.take(array, index, attributes.get("axis", 0))


def _gather_elements(attributes: Attributes, array: Array, index: Array) -> Array:
    return np.take_along_axis(array, index, attributes.get("axis", 0))


def _gather_nd(attributes: Attributes, array: Array, index: Array) -> Array:
    lead = attributes.get("batch_dims", 0)
    apart = [n.reshape(n.shape + (1,) * (index.ndim - 1 - lead)) for n in np.indices(index.shape[:lead])]
    return np.asarray(array[(*apart, *(index[..., i] for i in range(index.shape[-1])))])


def _slice(
    attributes: Attributes,
    array: Array,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    first: Sequence[int] = _ints(starts, attributes.get("starts"))
    last: Sequence[int] = _ints(ends, attributes.get("ends"))
    along: Sequence[int] = _ints(axes, attributes.get("axes")) or range(len(first))
    by: Sequence[int] = _ints(steps) or [1] * len(first)
    places = [slice(None)] * array.ndim
    for begin, end, axis, step in zip(first, last, along, by, strict=True):
        stop = None if step < 0 and end < -array.shape[axis] else end
        places[axis] = slice(begin, stop, step)
    return array[tuple(places)]


def _concat(attributes: Attributes, *arrays: Array) -> Array:
    return np.concatenate(arrays, attributes["axis"])


def _where(attributes: Attributes, condition: Array, one: Array, other: Array) -> Array:
    return np.where(condition, one, other).astype(one.dtype, copy=False)


def _reduce(function: Callable[..., Any]) -> Operator:
    def translate(attributes: Attributes, array: Array, axes: Array | None = None) -> Array:
        along = _axes(attributes, axes)
        if along is None and attributes.get("noop_with_empty_axes", 0):
            return array
        made = np.asarray(function(array, axis=along, keepdims=bool(attributes.get("keepdims", 1))))
        return made.astype(array.dtype, copy=False)

    return translate


def _cumsum(attributes: Attributes, array: Array, axis: Array) -> Array:
    at = int(np.ravel(axis)[0])
    turned = np.flip(array, at) if attributes.get("reverse", 0) else array
    total = np.cumsum(turned, at, dtype=array.dtype)
    if attributes.get("exclusive", 0):
        total = total - turned
    return np.flip(total, at) if attributes.get("reverse", 0) else total


def _trilu(attributes: Attributes, array: Array, k: Array | None = None) -> Array:
    by = 0 if k is None else int(np.ravel(k)[0])
    return np.triu(array, by) if attributes.get("upper", 1) else np.tril(array, by)


def _one_hot(attributes: Attributes, index: Array, depth: Array, values: Array) -> Array:
    count, axis = int(np.ravel(depth)[0]), attributes.get("axis", -1)
    hit = np.equal(np.expand_dims(np.where(index < 0, index + count, index), -1), np.arange(count))
    made = np.where(hit, values[1], values[0])
    order = list(range(made.ndim - 1))
    order.insert(axis % made.ndim, made.ndim - 1)
    return np.asarray(made.transpose(order))


def _scatter_nd(attributes: Attributes, array: Array, index: Array, updates: Array) -> Array:
    made, places = np.array(array), tuple(index[..., i] for i in range(index.shape[-1]))
    joins = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
    how = attributes.get("reduction", "none")
    if how == "none":
        made[places] = updates
    else:
        joins[how].at(made, places, updates)
    return made


def _places(attributes: Attributes, index: Array) -> Array:
    """Return ``size`` where entries are taken, else 0, (batch, places, size, features or 1); no operator of ONNX.

    ``kind`` says what the places are: "flat", of all samples one after the other; "pairs" of sample and place; "last",
    along a last axis of length 1; "elements", one for each feature.
    """
    kind, size, batch = attributes["kind"], attributes["size"], len(index)
    own = np.arange(batch).reshape(-1, *(1,) * (index.ndim - 1))
    at = index[..., -1] if kind in ("pairs", "last") else index
    if kind == "flat":
        at = at - size * own
    wrong = (at < (0 if kind == "flat" else -size)) | (at >= size)
    tried = attributes.get("trial", False)
    if kind == "pairs" and (index[..., :1] % batch != own).any() and not tried:
        raise IndexError("takes an entry of another sample")
    if wrong.any() and not tried:
        raise IndexError(f"takes entry {int(at[wrong].flat[0])} of {size}")
    shape = (batch, index.shape[1], 1, -1) if kind == "elements" else (batch, -1, 1, 1)
    rows = (at % size).reshape(shape)
    return np.asarray(size * (rows == np.arange(size).reshape(-1, 1)), np.float64)


def _place_of(function: Callable[..., Any]) -> Operator:
    """Return ArgMax or ArgMin."""

    def translate(attributes: Attributes, array: Array) -> Array:
        axis = attributes.get("axis", 0)
        if attributes.get("select_last_index", 0):
            found = array.shape[axis] - 1 - function(np.flip(array, axis), axis=axis)
        else:
            found = function(array, axis=axis)
        return np.asarray(np.expand_dims(found, axis) if attributes.get("keepdims", 1) else found, np.int64)

    return translate


def _range(attributes: Attributes, start: Array, limit: Array, by: Array) -> Array:
    first, last, step = (np.ravel(each)[0] for each in (start, limit, by))
    return np.arange(first, last, step, dtype=start.dtype)


def _mod(attributes: Attributes, one: Array, other: Array) -> Array:
    return np.asarray(np.fmod(one, other) if attributes.get("fmod", 0) else np.mod(one, other))


def _is_inf(attributes: Attributes, array: Array) -> Array:
    above, below = attributes.get("detect_positive", 1), attributes.get("detect_negative", 1)
    return np.asarray((np.isposinf(array) & bool(above)) | (np.isneginf(array) & bool(below)))


def _quantize(attributes: Attributes, array: Array, scale: Array, zero: Array | None = None) -> Array:
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    if np.size(scale) != 1 or kind.kind not in "iu" or kind.itemsize > 2:
        raise ValueError(f"rounds a mask to {kind} by {np.size(scale)} scales")
    limits, shift = np.iinfo(kind), 0 if zero is None else int(np.ravel(zero)[0])
    return np.asarray(np.clip(np.rint(array / np.ravel(scale)[0]) + shift, limits.min, limits.max).astype(kind))


def _dequantize(attributes: Attributes, array: Array, scale: Array, zero: Array | None = None) -> Array:
    if np.size(scale) != 1:
        raise ValueError(f"reads a mask by {np.size(scale)} scales")
    shift = 0 if zero is None else int(np.ravel(zero)[0])
    return np.asarray((array.astype(np.int64) - shift) * np.ravel(scale)[0])


#: That work entry by entry, with the rules of broadcasting.
ELEMENTWISE: dict[str, Operator] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "And": _plain(np.logical_and),
    "Cast": _cast,
    "Ceil": _plain(np.ceil),
    "Clip": _clip,
    "Cos": _plain(np.cos),
    "Div": _divide,
    "Equal": _plain(np.equal),
    "Exp": _plain(np.exp),
    "Floor": _plain(np.floor),
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Identity": _plain(lambda x: x),
    "IsInf": _is_inf,
    "IsNaN": _plain(np.isnan),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Log": _plain(np.log),
    "Max": _fold(np.maximum),
    "Min": _fold(np.minimum),
    "Mod": _mod,
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "Pow": lambda attributes, x, y: np.power(x, y).astype(x.dtype, copy=False),
    "Reciprocal": _plain(lambda x: 1 / x),
    "Relu": _plain(lambda x: np.maximum(x, 0)),
    "Round": _plain(np.rint),
    "Sigmoid": _plain(lambda x: 1 / (1 + np.exp(-x))),
    "Sign": _plain(np.sign),
    "Sin": _plain(np.sin),
    "Sqrt": _plain(np.sqrt),
    "Sub": _plain(np.subtract),
    "Sum": _fold(np.add),
    "Tanh": _plain(np.tanh),
    "Where": _where,
    "Xor": _plain(np.logical_xor),
}
#: All of them: function(attributes, *arrays).
OPERATORS: dict[str, Operator] = {
    **ELEMENTWISE,
    "ArgMax": _place_of(np.argmax),
    "ArgMin": _place_of(np.argmin),
    "Concat": _concat,
    "CumSum": _cumsum,
    "DequantizeLinear": _dequantize,
    "Dropout": lambda attributes, x, *rest: x,
    "Einsum": lambda attributes, *arrays: np.einsum(attributes["equation"], *arrays),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "MatMul": _plain(np.matmul),
    "OneHot": _one_hot,
    "Places": _places,
    "QuantizeLinear": _quantize,
    "Range": _range,
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
