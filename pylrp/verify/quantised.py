"""Operators of whole numbers as those of what these stand for; a quantised value is in its own units here.

QuantizeLinear rounds and clips, and leaves ``scale (q - zero)``; what reads it by the same scale reads the value.
A product of whole numbers is that of the values, rounded where the node rounds. Written from ONNX's standard and
onnxruntime's description of its operators; ``program.py`` asks before it reads the steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from pylrp.verify import blockwise
from pylrp.verify.fused import Parts
from pylrp.verify.roundings import DYNAMIC, ROUNDED
from pylrp.verify.step import Array

__all__ = ["in_own_units"]

_BOUNDS = {"int4": (-8, 7), "uint4": (0, 15)}
_WHOLE = {2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 21: "uint4", 22: "int4"}
_KEEPS = {"Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
          "Unsqueeze"}  # fmt: skip
Unit = tuple[str, str]


def in_own_units(
    nodes: Sequence[onnx.NodeProto], tensors: dict[str, onnx.TensorProto], outputs: Sequence[str]
) -> list[onnx.NodeProto]:
    """Return the nodes without operators of whole numbers; those that there is no formula for stay."""
    if not any(node.op_type in _KNOWN for node in nodes):
        return list(nodes)
    return _without_unread(_Rewriting(nodes, tensors, outputs).nodes(), outputs)


class _Rewriting:
    def __init__(self, nodes: Sequence[onnx.NodeProto], tensors: dict[str, onnx.TensorProto], outputs: Sequence[str]):
        self.given, self.tensors, self.outputs = nodes, tensors, set(outputs)
        self.makers = {name: node for node in nodes for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in nodes:
            for name in filter(None, node.input):
                self.readers[name].append(node)
        self.units: dict[str, Unit] = {}
        self.once: dict[str, str] = {}
        self.instead: dict[int, list[onnx.NodeProto]] = {}
        for node in nodes:
            if node.op_type in ("QuantizeLinear", "QLinearConcat") or node.op_type in _SPECS:
                self._unit(node)

    def _unit(self, node: onnx.NodeProto) -> None:
        given = [*node.input, *[""] * 16]
        at = (
            1
            if node.op_type == "QuantizeLinear"
            else 0
            if node.op_type == "QLinearConcat"
            else _SPECS[node.op_type].out
        )
        if given[at]:
            self.units[node.output[0]] = given[at], given[at + 1]

    def nodes(self) -> list[onnx.NodeProto]:
        for node in self.given:
            if node.op_type in ("MatMulInteger", "ConvInteger"):
                self._integers(node)
        found: list[onnx.NodeProto] = []
        for node in self.given:
            if id(node) in self.instead:
                found += self.instead[id(node)]
                continue
            parts = Parts(node, self.tensors)
            write = _WRITE.get(node.op_type)
            if node.op_type in _SPECS:
                self._between(parts, _SPECS[node.op_type])
            elif write is not None:
                write(self, parts)
            found += parts.made or [node]
        return found

    def dtype(self, zero: str, node: onnx.NodeProto) -> str:
        """Return the type of whole number that a zero point says, or the node."""
        kind = next((each.i for each in node.attribute if each.name == "output_dtype"), 0)
        return _WHOLE.get(self.tensors[zero].data_type if zero in self.tensors else kind or 2, "")

    def round(self, parts: Parts, value: str, unit: Unit, part: str) -> None:
        """Add the last step of a node: rounding to its output."""
        name = self.dtype(unit[1], parts.node)
        if not name:
            raise parts.refuse("rounds to numbers of another type")
        low, high = _BOUNDS.get(name) or (np.iinfo(name).min, np.iinfo(name).max)
        parts.step(ROUNDED, value, *filter(None, unit), part=part, output=parts.node.output[0],
                   bounds=[int(low), int(high)], axis=parts.get("axis", 1))  # fmt: skip

    def meant(self, parts: Parts, value: str, scale: str, zero: str, axis: int | None = None) -> str:
        """Return the name of what a quantised value stands for."""
        maker = self.makers.get(value)
        if maker is not None and maker.op_type == "DynamicQuantizeLinear":
            read = maker.input[0]
            if read not in self.once:
                self.once[read] = parts.step(DYNAMIC, read, part=f"{read}:rounded")
            return self.once[read]
        unit = self.unit_of(value)
        if unit is None and maker is not None and maker.op_type == "Gather" and maker.input[0] in self.tensors:
            table = self.meant(parts, maker.input[0], scale, zero)  # rows of a table of numbers
            return str(parts.step("Gather", table, maker.input[1], part=f"{value}:real", axis=_axis(maker)))
        if unit is None:  # a constant
            given = [value, scale, *filter(None, [zero])]
            return str(parts.step("DequantizeLinear", *given, part=f"{value}:meant", axis=axis))
        if not self.same(unit, (scale, zero)):
            return self.by_another(parts, value, unit, (scale, zero), "", f"{value}:meant")
        return value

    def by_another(self, parts: Parts, value: str, unit: Unit, read: Unit, output: str, part: str) -> str:
        """Return whole numbers as another scale and zero point read them."""
        own, other = (float(np.ravel(self.array(each[0]))[0]) for each in (unit, read))
        zeros = [float(np.ravel(self.array(each[1]))[0]) for each in (unit, read)]
        made = parts.step("Mul", value, parts.constant(other / own, np.float64), part=f"{part}_factor")
        shift = parts.constant(other * (zeros[0] - zeros[1]), np.float64)
        return str(parts.step("Add", made, shift, part=part, output=output))

    def unit_of(self, value: str) -> Unit | None:
        """Return the scale and zero point that a value was rounded by, in other places perhaps."""
        while value not in self.units:
            maker = self.makers.get(value)
            if maker is None:
                return None
            if maker.op_type == "Concat":
                found = [self.unit_of(each) for each in maker.input]
                first = found[0]
                same = all(each is not None and first is not None and self.same(each, first) for each in found)
                return first if same else None
            if maker.op_type not in _KEEPS:
                return None
            value = maker.input[0]
        return self.units[value]

    def array(self, name: str) -> Array:
        """Return a constant; 0 for a zero point that is left out."""
        if not name:
            return np.zeros(1)
        return np.asarray(numpy_helper.to_array(self.tensors[name])).astype(np.float64)

    def same(self, one: Unit, other: Unit) -> bool:
        return all(
            a == b or np.array_equal(self.array(a).ravel(), self.array(b).ravel())
            for a, b in zip(one, other, strict=True)
        )

    def several(self, name: str) -> bool:
        return name in self.tensors and int(np.prod(self.tensors[name].dims)) > 1

    def rank(self, name: str) -> int:
        return len(self.tensors[name].dims) if name in self.tensors else 2

    def by_channel(self, triple: Sequence[str], axis: int | None) -> int | None:
        return axis if self.several(triple[1]) or self.several(triple[2]) else None

    # -- operators ----------------------------------------------------------------------------------------------------

    def _between(self, parts: Parts, spec: _Spec) -> None:
        given = [*parts.node.input, *[""] * 16]
        axis = spec.axis(self, parts, given)
        triples = [(given[at], given[at + 1], given[at + 2]) for at in spec.values]
        values = [self.meant(parts, *triple, axis=self.by_channel(triple, axis)) for triple in triples]
        bias = given[spec.bias] if spec.bias else ""
        if bias:
            both = parts.step("Mul", given[1], given[4], part="bias_scale")
            alpha = parts.get("alpha", 1.0)
            if alpha != 1:
                both = parts.step("Mul", both, parts.constant(alpha, np.float64), part="bias_factor")
            values.append(parts.step("DequantizeLinear", bias, both, part="bias", axis=0))
        settings = {key: value for key, value in parts.attributes.items() if key in spec.settings or not spec.settings}
        if spec.op == "Where":
            values.insert(0, given[0])
        rounds = bool(given[spec.out])
        made = parts.step(spec.op, *values, output="" if rounds else parts.node.output[0], **settings)
        if rounds:
            self.round(parts, made, (given[spec.out], given[spec.out + 1]), "rounded")

    def concat(self, parts: Parts) -> None:
        names = list(parts.node.input)
        values = [self.meant(parts, *names[at : at + 3]) for at in range(2, len(names), 3)]
        self.round(parts, parts.step("Concat", *values, axis=parts.get("axis")), (names[0], names[1]), "rounded")

    def quantize(self, parts: Parts) -> None:
        self.round(parts, parts.input(0), (parts.input(1), parts.input(2)), "")

    def dequantize(self, parts: Parts) -> None:
        value, unit, out = parts.input(0), (parts.input(1), parts.input(2)), parts.node.output[0]
        own, maker = self.unit_of(value), self.makers.get(value)
        if own is None and maker is not None and maker.op_type == "Gather" and maker.input[0] in self.tensors:
            table = self.meant(parts, maker.input[0], *unit)  # rows of a table of numbers
            parts.step("Gather", table, maker.input[1], output=out, axis=_axis(maker))
        elif own is None:
            settings = {key: value for key, value in parts.attributes.items() if key in ("axis", "block_size")}
            parts.step("DequantizeLinear", *filter(None, parts.node.input), output=out, **settings)
        elif self.same(own, unit):
            parts.step("Identity", value, output=out)
        else:
            self.by_another(parts, value, own, unit, out, "")

    def to_float(self, parts: Parts) -> None:
        a, b, a_scale, b_scale, a_zero, b_zero, bias = [*parts.node.input, *[""] * 8][:7]
        self._with_bias(parts, self.meant(parts, a, a_scale, a_zero), (b, b_scale, b_zero), bias)

    def dynamic_matmul(self, parts: Parts) -> None:
        a, b, b_scale, b_zero, bias = [*parts.node.input, *[""] * 8][:5]
        if a not in self.once:
            self.once[a] = parts.step(DYNAMIC, a, part=f"{a}:rounded")
        self._with_bias(parts, self.once[a], (b, b_scale, b_zero), bias)

    def _with_bias(self, parts: Parts, left: str, right: tuple[str, str, str], bias: str) -> None:
        weight, out = self.meant(parts, *right, self.by_channel(right, self.rank(right[0]) - 1)), parts.node.output[0]
        made = parts.step("MatMul", left, weight, part="product" if bias else "", output="" if bias else out)
        if bias:
            parts.step("Add", made, bias, output=out)

    def attention(self, parts: Parts) -> None:
        x, w, bias, x_scale, w_scale, mask, x_zero, w_zero, past = [*parts.node.input, *[""] * 9][:9]
        right = w, w_scale, w_zero
        values = [self.meant(parts, x, x_scale, x_zero), self.meant(parts, *right, self.by_channel(right, 1))]
        parts.step("com.microsoft.Attention", *values, bias, mask, past, output=parts.node.output[0],
                   **parts.attributes)  # fmt: skip

    def embed(self, parts: Parts) -> None:
        given = [*parts.node.input, *[""] * 20]
        tables = [
            self.meant(parts, given[2 + i], given[8 + i], given[13 + i]) if given[2 + i] else "" for i in range(5)
        ]
        parts.step("com.microsoft.EmbedLayerNormalization", *given[:2], *tables, given[7], output=parts.node.output[0],
                   epsilon=parts.get("epsilon"))  # fmt: skip
        parts.made[-1].output.extend(parts.node.output[1:2])

    def _integers(self, node: onnx.NodeProto) -> None:
        """Find what scales a product of whole numbers; the product of the values takes the place of the last factor."""
        given, parts = [*node.input, "", ""][:4], Parts(node, self.tensors)
        last = self._only(node.output[0], "Cast")
        scales = [self._scale_of(given[0]), self._scale_of(given[1])]
        if last is None or not scales[0] or not (scales[1] or given[1] in self.tensors):
            return
        wanted, factors, gone = {each for each in scales if each}, list[str](), [node, last]
        while not wanted <= set(factors):
            product = self._only(gone[-1].output[0], "Mul")
            if product is None:
                return
            factors += self._factors(next(name for name in product.input if name != gone[-1].output[0]))
            gone.append(product)
        for name in wanted:
            factors.remove(name)
        left = self.meant(parts, given[0], scales[0], given[2])
        conv = node.op_type == "ConvInteger"
        if scales[1]:
            right = self.meant(parts, given[1], scales[1], given[3])
        else:
            axis = 0 if conv else self.rank(given[1]) - 1
            channels = self.tensors[given[1]].dims[axis]
            fits = len(factors) == 1 and factors[0] in self.tensors and list(self.tensors[factors[0]].dims) in (
                [], [1], [channels])  # fmt: skip
            scale = factors.pop() if fits else parts.constant(1.0, np.float32)
            right = self.meant(parts, given[1], scale, given[3], self.by_channel((given[1], scale, given[3]), axis))
        out = gone[-1].output[0]
        made = parts.step("Conv" if conv else "MatMul", left, right, part="product" if factors else "",
                          output="" if factors else out, **(parts.attributes if conv else {}))  # fmt: skip
        for number, factor in enumerate(factors):
            ends = number == len(factors) - 1
            made = parts.step("Mul", made, factor, part="" if ends else f"scale{number}", output=out if ends else "")
        for each in gone[:-1]:  # nothing is left of these
            self.instead[id(each)] = []
        self.instead[id(gone[-1])] = parts.made

    def _only(self, name: str, op: str) -> onnx.NodeProto | None:
        readers = self.readers[name]
        return readers[0] if len(readers) == 1 and readers[0].op_type == op and name not in self.outputs else None

    def _scale_of(self, value: str) -> str:
        maker = self.makers.get(value)
        if maker is not None and maker.op_type == "DynamicQuantizeLinear":
            return str(maker.output[1])
        unit = self.unit_of(value)
        return "" if unit is None else unit[0]

    def _factors(self, name: str) -> list[str]:
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "Mul":
            return [name]
        return [factor for each in maker.input for factor in self._factors(each)]


def _axis(node: onnx.NodeProto) -> int:
    return next((each.i for each in node.attribute if each.name == "axis"), 0)


class _Spec:
    """An operator between dequantised inputs and a rounded output.

    ``values``: where each (value, scale, zero) begins; ``out``: where the output's scale is; ``bias``: of 32 bits.
    """

    def __init__(self, op: str, values: Sequence[int], out: int, settings: str = "", bias: int = 0):
        self.op, self.values, self.out, self.settings, self.bias = op, values, out, settings.split(), bias

    def axis(self, rewriting: _Rewriting, parts: Parts, given: Sequence[str]) -> int | None:
        """Return the axis of several scales of weights."""
        if self.op == "Conv":
            return 0
        if self.op == "MatMul":
            return rewriting.rank(given[3]) - 1
        return (0 if parts.get("transB", 0) else 1) if self.op == "Gemm" else None


_POOL = "kernel_shape strides pads ceil_mode count_include_pad auto_pad"
_SPECS: Mapping[str, _Spec] = {
    "QGemm": _Spec("Gemm", (0, 3), 7, "alpha transA transB", 6),
    "QLinearAdd": _Spec("Add", (0, 3), 6),
    "QLinearAveragePool": _Spec("AveragePool", (0,), 3, _POOL),
    "QLinearConv": _Spec("Conv", (0, 3), 6, "", 8),
    "QLinearGlobalAveragePool": _Spec("GlobalAveragePool", (0,), 3, "-"),
    "QLinearLeakyRelu": _Spec("LeakyRelu", (0,), 3, "alpha"),
    "QLinearMatMul": _Spec("MatMul", (0, 3), 6),
    "QLinearMul": _Spec("Mul", (0, 3), 6),
    "QLinearReduceMean": _Spec("ReduceMean", (0,), 3, "axes keepdims"),
    "QLinearSigmoid": _Spec("Sigmoid", (0,), 3),
    "QLinearSoftmax": _Spec("Softmax", (0,), 3, "axis"),
    "QLinearWhere": _Spec("Where", (1, 4), 7),
}
_WRITE: Mapping[str, Callable[[_Rewriting, Parts], None]] = {
    "DequantizeLinear": _Rewriting.dequantize,
    "DynamicQuantizeMatMul": _Rewriting.dynamic_matmul,
    "GatherBlockQuantized": lambda _, parts: blockwise.gather(parts),
    "MatMulNBits": lambda _, parts: blockwise.matmul(parts),
    "MatMulIntegerToFloat": _Rewriting.to_float,
    "QAttention": _Rewriting.attention,
    "QEmbedLayerNormalization": _Rewriting.embed,
    "QLinearConcat": _Rewriting.concat,
    "QuantizeLinear": _Rewriting.quantize,
}
_KNOWN = {*_SPECS, *_WRITE, "MatMulInteger", "ConvInteger"}


def _without_unread(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """Return the nodes that something reads: scales that follow values are part of the rounding."""
    needed, found = set(outputs), []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
            found.append(node)
    return found[::-1]
