"""Functions at the top that an ONNX model spells out: softmax as exp(x) / sum(exp(x)), its logarithm, p / sum(p).

``onnx/arithmetic.py`` asks where a node is no activation function of one value. Single exponential functions and
logarithms are layers at the top only; :func:`on_the_way` says which values lie there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from onnx import NodeProto

from pylrp.layers import Exp, Layer, Log, LogSoftmax, Normalize, ReLU, Sigmoid, Softmax, Softplus
from pylrp.loaders.onnx.node import Call, Translation, Value, operator_of

__all__ = ["FUNCTIONS", "on_the_way", "written_out"]

#: Operators that are layers at the top.
FUNCTIONS: dict[str, type[Layer]] = {"Exp": Exp, "Log": Log}
_WAY = {
    *FUNCTIONS, "Add", "Cast", "Clip", "Concat", "Div", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Max",
    "Min", "Mul", "Neg", "Reciprocal", "Reshape", "Slice", "Split", "Squeeze", "Sub", "Sum", "Transpose", "Unsqueeze",
    "ai.onnx.ml.Normalizer", "DequantizeLinear", "QuantizeLinear",
}  # fmt: skip
_MOVES = {"Unsqueeze", "Reshape", "Expand", "Max"}
_POSITIVE = (Sigmoid, Softmax, Softplus, Exp, ReLU)


def on_the_way(nodes: Sequence[NodeProto], outputs: Iterable[str]) -> set[str]:
    """Return the values that outputs are made of by operators that may lie above a function at the top."""
    found = set(outputs)
    for node in reversed(nodes):
        if operator_of(node) in _WAY and not found.isdisjoint(node.output):
            found.update(node.input)
    return found


def written_out(call: Call) -> tuple[Layer, Value] | None:
    """Return the softmax, log-softmax or normalisation that a node is the last step of, and of which value."""
    translation, node = call.translation, call.node
    if node.op_type == "Div" and len(node.input) == 2:
        found = _share(translation, node.input[0], _total(translation, node.input[1], ("ReduceSum", "ReduceL1")))
    elif node.op_type == "Mul" and len(node.input) == 2:
        found = None
        for part, other in (node.input, reversed(node.input)):
            inverse = translation.producers.get(other)
            if found is None and inverse is not None and inverse.op_type == "Reciprocal":
                found = _share(translation, part, _total(translation, inverse.input[0], ("ReduceSum", "ReduceL1")))
    elif node.op_type == "Sub" and len(node.input) == 2:
        found = _logarithm(translation, *node.input)
    else:
        return None
    return found


def _share(translation: Translation, part: str, total: tuple[str, int] | None) -> tuple[Layer, Value] | None:
    if total is None or total[0] != part:
        return None
    exp = translation.producers.get(part)
    if exp is not None and exp.op_type == "Exp":
        return _of(translation, Softmax, exp.input[0], total[1])
    value = translation.values.get(part)
    made = None if value is None else next((n for n in translation.nodes if n.name == value.name), None)
    # Otherwise the sum is no norm. The core normalises over axis 0.
    if value is None or made is None or total[1] != 0 or not isinstance(made.layer, _POSITIVE):
        return None
    return Normalize("l1"), value


def _logarithm(translation: Translation, argument: str, minus: str) -> tuple[Layer, Value] | None:
    whole = _total(translation, minus, ("ReduceLogSumExp",))
    log = translation.producers.get(minus)
    if whole is None and log is not None and log.op_type == "Log":
        total = _total(translation, log.input[0], ("ReduceSum", "ReduceL1"))
        exp = None if total is None else translation.producers.get(total[0])
        if total is not None and exp is not None and exp.op_type == "Exp":
            whole = exp.input[0], total[1]
    if whole is None or whole[0] != argument:
        return None
    return _of(translation, LogSoftmax, argument, whole[1])


def _of(translation: Translation, kind: type[Softmax], argument: str, axis: int) -> tuple[Layer, Value] | None:
    """Return a softmax of an argument from which its largest value may have been taken."""
    minus = translation.producers.get(argument)
    if minus is not None and minus.op_type == "Sub":
        largest = _total(translation, minus.input[1], ("ReduceMax",))
        if largest == (minus.input[0], axis):
            argument = minus.input[0]
    value = translation.values.get(argument)
    return None if value is None else (kind(axis), value)


def _number_below(translation: Translation, node: NodeProto) -> str | None:
    """Return what a node moves or repeats, or bounds from below by -inf; None where it does something else."""
    if node.op_type == "Max":
        known = [name for name in node.input if name in translation.constants]
        others = [name for name in node.input if name not in known]
        bounds = all(np.isneginf(translation.constants[name].first).all() for name in known)
        return str(others[0]) if len(others) == 1 and bounds else None
    if node.op_type in ("Reshape", "Expand"):
        sizes = Call.again(node, translation).numbers(1)
        return str(node.input[0]) if sizes and sizes[0] in (None, -1) else None
    return str(node.input[0])


def _total(translation: Translation, name: str, operators: Sequence[str]) -> tuple[str, int] | None:
    """Return what a value is the sum of along one axis, and which (without the batch); None if it is none.

    The axis must stay, with length 1, as it must where the sum meets the values again; of vectors that one number may
    come there by reshapes, and be repeated.
    """
    node, kept, moved = translation.producers.get(name), True, False
    while node is not None and node.op_type in _MOVES:
        below = _number_below(translation, node)
        if node.op_type == "Unsqueeze":
            kept = False
        elif node.op_type != "Max" or below is None:
            moved = True
        node = None if below is None else translation.producers.get(below)
    if node is None or node.op_type not in operators:
        return None
    rank = _rank(translation, node.input[0])
    call = Call.again(node, translation)
    axes = call.integers("axes", 1)
    if rank is None or axes is None or len(axes) != 1:
        return None
    if bool(call.attribute("keepdims", 1)) != kept and not (moved and rank == 1):
        return None
    axis = axes[0] + rank + 1 if axes[0] < 0 else axes[0]
    return (node.input[0], axis - 1) if 1 <= axis <= rank else None


def _rank(translation: Translation, name: str) -> int | None:
    """Return the number of axes of a value without the batch; it may be a function that is still pending."""
    while name not in translation.values:
        node = translation.producers.get(name)
        if node is None or not node.input:
            return None
        name = next((n for n in node.input if n in translation.values or n in translation.pending), "")
    return len(translation.values[name].shape)
