"""Files that onnxruntime has rewritten: a Reshape for each of three Gemms, fused nodes in an old opset, quantisers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import helper, numpy_helper

import pylrp

RNG = np.random.default_rng(7)
TOKENS, WIDTH = 5, 4
GEMMS = """
<ir_version: 8, opset_import: ["": {opset}]>
g (float[2, 5, 4] x) => (float[2, 5, 4] y)
<int64[2] rows = {{10, 4}}, int64[2] again = {{10, 4}}, int64[3] apart = {{2, 5, 4}}> {{
  h = Relu (x)
  h0 = Reshape (h, rows)
  q0 = Gemm (h0, Q, b)
  q = Reshape (q0, apart)
  h1 = Reshape (h, again)
  k0 = Gemm (h1, K, b)
  k = Reshape (k0, apart)
  h2 = Reshape (h, rows)
  v0 = Gemm (h2, V, b)
  v = Reshape (v0, apart)
  turned = Transpose <perm = [0, 2, 1]> (k)
  scores = MatMul (q, turned)
  shares = Softmax <axis = 2> (scores)
  heard = MatMul (shares, v)
  y = Add (heard, h)
}}"""


def gemms(weights: dict[str, Any]) -> onnx.ModelProto:
    made = onnx.parser.parse_model(GEMMS.format(opset=13))
    made.graph.initializer.extend(numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items())
    return made


@pytest.mark.parametrize("composite", ["cp_lrp", "attnlrp", "epsilon"])
def test_a_value_that_is_reshaped_three_times_takes_the_relevance_of_all(composite: str) -> None:
    weights = {name: RNG.normal(size=(WIDTH, WIDTH)) for name in "QKV"} | {"b": RNG.normal(size=WIDTH)}
    net = pylrp.load(gemms(weights))
    x = RNG.normal(size=(2, TOKENS, WIDTH)).astype(np.float32)
    found = net.verify(x, target=(1, 2), composite=composite)
    assert found, found.verdict
    for name in "QKV":
        broken = gemms(weights | {name: 1.1 * weights[name]})
        assert not net.verify(x, broken, target=(1, 2), composite=composite), name


@pytest.mark.parametrize("opset", [11, 12, 13, 17])
def test_biases_of_several_heads_in_an_old_opset(opset: int) -> None:
    node = helper.make_node("MultiHeadAttention", ["q", "k", "v", "b"], ["y"], "node", domain="com.microsoft",
                            num_heads=2)  # fmt: skip
    infos = [helper.make_tensor_value_info(name, 1, ["n", TOKENS, WIDTH]) for name in "qkv"]
    bias = RNG.normal(size=3 * WIDTH).astype(np.float32)
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("y", 1, None)],
                              [numpy_helper.from_array(bias, "b")])  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    net = pylrp.load(helper.make_model(graph, opset_imports=opsets, ir_version=7), dtype="float64")
    x = {name: RNG.normal(size=(2, TOKENS, WIDTH)) for name in "qkv"}

    def heads(name: str, own: Any) -> Any:
        return (x[name] + own).reshape(2, TOKENS, 2, WIDTH // 2).swapaxes(1, 2)

    q, k, v = (heads(name, own) for name, own in zip("qkv", bias.astype(np.float64).reshape(3, WIDTH), strict=True))
    scores = q @ k.swapaxes(2, 3) / np.sqrt(WIDTH // 2)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    y = (shares / shares.sum(-1, keepdims=True)) @ v
    np.testing.assert_allclose(net.forward(x), y.swapaxes(1, 2).reshape(2, TOKENS, WIDTH), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16])
def test_a_constant_that_onnxruntimes_own_quantiser_rounds(kind: Any) -> None:
    numbers = np.array([0.26, -0.77, 40.0, -40.0, 0.25, 0.75], np.float32)  # ties, and beyond 8 bits at both ends
    zero = np.array(100 if np.dtype(kind).kind == "u" else 3, kind)
    nodes = [
        helper.make_node(name, ["c" if name[0] == "Q" else "q", "scale", "zero"], ["q" if name[0] == "Q" else "d"],
                         name, domain="com.microsoft")
        for name in ("QuantizeLinear", "DequantizeLinear")
    ]  # fmt: skip
    nodes.append(helper.make_node("Mul", ["x", "d"], ["y"], "y"))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, ["n", 6])],
        [helper.make_tensor_value_info("y", 1, ["n", 6])],
        [numpy_helper.from_array(a, n) for n, a in (("c", numbers), ("scale", np.float32(0.5)), ("zero", zero))],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    net = pylrp.load(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    limits = np.iinfo(kind)
    whole = np.clip([1 + int(zero), -2 + int(zero), 80 + int(zero), -80 + int(zero), int(zero), 2 + int(zero)],
                    limits.min, limits.max)  # fmt: skip
    expected = (whole - float(zero)) * 0.5
    np.testing.assert_array_equal(net.forward(np.ones((1, 6), np.float32))[0], expected)
