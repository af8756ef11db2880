"""Activation functions that a model spells out in arithmetic, found by what they compute, not by how it is written.

``x * Sigmoid(x)`` is SiLU, ``0.5 * x * (1 + Erf(x / sqrt(2)))`` is GELU in any order of its factors. Where a node has
no layer of its own, all that leads to it from one value is run on a grid and compared with the functions we know.
``onnx/arithmetic.py`` asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from pylrp.layers import ELU, GELU, Activation, HardSigmoid, HardSwish, Mish, ReLU, ReLU6, Sigmoid, SiLU, Softplus, Tanh
from pylrp.loaders.onnx.node import Translation, Value

__all__ = ["ELEMENTWISE", "identify", "is_function_of_one"]

Floats = NDArray[np.float64]

#: Operators that work value by value.
ELEMENTWISE = {
    "Abs",
    "Add",
    "Cast",
    "Celu",
    "Clip",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Log",
    "Max",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "Pow",
    "Reciprocal",
    "Relu",
    "Selu",
    "Sigmoid",
    "Sign",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
}
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
    for base in _ancestors(node, translation):
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
        all(_leads(name, base, translation) for name in node.input if name) for base in _ancestors(node, translation)
    )


def _leads(name: str, base: str, translation: Translation, steps: int = _MOST_STEPS) -> bool:
    """Tell whether a value is the base or a constant, or made of nothing else value by value."""
    if name == base:
        return True
    if name in translation.constants:
        constant = translation.constants[name]
        return constant.first.size == 1 and not constant.follows_batch and constant.first.dtype.kind in "fi"
    above = translation.producers.get(name)
    if above is None or steps == 0 or above.op_type not in ELEMENTWISE or above.domain not in ("", "ai.onnx"):
        return False
    return all(_leads(source, base, translation, steps - 1) for source in above.input if source)


def _ancestors(node: NodeProto, translation: Translation) -> list[str]:
    """Return the activations that lead to a node value by value, nearest first."""
    found: list[str] = []
    seen, front = set(node.input), [name for name in node.input if name]
    while front and len(seen) < _MOST_STEPS:
        name = front.pop(0)
        if name in translation.values and name not in translation.pending:
            found.append(name)
        above = translation.producers.get(name)
        if above is not None and above.op_type in ELEMENTWISE:
            front += [name for name in above.input if name and name not in seen]
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
            if constant.first.size != 1 or constant.follows_batch or constant.first.dtype.kind not in "fi":
                raise _NoCurve
            inputs.append(constant.first.astype(np.float64).reshape(()))
        else:
            above = translation.producers.get(name)
            if above is None or above.op_type not in ELEMENTWISE or above.domain not in ("", "ai.onnx"):
                raise _NoCurve
            known[name] = _curve(above, translation, known)
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
