"""Quantised values of an ONNX model in their own units: what QuantizeLinear and DequantizeLinear mean here.

A quantised activation is the value it stands for, rounded and clipped (:class:`pylrp.layers.Quantize`); to dequantise
it then changes nothing. Weights become numbers when the model is loaded (:func:`dequantised`, which ``onnx/folding.py``
calls). Operators that compute with whole numbers ``onnx/integers.py`` has written in this form before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pylrp.layers import Affine, DynamicQuantize, Identity, Quantize
from pylrp.loaders.onnx.masks_rounded import require_steps
from pylrp.loaders.onnx.node import Call, Value

__all__ = ["DYNAMIC", "QUANTISED", "WEIGHTS", "dequantised", "note", "whole_numbers"]

Array = NDArray[Any]

#: A value rounded as DynamicQuantizeLinear does it, in its own units: an operator of this package.
DYNAMIC = "pylrp.DynamicQuantize"
_WAY_OUT = "take the model before quantisation"
_BITS = {"int4": (-8, 7), "uint4": (0, 15)}
#: What may lie between quantising and dequantising: the same numbers in other places.
_MOVES = {
    "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip
#: Notes.
WEIGHTS = "quantised weights are the numbers that they stand for"
_ROUNDED = "quantised activations are rounded and clipped as in the file, relevance passes through that"
_DYNAMIC = "scales that follow the activations are those of each sample, as the file has them for a batch of one"


def dequantised(x: Array, scale: Array, zero: Array | None, settings: Mapping[str, Any]) -> Array:
    """Return the numbers that whole ones stand for, ``(x - zero) * scale``.

    Parameters
    ----------
    x : ndarray
        Whole numbers, of 4 bits too.
    scale, zero : ndarray
        One number, one for each entry along an axis, or one for each block along it.
    settings : mapping of str to object
        ``axis`` and ``block_size``, as ONNX has them.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    whole = x.astype(np.float64)
    factor, offset = (_along(whole.shape, array, settings) for array in (scale, zero))
    made: Array = (whole - offset) * factor
    if x.dtype.itemsize >= 4:  # biases have 32 bits, more than single precision holds
        return made
    with np.errstate(over="ignore"):  # a mask's lowest number is -inf there, as in the file
        return made.astype(scale.dtype)


def whole_numbers(x: Array, scale: Array, zero: Array, settings: Mapping[str, Any]) -> Array:
    """Return a constant rounded as QuantizeLinear does it, in the type of the zero point; ``axis`` as ONNX has it."""
    unit, offset = (_along(x.shape, array, settings) for array in (scale, zero))
    limits = _BITS.get(zero.dtype.name) or (np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max)
    made: Array = np.clip(np.rint(x.astype(np.float64) / unit) + offset, *limits).astype(zero.dtype)
    return made


def _along(shape: tuple[int, ...], array: Array | None, settings: Mapping[str, Any]) -> Any:
    """Return a scale or zero point as it meets an array."""
    if array is None:
        return 0.0
    given = np.asarray(array).astype(np.float64)
    if given.size == 1:
        return given.reshape(())
    axis = settings.get("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    if not 0 <= axis < len(shape):
        raise ValueError(f"has scales along axis {axis} of an array of shape {shape}")
    if given.ndim == 1 and len(given) == shape[axis]:
        return given.reshape(-1, *(1,) * (len(shape) - axis - 1))
    block = settings.get("block_size", 0)
    if given.ndim == len(shape) and block > 0:
        return np.repeat(given, block, axis)[tuple(slice(n) for n in shape)]
    raise ValueError(f"has scales of shape {given.shape} for an array of shape {shape} along axis {axis}")


def _bounds(call: Call) -> tuple[Array, Array]:
    """Return the zero point, and the smallest and largest whole number of its type."""
    given = call.constant(2)
    kind = call.attribute("output_dtype", 0)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind or TensorProto.UINT8)) if given is None else given.dtype
    zero = np.zeros(()) if given is None else np.asarray(given).astype(np.float64)
    if dtype.name in _BITS:
        return zero, np.array(_BITS[dtype.name])
    if dtype.kind not in "iu" or dtype.itemsize > 2:
        raise call.unsupported(f"rounds an activation to {dtype}", _WAY_OUT)
    limits = np.iinfo(dtype)
    return zero, np.array([limits.min, limits.max])


def _quantize(call: Call) -> Value:
    value = call.viewed()
    scale = np.asarray(call.constant(1), np.float64)
    zero, (least, most) = _bounds(call)
    if scale.size > 1:
        shape = [1] * len(value.shape)
        shape[call.axis(call.attribute("axis", 1))] = -1
        scale, zero = (v.reshape(shape if v.size > 1 else ()) for v in (scale, zero))
    else:
        scale, zero = scale.reshape(()), zero.reshape(())
    require_steps(call, scale)
    call.translation.quantised[call.node.output[0]] = scale, zero
    note(call, _ROUNDED)
    low, high = least - zero, most - zero
    if scale.ndim == 0:
        return call.emit(Quantize(float(scale), float(low), float(high)), value)
    dtype = call.translation.constants.dtype
    return call.emit(Quantize(*(np.asarray(v, dtype) for v in (scale, low, high))), value)


def _dequantize(call: Call) -> Value:
    """Return a quantised value: it stands for itself unless it is read by another scale."""
    value, known = call.viewed(), _source(call, call.node.input[0])
    if known is None:
        raise call.unsupported(
            "takes whole numbers that no QuantizeLinear has made", "take the model before quantisation"
        )
    scale, zero = known
    own = np.asarray(call.constant(1), np.float64)
    zero_point = call.constant(2)
    shift = np.zeros(()) if zero_point is None else np.asarray(zero_point).astype(np.float64)
    if own.size == scale.size and np.array_equal(own.ravel(), scale.ravel()) and np.all(shift.ravel() == zero.ravel()):
        return call.emit(Identity(), value)
    if own.size > 1 or scale.size > 1:
        raise call.unsupported("reads values by other scales than they were made with, one for each channel")
    number, other = float(own.reshape(())), float(scale)
    return call.emit(Affine(number / other, number * float(zero - shift.reshape(()))), value)


def _source(call: Call, name: str) -> tuple[Array, Array] | None:
    """Return the scale and the zero point that a value was quantised by, None where it was not."""
    quantised, producers = call.translation.quantised, call.translation.producers
    while name not in quantised:
        node = producers.get(name)
        if node is None:
            return None
        if node.op_type == "Concat":
            found = [_source(call, each) for each in node.input]
            same = all(f is not None and found[0] is not None and f == found[0] for f in found)
            return found[0] if same else None
        if node.op_type not in _MOVES:
            return None
        name = node.input[0]
    return quantised[name]


def _dynamic(call: Call) -> Value:
    note(call, _ROUNDED)
    note(call, _DYNAMIC)
    return call.emit(DynamicQuantize(), call.viewed())


def note(call: Call, text: str) -> None:
    """Note what loading did, once."""
    if text not in call.translation.notes:
        call.translation.notes.append(text)


QUANTISED: dict[str, Callable[[Call], Value]] = {
    "DequantizeLinear": _dequantize,
    "QuantizeLinear": _quantize,
    "com.microsoft.DequantizeLinear": _dequantize,
    "com.microsoft.QuantizeLinear": _quantize,
    DYNAMIC: _dynamic,
}
