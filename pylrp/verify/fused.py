"""onnxruntime's fused operators (domain com.microsoft) as the steps that they join, by its descriptions of them.

``program.py`` asks before it reads the steps. Beside ONNX's operators steps need some of this package's own, for what
depends on sizes that only a run knows (``helpers.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pylrp._meant import meant_product
from pylrp.errors import UnsupportedLayer
from pylrp.verify.elementwise import SELU_GAMMA
from pylrp.verify.helpers import OWN
from pylrp.verify.step import setting

__all__ = ["Parts", "taken_apart"]

_MICROSOFT = "com.microsoft"
_LEAST = -10000.0
_PRODUCTS = ("MatMul", "FusedMatMul", "Gemm")
_BY_HEAD = 4
_UNSAID = float(np.finfo(np.float32).max)


class Parts:
    """Steps in the place of a node.

    Parameters
    ----------
    node : NodeProto
    tensors : dict of str to TensorProto
        The model's constants, which new ones are added to.
    """

    def __init__(self, node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto]):
        self.node, self.tensors, self.made = node, tensors, list[onnx.NodeProto]()
        self.base = node.name or next(filter(None, node.output), node.op_type)
        self.attributes = {each.name: setting(helper.get_attribute_value(each)) for each in node.attribute}

    def input(self, position: int) -> str:
        """Return the name of an input, empty where it is left out."""
        return str(self.node.input[position]) if position < len(self.node.input) else ""

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def step(self, op: str, *inputs: str, part: str = "", output: str = "", count: int = 1, **settings: Any) -> Any:
        """Add a step and return its output, or several; without a part it is named after the node."""
        name = f"{self.base}/{part}" if part else self.node.name
        outputs = [output] if output else [f"{name or self.base}:{number}" for number in range(count)]
        domain, _, op = op.rpartition(".")
        given = {key: value for key, value in settings.items() if value is not None}
        self.made.append(helper.make_node(op, inputs, outputs, name, domain=domain, **given))
        return outputs[0] if count == 1 else outputs

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Return the name of a new constant."""
        name = f"{self.base}:constant{len(self.tensors)}"
        self.tensors[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def sizes(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a constant."""
        return tuple(self.tensors[name].dims) if name in self.tensors else None

    def refuse(self, reason: str) -> UnsupportedLayer:
        """Return the error for what there is no formula for."""
        way = "this part of the model can't be verified"
        return UnsupportedLayer(self.base, f"{self.node.domain}.{self.node.op_type}", reason, way)


def taken_apart(
    nodes: Sequence[onnx.NodeProto], tensors: dict[str, onnx.TensorProto], outputs: Sequence[str]
) -> list[onnx.NodeProto]:
    """Return the nodes with steps in the place of fused operators; those that there is no formula for stay."""
    makers = {name: node.op_type for node in nodes for name in node.output if name}
    # Keys and values for later calls are no outputs of a network.
    shown = {name for name in outputs if not name.lower().startswith("present")}
    read = {name for node in nodes for name in node.input} | (shown or set(outputs))
    found: list[onnx.NodeProto] = []
    for node in nodes:
        write = _APART.get(node.op_type) if node.domain == _MICROSOFT else None
        parts = Parts(node, tensors)
        if write is not None:
            write(parts, makers, read)
        found += parts.made or [node]
    return found


Write = Callable[[Parts, Mapping[str, str], set[str]], None]


def _activated(parts: Parts, value: str, settings: Sequence[Any]) -> None:
    """Add the function in ``activation``, the last step, whose output is the node's."""
    name, out = parts.get("activation", ""), parts.node.output[0]
    numbers = dict(zip(_SETTINGS.get(name, ()), settings, strict=False))
    numbers = {key: float(number) for key, number in numbers.items() if number is not None}
    if not name:
        parts.made[-1].output[0] = out
    elif name == "Selu":
        made = parts.step("Elu", value, part=name, alpha=numbers.get("alpha", 1.6732632423543772))
        parts.step(
            "Mul", made, parts.constant(numbers.get("gamma", SELU_GAMMA), np.float64), part=f"{name}1", output=out
        )
    elif name == "Clip":
        low, high = (numbers.get(key, bound) for key, bound in (("min", -np.inf), ("max", np.inf)))
        parts.step("Clip", value, part=name, output=out, min=max(low, -_UNSAID), max=min(high, _UNSAID))
    else:
        parts.step(name, value, part=name, output=out, **numbers)


_SETTINGS = {
    "Clip": ("min", "max"), "Elu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "LeakyRelu": ("alpha",),
    "Selu": ("alpha", "gamma"),
}  # fmt: skip


def _settings(parts: Parts) -> dict[str, Any]:
    return {key: value for key, value in parts.attributes.items() if not key.startswith("activation")}


def _conv(parts: Parts, makers: Mapping[str, str], read: set[str]) -> None:
    value = parts.step("Conv", *filter(None, parts.node.input[:3]), **_settings(parts))
    if parts.input(3):
        value = parts.step("Add", value, parts.input(3), part="Add")
    _activated(parts, value, parts.get("activation_params", ()))


def _gemm(parts: Parts, makers: Mapping[str, str], read: set[str]) -> None:
    value = parts.step("Gemm", *filter(None, parts.node.input), **_settings(parts))
    names = ("alpha", "gamma") if parts.get("activation") == "Selu" else ("alpha", "beta", "gamma")
    _activated(parts, value, [parts.get(f"activation_{name}") for name in names])


def _matmul(parts: Parts, makers: Mapping[str, str], read: set[str]) -> None:
    if parts.get("transBatchA", 0) or parts.get("transBatchB", 0):
        raise parts.refuse("moves the batch axis")
    fixed = [name in parts.tensors for name in parts.node.input[:2]]
    names = [
        parts.step(f"{OWN}.Turned", name, part=("left", "right")[at]) if parts.get(f"trans{'AB'[at]}", 0) else name
        for at, name in enumerate(parts.node.input[:2])
    ]
    out, alpha = parts.node.output[0], parts.get("alpha", 1.0)
    if alpha == 1:
        parts.step("MatMul", *names, output=out)
        return
    if fixed[0]:  # rows of the value times the constant, turned back
        value = parts.node.input[1] if parts.get("transB", 0) else parts.step(f"{OWN}.Turned", names[1], part="rows")
        made = parts.step("MatMul", value, parts.step(f"{OWN}.Turned", names[0], part="weight"))
        made = parts.step("Mul", made, parts.constant(alpha, np.float64), part="factor")
        parts.step(f"{OWN}.Turned", made, part="alpha", output=out)
        return
    part, behind = ("", "alpha") if any(fixed) else ("product", "")
    factor = parts.constant(alpha if any(fixed) else meant_product(np.float32(alpha)), np.float64)
    parts.step("Mul", parts.step("MatMul", *names, part=part), factor, part=behind, output=out)


def _gelu(approximate: str) -> Write:
    def write(parts: Parts, makers: Mapping[str, str], read: set[str]) -> None:
        value = parts.input(0)
        if parts.input(1):
            value = parts.step("Add", value, parts.input(1), part="bias")
        parts.step("Gelu", value, output=parts.node.output[0], approximate=approximate)

    return write


def _bias_add(parts: Parts, makers: Mapping[str, str], read: set[str]) -> None:
    value, out = parts.node.input[0], parts.node.output[0]
    if parts.input(2):
        value = parts.step("Add", value, parts.input(1), part="bias")
        parts.step("Add", value, parts.input(2), output=out)
    else:
        parts.step("Add", value, parts.input(1), output=out)


def _skip(norm: str, bias: int) -> Write:
    """Add two values, and a bias, which is the product's that is one of them, and normalise."""

    def write(parts: Parts, makers: Mapping[str, str], read: set[str]) -> None:
        values, shift = list(parts.node.input[:2]), parts.input(bias)
        products = [at for at, name in enumerate(values) if makers.get(name) in _PRODUCTS]
        if shift and len(products) == 1:
            values[products[0]] = parts.step("Add", values[products[0]], shift, part="bias")
            shift = ""
        total = parts.step("Add", *values, part="sum")
        if shift:
            total = parts.step("Add", total, shift, part="bias")
        outputs = parts.node.output
        if len(outputs) > 3 and outputs[3]:
            parts.made[-1].output[0] = total = outputs[3]
        arrays = [parts.input(i) for i in range(2, bias)]
        while arrays and not arrays[-1]:
            arrays.pop()
        parts.step(norm, total, *arrays, output=outputs[0], axis=-1, epsilon=parts.get("epsilon", 1e-12))

    return write


def _plain_norm(parts: Parts, makers: Mapping[str, str], read: set[str]) -> None:
    parts.step("SimplifiedLayerNormalization", *parts.node.input, output=parts.node.output[0], **parts.attributes)


def _embed(parts: Parts, makers: Mapping[str, str], read: set[str]) -> None:
    ids, segments, words, places, table, scale, shift, mask, place_ids = (parts.input(i) for i in range(9))
    total = parts.step("Gather", words, ids, part="words", axis=0)
    if segments and table:
        rows = parts.step("Gather", table, segments, part="segments", axis=0)
        total = parts.step("Add", total, rows, part="words_and_segments")
    numbers = place_ids or parts.step(f"{OWN}.Positions", ids, part="numbers")
    total = parts.step("Add", total, parts.step("Gather", places, numbers, part="positions", axis=0), part="sum")
    outputs = parts.node.output
    if len(outputs) > 2 and outputs[2]:
        parts.made[-1].output[0] = total = outputs[2]
    epsilon = parts.get("epsilon", 1e-12)
    parts.step("LayerNormalization", total, scale, *filter(None, [shift]), output=outputs[0], axis=-1, epsilon=epsilon)
    if len(outputs) > 1 and outputs[1] in read and mask:
        parts.step("ReduceSum", mask, parts.constant([1]), part="mask", output=outputs[1], keepdims=0)


def _attention(parts: Parts, makers: Mapping[str, str], read: set[str]) -> None:
    if parts.get("do_rotary", 0):
        raise parts.refuse("turns its queries and keys by their positions")
    _refuse_caches(parts, (4, 6), (1,), read)
    heads = parts.get("num_heads")
    made = parts.step("MatMul", parts.input(0), parts.input(1), part="qkv")
    if parts.input(2):
        made = parts.step("Add", made, parts.input(2), part="qkv_bias")
    sizes = parts.get("qkv_hidden_sizes") or [1, 1, 1]
    query, key, value = parts.step(f"{OWN}.Parts", made, part="split", count=3, parts=sizes)
    _attend(parts, [query, key, value], _mask(parts, parts.input(3), key), heads, heads, parts.input(5))


def _multi_head(parts: Parts, makers: Mapping[str, str], read: set[str]) -> None:
    _refuse_caches(parts, (6, 7, 8, 9), (1, 2, 3), read)
    heads, (query, key, value, biases, mask, bias) = parts.get("num_heads"), (parts.input(i) for i in range(6))
    if not key:  # (batch, tokens, heads, 3, width)
        query, key, value = _unpacked(parts, query, ("query", "key", "value"))
    elif not value:
        key, value = _unpacked(parts, key, ("key", "value"))
    if biases:
        own = parts.step(f"{OWN}.Biases", biases, query, key, part="biases", count=3)
        query, key, value = (
            parts.step("Add", each, shift, part=f"{name}_bias")
            for each, shift, name in zip((query, key, value), own, ("query", "key", "value"), strict=True)
        )
    _attend(parts, [query, key, value], _mask(parts, mask, key), heads, heads, bias)


def _unpacked(parts: Parts, value: str, names: Sequence[str]) -> list[str]:
    """Take parts that lie beside each other, (batch, tokens, heads, parts, width), apart."""
    cut = (
        parts.step("Gather", value, parts.constant(at), part=f"{name}_part", axis=3) for at, name in enumerate(names)
    )
    shape = parts.constant([0, 0, -1])
    return [parts.step("Reshape", each, shape, part=name) for each, name in zip(cut, names, strict=True)]


def _grouped_query(parts: Parts, makers: Mapping[str, str], read: set[str]) -> None:
    _refuse_caches(parts, (3, 4, 11), (1, 2, 3), read)
    heads, groups = parts.get("num_heads"), parts.get("kv_num_heads")
    query, key, value = (parts.input(i) for i in range(3))
    if not key:
        query, key, value = parts.step(f"{OWN}.Parts", query, part="split", count=3, parts=[heads, groups, groups])
    if parts.get("do_rotary", 0):
        numbers = parts.input(9) or parts.step(f"{OWN}.Positions", query, part="numbers")
        query, key = (
            parts.step("RotaryEmbedding", each, parts.input(7), parts.input(8), numbers, part=part, num_heads=count,
                       interleaved=parts.get("rotary_interleaved", 0))
            for each, part, count in ((query, "turned_query", heads), (key, "turned_key", groups))
        )  # fmt: skip
    mask = ""
    if parts.input(5):
        mask = parts.step(f"{OWN}.KeyMask", parts.input(5), key, part="mask", least=float("-inf"), last=1)
    window = parts.get("local_window_size", -1)
    settings = {"softcap": parts.get("softcap"), "left_window_size": window - 1 if window > 0 else None}
    _attend(parts, [query, key, value], mask, heads, groups, parts.input(10), 1, **settings)


def _refuse_caches(parts: Parts, inputs: Sequence[int], outputs: Sequence[int], read: set[str]) -> None:
    given = [name for name in map(parts.input, inputs) if name and 0 in (parts.sizes(name) or ())]
    if any(
        parts.input(at) and parts.sizes(parts.input(at)) is not None for at in inputs if parts.input(at) not in given
    ):
        raise parts.refuse("takes keys and values of earlier tokens")
    if any(at < len(parts.node.output) and parts.node.output[at] in read for at in outputs):
        raise parts.refuse("hands keys and values on to later calls")


def _mask(parts: Parts, mask: str, key: str) -> str:
    least = parts.get("mask_filter_value", _LEAST)
    return parts.step(f"{OWN}.KeyMask", mask, key, part="mask", least=least) if mask else ""


def _attend(
    parts: Parts, given: list[str], mask: str, heads: int, groups: int, bias: str, causal: int | None = None,
    **settings: Any,
) -> None:  # fmt: skip
    both = parts.step("Add", mask, bias, part="mask_and_bias") if mask and bias else mask or bias
    causal = parts.get("unidirectional", 0) if causal is None else causal
    parts.step("Attention", *given, *([both] if both else []), output=parts.node.output[0], q_num_heads=heads,
               kv_num_heads=groups, is_causal=causal, scale=parts.get("scale") or None, **settings)  # fmt: skip


def _rotary(parts: Parts, makers: Mapping[str, str], read: set[str]) -> None:
    value, numbers, cos, sin = (parts.input(i) for i in range(4))
    if parts.get("scale", 1.0) != 1 or parts.get("is_packed_batching", 0):
        raise parts.refuse("scales its input, or packs samples")
    numbers = parts.step(f"{OWN}.Positions", value, numbers, part="numbers")
    settings = {name: parts.get(name) for name in ("num_heads", "rotary_embedding_dim", "interleaved")}
    parts.step("RotaryEmbedding", value, cos, sin, numbers, output=parts.node.output[0], **settings)


def _relative_bias(parts: Parts, makers: Mapping[str, str], read: set[str]) -> None:
    buckets, heads = parts.sizes(parts.input(0)) or (0, 0)
    numbers = parts.step(f"{OWN}.Distances", parts.input(1), parts.input(2), part="numbers", buckets=buckets,
                         most=parts.get("max_distance"), both=parts.get("is_bidirectional", 0))  # fmt: skip
    table = parts.step("Reshape", parts.input(0), parts.constant([1, heads, buckets]), part="table")  # by columns
    parts.step("Gather", table, numbers, output=parts.node.output[0], axis=2)


_APART: dict[str, Write] = {
    "Attention": _attention,
    "BiasAdd": _bias_add,
    "BiasDropout": _bias_add,
    "BiasGelu": _gelu("none"),
    "EmbedLayerNormalization": _embed,
    "FastGelu": _gelu("tanh"),
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "FusedMatMul": _matmul,
    "GroupQueryAttention": _grouped_query,
    "MultiHeadAttention": _multi_head,
    "RelativePositionBias": _relative_bias,
    "RotaryEmbedding": _rotary,
    "SimplifiedLayerNormalization": _plain_norm,
    "SkipLayerNormalization": _skip("LayerNormalization", 4),
    "SkipSimplifiedLayerNormalization": _skip("SimplifiedLayerNormalization", 3),
    "TransposeMatMul": _matmul,
}
