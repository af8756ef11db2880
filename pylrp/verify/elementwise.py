"""Operators that act on each value by itself, or join values of one shape: what they compute.

Formulas of the ONNX standard in NumPy; ``operators.py`` lists them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from pylrp.verify.roundings import ROUNDINGS
from pylrp.verify.step import Array, Step

__all__ = ["FUNCTIONS", "JOINED", "SELU_GAMMA", "aligned"]

Forward = Callable[..., Any]
SELU_GAMMA = 1.0507009873554805
_erf = np.vectorize(math.erf, otypes=[np.float64])


def erf(x: Array) -> Array:
    """Return the error function, in double precision."""
    return np.asarray(_erf(x) if x.size else x)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow."""
    e = np.exp(-np.abs(x))
    made: Array = np.where(x < 0, e / (1 + e), 1 / (1 + e))
    return made


def _gelu(step: Step, x: Array) -> Array:
    if step.get("approximate", "none") == "tanh":
        return np.asarray(x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(x / 2 * (1 + erf(x / math.sqrt(2))))


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def _celu(step: Step, x: Array) -> Array:
    alpha = step.get("alpha", 1.0)
    return np.asarray(alpha * _elu(x / alpha, 1.0))


def _clip(step: Step, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    low = step.get("min", -np.inf) if low is None else low
    high = step.get("max", np.inf) if high is None else high
    return np.minimum(np.maximum(x, low), high)


def _prelu(step: Step, x: Array, slope: Array) -> Array:
    if slope.ndim == 1 and step.opset < 7 and slope.size > 1:
        slope = slope.reshape(-1, *(1,) * (x.ndim - 2))
    return np.where(x < 0, slope * x, x)


def _shrink(step: Step, x: Array) -> Array:
    limit, shift = step.get("lambd", 0.5), step.get("bias", 0.0)
    return np.where(x < -limit, x + shift, np.where(x > limit, x - shift, 0.0))


def _softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


def _plain(function: Callable[[Array], Any]) -> Forward:
    return lambda step, x: function(x)


#: Functions of one value: the first input; further ones are settings.
FUNCTIONS: dict[str, Forward] = {
    "Abs": _plain(np.abs),
    "Acos": _plain(np.arccos),
    "Asin": _plain(np.arcsin),
    "Atan": _plain(np.arctan),
    "Ceil": _plain(np.ceil),
    "Celu": _celu,
    "Clip": _clip,
    "Cos": _plain(np.cos),
    "Cosh": _plain(np.cosh),
    "Elu": lambda step, x: _elu(x, step.get("alpha", 1.0)),
    "Erf": _plain(erf),
    "Exp": _plain(np.exp),
    "Floor": _plain(np.floor),
    "Gelu": _gelu,
    "com.microsoft.Gelu": _gelu,
    "HardSigmoid": lambda step, x: np.clip(step.get("alpha", 0.2) * x + step.get("beta", 0.5), 0, 1),
    "HardSwish": lambda step, x: x * np.clip(x / 6 + 0.5, 0, 1),
    "LeakyRelu": lambda step, x: np.where(x < 0, step.get("alpha", 0.01) * x, x),
    "Log": _plain(np.log),
    "Mish": lambda step, x: x * np.tanh(_softplus(x)),
    "Neg": _plain(np.negative),
    "PRelu": _prelu,
    "com.microsoft.QuickGelu": lambda step, x: x * sigmoid(step.get("alpha", 1.702) * x),
    "Reciprocal": _plain(lambda x: 1 / x),
    "Relu": _plain(lambda x: np.maximum(x, 0)),
    "Round": _plain(np.rint),
    "Selu": lambda step, x: step.get("gamma", SELU_GAMMA) * _elu(x, step.get("alpha", 1.6732632423543772)),
    "Shrink": _shrink,
    "Sigmoid": _plain(sigmoid),
    "Sign": _plain(np.sign),
    "Sin": _plain(np.sin),
    "Sinh": _plain(np.sinh),
    "Softplus": _plain(_softplus),
    "Softsign": _plain(lambda x: x / (1 + np.abs(x))),
    "Sqrt": _plain(np.sqrt),
    "Swish": lambda step, x: x * sigmoid(step.get("alpha", 1.0) * x),
    "Tan": _plain(np.tan),
    "Tanh": _plain(np.tanh),
    "ThresholdedRelu": lambda step, x: np.where(x > step.get("alpha", 1.0), x, 0),
    **ROUNDINGS,
}


def aligned(step: Step, a: Array, b: Array) -> tuple[Array, Array]:
    """Return two operands that broadcast; before opset 7 the smaller one was put at an axis."""
    axis = step.get("axis")
    if step.opset < 7 and step.get("broadcast", 0) and axis is not None and b.ndim:
        b = b.reshape(*b.shape, *(1,) * (a.ndim - axis % a.ndim - b.ndim))
    return a, b


def _pair(function: Callable[[Array, Array], Any]) -> Forward:
    return lambda step, a, b: function(*aligned(step, a, b))


def _divided(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu":  # towards zero
        return np.asarray(np.trunc(a / b), a.dtype)
    return np.asarray(a / b)


def _any(function: Callable[[Array, Array], Array]) -> Forward:
    return lambda step, *arrays: reduce(function, arrays)


#: Operators that join values entry by entry.
JOINED: dict[str, Forward] = {
    "Add": _pair(np.add),
    "And": _pair(np.logical_and),
    "Div": _pair(_divided),
    "Equal": _pair(np.equal),
    "Greater": _pair(np.greater),
    "GreaterOrEqual": _pair(np.greater_equal),
    "Less": _pair(np.less),
    "LessOrEqual": _pair(np.less_equal),
    "Max": _any(np.maximum),
    "Mean": lambda step, *arrays: reduce(np.add, arrays) / len(arrays),
    "Min": _any(np.minimum),
    "Mod": lambda step, a, b: np.fmod(a, b) if step.get("fmod", 0) else np.mod(a, b),
    "Mul": _pair(np.multiply),
    "Not": lambda step, a: np.logical_not(a),
    "Or": _pair(np.logical_or),
    "Pow": _pair(lambda a, b: np.power(a, b.astype(a.dtype))),
    "Sub": _pair(np.subtract),
    "Sum": _any(np.add),
    "Where": lambda step, mask, a, b: np.where(mask, a, b),
    "Xor": _pair(np.logical_xor),
}
