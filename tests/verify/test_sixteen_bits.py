"""Files in 16 bits: pylrp computes them, masks and means over tokens, too, in single precision; others do not."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from onnx import helper, numpy_helper

import pylrp

TOKENS, WORDS, WIDTH = 11, 20, 6
TEXT = """
    <ir_version: 10, opset_import: ["": 21]>
    g (int64[N, 11] ids, int64[N, 11] mask) => (float[N, 3] y)
    <int64[1] last = {2}, int64[1] along = {1}> {
      words = Gather(table, ids)
      seen = Cast<to=%d>(mask)
      wide = Unsqueeze(seen, last)
      kept = Mul(words, wide)
      sum = ReduceSum<keepdims=0>(kept, along)
      count = ReduceSum<keepdims=0>(wide, along)
      mean = Div(sum, count)
      hidden = MatMul(mean, W)
      y = Cast<to=1>(hidden)
    }
"""


def model(kind: int, table: np.ndarray, W: np.ndarray) -> onnx.ModelProto:
    made = onnx.parser.parse_model(TEXT % kind)
    for name, array in (("table", table), ("W", W)):
        made.graph.initializer.append(helper.make_tensor(name, kind, array.shape, array.ravel()))
    return made


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16])
def test_means_over_tokens_are_not_rounded_to_sixteen_bits(kind: int) -> None:
    rng = np.random.default_rng(0)
    made = model(kind, rng.normal(size=(WORDS, WIDTH)), rng.normal(size=(WIDTH, 3)))
    table, W = (numpy_helper.to_array(each).astype(np.float64) for each in made.graph.initializer[-2:])
    ids, mask = rng.integers(0, WORDS, (2, TOKENS)), np.ones((2, TOKENS), np.int64)
    mask[1, 7:] = 0
    net = pylrp.load(made)
    x = {"ids": ids, "mask": mask}
    mean = (table[ids] * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    np.testing.assert_allclose(net.forward(x), mean @ W, rtol=0, atol=2e-6)
    found = net.verify(x, target=0, composite="cp_lrp")
    assert found, found.verdict


def test_another_network_is_not_taken_for_rounding() -> None:
    rng = np.random.default_rng(1)
    table, W = rng.normal(size=(WORDS, WIDTH)), rng.normal(size=(WIDTH, 3))
    net = pylrp.load(model(onnx.TensorProto.FLOAT16, table, W))
    x = {"ids": rng.integers(0, WORDS, (1, TOKENS)), "mask": np.ones((1, TOKENS), np.int64)}
    other = model(onnx.TensorProto.FLOAT16, table, 1.01 * W)
    assert not net.verify(x, other, target=0, composite="cp_lrp")


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constants_that_a_file_computes_are_not_rounded_to_sixteen_bits(kind: int, dtype: str) -> None:
    """1 / sqrt(width), as exporters write it: out of the shape, cast into 16 bits, or of a filled shape."""
    made = onnx.parser.parse_model(f"""
    <ir_version: 10, opset_import: ["": 21]>
    g (float[N, 7] x) => (float[N, 3] y)
    <int64 one = {{1}}, int64[1] shape = {{1}}> {{
      sizes = Shape(x)
      width = Gather(sizes, one)
      number = Cast<to={kind}>(width)
      root = Sqrt(number)
      low = Cast<to={kind}>(x)
      scaled = Div(low, root)
      part = ConstantOfShape(shape)
      third = Mul(part, root)
      all = Mul(scaled, third)
      hidden = MatMul(all, W)
      y = Cast<to=1>(hidden)
    }}""")
    filled = next(node for node in made.graph.node if node.op_type == "ConstantOfShape")
    filled.attribute.append(helper.make_attribute("value", helper.make_tensor("", kind, [1], [0.1])))
    tenth = float(numpy_helper.to_array(filled.attribute[0].t).astype(np.float64)[0])
    W = np.random.default_rng(2).normal(size=(7, 3))
    made.graph.initializer.append(helper.make_tensor("W", kind, W.shape, W.ravel()))
    W = numpy_helper.to_array(made.graph.initializer[-1]).astype(np.float64)
    net = pylrp.load(made, dtype=dtype)
    x = np.random.default_rng(3).normal(size=(2, 7)).astype(dtype)
    np.testing.assert_allclose(net.forward(x), x @ W * tenth, rtol=0, atol=5e-7)
    assert net.verify(x, target=0, composite="epsilon")
