"""onnxruntime's fused operators that are written as the nodes of ONNX that they were made of: attention, embeddings.

What its optimisers make of a transformer (domain com.microsoft): so the optimised file has the map of the file before.
``onnx/reader.py`` puts the nodes in the place of the one; operators that become a layer or two are in ``onnx/fused.py``
and ``onnx/norms.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pylrp._meant import meant_product
from pylrp.loaders.onnx.constants import Constant
from pylrp.loaders.onnx.node import Call

__all__ = ["WRITTEN_OUT", "Writer"]

_MASKED = -10000.0  # onnxruntime's default for what a mask adds
_SPLIT = 3  # axes of (batch, tokens, width)
_BY_HEAD = 4  # axes of (batch, heads, tokens, width)


class Writer:
    """Nodes in the place of one."""

    def __init__(self, node: NodeProto):
        self._node, self.nodes = node, list[NodeProto]()
        self._base = node.name or next(filter(None, node.output), node.op_type)

    def add(self, op: str, *inputs: str, part: str, output: str = "", **attributes: Any) -> str:
        """Add a node and return its output: ``output``, or a name of its own."""
        given = {name: value for name, value in attributes.items() if value is not None}
        output, name = output or f"{self._base}/{part}:0", f"{self._base}/{part}" if part else self._node.name
        self.nodes.append(helper.make_node(op, inputs, [output], name, **given))
        return output

    def constant(self, value: Any, part: str, dtype: Any = np.int64) -> str:
        """Add a constant."""
        return self.add("Constant", part=part, value=numpy_helper.from_array(np.asarray(value, dtype)))

    def split(self, value: str, sizes: list[int], axis: int, part: str) -> list[str]:
        """Cut a value into parts along an axis."""
        outputs = [f"{self._base}/{part}:{number}" for number in range(len(sizes))]
        given = [value, self.constant(sizes, f"{part}_sizes")]
        self.nodes.append(helper.make_node("Split", given, outputs, f"{self._base}/{part}", axis=axis))
        return outputs


def _given(call: Call, position: int) -> str:
    """Return the name of an optional input, empty where it is left out."""
    return str(call.node.input[position]) if call.has(position) else ""


def _wanted(call: Call, position: int) -> str:
    """Return the name of an output that somebody takes, empty where nobody does."""
    outputs = call.node.output
    name = outputs[position] if position < len(outputs) else ""
    return name if name in call.translation.needed else ""


def _sizes(call: Call, position: int) -> list[Any]:
    """Return the sizes of an input's axes as the file has them; the batch's need not be a number."""
    name, translation = call.node.input[position], call.translation
    if name in translation.constants:
        return list(translation.constants[name].first.shape)
    if name in translation.sides:
        return translation.sides.sizes(name)
    value = call.viewed(position)
    return value.view.sizes(value.shape)


def _embed(call: Call) -> list[NodeProto]:
    """Rows of words, positions and segments, their sum, and a LayerNorm of it."""
    write = Writer(call.node)
    ids, segments, words, places, segment_table, scale, shift, mask, place_ids = (_given(call, i) for i in range(9))
    total = write.add("Gather", words, ids, part="words", axis=0)
    if segments and segment_table:
        rows = write.add("Gather", segment_table, segments, part="segments", axis=0)
        total = write.add("Add", total, rows, part="words_and_segments")
    if place_ids:
        rows = write.add("Gather", places, place_ids, part="positions", axis=0)
    else:
        tokens = write.add("Shape", ids, part="tokens", start=1, end=2)
        rows = write.add("Slice", places, write.constant([0], "first"), tokens, write.constant([0], "axis"),
                         part="positions")  # fmt: skip
    total = write.add("Add", total, rows, part="sum", output=_wanted(call, 2))
    norm = [name for name in (scale, shift) if name]
    epsilon = call.attribute("epsilon", 1e-12)
    write.add("LayerNormalization", total, *norm, part="", output=call.node.output[0], axis=-1, epsilon=epsilon)
    counted = _wanted(call, 1)
    if counted and mask:
        kept = write.add("ReduceSum", mask, write.constant([1], "mask_axis"), part="mask_sum", keepdims=0)
        write.add("Cast", kept, part="mask", output=counted, to=TensorProto.INT32)
    elif counted:
        raise call.unsupported("counts the tokens of a mask that it is not given")
    return write.nodes


def _attention(call: Call) -> list[NodeProto]:
    """Queries, keys and values by one product, and attention."""
    write, heads = Writer(call.node), call.required("num_heads")
    if call.attribute("do_rotary", 0):
        raise call.unsupported("turns its queries and keys by their positions")
    _require_no_cache(call, (4, 6), (1,))
    width = _sizes(call, 1)[-1]
    sizes = [int(n) for n in call.attribute("qkv_hidden_sizes") or [width // 3] * 3]
    if sum(sizes) != width or any(n % heads for n in sizes):
        raise call.broken(f"has weights for {width} features, {sizes} of queries, keys and values, and {heads} heads")
    made = write.add("MatMul", call.node.input[0], call.node.input[1], part="qkv")
    if call.has(2):
        made = write.add("Add", made, call.node.input[2], part="qkv_bias")
    parts = write.split(made, sizes, 2, "split")
    mask = _mask(call, write, 3, _sizes(call, 0)[1])
    _attend(call, write, parts, _summed(write, mask, _given(call, 5)), heads, heads)
    return write.nodes


def _multi_head(call: Call) -> list[NodeProto]:
    """Attention of queries, keys and values that are given; a bias of all three, a mask, a bias of the scores."""
    write, heads = Writer(call.node), call.required("num_heads")
    _require_no_cache(call, (6, 7, 8, 9), (1, 2, 3))
    rank = len(_sizes(call, 0))
    if rank != _SPLIT:  # (batch, tokens, heads, 3, width)
        parts = _unpacked(write, call.node.input[0], ["query", "key", "value"], 3)
    elif call.has(1) and not call.has(2):  # (batch, tokens, heads, 2, width)
        parts = [call.node.input[0], *_unpacked(write, call.node.input[1], ["key", "value"], 3)]
    elif call.has(1):
        parts = [call.node.input[i] for i in range(3)]
    else:
        raise call.broken("has queries without keys")
    if call.has(3):
        parts = _biased(call, write, parts, rank)
    given = call.has(1)
    keys = _sizes(call, 1)[2 if len(_sizes(call, 1)) == _BY_HEAD else 1] if given else _sizes(call, 0)[1]
    mask = _mask(call, write, 4, keys)
    _attend(call, write, parts, _summed(write, mask, _given(call, 5)), heads, heads)
    return write.nodes


def _unpacked(write: Writer, value: str, names: list[str], axis: int) -> list[str]:
    """Cut queries, keys and values apart that lie beside each other, (batch, tokens, heads, parts, width)."""
    shape = write.constant([0, 0, -1], "shape")
    found = []
    for number, name in enumerate(names):
        part = write.add("Gather", value, write.constant(number, f"{name}_number"), part=f"{name}_part", axis=axis)
        found.append(write.add("Reshape", part, shape, part=name))
    return found


def _biased(call: Call, write: Writer, parts: list[str], rank: int) -> list[str]:
    """Add a bias that is that of queries, keys and values, one behind the other."""
    total = _sizes(call, 3)[0]
    width = _sizes(call, 0)[2] if rank == _SPLIT else total // 3
    by_head = call.has(1) and call.has(2) and len(_sizes(call, 1)) == _BY_HEAD
    sizes = [width, width, total - 2 * width]
    biases = write.split(call.node.input[3], sizes, 0, "biases")
    if by_head:  # of another value's keys: they have theirs already
        biases, parts, rest = biases[:1], parts[:1], parts[1:]
    else:
        rest = []
    names = ("query", "key", "value")
    made = [write.add("Add", part, bias, part=f"{name}_bias")
            for part, bias, name in zip(parts, biases, names, strict=False)]  # fmt: skip
    return [*made, *rest]


def _grouped_query(call: Call) -> list[NodeProto]:
    """Causal attention whose queries share keys and values, turned by their positions where it says so."""
    write = Writer(call.node)
    heads, groups = call.required("num_heads"), call.required("kv_num_heads")
    # An input for earlier tokens is empty here; what is given back for later ones is nobody's.
    _require_no_cache(call, (3, 4, 11), (1, 2, 3))
    if call.attribute("smooth_softmax", 0) == 1 or (call.has(11) and call.node.input[11]):
        raise call.unsupported("has a softmax whose shares do not sum to 1")
    if call.has(1):
        query, key, value = (call.node.input[i] for i in range(3))
    else:
        unit = _sizes(call, 0)[2] // (heads + 2 * groups)
        query, key, value = write.split(call.node.input[0], [heads * unit, groups * unit, groups * unit], 2, "split")
    tokens = _sizes(call, 0)[1]
    if call.attribute("do_rotary", 0):
        places = _given(call, 9) or write.constant(np.arange(tokens)[None], "positions")
        query, key = (
            write.add("RotaryEmbedding", part, _given(call, 7), _given(call, 8), places, part=name, num_heads=count,
                      interleaved=call.attribute("rotary_interleaved", 0))
            for part, name, count in ((query, "turned_query", heads), (key, "turned_key", groups))
        )  # fmt: skip
    mask = ""
    if call.has(5) and call.node.input[5] in call.translation.sides:  # the last key of each sample
        last = write.add("Reshape", call.node.input[5], write.constant([-1, 1, 1, 1], "by_sample"), part="last_key")
        last = write.add("Cast", last, part="last_number", to=TensorProto.INT64)
        seen = write.add("LessOrEqual", write.constant(np.arange(tokens), "keys"), last, part="seen")
        mask = _closed(call, write, seen, -np.inf)
    window = call.attribute("local_window_size", -1)
    settings = {"softcap": call.attribute("softcap"), "left_window_size": window - 1 if window > 0 else None}
    _attend(call, write, [query, key, value], _summed(write, mask, _given(call, 10)), heads, groups, 1, **settings)
    return write.nodes


def _attend(
    call: Call,
    write: Writer,
    parts: list[str],
    mask: str,
    heads: int,
    groups: int,
    causal: int | None = None,
    **settings: Any,
) -> None:
    """Add the attention itself, as ONNX has it."""
    causal = call.attribute("unidirectional", 0) if causal is None else causal
    scale = call.attribute("scale") or None  # 0: the usual one
    write.add("Attention", *parts, *([mask] if mask else []), part="", output=call.node.output[0], q_num_heads=heads,
              kv_num_heads=groups, is_causal=causal, scale=scale, **settings)  # fmt: skip


def _mask(call: Call, write: Writer, position: int, keys: int) -> str:
    """Return what a mask of keys adds to the scores; empty where there is none."""
    if not call.has(position):
        return ""
    name, sizes = call.node.input[position], _sizes(call, position)
    if len(sizes) == 1:
        if isinstance(sizes[0], int) and sizes[0] > 1:
            raise call.unsupported("has a mask of several numbers a sample")
        count = write.add("Reshape", name, write.constant([-1, 1, 1, 1], "by_sample"), part="count")
        count = write.add("Cast", count, part="count_number", to=TensorProto.INT64)
        return _closed(call, write, write.add("Less", write.constant(np.arange(keys), "keys"), count, part="seen"))
    axes = {2: [1, 2], 3: [1], 4: []}.get(len(sizes))
    if axes is None:
        raise call.broken(f"has a mask of {len(sizes)} axes")
    seen = write.add("Cast", name, part="seen", to=TensorProto.BOOL)
    if axes:
        seen = write.add("Unsqueeze", seen, write.constant(axes, "mask_axes"), part="mask_by_head")
    return _closed(call, write, seen)


def _closed(call: Call, write: Writer, seen: str, least: float | None = None) -> str:
    """Return what is added to the scores: nothing where a key is seen."""
    least = call.attribute("mask_filter_value", _MASKED) if least is None else least
    zero, low = (write.constant(v, part, np.float32) for v, part in ((0.0, "open"), (least, "closed")))
    return write.add("Where", seen, zero, low, part="mask")


def _summed(write: Writer, mask: str, bias: str) -> str:
    return write.add("Add", mask, bias, part="mask_and_bias") if mask and bias else mask or bias


def _require_no_cache(call: Call, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
    """Raise where keys and values of earlier tokens come in, or are handed on to be used with later ones."""
    for position in inputs:
        name = _given(call, position)
        if name and not (name in call.translation.constants and call.translation.constants[name].first.size == 0):
            raise call.unsupported("takes keys and values of earlier tokens", "export the model without a cache")
    if any(_wanted(call, position) for position in outputs):
        raise call.unsupported(
            "hands keys and values on to later calls, and that is an output of the network",
            "choose the outputs to explain, pylrp.load(..., outputs=[...]), or export the model without a cache",
        )


def _rotary(call: Call) -> list[NodeProto]:
    """ONNX's own operator, with its inputs in another order."""
    write = Writer(call.node)
    value, places, cos, sin = (call.node.input[i] for i in range(4))
    if call.attribute("scale", 1.0) != 1 or call.attribute("is_packed_batching", 0):
        raise call.unsupported("scales its input, or packs samples")
    sizes = _sizes(call, 0)
    if len(_sizes(call, 1)) == 1:  # where the first token stands
        start = call.constant(1)
        first = 0 if start is None else int(np.ravel(start)[0])
        tokens = sizes[2] if len(sizes) == _BY_HEAD else sizes[1]
        places = write.constant(np.arange(first, first + tokens)[None], "positions")
    heads = call.attribute("num_heads", 0)
    if not heads and len(sizes) == _SPLIT:
        heads = sizes[2] // (2 * _sizes(call, 2)[1])
    write.add("RotaryEmbedding", value, cos, sin, places, part="", output=call.node.output[0], num_heads=heads or None,
              rotary_embedding_dim=call.attribute("rotary_embedding_dim"),
              interleaved=call.attribute("interleaved", 0))  # fmt: skip
    return write.nodes


def _product(call: Call) -> list[NodeProto]:
    """A product of two computed values, either turned, and a factor; none where one of them is a constant."""
    if call.is_constant(0) or call.is_constant(1):
        return []
    write, names = Writer(call.node), list(call.node.input[:2])
    if call.attribute("transBatchA", 0) or call.attribute("transBatchB", 0):
        raise call.mixes_batch("moves the batch axis")
    for at, setting in enumerate(("transA", "transB")):
        if call.attribute(setting, 0):
            rank = len(_sizes(call, at))
            perm = [*range(rank - 2), rank - 1, rank - 2]
            names[at] = write.add("Transpose", names[at], part=("left", "right")[at], perm=perm)
    alpha = call.attribute("alpha", 1.0)
    plain = alpha == 1
    made = write.add("MatMul", *names, part="" if plain else "product", output=call.node.output[0] if plain else "")
    if not plain:
        factor = f"{made}:factor"
        number = meant_product(np.float32(alpha))
        call.translation.constants[factor] = Constant(number, number)
        write.add("Mul", made, factor, part="", output=call.node.output[0])
    return write.nodes


def _bias_add(call: Call) -> list[NodeProto]:
    """Add a bias and a second value (BiasAdd, BiasDropout)."""
    write, inputs = Writer(call.node), call.node.input
    if not call.has(2):
        write.add("Add", *inputs[:2], part="", output=call.node.output[0])
        return write.nodes
    write.add("Add", write.add("Add", *inputs[:2], part="bias"), inputs[2], part="", output=call.node.output[0])
    return write.nodes


def _relative_bias(call: Call) -> list[NodeProto]:
    """A number for each head, query and key, by their distance: near ones each have a row, far ones share some."""
    write = Writer(call.node)
    (buckets, heads), both = _sizes(call, 0), bool(call.attribute("is_bidirectional", 0))
    each = buckets // 2 if both else buckets
    exact, most = each // 2, call.required("max_distance")
    if exact < 1 or most <= exact:
        raise call.unsupported(f"has {buckets} numbers for distances up to {most}")
    zero, one = write.constant(0, "zero"), write.constant(1, "one")
    query, key = (
        write.add("Range", zero, write.add("Reshape", call.node.input[at], write.constant([], f"{part}_scalar"),
                                           part=f"{part}_length"), one, part=part)
        for at, part in ((1, "query"), (2, "key"))
    )  # fmt: skip
    column = write.add("Unsqueeze", query, write.constant([1], "second"), part="queries")
    ahead = write.add("Sub", key, column, part="ahead")
    distance = (
        write.add("Abs", ahead, part="distance")
        if both
        else write.add("Max", write.add("Neg", ahead, part="behind"), zero, part="distance")
    )
    # In the order and the precision in which the models compute it.
    far = write.add(
        "Cast", write.add("Max", distance, one, part="at_least_one"), part="as_number", to=TensorProto.FLOAT
    )
    for op, number, part in (("Div", exact, "share"), ("Log", None, "log"), ("Div", math.log(most / exact), "of_log"),
                             ("Mul", each - exact, "far")):  # fmt: skip
        given = [] if number is None else [write.constant(number, f"{part}_by", np.float32)]
        far = write.add(op, far, *given, part=part)
    whole = write.add("Cast", far, part="whole", to=TensorProto.INT64)
    bucket = write.add("Add", whole, write.constant(exact, "exact"), part="far_bucket")
    bucket = write.add("Min", bucket, write.constant(each - 1, "last"), part="at_most")
    near = write.add("Less", distance, write.constant(exact, "from"), part="near")
    bucket = write.add("Where", near, distance, bucket, part="bucket")
    if both:
        side = write.add("Cast", write.add("Greater", ahead, zero, part="is_ahead"), part="side", to=TensorProto.INT64)
        bucket = write.add(
            "Add", bucket, write.add("Mul", side, write.constant(each, "half"), part="other"), part="place"
        )
    # The table's numbers lie by columns, whatever its shape says.
    table = write.add("Reshape", call.node.input[0], write.constant([heads, buckets], "by_columns"), part="table")
    rows = write.add("Gather", table, bucket, part="by_head", axis=1)
    write.add("Unsqueeze", rows, write.constant([0], "first"), part="", output=call.node.output[0])
    return write.nodes


#: By operator: the nodes in its place, as functions of ``Call.again``; an empty list leaves it as it is.
WRITTEN_OUT: dict[str, Callable[[Call], list[NodeProto]]] = {
    "com.microsoft.Attention": _attention,
    "com.microsoft.BiasAdd": _bias_add,
    "com.microsoft.BiasDropout": _bias_add,
    "com.microsoft.EmbedLayerNormalization": _embed,
    "com.microsoft.FusedMatMul": _product,
    "com.microsoft.GroupQueryAttention": _grouped_query,
    "com.microsoft.MultiHeadAttention": _multi_head,
    "com.microsoft.RelativePositionBias": _relative_bias,
    "com.microsoft.RotaryEmbedding": _rotary,
    "com.microsoft.TransposeMatMul": _product,
}
