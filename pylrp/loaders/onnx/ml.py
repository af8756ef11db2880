"""Operators of classical models, as exporters of scikit-learn write them (domain ai.onnx.ml).

:data:`CLASSICAL` is part of the table of ``onnx/operators.py``. The labels that a LinearClassifier makes are left out
by ``onnx/outputs.py``, here its scores are translated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Affine, Concat, Dense, Identity, Layer, Normalize, Sigmoid, Softmax
from pylrp.loaders.onnx.node import Call, Value

__all__ = ["CLASSICAL"]

Array = NDArray[Any]
Translate = Callable[[Call], Value | list[Value] | None]
_FUNCTIONS: dict[str, Callable[[], Layer]] = {"NONE": Identity, "LOGISTIC": Sigmoid, "SOFTMAX": Softmax}
_NORMS: dict[str, Literal["l1", "l2", "max"]] = {"L1": "l1", "L2": "l2", "MAX": "max"}


def _row(call: Call) -> Value:
    """Return the operator's input, a row of features."""
    value = call.value()
    if len(value.shape) != 1:
        raise call.unsupported(f"takes a value of shape {value.shape} (without the batch), not a row of features")
    return value


def _numbers(call: Call, name: str, shape: tuple[int, ...]) -> Array:
    """Return an attribute in the network's dtype."""
    array = np.asarray(call.required(name), call.translation.constants.dtype)
    if array.size != np.prod(shape):
        raise call.broken(f"has {array.size} {name}, expected {' x '.join(map(str, shape))}")
    return array.reshape(shape)


def _scaler(call: Call) -> Value:
    value = call.value()
    features = value.shape[-1]
    offset, scale = (
        np.asarray(call.attribute(name, default), np.float64) for name, default in (("offset", [0.0]), ("scale", [1.0]))
    )
    for name, array in (("offset", offset), ("scale", scale)):
        if array.size not in (1, features):
            raise call.broken(f"has {array.size} entries of {name} for {features} features")
    dtype = call.translation.constants.dtype
    return call.emit(Affine(scale.astype(dtype), (-offset * scale).astype(dtype)), value)


def _function(call: Call) -> Layer:
    name = call.attribute("post_transform", "NONE")
    if name not in _FUNCTIONS:
        raise call.unsupported(f"has post_transform={name}")
    return _FUNCTIONS[name]()


def _linear(call: Call, value: Value, rows: int, bias: Array | None) -> Dense:
    return Dense(_numbers(call, "coefficients", (rows, value.shape[0])), bias)


def _bias(call: Call, rows: int) -> Array | None:
    return _numbers(call, "intercepts", (rows,)) if call.attribute("intercepts") else None


def _regressor(call: Call) -> Value:
    value, targets = _row(call), call.attribute("targets", 1)
    return call.emit_all([("dense", _linear(call, value, targets, _bias(call, targets))), ("", _function(call))], value)


def _classifier(call: Call) -> list[Value]:
    """Translate the scores; the label is the first of the two outputs."""
    value = _row(call)
    rows = np.size(call.required("coefficients")) // max(1, value.shape[0])
    layer, function = _linear(call, value, rows, _bias(call, rows)), _function(call)
    weight, bias = np.asarray(layer.weight), None if layer.bias is None else np.asarray(layer.bias)
    mirrored = rows == 2 and np.array_equal(weight[0], -weight[1]) and (bias is None or bias[0] == -bias[1])
    if isinstance(function, Sigmoid) and (rows == 1 or mirrored):
        # One logit decides between two classes.
        dense = call.emit(Dense(weight[-1:].copy(), None if bias is None else bias[-1:].copy()), value, part="dense")
        p = call.emit(function, dense, part="sigmoid")
        scores = call.emit(Concat(0), call.emit(Affine(-1.0, 1.0), p, part="other"), p)
    elif rows == 1:
        raise call.unsupported("has one row of coefficients, what its two scores are is not defined")
    else:
        scores = call.emit_all([("dense", layer), ("", function)], value)
    return [scores, scores]


def _normalizer(call: Call) -> Value:
    norm = call.attribute("norm", "MAX")
    if norm not in _NORMS:
        raise call.broken(f"has norm={norm}")
    return call.emit(Normalize(_NORMS[norm]), _row(call))


CLASSICAL: dict[str, Translate] = {
    "ai.onnx.ml.Scaler": _scaler,
    "ai.onnx.ml.LinearRegressor": _regressor,
    "ai.onnx.ml.LinearClassifier": _classifier,
    "ai.onnx.ml.Normalizer": _normalizer,
}
