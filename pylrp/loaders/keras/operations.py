"""What Keras's operations on tensors are in :mod:`pylrp.layers`: ``x + y`` or ``keras.ops.relu(x)`` in a model.

``keras/model.py`` comes here through the table in ``keras/builder.py``. An argument is a value of the graph or a
constant.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from pylrp.layers import (
    ELU,
    GELU,
    Affine,
    Divide,
    Exp,
    Function,
    LeakyReLU,
    Log,
    LogSoftmax,
    Multiply,
    Reshape,
    Softmax,
)
from pylrp.loaders.keras.activations import ACTIVATIONS, selu, soft
from pylrp.loaders.keras.builder import Builder, Value, reads
from pylrp.loaders.keras.joining import concatenate, joined, total

__all__: list[str] = []

operation = partial(reads, module="ops")


def scaled(build: Builder, name: str, value: Value, scale: Any = 1.0, shift: Any = 0.0) -> Value:
    """Add ``value * scale + shift``."""
    return build.emit(name, Affine(build.constant(value, scale), build.constant(value, shift)), value)


@operation("Add")
def add(build: Builder, op: Any, name: str, one: Any, other: Any) -> Value:
    """Two values, or a value and a constant."""
    if isinstance(one, Value) and isinstance(other, Value):
        return total(build, op, name, (one, other))
    return scaled(build, name, one, shift=other) if isinstance(one, Value) else scaled(build, name, other, shift=one)


@operation("Subtract")
def subtract(build: Builder, op: Any, name: str, one: Any, other: Any) -> Value:
    """Two values, or a value and a constant."""
    if isinstance(one, Value) and isinstance(other, Value):
        return total(build, op, name, (one, scaled(build, f"{name}.negative", other, -1.0)))
    if isinstance(one, Value):
        return scaled(build, name, one, shift=-build.array(other))
    return scaled(build, name, other, -1.0, one)


@operation("Multiply")
def multiply(build: Builder, op: Any, name: str, one: Any, other: Any) -> Value:
    """Two values, or a value and a constant."""
    if isinstance(one, Value) and isinstance(other, Value):
        return joined(build, op, name, Multiply(), one, other)
    return scaled(build, name, one, other) if isinstance(one, Value) else scaled(build, name, other, one)


@operation("Divide", "TrueDivide")
def divide(build: Builder, op: Any, name: str, one: Any, other: Any) -> Value:
    """By a constant, or by another value."""
    if isinstance(other, Value):
        if not isinstance(one, Value):
            build.refuse(name, op, "divides a constant by a value, which can't be explained")
        return joined(build, op, name, Divide(), one, other)
    return scaled(build, name, one, 1 / build.array(other))


@operation("Negative")
def negative(build: Builder, op: Any, name: str, value: Value) -> Value:
    """Times -1."""
    return scaled(build, name, value, -1.0)


@operation("ConvertToTensor")
def itself(build: Builder, op: Any, name: str, value: Value) -> Value:
    """What is a tensor already, as masks are."""
    return value


@operation("Concatenate")
def join(build: Builder, op: Any, name: str, values: list[Value]) -> Value:
    """Along any axis."""
    joined: Value = concatenate(build, op, name, *values)
    return joined


@operation("Reshape")
def reshape(build: Builder, op: Any, name: str, value: Value) -> Value:
    """In Keras's order; the batch is the first entry."""
    value = build.in_order(value)
    whole = math.prod(build.shapes[value.name])
    shape = list(op.newshape[1:])
    if shape.count(-1) == 1 and op.newshape[0] != -1:
        shape[shape.index(-1)] = whole // -math.prod(shape)
    if op.newshape[0] not in (-1, None, 1) or math.prod(shape) != whole:
        build.refuse(name, op, f"makes the shape {op.newshape}, where the first entry must be -1 for the batch")
    return build.emit(name, Reshape(tuple(shape)), value)


@operation("Relu", "Relu6", "Silu", "HardSilu", "HardSigmoid", "HardTanh", "Sigmoid", "Tanh", "Softplus", "Exp", "Log")
def activation(build: Builder, op: Any, name: str, value: Value) -> Value:
    """A function without settings."""
    plain = {"exp": Exp, "log": Log, **{function.replace("_", ""): make for function, make in ACTIVATIONS.items()}}
    return build.emit(name, plain[type(op).__name__.lower()](), value)


#: Functions without settings, by their classes.
_FORMULAS = {
    "Square": "x * x",
    "Absolute": "abs(x)",
    **{name: f"{name.lower()}(x)" for name in ("Sin", "Cos", "Tan", "Sinh", "Cosh", "Sqrt", "Expm1", "Log1p", "Sign")},
    **{f"Arc{name}": f"a{name}(x)" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{name: f"{name.lower()}(x)" for name in ("Erf", "Floor", "Ceil")},
    "Rsqrt": "1 / sqrt(x)",
    "Reciprocal": "1 / x",
    "Log2": f"log(x) / {math.log(2)!r}",
    "Log10": f"log(x) / {math.log(10)!r}",
    "Exp2": f"exp(x * {math.log(2)!r})",
}


@operation(*_FORMULAS)
def function(build: Builder, op: Any, name: str, value: Value) -> Value:
    """A function of one value without settings."""
    return build.emit(name, Function(_FORMULAS[type(op).__name__]), value)


@operation("Softsign", "LogSigmoid", "TanhShrink", "SparsePlus", "SparseSigmoid")
def known_function(build: Builder, op: Any, name: str, value: Value) -> Value:
    """A function that is an activation, too."""
    plain = {known.replace("_", ""): make for known, make in ACTIVATIONS.items()}
    return build.emit(name, plain[type(op).__name__.lower()](), value)


@operation("HardShrink")
def hard_shrink(build: Builder, op: Any, name: str, value: Value) -> Value:
    """0 between two bounds."""
    return build.emit(name, Function(f"where(abs(x) > {float(op.threshold)!r}, x, 0)"), value)


@operation("SoftShrink")
def soft_shrink(build: Builder, op: Any, name: str, value: Value) -> Value:
    """0 between two bounds, and so much nearer to 0 beyond them."""
    t = repr(float(op.threshold))
    return build.emit(name, Function(f"where(x > {t}, x - {t}, where(x < -{t}, x + {t}, 0))"), value)


@operation("Squareplus")
def squareplus(build: Builder, op: Any, name: str, value: Value) -> Value:
    """A smooth ReLU with a parameter."""
    return build.emit(name, Function(f"(x + sqrt(x * x + {float(op.b)!r})) / 2"), value)


@operation("Maximum", "Minimum", "Power")
def with_number(build: Builder, op: Any, name: str, one: Any, other: Any) -> Value:
    """A value and a number, either first."""
    kind = {"Maximum": "max", "Minimum": "min", "Power": "pow"}[type(op).__name__]
    if isinstance(one, Value) and isinstance(other, Value):
        build.refuse(name, op, "joins two values in a way that can't be explained")
    value, given = (one, build.array(other)) if isinstance(one, Value) else (other, build.array(one))
    if given.size != 1:
        build.refuse(name, op, f"takes an array of shape {given.shape}, numbers can be explained")
    operands = ["x", repr(float(given.reshape(())))]
    order = operands if isinstance(one, Value) else operands[::-1]
    return build.emit(name, Function(f"{kind}({', '.join(order)})"), value)


@operation("LeakyRelu")
def leaky_relu(build: Builder, op: Any, name: str, value: Value) -> Value:
    """One slope."""
    return build.emit(name, LeakyReLU(float(op.negative_slope)), value)


@operation("Elu")
def elu(build: Builder, op: Any, name: str, value: Value) -> Value:
    """Along alpha * (exp(x) - 1) below 0."""
    return build.emit(name, ELU(float(op.alpha)), value)


@operation("Gelu")
def gelu(build: Builder, op: Any, name: str, value: Value) -> Value:
    """With tanh by default, unlike the layers' "gelu"."""
    return build.emit(name, GELU(bool(op.approximate)), value)


@operation("Selu")
def scaled_elu(build: Builder, op: Any, name: str, value: Value) -> Value:
    """Two layers."""
    return selu(build, name, value)


@operation("Softmax", "LogSoftmax")
def softmax(build: Builder, op: Any, name: str, value: Value) -> Value:
    """Along one axis."""
    if not isinstance(op.axis, int):
        build.refuse(name, op, f"goes along the axes {op.axis}, one can be explained")
    return soft(build, name, Softmax if type(op).__name__ == "Softmax" else LogSoftmax, op.axis, value)
