"""Nodes of an ONNX model of which all inputs are constant, computed when the model is loaded.

onnx's own evaluator runs them, but only the operators that it computes as the standard says in every opset; what it
gets wrong is written out here where it is short, or refused. An array with the batch along an axis, as exporters write
``zeros_like(x)``, is made for one sample. ``onnx/reader.py`` calls :func:`fold`, ``onnx/constants.py`` keeps what comes
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.errors import UnsupportedLayer
from pylrp.loaders.onnx.constants import BATCHES, Constant
from pylrp.loaders.onnx.masks_rounded import require_steps
from pylrp.loaders.onnx.node import Call
from pylrp.loaders.onnx.quantised import WEIGHTS, dequantised, note, whole_numbers
from pylrp.loaders.onnx.resized import resized
from pylrp.loaders.onnx.sides import fixed
from pylrp.loaders.onnx.views import Times
from pylrp.network.side_operators import OPERATORS

__all__ = ["fold"]

Array = NDArray[Any]

_ELEMENTWISE = {
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Elu", "Equal", "Erf", "Exp",
    "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal",
    "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish",
    "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
}  # fmt: skip
#: Which inputs say how large the output is.
_SIZED = {"ConstantOfShape": (0,), "Expand": (1,), "OneHot": (1,), "Pad": (1,), "Range": (0, 1, 2), "Tile": (1,)}
_FOLDED = {
    *_ELEMENTWISE, *_SIZED,
    "Concat", "Constant", "CumSum", "DepthToSpace", "EyeLike", "Flatten", "Gather", "GatherElements", "GatherND",
    "NonZero", "Reshape", "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze",
    "Transpose", "Trilu", "Unsqueeze",
    "ArgMax", "ArgMin", "AveragePool", "Conv", "ConvTranspose", "Einsum", "Gemm", "GlobalAveragePool", "MatMul",
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
    "DequantizeLinear", "QuantizeLinear",
}  # fmt: skip
_FIRST_RESIZE = 10  # of other inputs
#: What may be done with a number that is repeated along the batch.
_MOVED = {"Identity", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
#: Settings with which the evaluator differs from the standard or from onnxruntime.
_APART = {"auto_pad": ("NOTSET", "VALID"), "ceil_mode": (0,), "output_shape": ()}
#: What is computed with the batch size has few entries: sizes, not values.
_MOST_SIZES = 64


def fold(call: Call) -> None:
    """Compute the outputs of a node of which all inputs are constant.

    Raises
    ------
    UnsupportedLayer
        If the operator is not one that is computed here, or would need to know the batch size.
    """
    constants, node = call.translation.constants, call.node
    inputs = [constants[name] if name else None for name in node.input]
    given = [constant for constant in inputs if constant is not None]
    if call.op in ("Identity", "Dropout") and given:  # the same array, not a copy
        call.require_inference()
        constants[node.output[0]] = given[0]
    elif any(constant.per_sample for constant in given):
        _fold_per_sample(call, inputs)
    elif any(constant.follows_batch for constant in given):
        sized = [inputs[i] for i in _SIZED.get(call.op, ()) if i < len(inputs)]
        if any(constant is not None and constant.follows_batch for constant in sized):
            if call.translation.recurrent and _fold_repeated(call):
                return
            array, axis = _without_batch(call)
            constants[node.output[0]] = Constant(array, array, per_sample=True, axis=axis)
            return
        if call.translation.recurrent and call.op in _MOVED and not any(given[0].first.strides):
            _fold_moved(call, inputs)
            return
        if max(constant.first.size for constant in given if constant.follows_batch) > _MOST_SIZES:
            raise _too_large(call)
        arrays = ([None if c is None else getattr(c, which) for c in inputs] for which in ("first", "second"))
        first, second = (_compute(call, values) for values in arrays)
        _keep(call, first, second)
    else:
        made = _compute(call, [None if c is None else c.first for c in inputs])
        _keep(call, made, made)


def _fold_repeated(call: Call) -> bool:
    """Keep one number that is repeated to a size with the batch on another axis than 0: states of zeros."""
    constants = call.translation.constants
    if call.op == "ConstantOfShape":
        number, sizes = constants.fill(call.node), call.sizes(0)
    elif call.op == "Expand" and constants[call.node.input[0]].first.size == 1:
        number, sizes = constants[call.node.input[0]].first.reshape(()), call.sizes(1)
    else:
        return False
    if not sizes or isinstance(sizes[0], Times):
        return False
    shapes = ([n.factor * batch if isinstance(n, Times) else n for n in sizes] for batch in BATCHES)
    first, second = (np.broadcast_to(number, shape) for shape in shapes)  # takes no memory
    _keep(call, [first], [second])
    return True


def _fold_moved(call: Call, inputs: Sequence[Constant | None]) -> None:
    """Compute a part of a repeated number: the same one, of another shape."""
    made = []
    for which in ("first", "second"):
        arrays = [None if constant is None else getattr(constant, which) for constant in inputs]
        number = np.asarray(arrays[0]).reshape(-1)[:1].reshape(())
        made.append(np.broadcast_to(number, OPERATORS[call.op](call.attributes, *arrays).shape))
    _keep(call, made[:1], made[1:])


def _keep(call: Call, first: Sequence[Array], second: Sequence[Array], per_sample: bool = False) -> None:
    for name, one, other in zip(call.node.output, first, second, strict=False):
        if name:
            call.translation.constants[name] = Constant(one, other, per_sample)


def _too_large(call: Call) -> UnsupportedLayer:
    return call.mixes_batch("makes an array as large as the batch, or works on one")


def _without_batch(call: Call) -> tuple[Array, int]:
    """Return for one sample what a node makes as large as the batch says, and the axis that has the batch."""
    constants = call.translation.constants
    if call.op == "ConstantOfShape":
        given, sizes = constants.fill(call.node), call.sizes(0)
    elif call.op in ("Expand", "Tile") and not constants[call.node.input[0]].follows_batch:
        given, sizes = constants[call.node.input[0]].first, call.sizes(1)
    else:
        raise _too_large(call)
    axes = [axis for axis, n in enumerate(sizes) if isinstance(n, Times)]
    if len(axes) != 1:
        raise _too_large(call)
    of_one = [n.factor if isinstance(n, Times) else n for n in sizes]
    if call.op == "Tile":
        if given.ndim != len(sizes):
            raise _too_large(call)
        return np.tile(given, of_one), axes[0]
    own = axes[0] - len(sizes) + given.ndim
    if given.ndim > len(sizes) or (own >= 0 and given.shape[own] != 1):
        raise _too_large(call)
    return np.broadcast_to(given, np.broadcast_shapes(given.shape, tuple(of_one))), axes[0]


def _fold_per_sample(call: Call, inputs: Sequence[Constant | None]) -> None:
    """Compute a node that takes arrays with the batch along an axis, where it leaves samples apart.

    It is computed for batches of 1, 2 and 3 samples: what comes out must be as long, the same for each, or not depend
    on the batch at all.
    """
    constants = call.translation.constants
    if call.op in ("Shape", "Size"):
        given = next(constant for constant in inputs if constant is not None)
        if call.op == "Size":
            constants.size(call.node.output[0], given.first.shape)
        else:
            sizes = [Times(n) if axis == given.axis else n for axis, n in enumerate(given.first.shape)]
            constants.shape(call.node.output[0], sizes, call.attribute("start", 0), call.attribute("end"))
        return
    made = [_compute(call, [None if c is None else _of_batch(call, c, 1) for c in inputs])]
    try:
        made += [_compute(call, [None if c is None else _of_batch(call, c, n) for c in inputs]) for n in (2, 3)]
    except ValueError as error:  # its sizes are those of one sample
        raise _too_large(call) from error
    for name, *arrays in zip(call.node.output, *made, strict=False):
        if not name:
            continue
        one = arrays[0]
        if all(_same(array, one) for array in arrays[1:]):
            constants[name] = Constant(one, one)
            continue
        axis = next((axis for axis in range(one.ndim) if _repeated(arrays, axis)), None)
        if axis is None:
            raise _too_large(call)
        constants[name] = Constant(one, one, per_sample=True, axis=axis)


def _repeated(arrays: Sequence[Array], axis: int) -> bool:
    """Whether arrays for 1, 2, ... samples are the first one as often along an axis."""
    return all(_same(array, np.concatenate([arrays[0]] * n, axis)) for n, array in enumerate(arrays, start=1))


def _of_batch(call: Call, constant: Constant, batch: int) -> Array:
    """Return a constant as it is for so many samples."""
    if constant.follows_batch and constant.first.dtype.kind != "i":
        raise _too_large(call)
    if constant.per_sample:
        return np.concatenate([constant.first] * batch, constant.axis)
    return fixed(constant).for_batch(batch)


def _same(one: Array, other: Array) -> bool:
    """Whether arrays are equal, but for the order in which sums of more or fewer rows are rounded."""
    if one.shape != other.shape:
        return False
    equal = (one == other) | ((one != one) & (other != other))
    if one.dtype.kind == "f" and not equal.all():
        finite = np.where(np.isfinite(other), np.abs(other), 0)
        with np.errstate(invalid="ignore"):
            equal |= np.abs(one - other) <= 16 * np.finfo(one.dtype).eps * finite.max(initial=0)
    return bool(equal.all())


def _compute(call: Call, inputs: Sequence[Array | None]) -> list[Array]:
    if call.op == "BatchNormalization" and len(inputs) == 5:
        call.require_inference()
        return [_batch_norm(*inputs, epsilon=call.attribute("epsilon", 1e-5))]
    if call.node.op_type == "DequantizeLinear" and len(inputs) > 1 and inputs[0] is not None and inputs[1] is not None:
        note(call, WEIGHTS)
        require_steps(call, inputs[1])
        return [dequantised(inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None, call.attributes)]
    if call.op == "com.microsoft.QuantizeLinear" and len(inputs) > 2:
        x, scale, zero = inputs
        if x is not None and scale is not None and zero is not None:
            return [whole_numbers(x, scale, zero, call.attributes)]
    if call.op in ("Softmax", "LogSoftmax") and inputs and inputs[0] is not None:
        return [_softmax(call, inputs[0])]
    if call.op in ("LayerNormalization", "RMSNormalization") and len(inputs) > 1 and inputs[0] is not None:
        return [_normalised(call, inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None)]
    if call.op == "Resize" and call.opset > _FIRST_RESIZE and inputs[0] is not None:
        return [_resized(call, inputs)]
    settings = all(call.attribute(name) in (None, *plain) for name, plain in _APART.items())
    # Before opset 7 smaller operands were put at an axis; of groups the evaluator's ConvTranspose knows one.
    old = call.op in ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor") and call.attribute("axis") is not None
    groups = call.op == "ConvTranspose" and call.attribute("group", 1) != 1
    if call.op not in _FOLDED or not settings or old or groups:
        raise call.unsupported(
            "takes nothing but constants and is not among the operators that are computed while a model is loaded",
            "run onnxruntime's offline optimisation over it first, which computes such nodes "
            "(SessionOptions.optimized_model_filepath, with graph_optimization_level = "
            "GraphOptimizationLevel.ORT_ENABLE_BASIC: higher levels make operators of its own)"
            if inputs
            else "export the model in evaluation mode",
        )
    if call.op == "Gather" and inputs[0] is not None and inputs[1] is not None and inputs[0].ndim:
        _require_places(inputs[0].shape[call.attribute("axis", 0)], inputs[1])
    return call.translation.constants.run(call.node, inputs)


def _resized(call: Call, inputs: Sequence[Array | None]) -> Array:
    given = [array if array is not None and array.size else None for array in (*inputs, None, None, None)]
    assert given[0] is not None  # asked before
    return resized(call, given[0], given[2], given[3])


def _require_places(size: int, places: Array) -> None:
    """Raise where a table of positions, for example, is shorter than what is looked up in it."""
    wrong = (places < -size) | (places >= size)
    if wrong.any():
        raise ValueError(f"looks up entry {int(places[wrong].flat[0])} of {size}: is the input longer than the table?")


def _batch_norm(x: Any, scale: Any, shift: Any, mean: Any, variance: Any, *, epsilon: float) -> Array:
    channels = (-1, *(1,) * (x.ndim - 2))
    scale, shift, mean, variance = (np.asarray(v, np.float64).reshape(channels) for v in (scale, shift, mean, variance))
    made: Array = (x - mean) / np.sqrt(variance + epsilon) * scale + shift
    return made.astype(x.dtype)


def _normalised(call: Call, x: Array, scale: Array | None, shift: Array | None = None) -> Array:
    """Return a LayerNormalization or RMSNormalization of a constant: latents, tables of relative positions."""
    axes = tuple(range(call.attribute("axis", -1) % x.ndim, x.ndim))
    rows = x.astype(np.float64)
    if call.op == "LayerNormalization":
        rows = rows - rows.mean(axes, keepdims=True)
    made = rows / np.sqrt((rows * rows).mean(axes, keepdims=True) + call.attribute("epsilon", 1e-5))
    made = made * (1.0 if scale is None else scale) + (0.0 if shift is None else shift)
    return np.asarray(made, call.translation.constants.dtype if x.dtype == np.float32 else x.dtype)


def _softmax(call: Call, x: Array) -> Array:
    if call.opset >= 13:
        rows, axis = x, call.attribute("axis", -1)
    else:  # all axes from this one on are one
        axis = call.attribute("axis", 1) % (x.ndim or 1)
        rows, axis = x.reshape(int(np.prod(x.shape[:axis])), -1), 1
    shifted = rows.astype(np.float64) - rows.max(axis=axis, keepdims=True)
    total = np.exp(shifted).sum(axis=axis, keepdims=True)
    made: Array = np.exp(shifted) / total if call.op == "Softmax" else shifted - np.log(total)
    return made.astype(x.dtype).reshape(x.shape)
