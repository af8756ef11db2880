"""Operators that onnxruntime's optimiser writes (domain com.microsoft): layers joined with what follows them.

Each becomes the layers that it was before, so that the optimised model has the map of the model it was made of. What
lays values and weights out for one processor (com.microsoft.nchwc), ``refusals.py`` refuses.
:data:`FUSED` is part of the table that ``onnx/reader.py`` looks operators up in.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence

import numpy as np

from pylrp.layers import (
    ELU,
    GELU,
    Add,
    Affine,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from pylrp.layers.base import product
from pylrp.loaders.contraction import Contraction
from pylrp.loaders.onnx.arithmetic import clip
from pylrp.loaders.onnx.convolutions import conv
from pylrp.loaders.onnx.matrices import contracted
from pylrp.loaders.onnx.node import Call, Value
from pylrp.loaders.onnx.operators import SELU, gemm, scaled

__all__ = ["FUSED"]

Translate = Callable[[Call], Value]
_QUICK = 1.702  # QuickGelu's default of alpha


def _clip(low: float, high: float) -> Layer:
    most = float(np.finfo(np.float32).max)  # written where there is no bound
    return clip(low if low > -most else -math.inf, high if high < most else math.inf)


#: Functions by their names in ``activation``: what their settings are where nothing is said, and the layers.
_FUNCTIONS: dict[str, tuple[tuple[float, ...], Callable[..., list[Layer]]]] = {
    "Clip": ((-math.inf, math.inf), lambda low, high: [_clip(low, high)]),
    "Elu": ((1.0,), lambda alpha: [ELU(alpha)]),
    "HardSigmoid": ((0.2, 0.5), lambda alpha, beta: [HardSigmoid(alpha, beta)]),
    "HardSwish": ((), lambda: [HardSwish()]),
    "LeakyRelu": ((0.01,), lambda alpha: [LeakyReLU(alpha)]),
    "Relu": ((), lambda: [ReLU()]),
    "Selu": (SELU, lambda alpha, gamma: [ELU(alpha), Affine(gamma, 0.0)]),
    "Sigmoid": ((), lambda: [Sigmoid()]),
    "Softplus": ((), lambda: [Softplus()]),
    "Tanh": ((), lambda: [Tanh()]),
}


def _activated(call: Call, value: Value, settings: Sequence[float | None]) -> Value:
    """Emit the function in ``activation``; settings that are None or missing have their defaults."""
    name = call.attribute("activation", "")
    if not name:
        return value
    if name not in _FUNCTIONS:
        raise call.unsupported(f"has the activation {name}")
    defaults, make = _FUNCTIONS[name]
    given = [*settings, *[None] * len(defaults)]
    layers = make(*(default if v is None else v for default, v in zip(defaults, given, strict=False)))
    for number, layer in enumerate(layers):
        value = call.emit(layer, value, part=name if number == 0 else f"{name}{number}")
    return value


def _conv(call: Call) -> Value:
    """Translate a convolution, perhaps with a sum and a function behind it."""
    value = conv(call)
    if call.has(3):
        value = call.emit(Add(), value, call.value(3), part="Add")
    return _activated(call, value, call.attribute("activation_params", ()))


def _gemm(call: Call) -> Value:
    settings = [call.attribute(f"activation_{name}") for name in ("alpha", "beta", "gamma")]
    if call.attribute("activation") == "Selu":
        settings = [settings[0], settings[2]]
    return _activated(call, gemm(call), settings)


def _matmul(call: Call) -> Value:
    """Translate a product of matrices, either of which may be given transposed, by a constant."""
    at = 1 if call.is_constant(0) else 0  # of the value
    if not call.is_constant(1 - at):
        raise call.unsupported("multiplies values that are both computed")
    if call.attribute("transBatchA", 0) or call.attribute("transBatchB", 0):
        raise call.mixes_batch("moves the batch axis")
    shape, rank = call.weight(1 - at).shape, len(call.value(at).shape)
    turned = [bool(call.attribute(name, 0)) for name in ("transA", "transB")]
    if product(shape[:-2]) != 1 or len(shape) < 2 or len(shape) > rank + 1:
        raise call.unsupported(f"multiplies by an array of shape {shape}")
    if rank < 2 and (turned[at] or at):
        raise call.mixes_batch("moves the batch axis")
    axes = string.ascii_lowercase[:rank]
    letters = f"{axes[:-2]}{axes[-1]}{axes[-2]}" if turned[at] else axes
    summed = letters[-2] if at else letters[-1]
    constant = f"Z{summed}" if turned[1 - at] != bool(at) else f"{summed}Z"
    value = contracted(
        call, Contraction.of(axes, constant, letters.replace(summed, "Z")), 1 - at, call.viewed(at), shape[-2:]
    )
    alpha = call.attribute("alpha", 1.0)
    return value if alpha == 1 else call.emit(Affine(alpha, 0.0), value, part="alpha")


def _gelu(approximate: bool) -> Translate:
    def translate(call: Call) -> Value:
        value = call.value()
        if call.has(1):  # a bias
            value = call.emit(Affine(1.0, call.weight(1)), value, part="bias")
        return call.emit(GELU(approximate=approximate), value)

    return translate


def _quick_gelu(call: Call) -> Value:
    alpha = call.attribute("alpha", _QUICK)
    if alpha == 0:
        raise call.unsupported("has alpha=0")
    return scaled(call, alpha, SiLU(), 1 / alpha)


FUSED: dict[str, Translate] = {
    "com.microsoft.BiasGelu": _gelu(approximate=False),
    "com.microsoft.FastGelu": _gelu(approximate=True),
    "com.microsoft.FusedConv": _conv,
    "com.microsoft.FusedGemm": _gemm,
    "com.microsoft.FusedMatMul": _matmul,
    "com.microsoft.Gelu": _gelu(approximate=False),
    "com.microsoft.QuickGelu": _quick_gelu,
    "com.microsoft.TransposeMatMul": _matmul,
}
