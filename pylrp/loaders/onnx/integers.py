"""Operators of ONNX that compute with whole numbers, written with the ones that compute with what those stand for.

QLinearConv is Conv between DequantizeLinear and QuantizeLinear; DynamicQuantizeLinear, MatMulInteger, Cast and a
product with two scales are MatMul of a rounded value. ``onnx/model.py`` calls in before anything is read,
``onnx/quantised.py`` has the operators that are left; what is not known stays, and is refused where it stands.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import NodeProto, TensorProto

from pylrp.loaders.onnx.file import ModelFile
from pylrp.loaders.onnx.node import operator_of
from pylrp.loaders.onnx.quantised import DYNAMIC
from pylrp.loaders.onnx.written_out import Writer

__all__ = ["with_numbers_meant"]

_MOST_FACTORS = 8
_MICROSOFT = "com.microsoft"


def with_numbers_meant(file: ModelFile) -> ModelFile:
    """Return the file with no operators left that compute with whole numbers, where they can be written otherwise."""
    nodes = file.model.graph.node
    if not any(operator_of(node) in _WRITTEN or node.op_type == "DequantizeLinear" for node in nodes):
        return file
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    made = _Rewriter(file.model.graph).nodes()
    del model.graph.node[:]
    model.graph.node.extend(made)
    return ModelFile(model, file.path, file.spans)


class _Rewriter:
    def __init__(self, graph: onnx.GraphProto):
        self._given = list(graph.node)
        self._makers = {name: node for node in self._given for name in node.output if name}
        self._sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self._readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self._given:
            for name in filter(None, node.input):
                self._readers[name].append(node)
        self._outputs = {info.name for info in graph.output}
        self._known: dict[tuple[str, ...], str] = {}
        #: Nodes that come in the place of another one, and nodes that are part of one.
        self._instead: dict[int, list[NodeProto]] = {}
        self._gone: set[int] = set()

    def nodes(self) -> list[NodeProto]:
        for node in self._given:
            if node.op_type in ("MatMulInteger", "ConvInteger") and not node.domain:
                self._product_of_integers(node)
        found = []
        for node in self._given:
            if id(node) in self._instead:
                found += self._instead[id(node)]
            elif id(node) not in self._gone:
                write = _WRITTEN.get(operator_of(node))
                if write is not None and self._fits(node):
                    writer = Writer(node)
                    write(self, writer, [*node.input, *[""] * 16], node)
                    found += writer.nodes
                else:
                    found += self._row_of_a_table(node) or [node]
        return found

    def _fits(self, node: NodeProto) -> bool:
        return bool(node.output) and len(node.input) >= 2

    def real(self, write: Writer, value: str, scale: str, zero: str, axis: int | None = None, what: str = "") -> str:
        """Return the name of what a quantised value stands for; ``axis`` is that of several scales."""
        maker = self._makers.get(value)
        if maker is not None and maker.op_type == "DynamicQuantizeLinear":
            return self.rounded(write, maker.input[0])
        key = "real", value, scale, zero, str(axis)
        table = self._table_of(value, scale)
        if key not in self._known and table is not None:  # a row of numbers, which ids choose
            rows = self.real(write, table.input[0], scale, zero)
            self._known[key] = write.add("Gather", rows, table.input[1], part=what or f"{value}:real",
                                         axis=_axis(table))  # fmt: skip
        if key not in self._known:
            given = [value, scale, *([zero] if zero else [])]
            part = what or f"{value}:real"
            self._known[key] = write.add("DequantizeLinear", *given, part=part, axis=axis)
        return self._known[key]

    def rounded(self, write: Writer, value: str) -> str:
        """Return the name of a value rounded as its own range asks for."""
        key = "rounded", value
        if key not in self._known:
            domain, _, op = DYNAMIC.partition(".")
            self._known[key] = write.add(op, value, part=f"{value}:rounded", domain=domain)
        return self._known[key]

    def several(self, scale: str) -> bool:
        """Tell whether an initialiser is more than one number."""
        sizes = self._sizes.get(scale, ())
        return any(n != 1 for n in sizes)

    def axis(self, scale: str, axis: int) -> int | None:
        """Return an axis for several scales, None for one."""
        return axis if self.several(scale) else None

    def rank(self, name: str) -> int:
        """Return how many axes an initialiser has; 2 for others."""
        return len(self._sizes.get(name, (0, 0)))

    def _row_of_a_table(self, node: NodeProto) -> list[NodeProto]:
        """Return nodes that look up in a table of numbers, for one that makes numbers of what was looked up."""
        gather = self._table_of(*node.input[:2]) if node.op_type == "DequantizeLinear" and len(node.input) > 1 else None
        if gather is None:
            return []
        write = Writer(node)
        table = self.real(write, gather.input[0], node.input[1], node.input[2] if len(node.input) > 2 else "")
        write.add("Gather", table, gather.input[1], part="", output=node.output[0], axis=_axis(gather))
        return write.nodes

    def _table_of(self, value: str, scale: str) -> NodeProto | None:
        """Return the node that looks a value up in a table of one scale, None where none does."""
        gather = self._makers.get(value)
        found = gather is not None and gather.op_type == "Gather" and gather.input[0] in self._sizes
        return gather if found and not self.several(scale) else None

    def _product_of_integers(self, node: NodeProto) -> None:
        """Note what stands in the place of a product of whole numbers, its Cast and its scales."""
        given = [*node.input, "", ""]
        cast = self._only_reader(node.output[0], "Cast")
        if cast is None or next((a.i for a in cast.attribute if a.name == "to"), 0) != TensorProto.FLOAT:
            return
        wanted = {self._scale_of(given[0]), self._scale_of(given[1])} - {""}
        if not self._scale_of(given[0]) or not (self._scale_of(given[1]) or given[1] in self._sizes):
            return
        last, factors, gone = cast, list[str](), [node, cast]
        while not wanted <= set(factors):
            product = self._only_reader(last.output[0], "Mul")
            if product is None or len(factors) > _MOST_FACTORS:
                return
            factors += self._factors(next(name for name in product.input if name != last.output[0]))
            last = product
            gone.append(product)
        for name in wanted:
            factors.remove(name)
        write = Writer(node)
        left = self.real(write, given[0], self._scale_of(given[0]), given[2])
        convolution = node.op_type == "ConvInteger"
        channels = self._sizes.get(given[1], (0,))[0 if convolution else -1]
        own = len(factors) == 1 and self._sizes.get(factors[0], (0,)) in ((), (1,), (channels,))
        if self._scale_of(given[1]):
            right = self.real(write, given[1], self._scale_of(given[1]), given[3])
        else:
            scale = factors.pop() if own and factors else write.constant(1.0, "one", "f")
            axis = 0 if convolution else self.rank(given[1]) - 1
            both = self.several(scale) or self.several(given[3])
            right = self.real(write, given[1], scale, given[3], axis if both else None)
        name = last.output[0]
        settings = _settings(node) if convolution else {}
        made = write.add("Conv" if convolution else "MatMul", left, right, part="" if not factors else "product",
                         output="" if factors else name, **settings)  # fmt: skip
        for number, factor in enumerate(factors):
            ends = number == len(factors) - 1
            made = write.add("Mul", made, factor, part="" if ends else f"scale{number}", output=name if ends else "")
        self._instead[id(last)] = write.nodes
        self._gone.update(map(id, gone))

    def _only_reader(self, name: str, op: str) -> NodeProto | None:
        readers = self._readers[name]
        return readers[0] if len(readers) == 1 and readers[0].op_type == op and name not in self._outputs else None

    def _scale_of(self, value: str) -> str:
        """Return the name of the scale of a value that a node has quantised, empty where none has."""
        maker = self._makers.get(value)
        if maker is None:
            return ""
        if maker.op_type == "DynamicQuantizeLinear":
            return str(maker.output[1])
        return str(maker.input[1]) if maker.op_type == "QuantizeLinear" else ""

    def _factors(self, name: str) -> list[str]:
        maker = self._makers.get(name)
        if maker is None or maker.op_type != "Mul":
            return [name]
        return [factor for each in maker.input for factor in self._factors(each)]


def _axis(node: NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "axis"), 0)


def _settings(node: NodeProto, *names: str) -> dict[str, Any]:
    """Return a node's attributes, all or some."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if not names or a.name in names}


Write = Callable[[_Rewriter, Writer, Sequence[str], NodeProto], None]


def _quantise(write: Writer, value: str, scale: str, zero: str, node: NodeProto) -> None:
    """Round a result to what the node says, or leave it under the node's name."""
    given = [value, scale, *([zero] if zero else [])]
    write.add("QuantizeLinear", *given, part="rounded", output=node.output[0])


def _conv(rewriter: _Rewriter, write: Writer, given: Sequence[str], node: NodeProto) -> None:
    x, x_scale, x_zero, w, w_scale, w_zero, scale, zero, bias = given[:9]
    parts = [rewriter.real(write, x, x_scale, x_zero), rewriter.real(write, w, w_scale, w_zero,
                                                                    rewriter.axis(w_scale, 0))]  # fmt: skip
    if bias:
        both = write.add("Mul", x_scale, w_scale, part="bias_scale")
        parts.append(write.add("DequantizeLinear", bias, both, part="bias", axis=0))
    made = write.add("Conv", *parts, part="", output=f"{node.output[0]}:real", **_settings(node))
    _quantise(write, made, scale, zero, node)


def _matmul(rewriter: _Rewriter, write: Writer, given: Sequence[str], node: NodeProto) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = given[:8]
    left = rewriter.real(write, a, a_scale, a_zero)
    right = rewriter.real(write, b, b_scale, b_zero, rewriter.axis(b_scale, rewriter.rank(b) - 1))
    _quantise(write, write.add("MatMul", left, right, part="", output=f"{node.output[0]}:real"), scale, zero, node)


def _gemm(rewriter: _Rewriter, write: Writer, given: Sequence[str], node: NodeProto) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero, bias, scale, zero = given[:9]
    settings = _settings(node, "alpha", "transA", "transB")
    parts = [
        rewriter.real(write, a, a_scale, a_zero),
        rewriter.real(write, b, b_scale, b_zero, rewriter.axis(b_scale, 0 if settings.get("transB") else 1)),
    ]
    if bias:
        both = write.add("Mul", a_scale, b_scale, part="bias_scale")
        if settings.get("alpha", 1.0) != 1:
            both = write.add("Mul", both, write.constant(settings["alpha"], "alpha", "f"), part="bias_factor")
        parts.append(write.add("DequantizeLinear", bias, both, part="bias", axis=0))
    real = f"{node.output[0]}:real" if scale else node.output[0]
    made = write.add("Gemm", *parts, part="", output=real, **settings)
    if scale:
        _quantise(write, made, scale, zero, node)


def _of_two(op: str) -> Write:
    def write_out(rewriter: _Rewriter, write: Writer, given: Sequence[str], node: NodeProto) -> None:
        parts = [rewriter.real(write, given[0], given[1], given[2]), rewriter.real(write, given[3], given[4], given[5])]
        _quantise(write, write.add(op, *parts, part="", output=f"{node.output[0]}:real"), given[6], given[7], node)

    return write_out


def _of_one(op: str, *names: str) -> Write:
    def write_out(rewriter: _Rewriter, write: Writer, given: Sequence[str], node: NodeProto) -> None:
        settings = _settings(node, *names) if names else {}
        made = write.add(
            op, rewriter.real(write, given[0], given[1], given[2]), part="", output=f"{node.output[0]}:real", **settings
        )
        _quantise(write, made, given[3], given[4], node)

    return write_out


def _concat(rewriter: _Rewriter, write: Writer, given: Sequence[str], node: NodeProto) -> None:
    names = list(node.input)
    parts = [rewriter.real(write, names[i], names[i + 1], names[i + 2]) for i in range(2, len(names), 3)]
    made = write.add("Concat", *parts, part="", output=f"{node.output[0]}:real", **_settings(node, "axis"))
    _quantise(write, made, names[0], names[1], node)


def _where(rewriter: _Rewriter, write: Writer, given: Sequence[str], node: NodeProto) -> None:
    parts = [rewriter.real(write, given[1], given[2], given[3]), rewriter.real(write, given[4], given[5], given[6])]
    made = write.add("Where", given[0], *parts, part="", output=f"{node.output[0]}:real")
    _quantise(write, made, given[7], given[8], node)


def _to_float(rewriter: _Rewriter, write: Writer, given: Sequence[str], node: NodeProto) -> None:
    """MatMulIntegerToFloat: a product of two quantised values, and a bias."""
    a, b, a_scale, b_scale, a_zero, b_zero, bias = given[:7]
    _with_bias(rewriter, write, rewriter.real(write, a, a_scale, a_zero), (b, b_scale, b_zero), bias, node)


def _dynamic_matmul(rewriter: _Rewriter, write: Writer, given: Sequence[str], node: NodeProto) -> None:
    a, b, b_scale, b_zero, bias = given[:5]
    _with_bias(rewriter, write, rewriter.rounded(write, a), (b, b_scale, b_zero), bias, node)


def _with_bias(
    rewriter: _Rewriter, write: Writer, left: str, right: tuple[str, str, str], bias: str, node: NodeProto
) -> None:
    weight = rewriter.real(write, *right, rewriter.axis(right[1], rewriter.rank(right[0]) - 1))
    made = write.add("MatMul", left, weight, part="" if not bias else "product", output="" if bias else node.output[0])
    if bias:
        write.add("Add", made, bias, part="", output=node.output[0])


def _attention(rewriter: _Rewriter, write: Writer, given: Sequence[str], node: NodeProto) -> None:
    x, w, bias, x_scale, w_scale, mask, x_zero, w_zero, past = given[:9]
    parts = [rewriter.real(write, x, x_scale, x_zero), rewriter.real(write, w, w_scale, w_zero,
                                                                    rewriter.axis(w_scale, 1))]  # fmt: skip
    write.add(
        "Attention", *parts, bias, mask, past, part="", output=node.output[0], domain=_MICROSOFT, **_settings(node)
    )


def _embed(rewriter: _Rewriter, write: Writer, given: Sequence[str], node: NodeProto) -> None:
    tables = [rewriter.real(write, given[2 + i], given[8 + i], given[13 + i]) if given[2 + i] else "" for i in range(5)]
    write.add("EmbedLayerNormalization", *given[:2], *tables, given[7], part="", output=node.output[0],
              domain=_MICROSOFT, **_settings(node, "epsilon"))  # fmt: skip
    write.nodes[-1].output.extend(node.output[1:2])


_WRITTEN: dict[str, Write] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "com.microsoft.DynamicQuantizeMatMul": _dynamic_matmul,
    "com.microsoft.MatMulIntegerToFloat": _to_float,
    "com.microsoft.QAttention": _attention,
    "com.microsoft.QEmbedLayerNormalization": _embed,
    "com.microsoft.QGemm": _gemm,
    "com.microsoft.QLinearAdd": _of_two("Add"),
    "com.microsoft.QLinearAveragePool": _of_one(
        "AveragePool", "kernel_shape", "strides", "pads", "ceil_mode", "count_include_pad", "auto_pad"
    ),
    "com.microsoft.QLinearConcat": _concat,
    "com.microsoft.QLinearConv": _conv,
    "com.microsoft.QLinearGlobalAveragePool": _of_one("GlobalAveragePool"),
    "com.microsoft.QLinearLeakyRelu": _of_one("LeakyRelu", "alpha"),
    "com.microsoft.QLinearMul": _of_two("Mul"),
    "com.microsoft.QLinearReduceMean": _of_one("ReduceMean", "axes", "keepdims"),
    "com.microsoft.QLinearSigmoid": _of_one("Sigmoid"),
    "com.microsoft.QLinearSoftmax": _of_one("Softmax", "axis"),
    "com.microsoft.QLinearWhere": _where,
    "ConvInteger": lambda *given: _kept(*given),
    "MatMulInteger": lambda *given: _kept(*given),
}


def _kept(rewriter: _Rewriter, write: Writer, given: Sequence[str], node: NodeProto) -> None:
    """Leave a product of whole numbers that nobody scales; it is refused where it stands."""
    write.nodes.append(node)
