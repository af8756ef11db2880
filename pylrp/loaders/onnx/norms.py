"""ONNX operators that normalise by a statistic of the sample: LayerNormalization and its kin, onnxruntime's own too.

Each function translates one node, see ``onnx/node.py``; :data:`NORMS` is part of the table of ``onnx/operators.py``.
Those that are written out in arithmetic ``onnx/normalisations.py`` finds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Add, Affine, GroupNorm, InstanceNorm, Layer, LayerNorm, Normalize, RMSNorm
from pylrp.loaders.onnx.arithmetic import alike, operand
from pylrp.loaders.onnx.node import Call, Value

__all__ = ["NORMS"]

Array = NDArray[Any]
Translate = Callable[[Call], Value | list[Value] | None]
_PRODUCTS = ("MatMul", "FusedMatMul", "Gemm")


def _over(call: Call, position: int, axes: tuple[int, ...]) -> Array | None:
    """Return a constant that broadcasts to the last axes of a value, without the axes in front of them."""
    if not call.has(position):
        return None
    array = call.weight(position)
    extra = array.ndim - len(axes)
    if extra > 0 and any(n != 1 for n in array.shape[:extra]):
        raise call.unsupported(f"has an array of shape {array.shape}, which varies along axes it does not normalise")
    return array.reshape(array.shape[max(extra, 0) :])


def _last_axes(call: Call) -> tuple[int, ...]:
    rank = call.viewed().rank
    return tuple(call.axis(axis) for axis in range(call.axis_in_file(call.attribute("axis", -1), rank), rank))


def _layer_norm(call: Call) -> Value:
    axes = _last_axes(call)
    layer = LayerNorm(_over(call, 1, axes), _over(call, 2, axes), axes=axes, epsilon=call.attribute("epsilon", 1e-5))
    return call.emit(layer, call.viewed())


def _rms_norm(call: Call) -> Value:
    axes = _last_axes(call)
    return call.emit(RMSNorm(_over(call, 1, axes), axes=axes, epsilon=call.attribute("epsilon", 1e-5)), call.viewed())


def _group_norm(call: Call) -> Value:
    groups, channels = call.required("num_groups"), call.value().shape[0]

    def per_channel(position: int) -> Array:
        array = call.weight(position)
        # Before opset 21 one for each group.
        if call.opset < 21 and array.size == groups != channels and groups > 0:
            return np.repeat(array, channels // groups)
        return array

    layer = GroupNorm(per_channel(1), per_channel(2), groups=groups, epsilon=call.attribute("epsilon", 1e-5))
    return call.emit(layer, call.value())


def _instance_norm(call: Call) -> Value:
    scale, shift = call.weight(1), call.weight(2)
    # An exporter that has none writes ones and zeros.
    arrays = () if np.all(scale == 1) and not np.any(shift) else (scale, shift)
    layer = InstanceNorm(*arrays, epsilon=call.attribute("epsilon", 1e-5))
    return call.emit(layer, call.value())


def _lp_norm(call: Call) -> Value:
    p = call.attribute("p", 2)
    if p not in (1, 2):
        raise call.broken(f"has p={p}")
    return call.emit(Normalize("l1" if p == 1 else "l2", call.axis(call.attribute("axis", -1))), call.viewed())


def _mean_variance(call: Call) -> Value:
    axes = [call.axis(axis) for axis in call.attribute("axes", [0, 2, 3])]
    return call.emit(LayerNorm(axes=axes, epsilon=1e-9, epsilon_at="outside"), call.viewed())


def _sum_of_two(call: Call, bias: int | None) -> Value:
    """Emit the sum of two inputs and a bias, which is that of the product with weights among them."""
    values = [call.value(0), call.value(1)] if not call.is_constant(1) else [call.value(0)]
    made = [call.translation.producers.get(name) for name in call.node.input[:2]]
    products = [at for at, node in enumerate(made) if node is not None and node.op_type in _PRODUCTS]
    own = products[0] if bias is not None and len(products) == 1 else None
    if bias is not None and own is not None:
        values[own] = call.emit(Affine(1.0, call.weight(bias)), values[own], part="bias")
    if len(values) == 1:  # a table of positions
        total = call.emit(Affine(1.0, np.asarray(operand(call, 1, values[0]), call.translation.constants.dtype)),
                          *values, part="sum")  # fmt: skip
    else:
        total = call.emit(Add(), *alike(call, values), part="sum")
    if bias is not None and own is None:
        total = call.emit(Affine(1.0, call.weight(bias)), total, part="bias")
    return total


def _skip(kind: type[LayerNorm], shifted: bool) -> Translate:
    """Translate a sum of two values, perhaps with a bias, and the norm of it."""

    def translate(call: Call) -> Value:
        bias = 4 if shifted else 3
        total = _sum_of_two(call, bias if call.has(bias) else None)
        if len(call.node.output) > 3 and call.node.output[3]:
            call.translation.values[call.node.output[3]] = total
        axes = (len(total.shape) - 1,)
        scale, epsilon = _over(call, 2, axes), call.attribute("epsilon", 1e-12)
        layer: Layer = kind(scale, _over(call, 3, axes) if shifted else None, axes=axes, epsilon=epsilon)
        return call.emit(layer, total)

    return translate


NORMS: dict[str, Translate] = {
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance,
    "RMSNormalization": _rms_norm,
    "SimplifiedLayerNormalization": _rms_norm,
    "com.microsoft.SimplifiedLayerNormalization": _rms_norm,
    "com.microsoft.SkipLayerNormalization": _skip(LayerNorm, shifted=True),
    "com.microsoft.SkipSimplifiedLayerNormalization": _skip(RMSNorm, shifted=False),
}
