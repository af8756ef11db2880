"""ONNX operators of arithmetic: sums, scalings by constants, averages over axes, activation functions written out.

Each function translates one node, see ``onnx/node.py``; :data:`ARITHMETIC` is part of the table of
``onnx/operators.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import (
    Activation,
    Add,
    Affine,
    Clip,
    Divide,
    Expand,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
    Identity,
    Layer,
    Multiply,
    ReLU,
    Reshape,
    ScaleBy,
    Shape,
    Shift,
    ShiftBy,
    Transpose,
)
from pylrp.layers.base import product
from pylrp.layers.shift import closed
from pylrp.loaders.onnx.constants import Constant
from pylrp.loaders.onnx.curves import FUNCTIONS, identify, is_function_of_one, joins_branches
from pylrp.loaders.onnx.guards import is_nan
from pylrp.loaders.onnx.node import Call, Value
from pylrp.loaders.onnx.normalisations import is_underway, normalised
from pylrp.loaders.onnx.tops import written_out
from pylrp.loaders.onnx.views import PLAIN

__all__ = ["ARITHMETIC", "affine", "alike", "clip", "computed", "curve", "joined", "length", "operand"]

Array = NDArray[Any]
Translate = Callable[[Call], Value | list[Value] | None]
_PAIRS = {"Add", "Sub", "Mul", "Div"}


def curve(call: Call) -> Value | None:
    """Return the activation function or normalisation that ends here; None where it may still be going on.

    The caller notes a node without a value as pending: :meth:`Translation.value` raises if anything else needs it. What
    joins several values and can be part of no function of one value is a product, quotient or sum of values.
    """
    found = identify(call.node, call.translation)
    if found is not None:
        layer, value, minus = found
        return call.emit(layer, call.emit(Affine(-1.0, 0.0), value, part="minus") if minus else value)
    norm = normalised(call)
    if norm is not None:
        return norm
    written = written_out(call)
    if written is not None:
        return call.emit(*written)
    pending = call.translation.pending
    waits = any(name in pending for name in call.node.input)
    underway = is_function_of_one(call.node, call.translation) or (waits and is_underway(call))
    if call.op in _PAIRS and len(call.node.input) == 2 and not underway:
        return joined(call)
    call.translation.calls.update(dict.fromkeys(call.node.output, call))
    causes = [pending[name] for name in call.node.input if name in pending]
    pending[call.node.output[0]] = causes[0] if causes else call.unsupported("has no rule of LRP")
    return None


def joined(call: Call) -> Value | None:
    """Return what a node makes of values of which none is part of a function that is still going on."""
    constants = [call.is_constant(i) for i in (0, 1)]
    values = [call.viewed(i) for i in (0, 1) if not constants[i]]  # raises where a pending one is nothing by itself
    if call.op in ("Add", "Sub") or constants[1]:
        return ARITHMETIC[call.op](call)  # type: ignore[return-value]  # these make one value
    if constants[0]:  # what was pending has a layer now
        return curve(call)
    if len({(value.rank, value.view) for value in values}) > 1:
        raise call.mixes_batch("joins values of different ranks, one's batch and another axis of the other")
    return call.emit(Multiply() if call.op == "Mul" else Divide(), *values)


def clip(low: float, high: float) -> Activation:
    """Return the layer that keeps values between two bounds."""
    return ReLU() if (low, high) == (0.0, math.inf) else Clip(low, high)


def _split(call: Call) -> tuple[list[Value], list[int]] | None:
    """Return a node's activations and the positions of its constants; None where a pattern is under way."""
    if len(call.node.input) < (2 if call.op in _PAIRS else 1):
        raise call.broken(f"has {len(call.node.input)} inputs")
    positions = range(len(call.node.input))
    constants = [i for i in positions if call.is_constant(i)]
    if any(call.node.input[i] in call.translation.pending for i in positions):
        return None
    return [call.viewed(i) for i in positions if i not in constants], constants


def operand(call: Call, position: int, value: Value) -> Array | float:
    """Return a constant operand of an activation as it meets its axes (without the batch), in float64."""
    rank = value.rank - 1
    given = call.translation.constants[call.node.input[position]]
    moved = given.per_sample and given.axis == value.view.batch and given.axis > 0
    array = np.asarray(given.first if moved else call.constant(position, per_sample=True), np.float64)
    if call.is_per_sample(position) and array.ndim != rank + 1:
        raise call.mixes_batch("takes a constant whose batch meets another axis")
    if call.attribute("broadcast", 0) and call.attribute("axis") is not None:  # before opset 7
        array = array.reshape(*array.shape, *(1,) * (rank + 1 - call.attribute("axis") - array.ndim))
    if array.size == 1 and array.ndim <= rank + 1:
        return array.item()
    if value.view != PLAIN:
        return _viewed(call, position, array, value)
    if array.ndim == rank + 1 and len(array) and np.array_equal(array, np.broadcast_to(array[:1], array.shape)):
        array = array[0]  # the same one for each sample
    if array.ndim > rank:
        raise call.mixes_batch(f"has a constant of shape {array.shape}, another one for each sample of the batch")
    return array


def _viewed(call: Call, position: int, array: Array, value: Value) -> Array:
    """Return a constant as it meets the axes of a value whose batch is not its first axis alone."""
    view = value.view
    full = array.reshape((1,) * max(value.rank - array.ndim, 0) + array.shape)
    constant = call.translation.constants[call.node.input[position]]
    if constant.per_sample and constant.axis + value.rank - array.ndim != view.batch:
        raise call.mixes_batch("takes a constant whose batch meets another axis")
    inner: Shape = (1,) * view.merged
    if call.is_per_sample(position) and view.batch == view.before == 0 and view.after:  # one for each head, perhaps
        merged = tuple(value.shape[axis] for axis in view.block())
        inner = merged if len(array) == product(merged) else inner
    if full.ndim > value.rank or full.shape[view.batch] != product(inner):
        raise call.mixes_batch(f"has a constant of shape {array.shape}, another one for each sample of the batch")
    return full.reshape(*full.shape[: view.batch], *inner, *full.shape[view.batch + 1 :])


def affine(call: Call, value: Value, scale: Array | float, shift: Array | float, part: str = "") -> Value:
    """Emit ``value * scale + shift``; first repeat the value where the constants are larger."""
    shape: Shape = np.broadcast_shapes(value.shape, np.shape(scale), np.shape(shift))
    if shape != value.shape:
        value = call.emit(Expand(shape), value, part=f"{part}/expand" if part else "expand")
    dtype = call.translation.constants.dtype
    if np.ndim(scale) == 0 and scale == 1 and np.isneginf(shift).any() and not np.isnan(shift).any():  # a mask
        return call.emit(Shift(closed(np.asarray(shift, dtype))), value, part=part)
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        for name in call.node.input:
            if name in call.translation.constants:
                call.translation.constants.require_finite(name)
        raise call.unsupported("has a constant that is infinite or NaN")
    # Plain numbers take the network's dtype wherever they stand.
    factor, added = (float(v) if np.ndim(v) == 0 else np.asarray(v, dtype) for v in (scale, shift))
    return call.emit(Affine(factor, added), value, part=part)


def alike(call: Call, values: list[Value]) -> list[Value]:
    """Return the values, the smaller ones repeated to the shape of the others."""
    if len({value.rank for value in values}) > 1 or len({value.view for value in values}) > 1:
        raise call.mixes_batch("joins values of different ranks, one's batch and another axis of the other")
    shape = np.broadcast_shapes(*(value.shape for value in values))
    return [v if v.shape == shape else call.emit(Expand(shape), v, part="expand") for v in values]


def _sides(call: Call) -> list[str]:
    """Return the names of the inputs that are computed of token ids and masks alone."""
    return [name for i, name in enumerate(call.node.input) if call.is_side(i)]


def _beside(call: Call, *, adds: bool, sign: float = 1.0, inverse: bool = False) -> Value:
    """Emit the sum or the product of an activation with a side value, which gets no relevance."""
    side, *others = _sides(call)
    at = next(i for i, name in enumerate(call.node.input) if name != side)
    if others or len(call.node.input) != 2 or call.is_constant(at):
        raise call.unsupported("joins an activation with more than one value that is computed of token ids or masks")
    value = call.viewed(at)
    if adds and sign < 0:
        if call.node.input[0] == side:  # the side value minus the activation
            value = call.emit(Affine(-1.0, 0.0), value, part="minus")
        else:
            side = computed(call, "Neg", side)
    if inverse:
        side = computed(call, "Reciprocal", side)
    mask = call.fed(side, value, adds=adds)
    shape = np.broadcast_shapes(value.shape, mask.shape)
    if shape != value.shape:
        value = call.emit(Expand(shape), value, part="expand")
    return call.emit(ShiftBy() if adds else ScaleBy(), value, mask)


def computed(call: Call, op: str, *inputs: str | Constant) -> str:
    """Return the name of what an operator makes of side values."""
    name = call.translation.unique(f"{call.name}:{op}")
    call.translation.sides.step(op, {}, inputs, name)
    return name


def _sum(call: Call) -> Value | None:
    if _sides(call):
        return _beside(call, adds=True)
    parts = _split(call)
    if parts is None:
        return curve(call)
    values, constants = parts
    if not constants and joins_branches(call.node, call.translation):
        return curve(call)
    if not constants:
        norm = normalised(call) if len(values) > 1 else None
        return norm or call.emit(Add() if len(values) > 1 else Identity(), *alike(call, values))
    total = values[0] if len(values) == 1 else call.emit(Add(), *alike(call, values), part="add")
    return affine(call, total, 1.0, sum((operand(call, i, total) for i in constants), start=0.0))


def _mean(call: Call) -> Value | None:
    count = len(call.node.input)
    values = alike(call, [call.value(position) for position in range(count)])
    if count == 1:
        return call.emit(Identity(), *values)
    return call.emit(Affine(1 / count, 0.0), call.emit(Add(), *values, part="add"))


def _subtract(call: Call) -> Value | None:
    if _sides(call):
        return _beside(call, adds=True, sign=-1.0)
    parts = _split(call)
    if parts is None:
        return curve(call)
    values, constants = parts
    if constants:
        constant = operand(call, constants[0], values[0])
        return affine(call, values[0], *((-1.0, constant) if constants == [0] else (1.0, -constant)))
    norm = normalised(call)
    if norm is not None:
        return norm
    if joins_branches(call.node, call.translation):
        return curve(call)
    first, second = alike(call, values)
    return call.emit(Add(), first, call.emit(Affine(-1.0, 0.0), second, part="minus"))


def _multiply(call: Call) -> Value | None:
    if _sides(call):
        return _beside(call, adds=False)
    parts = _split(call)
    if parts is None or not parts[1]:
        return curve(call)
    (value,), (position,) = parts
    return affine(call, value, operand(call, position, value), 0.0)


def _divide(call: Call) -> Value | None:
    if call.is_side(1):
        return _beside(call, adds=False, inverse=True)
    parts = _split(call)
    if parts is None or parts[1] != [1]:
        return curve(call)
    (value,), _ = parts
    divisor = np.asarray(operand(call, 1, value))
    if not divisor.all():
        raise call.unsupported("divides by zero")
    return affine(call, value, 1.0 / divisor, 0.0)


def _negate(call: Call) -> Value | None:
    if call.has(0) and call.node.input[0] in call.translation.pending:
        return curve(call)
    return call.emit(Affine(-1.0, 0.0), call.viewed())


def _extreme(low: bool) -> Translate:
    def translate(call: Call) -> Value | None:
        parts = _split(call)
        if parts is None or len(parts[0]) != 1 or len(parts[1]) != 1:
            return curve(call)
        bound = operand(call, parts[1][0], parts[0][0])
        if not isinstance(bound, float):
            return curve(call)
        return call.emit(clip(bound, math.inf) if low else clip(-math.inf, bound), parts[0][0])

    return translate


def _reduce(pool: Layer, total: bool = False, of: str = "", then: str = "") -> Translate:
    """Translate a reduction by a global pool over the axes that vanish, which are moved to the end.

    ``of`` and ``then`` are formulas: of what the sum is, and what is made of it.
    """

    def translate(call: Call) -> Value | None:
        if call.has(0) and call.node.input[0] in call.translation.pending:
            return curve(call)
        value = call.viewed()
        rank = len(value.shape)
        given = call.integers("axes", 1)
        if not given and call.attribute("noop_with_empty_axes", 0):
            return call.emit(Identity(), value)
        axes = sorted({call.axis(a) for a in given}) if given else None
        if axes is None:
            raise call.mixes_batch("reduces over all axes, the batch among them")
        kept = [axis for axis in range(rank) if axis not in axes]
        result = tuple(1 if axis in axes else n for axis, n in enumerate(value.shape))
        view = value.view
        if not call.attribute("keepdims", 1):
            result = tuple(value.shape[axis] for axis in kept)
            view = replace(view, batch=view.batch - sum(axis < view.batch for axis in axes))
        steps: list[tuple[str, Layer]] = [("of", Function(of))] if of else []
        count = product([value.shape[axis] for axis in axes])
        shape: Shape = value.shape
        if kept != [0] or rank > 4:
            if kept != list(range(len(kept))):
                steps.append(("transpose", Transpose((*kept, *axes))))
            shape = (product([value.shape[axis] for axis in kept]), count)
            steps.append(("reshape", Reshape(shape)))
        steps.append(("pool", pool))
        if total:
            steps.append(("sum", Affine(float(count), 0.0)))
        if then:
            steps.append(("then", Function(then)))
        if result != (shape[0], *(1,) * (len(shape) - 1)):
            steps.append(("shape", Reshape(result)))
        return call.emit_all(steps, value, view)

    return translate


_LENGTHS: dict[str, Translate] = {
    "ReduceL1": _reduce(GlobalAveragePool(), total=True, of="abs(x)"),
    "ReduceL2": _reduce(GlobalAveragePool(), total=True, of="x * x", then="sqrt(x)"),
    "ReduceSumSquare": _reduce(GlobalAveragePool(), total=True, of="x * x"),
}


def length(call: Call) -> Value | None:
    """Return the length of a vector, which is part of no normalisation; None where the node is none."""
    made = _LENGTHS[call.op](call) if call.op in _LENGTHS else None
    return made if isinstance(made, Value) else None


ARITHMETIC: dict[str, Translate] = {
    "Add": _sum,
    "Sum": _sum,
    "Mean": _mean,
    "Sub": _subtract,
    "Mul": _multiply,
    "Div": _divide,
    "IsNaN": is_nan,
    "Neg": _negate,
    "Max": _extreme(low=True),
    "Min": _extreme(low=False),
    "ReduceMean": _reduce(GlobalAveragePool()),
    "ReduceSum": _reduce(GlobalAveragePool(), total=True),
    "ReduceMax": _reduce(GlobalMaxPool()),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"), curve),
    **dict.fromkeys(sorted(FUNCTIONS), curve),
}
