"""`Network.verify` of fused, quantised and recurrent nodes: right ones pass, broken ones are named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import ModelProto, helper, numpy_helper, parser

import pylrp
from pylrp import layers as L
from pylrp.layers import CustomLayer, Recurrent
from pylrp.network.graph import Node
from pylrp.verify import reference_relevance

RNG = np.random.default_rng(16)
OWN = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:], dtype=int), 1))


def model(
    text: str, inputs: dict[str, tuple[int, tuple[Any, ...]]], outputs: str = "y", **constants: Any
) -> ModelProto:
    """Return the model of nodes, written one after the other; floats in single precision."""
    nodes = [parser.parse_node(part.strip()) for part in text.strip().rstrip(";").split(";")]
    for node in nodes:
        if node.op_type in FUSED_NAMES:
            node.domain = "com.microsoft"
        node.name = next(filter(None, node.output))
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs.split()],
        [numpy_helper.from_array(a if a.dtype.kind in "iu" else a.astype(np.float32), n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=OWN, ir_version=8)


FUSED_NAMES = {
    "Attention", "BiasGelu", "EmbedLayerNormalization", "FastGelu", "FusedConv", "FusedGemm", "FusedMatMul",
    "MultiHeadAttention", "QGemm", "QLinearAdd", "QuickGelu", "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
}  # fmt: skip
IDS = {"ids": (7, ("n", 6)), "kinds": (7, ("n", 6)), "mask": (7, ("n", 6))}
BERT = (
    """e, m = EmbedLayerNormalization(ids, kinds, words, places, types, g, b, mask);
    a = Attention<num_heads=3>(e, W, B, m); p = MatMul(a, P); s = SkipLayerNormalization(p, e, g, b, c);
    u = MatMul(s, U); h = BiasGelu(u, d); v = MatMul(h, V); t = SkipLayerNormalization(s, v, g, b);
    y = ReduceMean<axes=[1], keepdims=0>(t)""",
    IDS,
    {"words": normal(9, 12), "places": normal(8, 12), "types": normal(2, 12), "g": 1 + normal(12), "b": normal(12) / 4,
     "W": normal(12, 36), "B": normal(36) / 4, "P": normal(12, 12), "c": normal(12), "U": normal(12, 20),
     "d": normal(20), "V": normal(20, 12)},
)  # fmt: skip
DECODER = (
    """n = SimplifiedLayerNormalization<axis=-1>(x, g); q = MatMul(n, Q); k = MatMul(n, K); v = MatMul(n, W);
    a = MultiHeadAttention<num_heads=2, unidirectional=1>(q, k, v, B); p = MatMul(a, P);
    s = SkipSimplifiedLayerNormalization(p, x, g); u = FusedMatMul<transB=1, alpha=0.5>(s, U); h = QuickGelu(u);
    f = FastGelu(h); y = ReduceMean<axes=[1], keepdims=0>(f)""",
    {"x": (1, ("n", 5, 8))},
    {"g": 1 + normal(8), "Q": normal(8, 8), "K": normal(8, 8), "W": normal(8, 8), "B": normal(24), "P": normal(8, 8),
     "U": normal(11, 8)},
)  # fmt: skip
PICTURES = (
    """c = FusedConv<activation="Relu", pads=[1,1,1,1]>(x, W, B); d = FusedConv<activation="LeakyRelu",
    activation_params=[0.2], pads=[1,1,1,1]>(c, V, B, c); f = Flatten(d);
    g = FusedGemm<activation="Tanh", transB=1>(f, U, u); y = Gemm(g, T)""",
    {"x": (1, ("n", 2, 5, 5))},
    {"W": normal(3, 2, 3, 3), "B": normal(3), "V": normal(3, 3, 3, 3), "U": normal(6, 75), "u": normal(6),
     "T": normal(6, 4)},
)  # fmt: skip


def whole(*shape: int, kind: Any = np.int8) -> Any:
    limits = np.iinfo(kind)
    return RNG.integers(limits.min // 2, limits.max // 2, shape).astype(kind)


QDQ = (
    """q = QuantizeLinear(x, s, z); a = DequantizeLinear(q, s, z); w = DequantizeLinear<axis=0>(W, ws, wz);
    c = Conv<pads=[1,1,1,1]>(a, w); k = QuantizeLinear(c, t, r); m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(k);
    d = DequantizeLinear(m, t, r); f = Flatten(d); v = DequantizeLinear(V, vs, vz); y = MatMul(f, v)""",
    {"x": (1, ("n", 2, 4, 4))},
    {"s": 0.03, "z": np.uint8(100), "W": whole(3, 2, 3, 3), "ws": [0.004, 0.005, 0.003],
     "wz": np.zeros(3, np.int8), "t": 0.02, "r": np.uint8(0), "V": whole(12, 4), "vs": 0.007, "vz": np.int8(0)},
)  # fmt: skip
QOPERATOR = (
    """q = QuantizeLinear(x, s, z); c = QLinearConv<pads=[1,1,1,1]>(q, s, z, W, ws, wz, t, r, B);
    e = QLinearAdd(c, t, r, c, t, r, o, p); f = Flatten(e); g = QGemm<transB=1>(f, o, p, V, vs, vz, b, l, i);
    y = DequantizeLinear(g, l, i)""",
    {"x": (1, ("n", 2, 4, 4))},
    {"s": 0.03, "z": np.uint8(100), "W": whole(3, 2, 3, 3), "ws": 0.004, "wz": np.int8(0), "t": 0.03,
     "r": np.uint8(128), "B": np.int32([300, -200, 900]), "o": 0.06, "p": np.uint8(128), "V": whole(4, 48),
     "vs": [0.004, 0.003, 0.006, 0.005], "vz": np.zeros(4, np.int8), "b": np.int32([10, -20, 30, 0]), "l": 0.1,
     "i": np.uint8(120)},
)  # fmt: skip
#: Rows of a table that ids choose, which nothing makes numbers of but the operators that compute with them.
LOOKED_UP = (
    """e = Gather(words, ids); k = Gather(types, kinds); a = QLinearAdd(e, s, z, k, t, z, o, p);
    m = QLinearMatMul(a, o, p, V, vs, vz, l, i); d = DequantizeLinear(m, l, i);
    y = ReduceMean<axes=[1], keepdims=0>(d)""",
    {"ids": (7, ("n", 6)), "kinds": (7, ("n", 6))},
    {"words": whole(9, 8, kind=np.uint8), "types": whole(2, 8, kind=np.uint8), "s": 0.02, "t": 0.01,
     "z": np.uint8(90), "o": 0.03, "p": np.uint8(100), "V": whole(8, 4), "vs": 0.004, "vz": np.int8(0), "l": 0.05,
     "i": np.uint8(120)},
)  # fmt: skip
DYNAMIC = (
    """q, s, z = DynamicQuantizeLinear(x); i = MatMulInteger(q, W, z, wz); f = Cast<to=1>(i); k = Mul(s, ws);
    h = Mul(f, k); a = Add(h, b); r = Relu(a); q2, s2, z2 = DynamicQuantizeLinear(r);
    i2 = MatMulInteger(q2, V, z2, vz); f2 = Cast<to=1>(i2); k2 = Mul(s2, vs); y = Mul(f2, k2)""",
    {"x": (1, ("n", 6))},
    {"W": whole(6, 8), "ws": 0.01, "wz": np.int8(3), "b": normal(8), "V": whole(8, 3),
     "vs": [0.01, 0.02, 0.015], "vz": np.zeros(3, np.int8)},
)  # fmt: skip


def recurrent(op: str, **settings: Any) -> Any:
    gates, both = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2 if settings.get("direction") == "bidirectional" else 1
    text = ", ".join(f'{key}="{v}"' if isinstance(v, str) else f"{key}={v}" for key, v in settings.items())
    text = f"<hidden_size=4{', ' if text else ''}{text}>"
    return (
        f"s, h = {op}{text}(x, W, R, B, lengths); a = Relu(s); y = ReduceMean<axes=[0,1], keepdims=0>(a);"
        f"e = ReduceSum(h, axis); z = Squeeze(h, axis)" if both == 1 else
        f"s, h = {op}{text}(x, W, R, B, lengths); t = Transpose<perm=[2,0,1,3]>(s); f = Flatten(t); y = MatMul(f, V)",
        {"x": (1, (5, "n", 3)), "lengths": (6, ("n",))},
        {"W": RNG.normal(size=(both, gates * 4, 3)), "R": RNG.normal(size=(both, gates * 4, 4)) / 2,
         "B": RNG.normal(size=(both, gates * 8)) / 3, "V": normal(40, 3), "axis": np.array([0])},
    )  # fmt: skip


MODELS: dict[str, Any] = {
    "bert": BERT, "decoder": DECODER, "pictures": PICTURES, "qdq": QDQ, "qoperator": QOPERATOR, "dynamic": DYNAMIC,
    "looked up": LOOKED_UP,
    "lstm": recurrent("LSTM", direction="bidirectional"), "gru": recurrent("GRU", direction="reverse"),
    "gru, torch's": recurrent("GRU", linear_before_reset=1), "clipped": recurrent("LSTM", clip=0.7, input_forget=1),
    "rnn": recurrent("RNN", direction="bidirectional"),
}  # fmt: skip


def make(name: str, dtype: Any = np.float64) -> tuple[pylrp.Network, ModelProto, Any]:
    text, inputs, constants = MODELS[name]
    unused = {key for key in constants if key not in text.replace("(", " ").replace(")", " ").replace(",", " ").split()}
    made = model(text, inputs, **{key: value for key, value in constants.items() if key not in unused})
    rng = np.random.default_rng(5)
    x = {
        "ids": rng.integers(0, 9, (3, 6)), "kinds": rng.integers(0, 2, (3, 6)),
        "mask": (np.arange(6) < [[6], [4], [5]]).astype(int), "lengths": np.array([5, 3, 4], np.int32),
    }  # fmt: skip
    x |= {"x": rng.normal(size=[3, *(n for n in inputs["x"][1] if n != "n")]).astype(dtype)} if "x" in inputs else {}
    x = {key: x[key] for key in inputs}
    return pylrp.load(made, dtype=str(np.dtype(dtype))), made, x if len(x) > 1 else x["x"]


@pytest.mark.parametrize("composite", ["epsilon", "attnlrp", "cp_lrp", "epsilon_plus"])
@pytest.mark.parametrize("name", MODELS)
def test_an_intact_model_passes(name: str, composite: Any) -> None:
    for dtype, limit in ((np.float64, 1e-11), (np.float32, 1e-3)):
        net, _, x = make(name, dtype)
        found = net.verify(x, composite=composite)
        assert found, str(found)
        assert found.relevance_error < limit
        values, relevance = found.compared
        assert values >= len([node for node in net.graph.nodes if "/" not in node.name])
        assert relevance >= values


def weights(name: str, field: str, change: Any) -> Any:
    def changed(nodes: list[Node]) -> list[Node]:
        made = [replace(n, layer=replace(n.layer, **{field: change(np.array(getattr(n.layer, field)))}))
                if n.name == name else n for n in nodes]  # fmt: skip
        assert any(one is not other for one, other in zip(made, nodes, strict=True))
        return made

    return changed


class Backwards(CustomLayer):
    """A recurrent layer that hands each step's relevance to another step."""

    def __init__(self, layer: Recurrent, shapes: Any):
        self.net = pylrp.Network.from_graph(pylrp.network.graph.Graph(shapes, [Node("s", layer, tuple(shapes))], ["s"]))
        self.names = list(shapes)

    def output_shape(self, *shapes: Any) -> Any:
        return self.net.graph.shapes["s"]

    def forward(self, *inputs: Any) -> Any:
        return self.net.forward(dict(zip(self.names, inputs, strict=True)))

    def relevance(self, inputs: Any, output: Any, relevance: Any) -> Any:
        given = dict(zip(self.names, inputs, strict=True))
        found = self.net.explain(given, target=relevance, composite="epsilon").relevance
        return found[self.names[0]][:, ::-1], np.zeros_like(inputs[1])


def backwards(nodes: list[Node]) -> list[Node]:
    def custom(node: Node) -> Node:
        return replace(node, layer=Backwards(node.layer, {"x": (5, 3), "lengths": (1,)}))

    return [custom(node) if isinstance(node.layer, Recurrent) else node for node in nodes]


def test_rows_of_a_quantised_table_take_the_relevance() -> None:
    """Every token gets its row's share of what is added: nothing stays in a value that ids were computed to."""
    net, _, x = make("looked up")
    ex = net.explain(x, composite="attnlrp", target=1)
    assert set(ex.relevance) == {"ids", "kinds"}
    total = sum(each.sum(axis=1) for each in ex.relevance.values())
    np.testing.assert_allclose(total, ex.output[:, 1], rtol=1e-9)
    assert all(np.abs(each).max() > 1e-3 for each in ex.relevance.values())


BROKEN = {
    "a gate's weights of another": ("lstm", weights("s/states", "weight", lambda w: np.roll(w, 4, axis=1)), "s/states"),
    "a bias of the state lost": ("gru, torch's", weights("s/states", "recurrent_bias", lambda b: 0 * b), "s/states"),
    "steps the wrong way round": ("gru", backwards, "s/states"),
    "a head's values lost": ("bert", weights("a/qkv", "weight", lambda w: np.concatenate([w[:32], 0 * w[32:]])),
                             "a/qkv"),
    "another normalisation": ("bert", weights("s", "scale", lambda s: s[::-1].copy()), "s"),
    "an alpha forgotten": ("decoder", weights("u", "weight", lambda w: 2 * w), "u"),
    "a sum of two left out": ("pictures", weights("d", "bias", lambda b: b + 1), "d"),
    "a finer step": ("qdq", lambda nodes: [replace(n, layer=L.Quantize(0.015, -100, 155)) if n.name == "q" else n
                                           for n in nodes], "q"),
    "no clip at 0": ("qdq", lambda nodes: [replace(n, layer=L.Quantize(0.02, -128, 255)) if n.name == "k" else n
                                           for n in nodes], "k"),
    "a scale for all channels": ("qoperator", weights("g", "weight", lambda w: w * [[1.0], [1.1], [1], [1]]), "g"),
    "weights with another zero": ("dynamic", weights("i", "weight", lambda w: w + 0.01), "i"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named(case: str) -> None:
    name, change, expected = BROKEN[case]
    net, made, x = make(name)
    broken = pylrp.Network.from_graph(net.graph.changed(nodes=change(list(net.graph.nodes))), keep_top=True)
    broken._model = made
    found = broken.verify(x, composite="epsilon")
    assert not found, str(found)
    assert found.first_wrong == expected, str(found)


def test_a_value_between_two_numbers_may_be_rounded_either_way() -> None:
    """In single precision another number comes out than in double precision, and all that follows is right."""
    text = """q = QuantizeLinear(x, s, z); a = DequantizeLinear(q, s, z); h = MatMul(a, W); k = QuantizeLinear(h, s, z);
    d = DequantizeLinear(k, s, z); y = MatMul(d, V)"""
    weight = np.arange(1, 129, 2)[None] / 10
    made = model(text, {"x": (1, ("n", 1))}, s=0.1, z=np.int8(0), W=weight, V=normal(64, 3))
    x = np.arange(-1.5, 2, dtype=np.float32)[:, None]  # times an odd number of tenths: halves of a step
    net = pylrp.load(made)
    exact = reference_relevance(made, x, target=0).values["k"]
    ours = net.explain(x, target=np.ones((len(x), 64)), output="k", composite="epsilon").output
    assert np.abs(np.asarray(ours) - exact).max() > 0.09
    found = net.verify(x, composite="epsilon")
    assert found, str(found)


def test_the_evaluation_alone_takes_recurrent_models_by_their_equations() -> None:
    """One step of an RNN: R = x w R_h / (sum), by hand."""
    made = model(
        "s, h = RNN<hidden_size=1>(x, W, R); y = Squeeze(h, axis)", {"x": (1, (1, "n", 2))},
        W=np.array([[[1.0, 2.0]]]), R=np.array([[[0.5]]]), axis=np.array([0]),
    )  # fmt: skip
    x = np.array([[[0.3, 0.1]]])
    found = reference_relevance(made, x, target=0)
    top = np.tanh(0.5)
    np.testing.assert_allclose(found.values["y"], [[top]], atol=1e-15)
    np.testing.assert_allclose(found.relevance["x"], [[[top * 0.6, top * 0.4]]], atol=1e-15)


@pytest.mark.parametrize("divided", [True, False])
def test_a_constant_mask_is_part_of_the_scaling_before_it(divided: bool) -> None:
    text = f"""q = MatMul(x, Q); k = MatMul(x, K); t = Transpose<perm=[0, 2, 1]>(k); s = MatMul(q, t);
    d = {"Div(s, two)" if divided else "Mul(s, two)"}; m = Where(seen, d, low); p = Softmax(m); v = MatMul(x, V);
    a = MatMul(p, v); y = ReduceMean<axes=[1], keepdims=0>(a)"""
    weights = {name: normal(4, 4) for name in "QKV"}
    made = model(text, {"x": (1, ("n", 5, 4))}, two=2.0, low=-1e4, seen=np.tri(5, dtype=np.uint8)[None], **weights)
    made.graph.node.insert(0, helper.make_node("Cast", ["seen"], ["kept"], "kept", to=9))
    next(node for node in made.graph.node if node.op_type == "Where").input[0] = "kept"
    net = pylrp.load(made, dtype="float64")
    for composite in ("attnlrp", "cp_lrp"):
        found = net.verify(RNG.standard_normal((2, 5, 4)), target=1, composite=composite)
        assert found, str(found)
