"""Activation functions that a model spells out in arithmetic, found by what they compute, not by how it is written.

``x * Sigmoid(x)`` is SiLU, ``0.5 * x * (1 + Erf(x / sqrt(2)))`` is GELU in any order of its factors. Where a node has
no layer of its own, all that leads to it from one value is run on a grid and compared with the functions we know.
``onnx/arithmetic.py`` asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from pylrp.layers import ELU, GELU, Activation, HardSigmoid, HardSwish, Mish, ReLU, ReLU6, Sigmoid, SiLU, Softplus, Tanh
from pylrp.loaders.onnx.constants import Constant
from pylrp.loaders.onnx.node import Translation, Value

__all__ = [
    "ELEMENTWISE",
    "FUNCTIONS",
    "bases",
    "identify",
    "is_function_of_one",
    "joins_branches",
    "leads_to",
    "met_by",
]

Floats = NDArray[np.float64]

#: Operators that work value by value.
ELEMENTWISE = {
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "Cast", "CastLike", "Ceil", "Celu",
    "Clip", "Cos", "Cosh", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater",
    "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max",
    "Mean", "Min", "Mish", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "Where", "Xor",
}  # fmt: skip
#: Those of them that have no layer by themselves.
FUNCTIONS = {
    "Abs", "Acos", "Acosh", "And", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Equal", "Erf", "Exp",
    "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Log", "Not", "Or", "Pow", "Reciprocal", "Round",
    "Shrink", "Sign", "Sin", "Sinh", "Softsign", "Sqrt", "Tan", "ThresholdedRelu", "Xor",
}  # fmt: skip
_LINEAR = ("Add", "Sub", "Sum", "Mean", "Neg", "Identity", "Cast", "CastLike", "Dropout")
_MOST_STEPS = 24
# Where functions bend, and far out and close to zero, where a bound or a step may hide. Exp overflows out there.
_FAR: Floats = np.geomspace(10, 1e6, 41)
_NEAR: Floats = np.geomspace(1e-5, 1e-2, 13)
_GRID: Floats = np.concatenate([np.linspace(-9.0, 9.0, 373), _NEAR, -_NEAR, _FAR, -_FAR])
_MAY_OVERFLOW = np.abs(_GRID) >= 10


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


_erf = np.vectorize(math.erf, otypes=[np.float64])
_KNOWN: list[tuple[Activation, Callable[[Floats], Floats]]] = [
    (SiLU(), lambda x: x * _sigmoid(x)),
    (GELU(), lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2),
    (GELU(approximate=True), lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2),
    (HardSwish(), lambda x: x * np.clip(x + 3, 0, 6) / 6),
    (Mish(), lambda x: x * np.tanh(np.logaddexp(0, x))),
    (HardSigmoid(), lambda x: np.clip(x / 6 + 0.5, 0, 1)),
    (Sigmoid(), _sigmoid),
    (Tanh(), np.tanh),
    (Softplus(), lambda x: np.logaddexp(0, x)),
    (ReLU(), lambda x: np.maximum(x, 0)),
    (ReLU6(), lambda x: np.clip(x, 0, 6)),
    (ELU(), lambda x: np.where(x < 0, np.expm1(x), x)),
]


#: With those that a model at the top may write with the other sign, last.
_FORMS = [(layer, function, False) for layer, function in _KNOWN] + [
    (layer, function, True) for layer, function in _KNOWN if isinstance(layer, Sigmoid | Softplus)
]


class _NoCurve(Exception):
    """The value is no function of one other value alone."""


def identify(node: NodeProto, translation: Translation) -> tuple[Activation, Value, bool] | None:
    """Return the activation function that a node's output is, and of which value; None if it is none we know.

    The last entry tells whether it is the function of minus the value, as ``1 / (1 + exp(x))`` is.
    """
    for base in bases(node, translation):
        try:
            curve = _curve(node, translation, {base: _GRID})
        except _NoCurve:
            continue
        for layer, function, minus in _FORMS:
            with np.errstate(all="ignore"):
                error = np.abs(curve - function(-_GRID if minus else _GRID))
            # Constants in files have single precision.
            if np.all((error <= 2e-6 * (1 + np.abs(_GRID))) | ~np.isfinite(curve)):
                return layer, translation.values[base], minus
    return None


def is_function_of_one(node: NodeProto, translation: Translation) -> bool:
    """Tell whether a node's output is computed value by value from one value alone, and constants."""
    return any(
        all(leads_to(name, base, translation) for name in node.input if name) for base in bases(node, translation)
    )


def joins_branches(node: NodeProto, translation: Translation) -> bool:
    """Tell whether a node's operands are one value and a function of it, or two functions: not just multiples."""
    for base in bases(node, translation):
        if all(leads_to(name, base, translation) for name in node.input if name):
            return any(_bends(name, base, translation) for name in node.input)
    return False


def _bends(name: str, base: str, translation: Translation) -> bool:
    if name == base or name in translation.constants:
        return False
    node = translation.producers[name]
    multiple = node.op_type in ("Mul", "Div") and any(source in translation.constants for source in node.input)
    if node.op_type not in _LINEAR and not multiple:
        return True
    return any(_bends(source, base, translation) for source in node.input if source)


def leads_to(name: str, base: str, translation: Translation, steps: int = _MOST_STEPS) -> bool:
    """Tell whether a value is the base or a constant for it, or made of nothing else value by value."""
    if name == base:
        return True
    if name in translation.constants:
        constant = translation.constants[name]
        if constant.is_sized and constant.number is not None and _met_as_one(constant, translation.values[base]):
            return True
        plain = constant.first.dtype.kind in "fi" and not constant.follows_batch and not constant.per_sample
        if not plain or (constant.first.dtype.kind == "f" and not np.isfinite(constant.first).all()):
            return plain and constant.first.size == 1
        return constant.first.size == 1 or met_by(constant.first, translation.values[base]) is not None
    if steps == 0 or not _is_elementwise(name, translation):
        return False
    return all(leads_to(source, base, translation, steps - 1) for source in translation.producers[name].input if source)


def _met_as_one(constant: Constant, value: Value) -> bool:
    """Tell whether a constant that follows the batch, such as zeros like a value, is no larger than the value."""
    shape, batch = constant.first.shape, value.view.batch
    if len(shape) != value.rank:
        return False
    inner = value.shape[:batch] + value.shape[batch + value.view.merged :]
    return all(n in (1, m) for n, m in zip(shape[:batch] + shape[batch + 1 :], inner, strict=False))


def met_by(array: NDArray[Any], value: Value) -> NDArray[Any] | None:
    """Return a constant as it meets the axes of a value, without the batch; None where it would make it larger."""
    if array.ndim > value.rank:
        return None
    full = array.reshape((1,) * (value.rank - array.ndim) + array.shape)
    batch = value.view.batch
    if full.shape[batch] != 1:
        return None
    full = full.reshape(*full.shape[:batch], *(1,) * value.view.merged, *full.shape[batch + 1 :])
    fits = all(n in (1, m) for n, m in zip(full.shape, value.shape, strict=True))
    return full if fits else None


def _is_elementwise(name: str, translation: Translation) -> bool:
    node = translation.producers.get(name)
    if node is None or name in translation.by_hand:
        return False
    return node.op_type in ELEMENTWISE and node.domain in ("", "ai.onnx")


def bases(node: NodeProto, translation: Translation) -> list[str]:
    """Return the activations that lead to a node value by value, nearest first."""
    found: list[str] = []
    seen, front = set(node.input), [name for name in node.input if name]
    while front and len(seen) < _MOST_STEPS:
        name = front.pop(0)
        if name in translation.values and name not in translation.pending:
            found.append(name)
        if _is_elementwise(name, translation):
            above = translation.producers[name]
            front += [source for source in above.input if source and source not in seen]
            seen.update(above.input)
    return found


def _curve(node: NodeProto, translation: Translation, known: dict[str, Floats]) -> Floats:
    """Return a node's output on the grid; ``known`` holds the base and collects what lies between."""
    inputs: list[Floats | None] = []
    for name in node.input:
        if not name:
            inputs.append(None)
        elif name in known:
            inputs.append(known[name])
        elif name in translation.constants:
            constant = translation.constants[name]
            number = constant.number
            if number is None or (constant.first.size != 1 and not constant.is_sized):
                raise _NoCurve
            inputs.append(number.astype(np.float64))
        else:
            if not _is_elementwise(name, translation):
                raise _NoCurve
            known[name] = _curve(translation.producers[name], translation, known)
            inputs.append(known[name])
    if node.op_type in ("Identity", "Cast") and inputs[0] is not None:
        return inputs[0]
    try:
        (curve,) = translation.constants.run(node, inputs)
    except ValueError:
        raise _NoCurve from None
    if curve.shape != _GRID.shape or curve.dtype.kind != "f" or not (np.isfinite(curve) | _MAY_OVERFLOW).all():
        raise _NoCurve
    return curve.astype(np.float64)
