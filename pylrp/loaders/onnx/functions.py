"""Functions of one value that are none of the known ones: a chain or a few branches of operators, as one formula.

``onnx/reader.py`` asks where something takes a value that no layer has been made of; what the value is of, is looked
for as far down as it is computed value by value. ``onnx/curves.py`` knows the usual activation functions by their
curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from pylrp.layers.formula import Operand, Writer
from pylrp.layers.function import Function
from pylrp.loaders.onnx.curves import bases, leads_to, met_by
from pylrp.loaders.onnx.node import Call, Translation, Value
from pylrp.loaders.onnx.operators import FLOATS, SELU

__all__ = ["function_of"]

Array = NDArray[Any]
Build = Callable[[Writer, Call, list[Operand]], Operand]


def function_of(
    node: NodeProto, translation: Translation, resolve: Callable[[str], Value]
) -> tuple[Function, Value] | None:
    """Return a node's output as a function of one value, and that value; None if it is none.

    What a constant is added to or multiplied with before anything else is no part of the function: it belongs to the
    layer below, or is one, whether an exporter writes it there (Gemm) or after it (MatMul, Add).

    Parameters
    ----------
    node : NodeProto
    translation : Translation
    resolve : callable
        Makes a layer of a pending value.

    Raises
    ------
    ValueError
        If the formula is too long.
    """
    for base in reversed(bases(node, translation)):
        value = translation.values[base]
        if not all(leads_to(name, base, translation) for name in node.input if name):
            continue
        first = _after_affine(node, base, translation)
        if first == node.output[0]:
            return None
        if first != base:
            known = first in translation.values and first not in translation.pending
            base, value = first, translation.values[first] if known else resolve(first)
        reader = _Reader(translation, base, value)
        result = reader.of_node(node)
        if result is None:
            continue
        arrays = np.stack(np.broadcast_arrays(*reader.arrays)) if reader.arrays else None
        if arrays is not None:
            arrays = np.ascontiguousarray(arrays, translation.constants.dtype)
        return Function(reader.writer.text(result), arrays), value
    return None


def _after_affine(node: NodeProto, base: str, translation: Translation) -> str:
    """Return what all of a node's output is made of: the base, or what constants have scaled and shifted it to."""
    users: dict[str, list[NodeProto]] = {}
    seen, waiting = {node.output[0]}, [node]
    while waiting:
        user = waiting.pop()
        for name in {name for name in user.input if name and name not in translation.constants}:
            users.setdefault(name, []).append(user)
            if name != base and name not in seen:
                seen.add(name)
                waiting.append(translation.producers[name])
    name = base
    while len(users.get(name, [])) == 1 and _is_affine(users[name][0], name, translation):
        name = str(users[name][0].output[0])
    return name


def _is_affine(node: NodeProto, name: str, translation: Translation) -> bool:
    """Tell whether a node scales or shifts a value, or leaves it as it is."""
    if node.op_type in ("Neg", "Identity"):
        return True
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.input) != 2:
        return False
    at = list(node.input).index(name)
    return node.input[1 - at] in translation.constants and not (node.op_type == "Div" and at == 1)


class _Reader:
    def __init__(self, translation: Translation, base: str, value: Value):
        self.translation, self.base, self.value = translation, base, value
        self.writer = Writer()
        self.arrays: list[Array] = []
        self._known: dict[str, Operand | None] = {base: ("x",)}

    def of_node(self, node: NodeProto) -> Operand | None:
        build = _OPERATORS.get(node.op_type)
        if build is None:
            return None
        operands = []
        for name in node.input:
            if name:
                operand = self._of(name)
                if operand is None:
                    return None
                operands.append(operand)
        return build(self.writer, Call.again(node, self.translation), operands)

    def _of(self, name: str) -> Operand | None:
        if name not in self._known:
            if name in self.translation.constants:
                self._known[name] = self._constant(name)
            else:
                self._known[name] = self.of_node(self.translation.producers[name])
        return self._known[name]

    def _constant(self, name: str) -> Operand:
        constant = self.translation.constants[name]
        array = constant.first
        if array.size == 1 or constant.is_sized:  # zeros like a value are the number 0
            number = array.reshape(-1)[0]
            if array.dtype == np.float32 and self.translation.constants.dtype == np.float32:
                return ("number", float(str(number)))  # as short as the dtype tells it from others
            return ("number", float(number))
        met = met_by(np.asarray(array, np.float64), self.value)
        assert met is not None  # leads_to() has looked
        self.arrays.append(met)
        return ("array", len(self.arrays) - 1)


def _plain(operation: str) -> Build:
    return lambda w, call, given: w.step(operation, *given)


def _turned(operation: str) -> Build:
    return lambda w, call, given: w.step(operation, *reversed(given))


def _of_several(operation: str) -> Build:
    def build(w: Writer, call: Call, given: list[Operand]) -> Operand:
        made = given[0]
        for operand in given[1:]:
            made = w.step(operation, made, operand)
        return made

    return build


def _mean(w: Writer, call: Call, given: list[Operand]) -> Operand:
    return w.step("divide", _of_several("add")(w, call, given), float(len(given)))


def _clip(w: Writer, call: Call, given: list[Operand]) -> Operand:
    made, rest = given[0], given[1:]
    low, high = call.attribute("min"), call.attribute("max")  # before opset 11
    bounds: list[Operand | float | None] = [low, high]
    for position in (1, 2):
        if call.has(position):
            bounds[position - 1] = rest.pop(0)
    for operation, bound in zip(("max", "min"), bounds, strict=True):
        if bound is not None:
            made = w.step(operation, made, bound)
    return made


def _where_negative(w: Writer, x: Operand, below: Operand, above: Operand | None = None) -> Operand:
    return w.step("where", w.step("less", x, 0.0), below, x if above is None else above)


def _elu(w: Writer, call: Call, given: list[Operand]) -> Operand:
    below = w.step("multiply", call.attribute("alpha", 1.0), w.step("expm1", given[0]))
    return _where_negative(w, given[0], below)


def _celu(w: Writer, call: Call, given: list[Operand]) -> Operand:
    alpha = call.attribute("alpha", 1.0)
    return _where_negative(w, given[0], w.step("multiply", alpha, w.step("expm1", w.step("divide", given[0], alpha))))


def _selu(w: Writer, call: Call, given: list[Operand]) -> Operand:
    alpha, gamma = call.attribute("alpha", SELU[0]), call.attribute("gamma", SELU[1])
    below = w.step("multiply", alpha, w.step("expm1", given[0]))
    return w.step("multiply", gamma, _where_negative(w, given[0], below))


def _leaky(w: Writer, call: Call, given: list[Operand]) -> Operand:
    slope = given[1] if len(given) > 1 else call.attribute("alpha", 0.01)
    return _where_negative(w, given[0], w.step("multiply", slope, given[0]))


def _thresholded(w: Writer, call: Call, given: list[Operand]) -> Operand:
    return w.step("where", w.step("less", call.attribute("alpha", 1.0), given[0]), given[0], 0.0)


def _shrink(w: Writer, call: Call, given: list[Operand]) -> Operand:
    limit, shift, x = call.attribute("lambd", 0.5), call.attribute("bias", 0.0), given[0]
    above = w.step("where", w.step("less", limit, x), w.step("subtract", x, shift), 0.0)
    return w.step("where", w.step("less", x, -limit), w.step("add", x, shift), above)


def _hard_sigmoid(w: Writer, x: Operand, alpha: float, beta: float) -> Operand:
    line = w.step("add", w.step("multiply", alpha, x), beta)
    return w.step("min", w.step("max", line, 0.0), 1.0)


def _gelu(w: Writer, call: Call, given: list[Operand]) -> Operand:
    (x,) = given
    if call.attribute("approximate", "none") == "tanh":
        cube = w.step("multiply", 0.044715, w.step("pow", x, 3.0))
        inner = w.step("tanh", w.step("multiply", math.sqrt(2 / math.pi), w.step("add", x, cube)))
    else:
        inner = w.step("erf", w.step("divide", x, math.sqrt(2)))
    return w.step("multiply", w.step("multiply", 0.5, x), w.step("add", 1.0, inner))


def _swish(w: Writer, call: Call, given: list[Operand]) -> Operand:
    return w.step("multiply", given[0], w.step("sigmoid", w.step("multiply", call.attribute("alpha", 1.0), given[0])))


def _same(w: Writer, call: Call, given: list[Operand]) -> Operand:
    return given[0]


def _cast(w: Writer, call: Call, given: list[Operand]) -> Operand:
    kind = call.required("to")
    if kind in FLOATS:
        return given[0]
    if kind == TensorProto.BOOL:
        return w.step("no", w.step("no", given[0]))
    raise call.unsupported("makes whole numbers of its input")


_OPERATORS: Mapping[str, Build] = {
    **{name: _plain(name.lower()) for name in (
        "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Less",
        "Log", "Pow", "Round", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Sqrt", "Tan", "Tanh", "Where", "Equal",
    )},
    "Add": _plain("add"),
    "And": _plain("both"),
    "Cast": _cast,
    "CastLike": _same,
    "Celu": _celu,
    "Clip": _clip,
    "Div": _plain("divide"),
    "Dropout": _same,
    "Elu": _elu,
    "Gelu": _gelu,
    "Greater": _turned("less"),
    "GreaterOrEqual": _turned("less_equal"),
    "HardSigmoid": lambda w, call, given: _hard_sigmoid(
        w, given[0], call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    ),
    "HardSwish": lambda w, call, given: w.step("multiply", given[0], _hard_sigmoid(w, given[0], 1 / 6, 0.5)),
    "Identity": _same,
    "LeakyRelu": _leaky,
    "LessOrEqual": _plain("less_equal"),
    "Max": _of_several("max"),
    "Mean": _mean,
    "Min": _of_several("min"),
    "Mish": lambda w, call, given: w.step("multiply", given[0], w.step("tanh", w.step("softplus", given[0]))),
    "Mul": _plain("multiply"),
    "Neg": _plain("negative"),
    "Not": _plain("no"),
    "Or": _plain("either"),
    "PRelu": _leaky,
    "Reciprocal": lambda w, call, given: w.step("divide", 1.0, given[0]),
    "Relu": lambda w, call, given: w.step("max", given[0], 0.0),
    "Selu": _selu,
    "Shrink": _shrink,
    "Softsign": lambda w, call, given: w.step("divide", given[0], w.step("add", 1.0, w.step("abs", given[0]))),
    "Sub": _plain("subtract"),
    "Sum": _of_several("add"),
    "Swish": _swish,
    "ThresholdedRelu": _thresholded,
    "Xor": lambda w, call, given: w.step("no", w.step("equal", *(w.step("no", v) for v in given))),
}  # fmt: skip
