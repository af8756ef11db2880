"""What Keras's activations are in :mod:`pylrp.layers`: as layers, and as functions that other layers apply.

``keras/layers.py`` calls in for the ``activation`` of a layer, ``keras/model.py`` through the table in
``keras/builder.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pylrp.layers import (
    ELU,
    GELU,
    Affine,
    Clip,
    Exp,
    Flatten,
    Function,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Reshape,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from pylrp.loaders.keras.builder import Builder, Value, convert, reads

__all__ = ["ACTIVATIONS", "activated", "selu", "soft"]

#: Keras's activation functions with their defaults; "linear", "softmax" and "selu" are written out below.
ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    "relu": ReLU,
    "relu6": ReLU6,
    "leaky_relu": lambda: LeakyReLU(0.2),
    "elu": ELU,
    "celu": ELU,
    "gelu": GELU,
    "silu": SiLU,
    "hard_silu": HardSwish,
    "hard_sigmoid": HardSigmoid,
    "hard_tanh": lambda: Clip(-1.0, 1.0),
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "softplus": Softplus,
    "exponential": Exp,
    "mish": Mish,
    "softsign": lambda: Function("x / (1 + abs(x))"),
    "log_sigmoid": lambda: Function("-softplus(-x)"),
    "hard_shrink": lambda: Function("where(abs(x) > 0.5, x, 0)"),
    "soft_shrink": lambda: Function("where(x > 0.5, x - 0.5, where(x < -0.5, x + 0.5, 0))"),
    "tanh_shrink": lambda: Function("x - tanh(x)"),
    "squareplus": lambda: Function("(x + sqrt(x * x + 4)) / 2"),
    "sparse_plus": lambda: Function("where(x < -1, 0, where(x > 1, x, (x + 1) ** 2 / 4))"),
    "sparse_sigmoid": lambda: HardSigmoid(0.5, 0.5),
}


def activated(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Apply the function that a layer has as its ``activation``."""
    return apply(build, layer, name, layer.activation, value)


def apply(build: Builder, layer: Any, name: str, function: Any, value: Value, *, own: bool = False) -> Value:
    """Apply an activation function; ``own``: it is the whole layer and has its name."""
    known = getattr(function, "__name__", type(function).__name__)
    place = name if own else f"{name}.{known}"
    if function is None or known == "linear":
        return value
    if hasattr(function, "get_config"):  # a layer in place of a function
        found: Value = convert(build, function, place, value)
        return found
    if getattr(function, "__module__", "").startswith("keras."):
        if known in ACTIVATIONS:
            return build.emit(place, ACTIVATIONS[known](), value)
        if known in ("softmax", "log_softmax"):
            return soft(build, place, Softmax if known == "softmax" else LogSoftmax, -1, value)
        if known == "selu":
            return selu(build, place, value)
    way_out = (
        "leave it out there and put keras.layers.Activation behind the layer, for which you give a layer of your own, "
        "pylrp.load(..., operators={'Activation': function}), where function(keras_layer) returns a pylrp.layers.Layer"
    )
    reason = f"has an activation {known!r} that can't be explained"
    build.refuse(name, layer, reason, None if own else way_out)


def selu(build: Builder, name: str, value: Value) -> Value:
    """Add an ELU with its two constants."""
    value = build.emit(f"{name}.elu", ELU(1.6732632423543772), value)
    return build.emit(name, Affine(1.0507009873554805, 0.0), value)


def soft(build: Builder, name: str, kind: type[Softmax], axis: int, value: Value) -> Value:
    """Add a softmax. It is at the top or can't be explained, so nothing must move after it."""
    value = build.in_order(value)
    return build.emit(name, kind(build.axis(value, axis)), value)


@reads("Activation")
def activation(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """A function by name."""
    return apply(build, layer, name, layer.activation, value, own=True)


@reads("ReLU")
def relu(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """With a slope below 0 and a bound above."""
    slope, bound = float(layer.negative_slope or 0.0), layer.max_value
    if layer.threshold:
        build.refuse(name, layer, f"has a threshold of {layer.threshold}, which can't be explained")
    if slope:
        value = build.emit(name, LeakyReLU(slope), value)
        return value if bound is None else build.emit(f"{name}.bound", Clip(high=float(bound)), value)
    return build.emit(name, ReLU() if bound is None else Clip(0.0, float(bound)), value)


@reads("LeakyReLU")
def leaky_relu(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """One slope."""
    return build.emit(name, LeakyReLU(float(layer.negative_slope)), value)


@reads("ELU")
def elu(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Along alpha * (exp(x) - 1) below 0."""
    return build.emit(name, ELU(float(layer.alpha)), value)


@reads("PReLU")
def prelu(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """A slope for each channel, or, where axes are not shared, for each place."""
    value = build.to_front(value)
    slope = build.constant(value, layer.alpha)
    if slope.size in (1, slope.shape[0] if slope.ndim else 1):
        return build.emit(name, PReLU(slope.reshape(-1) if slope.ndim else slope), value)
    shape = build.shapes[value.name]
    slope = np.ascontiguousarray(np.broadcast_to(slope, shape)).reshape(-1)
    flat = build.emit(f"{name}.flatten", Flatten(), value)
    return build.emit(f"{name}.reshape", Reshape(shape), build.emit(name, PReLU(slope), flat))


@reads("Softmax")
def softmax(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Along one axis."""
    axes = layer.axis if isinstance(layer.axis, tuple | list) else [layer.axis]
    if len(axes) != 1:
        build.refuse(name, layer, f"goes along {len(axes)} axes, which can't be explained")
    return soft(build, name, Softmax, axes[0], value)
