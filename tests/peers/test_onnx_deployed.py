"""Transformers as onnxruntime's tools leave them: the map of the file they were made of, at every level of fusion."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper as h
from onnx import numpy_helper as nh

import pylrp

from .exports import exported
from .transformers import Bert, Decoder, Vit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
COMPOSITES = ("cp_lrp", "attnlrp", "attnlrp_gamma")
RNG = np.random.default_rng(4)


def optimised(path, target, level):
    """Write what a session of onnxruntime makes of a file at a level."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return target


def fused(path, target, kind, mha=False):
    """Write what onnxruntime.transformers makes of a file."""
    optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions(kind)
    options.use_multi_head_attention = mha
    logging.disable(logging.WARNING)
    try:
        made = optimizer.optimize_model(str(path), kind, 3, 12, options, opt_level=0)
    finally:
        logging.disable(logging.NOTSET)
    made.save_model_to_file(str(target))
    return target


def run(path, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    source = path.SerializeToString() if isinstance(path, onnx.ModelProto) else str(path)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    kinds = {each.name: np.int32 if "int32" in each.type else None for each in session.get_inputs()}
    return session.run(None, {n: v if kinds[n] is None else v.astype(kinds[n]) for n, v in x.items() if n in kinds})[0]


def ways(kind):
    levels = onnxruntime.GraphOptimizationLevel
    yield "extended", lambda path, target: optimised(path, target, levels.ORT_ENABLE_EXTENDED)
    if kind != "vit":
        yield "all", lambda path, target: optimised(path, target, levels.ORT_ENABLE_ALL)
        yield "several heads", lambda path, target: fused(path, target, "bert", mha=True)
    yield "transformers", lambda path, target: fused(path, target, "vit" if kind == "vit" else "bert")


def network(kind):
    torch.manual_seed(2)
    ids = torch.randint(0, 50, (3, 7))
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[1, 4:] = 0
    made, x = {
        "bert": (Bert(), {"input_ids": ids, "attention_mask": mask, "token_type_ids": (ids > 20).long()}),
        "decoder": (Decoder(), {"input_ids": ids}),
        "vit": (Vit(packed=False), {"x": torch.randn(3, 3, 12, 12)}),
    }[kind]
    return made.eval(), x


@pytest.mark.parametrize("kind", ["bert", "decoder", "vit"])
def test_one_map_at_every_level(kind, tmp_path):
    module, x = network(kind)
    path = exported(module, x, tmp_path / "a.onnx", "torchscript 17", lengths=kind != "vit")
    given = {name: value.numpy() for name, value in x.items()}
    one = given if len(given) > 1 else next(iter(given.values()))
    plain = pylrp.load(path, dtype="float64")
    expected = {composite: plain.explain(one, target=1, composite=composite) for composite in COMPOSITES}
    own = set()
    for name, make in ways(kind):
        target = make(path, tmp_path / f"{name}.onnx")
        own |= {node.op_type for node in onnx.load(target).graph.node if node.domain == "com.microsoft"}
        net = pylrp.load(target, dtype="float64")
        np.testing.assert_allclose(net.forward(one), run(target, given), rtol=0, atol=1e-5)
        for composite, ex in expected.items():
            found = net.explain(one, target=1, composite=composite)
            assert net.verify(one, target=1, composite=composite)
            for each, other in zip(maps(found), maps(ex), strict=True):
                np.testing.assert_allclose(each, other, rtol=0, atol=1e-9 * np.abs(other).max(), err_msg=name)
    assert own >= {"bert": {"SkipLayerNormalization", "Attention", "BiasGelu"}}.get(kind, set())


def maps(ex):
    return list(ex.relevance.values()) if isinstance(ex.relevance, dict) else [ex.relevance]


# Single operators, whose values are onnxruntime's.


def array(*shape):
    return RNG.standard_normal(shape).astype("f")


def model(operator, inputs, constants, x, outputs=("y",), **attributes):
    """One operator on inputs; names in ``inputs`` that are no constants are inputs of the model."""
    node = h.make_node(operator, inputs, outputs, name="node", domain="com.microsoft", **attributes)
    infos = [
        h.make_tensor_value_info(name, h.np_dtype_to_tensor_dtype(value.dtype), ["n", *value.shape[1:]])
        for name, value in x.items()
    ]
    graph = h.make_graph(
        [node], "g", infos, [h.make_tensor_value_info("y", 1, None)],
        [nh.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17), h.make_opsetid("com.microsoft", 1)], ir_version=8)


MASK = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], np.int32)
SELF, CROSS = {"x": array(2, 5, 12)}, {"x": array(2, 5, 12), "k": array(2, 7, 12), "v": array(2, 7, 12)}
WEIGHT = {"w": array(12, 36), "b": array(36)}
GROUPED = {"x": array(2, 5, 32), "k": array(2, 5, 16), "v": array(2, 5, 16)}
LAST = {"last": np.array([4, 4], np.int32), "total": np.array(5, np.int32)}
CACHES = {"cos": array(9, 4), "sin": array(9, 4)}
CASES = {
    "attention": ("Attention", ["x", "w", "b"], WEIGHT, SELF, {"num_heads": 3}),
    "causal": ("Attention", ["x", "w", "b"], WEIGHT, SELF, {"num_heads": 3, "unidirectional": 1}),
    "own scale": ("Attention", ["x", "w", "b"], WEIGHT, SELF, {"num_heads": 3, "scale": 0.3}),
    "mask": ("Attention", ["x", "w", "b", "m"], WEIGHT, SELF | {"m": MASK}, {"num_heads": 3}),
    "mask by query": (
        "Attention", ["x", "w", "b", "m"], WEIGHT, SELF | {"m": np.repeat(MASK[:, None], 5, 1)}, {"num_heads": 3},
    ),
    "counted mask": ("Attention", ["x", "w", "b", "m"], WEIGHT, SELF | {"m": MASK.sum(1, dtype=np.int32)},
                     {"num_heads": 3}),
    "bias of the scores": ("Attention", ["x", "w", "b", "", "", "s"], WEIGHT | {"s": array(1, 3, 5, 5)}, SELF,
                           {"num_heads": 3}),
    "other width of the values": (
        "Attention", ["x", "w", "b"], {"w": array(12, 30), "b": array(30)}, SELF,
        {"num_heads": 3, "qkv_hidden_sizes": [12, 12, 6]},
    ),
    "cross": ("MultiHeadAttention", ["x", "k", "v"], {}, CROSS, {"num_heads": 3}),
    "cross with biases": ("MultiHeadAttention", ["x", "k", "v", "b"], {"b": array(36)}, CROSS, {"num_heads": 3}),
    "padded keys": ("MultiHeadAttention", ["x", "k", "v", "", "m"], {},
                    CROSS | {"m": np.array([[1] * 7, [1] * 4 + [0] * 3], np.int32)}, {"num_heads": 3}),
    "keys by head": ("MultiHeadAttention", ["x", "k", "v"], {},
                     SELF | {"k": array(2, 3, 7, 4), "v": array(2, 3, 7, 4)}, {"num_heads": 3}),
    "grouped": ("GroupQueryAttention", ["x", "k", "v", "", "", "last", "total"], LAST, GROUPED,
                {"num_heads": 4, "kv_num_heads": 2}),
    "grouped, turned": (
        "GroupQueryAttention", ["x", "k", "v", "", "", "last", "total", "cos", "sin"],
        LAST | {"cos": array(9, 8), "sin": array(9, 8)},
        {"x": array(2, 5, 64), "k": array(2, 5, 32), "v": array(2, 5, 32)},
        {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1},
    ),
    "grouped, in one": (
        "GroupQueryAttention", ["x", "", "", "", "", "last", "total"], LAST, {"x": array(2, 5, 64)},
        {"num_heads": 4, "kv_num_heads": 2},
    ),
    "grouped, windowed": (
        "GroupQueryAttention", ["x", "k", "v", "", "", "last", "total"], LAST, GROUPED,
        {"num_heads": 4, "kv_num_heads": 2, "local_window_size": 2},
    ),
    "turned": ("RotaryEmbedding", ["x", "p", "cos", "sin"], CACHES | {"p": np.array([2])},
               {"x": array(2, 4, 5, 8)}, {}),
    "turned, packed": ("RotaryEmbedding", ["x", "p", "cos", "sin"], CACHES | {"p": np.array([0])},
                       {"x": array(2, 5, 16)}, {}),
    "turned, interleaved": ("RotaryEmbedding", ["x", "p", "cos", "sin"], CACHES | {"p": np.array([1])},
                            {"x": array(2, 4, 5, 8)}, {"interleaved": 1}),
    "product": ("FusedMatMul", ["x", "k"], {}, {"x": array(2, 3, 5, 4), "k": array(2, 3, 7, 4)},
                {"transB": 1, "alpha": 0.25}),
    "skip with a table": ("SkipLayerNormalization", ["x", "t", "s", "b"],
                          {"t": array(5, 12), "s": array(12), "b": array(12)}, SELF, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_operators(case):
    operator, inputs, constants, x, attributes = CASES[case]
    outputs = ("y", "", "") if operator == "GroupQueryAttention" else ("y",)
    if operator == "GroupQueryAttention":
        outputs = ("y", "keys", "values")
    made = model(operator, inputs, constants, x, outputs, **attributes)
    expected = run(made, x)
    net, single = pylrp.load(made, dtype="float64"), pylrp.load(made)
    given = x if len(x) > 1 else x["x"]
    for each in (net, single):
        np.testing.assert_allclose(each.forward(given), expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    ex = net.explain(given, target=np.ones_like(expected), composite="attnlrp")
    assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-9
    for composite in ("attnlrp", "cp_lrp", "epsilon"):
        verified = net.verify(given, target=RNG.normal(size=expected.shape), composite=composite)
        assert verified, str(verified)


def test_packed_queries_keys_and_values():
    """What CPU sessions do not run: (batch, tokens, heads, 3, width)."""
    packed = array(2, 5, 3, 3, 4)
    apart = {name: packed[:, :, :, i].reshape(2, 5, 12) for i, name in enumerate("xkv")}
    one = model("MultiHeadAttention", ["x"], {}, {"x": packed}, num_heads=3)
    other = model("MultiHeadAttention", ["x", "k", "v"], {}, apart, num_heads=3)
    np.testing.assert_allclose(pylrp.load(one).forward(packed), run(other, apart), rtol=0, atol=1e-6)


def test_a_bias_and_a_second_value():
    """BiasAdd, which CPU sessions do not run either."""
    x, bias, skip = array(2, 3, 8), array(8), array(2, 3, 8)
    made = model("BiasAdd", ["x", "b", "k"], {"b": bias}, {"x": x, "k": skip})
    np.testing.assert_allclose(pylrp.load(made).forward({"x": x, "k": skip}), x + bias + skip, rtol=0, atol=1e-6)


def test_a_cache_is_refused():
    past = np.zeros((2, 2, 3, 4, 4), "f")
    made = model("Attention", ["x", "w", "b", "", "p"], WEIGHT | {"p": past}, SELF, num_heads=3)
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(made)
    assert caught.value.operator == "com.microsoft.Attention"
