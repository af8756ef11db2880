"""ONNX operator -> the function that translates it: layers with weights, pools and activations here, the rest joined.

Each function reads one node through ``onnx/node.py`` and emits layers of ``pylrp.layers``; ``onnx/reader.py`` looks
operators up in :data:`OPERATORS`.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from pylrp.layers import (
    ELU,
    GELU,
    Activation,
    Affine,
    AveragePool,
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    HardSigmoid,
    HardSwish,
    Identity,
    Layer,
    LeakyReLU,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool,
    Mish,
    PReLU,
    ReLU,
    Reshape,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from pylrp.layers.base import product
from pylrp.loaders.contraction import Contraction, dense_along
from pylrp.loaders.onnx.arithmetic import ARITHMETIC, clip, curve
from pylrp.loaders.onnx.attention import ATTENTION
from pylrp.loaders.onnx.choices import CHOICES
from pylrp.loaders.onnx.convolutions import CONVOLUTIONS, over_space, padding
from pylrp.loaders.onnx.matrices import MATRICES
from pylrp.loaders.onnx.ml import CLASSICAL
from pylrp.loaders.onnx.movement import MOVEMENT
from pylrp.loaders.onnx.node import Call, Value, type_name
from pylrp.loaders.onnx.norms import NORMS
from pylrp.loaders.onnx.recurrent import RECURRENT
from pylrp.loaders.onnx.rotary import ROTARY
from pylrp.loaders.onnx.transforms import TRANSFORMS
from pylrp.loaders.onnx.views import PLAIN

__all__ = ["FLOATS", "OPERATORS", "SELU", "gemm", "scaled"]

Array = NDArray[Any]
Translate = Callable[[Call], Value | list[Value] | None]

SELU = 1.6732632423543772, 1.0507009873554805  # what ONNX's defaults stand for
#: The element types that are computed with.
FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}


def gemm(call: Call) -> Value:
    """Emit a Gemm."""
    value = call.viewed()
    if value.rank != 2 or value.view.batch != 0 or call.attribute("transA", 0):
        raise call.mixes_batch("moves the batch axis")
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)

    def make(weight: Array) -> Array:
        rows = weight if call.attribute("transB", 0) else weight.T
        return rows if alpha == 1 else rows * rows.dtype.type(alpha)

    weight = call.weight(1, f"Gemm {call.attribute('transB', 0)} {alpha}", make)
    bias = None
    if call.has(2):
        given = call.weight(2) if beta == 1 else call.weight(2) * call.weight(2).dtype.type(beta)
        if given.ndim == 2 and len(given) > 1:
            raise call.mixes_batch(f"has a bias of shape {given.shape}, another one for each sample of the batch")
        if given.ndim > 2 or given.shape[-1:] not in ((), (1,), (len(weight),)):
            raise call.unsupported(f"has a bias of shape {given.shape} for {len(weight)} outputs")
        bias = given.ravel() if given.size == len(weight) else np.full(len(weight), given.ravel()[0])
    if len(value.shape) == 1:
        return call.emit(Dense(weight, bias), value)
    axes = string.ascii_lowercase[: len(value.shape)]  # rows of the file are positions of samples
    meeting = Contraction.of(axes, f"Z{axes[-1]}", f"{axes[:-1]}Z")
    for part, layer in meeting.layers(value.shape, weight.shape, lambda count: dense_along(count, weight, bias)):
        value = call.emit(layer, value, part=part)
    return value


def _batch_norm(call: Call) -> Value:
    call.require_inference()
    value = call.viewed()
    scale, shift, mean, variance = (call.weight(position) for position in range(1, 5))
    layer = BatchNorm(scale, shift, mean, variance, call.attribute("epsilon", 1e-5))
    if value.view == PLAIN:
        return call.emit(layer, value)
    channels = call.axis(1)  # of (batch * tokens, channels), for example
    if scale.shape != (value.shape[channels],):
        raise call.broken(f"has {scale.size} scales for {value.shape[channels]} channels")
    sizes = [n if axis == channels else 1 for axis, n in enumerate(value.shape)]
    factor, added = (array.astype(scale.dtype).reshape(sizes) for array in layer.affine64())
    return call.emit(Affine(factor, added), value)


def _dropout(call: Call) -> Value:
    call.require_inference()
    return call.emit(Dropout(), call.viewed())


def _windows(call: Call, steps: int) -> dict[str, Any]:
    """Return a pool's windows; of ``steps`` axes in front of its own each place is a window."""
    one, kernel = [1] * steps, call.required("kernel_shape")
    return {
        "kernel": [*one, *kernel],
        "stride": [*one, *call.attribute("strides", [1] * len(kernel))],
        "padding": padding(call, steps, len(kernel)),
        "dilation": [*one, *call.attribute("dilations", [1] * len(kernel))],
        "ceil_mode": bool(call.attribute("ceil_mode", 0)),
    }


def _max_pool(call: Call) -> Value:
    return over_space(call, lambda steps: MaxPool(**_windows(call, steps)))


def _average_pool(call: Call) -> Value:
    padded = bool(call.attribute("count_include_pad", 0))
    return over_space(call, lambda steps: AveragePool(**_windows(call, steps), count_include_pad=padded))


def _global_pool(whole: type[Layer], windows: type[MaxPool] | type[AveragePool]) -> Translate:
    def translate(call: Call) -> Value:
        sizes = call.viewed().shape[2:]
        return over_space(call, lambda steps: windows([1, *sizes]) if steps else whole())

    return translate


def _softmax(kind: type[Softmax]) -> Translate:
    def translate(call: Call) -> Value:
        value = call.viewed()
        if call.opset >= 13:
            return call.emit(kind(call.axis(call.attribute("axis", -1))), value)
        value = call.value()
        axis = call.axis(call.attribute("axis", 1))  # all axes from this one on are one
        if product(value.shape[:axis]) == 1 and product(value.shape) > max(value.shape):
            return call.emit_all([("flatten", Flatten()), ("softmax", kind(0)), ("", Reshape(value.shape))], value)
        if product(value.shape[axis + 1 :]) == 1:
            return call.emit(kind(axis), value)
        merged = [("flatten", Flatten(axis)), ("softmax", kind(axis)), ("", Reshape(value.shape))]
        return call.emit_all(merged, value)

    return translate


def _prelu(call: Call) -> Value:
    value = call.value()
    slope = call.weight(1)
    rank = len(value.shape)
    if slope.size == 1:
        return call.emit(PReLU(slope.reshape(())), value)
    if slope.ndim == 1 and call.opset < 7:  # one for each channel
        return call.emit(PReLU(slope), value)
    if slope.ndim > rank and (slope.ndim > rank + 1 or len(slope) > 1):
        raise call.mixes_batch(f"has slopes of shape {slope.shape}, others for each sample of the batch")
    full = slope.reshape((1,) * (rank - slope.ndim) + slope.shape) if slope.ndim <= rank else slope[0]
    if full.size != full.shape[0]:
        raise call.unsupported(f"has slopes of shape {slope.shape}, not one for each channel")
    return call.emit(PReLU(full.reshape(-1)), value)


def _clip(call: Call) -> Value | None:
    if call.node.input[0] in call.translation.pending:
        return curve(call)
    low, high = call.setting("min", 1, -np.inf), call.setting("max", 2, np.inf)
    return call.emit(clip(float(np.ravel(low)[0]), float(np.ravel(high)[0])), call.viewed())


def _cast(call: Call) -> Value | None:
    kind = call.required("to")
    if call.node.input[0] in call.translation.pending or kind == TensorProto.BOOL:
        return curve(call)
    if kind not in FLOATS:
        raise call.unsupported(f"makes {type_name(kind)} of its input")
    return call.emit(Identity(), call.viewed())


def _cast_like(call: Call) -> Value | None:
    name = call.node.input[1] if call.has(1) else ""
    if name in call.translation.constants:  # activations are floating-point
        kind = call.translation.constants[name].first.dtype
        if kind.kind != "f":
            raise call.unsupported(f"makes {kind} of its input")
    return curve(call) if call.node.input[0] in call.translation.pending else call.emit(Identity(), call.viewed())


def _alpha(call: Call) -> float:
    """Return a factor by which the input is divided or multiplied on both sides of a function."""
    alpha: float = call.attribute("alpha", 1.0)
    if alpha == 0:
        raise call.unsupported("has alpha=0")
    return alpha


def scaled(call: Call, before: float, layer: Activation, after: float) -> Value:
    """Emit ``after * layer(before * x)``."""
    steps: list[tuple[str, Layer]] = [("before", Affine(before, 0.0))] if before != 1 else []
    steps += [("activation", layer)]
    steps += [("after", Affine(after, 0.0))] if after != 1 else []
    return call.emit_all(steps, call.viewed())


def _activation(make: Callable[[Call], Layer]) -> Translate:
    def translate(call: Call) -> Value | None:
        if call.node.input[0] in call.translation.pending:
            return curve(call)
        return call.emit(make(call), call.viewed())

    return translate


OPERATORS: dict[str, Translate] = {
    **ARITHMETIC,
    **ATTENTION,
    **CHOICES,
    **MATRICES,
    **MOVEMENT,
    **CLASSICAL,
    **CONVOLUTIONS,
    **TRANSFORMS,
    **NORMS,
    **RECURRENT,
    **ROTARY,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Celu": lambda call: scaled(call, 1 / _alpha(call), ELU(), _alpha(call)),
    "Clip": _clip,
    "Dropout": _dropout,
    "Elu": _activation(lambda call: ELU(call.attribute("alpha", 1.0))),
    "Gelu": _activation(lambda call: GELU(approximate=call.attribute("approximate", "none") == "tanh")),
    "Gemm": gemm,
    "GlobalAveragePool": _global_pool(GlobalAveragePool, AveragePool),
    "GlobalMaxPool": _global_pool(GlobalMaxPool, MaxPool),
    "HardSigmoid": _activation(lambda call: HardSigmoid(call.attribute("alpha", 0.2), call.attribute("beta", 0.5))),
    "HardSwish": _activation(lambda call: HardSwish()),
    "Identity": _activation(lambda call: Identity()),
    "LRN": lambda call: call.emit(
        LocalResponseNorm(
            call.required("size"),
            call.attribute("alpha", 1e-4),
            call.attribute("beta", 0.75),
            call.attribute("bias", 1.0),
        ),
        call.value(),
    ),
    "LeakyRelu": _activation(lambda call: LeakyReLU(call.attribute("alpha", 0.01))),
    "LogSoftmax": _softmax(LogSoftmax),
    "MaxPool": _max_pool,
    "Mish": _activation(lambda call: Mish()),
    "PRelu": _prelu,
    "Relu": _activation(lambda call: ReLU()),
    "Selu": lambda call: scaled(call, 1.0, ELU(call.attribute("alpha", SELU[0])), call.attribute("gamma", SELU[1])),
    "Sigmoid": _activation(lambda call: Sigmoid()),
    "Softmax": _softmax(Softmax),
    "Softplus": _activation(lambda call: Softplus()),
    "Swish": lambda call: scaled(call, _alpha(call), SiLU(), 1 / _alpha(call)),
    "Tanh": _activation(lambda call: Tanh()),
}
