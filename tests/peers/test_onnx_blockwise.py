"""Weights of few bits with a scale a block, and T5's table of distances: files of onnxruntime's tools."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnx import helper as h
from onnx import numpy_helper as nh
from torch import nn

import pylrp

from .exports import can_write, exported
from .test_onnx_quantised import run
from .transformers import Bert

quantizer = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
from onnxruntime.quantization import QuantFormat  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
RNG = np.random.default_rng(8)
WAYS = [
    (4, 16, True, QuantFormat.QOperator), (4, 32, False, QuantFormat.QOperator), (8, 32, False, QuantFormat.QOperator),
    (4, 32, True, QuantFormat.QDQ), (4, 128, False, QuantFormat.QDQ),
]  # fmt: skip


@pytest.mark.parametrize(("bits", "block", "symmetric", "form"), WAYS, ids=str)
def test_transformer(bits, block, symmetric, form, tmp_path):
    if not can_write("dynamo 23"):
        pytest.skip("torch's exporter needs onnxscript")
    torch.manual_seed(5)
    module = Bert(width=128, heads=4).eval()  # matrices of more than 4 kB, which are read from the file
    ids = torch.randint(0, 50, (2, 9))
    x = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": (ids > 20).long()}
    path = exported(module, x, tmp_path / "a.onnx", "dynamo 23")
    logging.disable(logging.ERROR)  # tables of 8 bits are left as they are
    made = quantizer.MatMulNBitsQuantizer(
        onnx.load(path), bits=bits, block_size=block, is_symmetric=symmetric, quant_format=form,
        op_types_to_quantize=("MatMul", "Gather") if form == QuantFormat.QOperator else None,
    )  # fmt: skip
    made.process()
    logging.disable(logging.NOTSET)
    target = tmp_path / "q.onnx"
    made.model.save_model_to_file(str(target))
    written = {node.op_type for node in onnx.load(target).graph.node}
    assert written & ({"MatMulNBits"} if form == QuantFormat.QOperator else {"DequantizeLinear"})
    assert form == QuantFormat.QDQ or bits == 8 or "GatherBlockQuantized" in written
    given = {name: value.numpy() for name, value in x.items()}
    net, told = pylrp.load(target, dtype="float64"), run(target, given)
    np.testing.assert_allclose(net.forward(given), told, rtol=0, atol=1e-5 * np.abs(told).max())
    assert np.abs(pylrp.load(path).forward(given) - told).max() > 1e-4 * np.abs(told).max()
    assert any("quantised weights" in note for note in net.notes)
    found = net.verify(given, target=0, composite="attnlrp")
    assert found, str(found)


def one(node, shape, arrays, opset=21):
    graph = h.make_graph(
        [node], "g", [h.make_tensor_value_info("x", 1, ["n", *shape])], [h.make_tensor_value_info("y", 1, None)],
        [nh.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    return h.make_model(graph, opset_imports=[h.make_opsetid("", opset), h.make_opsetid("com.microsoft", 1)],
                        ir_version=10)  # fmt: skip


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("inputs", [24, 32])
@pytest.mark.parametrize("biased", [False, True])
def test_product(bits, inputs, biased):
    rows, size = 5, 16
    blocks = -(-inputs // size)
    arrays = {
        "w": RNG.integers(0, 256, (rows, blocks, size * bits // 8)).astype(np.uint8),
        "s": RNG.uniform(0.01, 0.1, (rows, blocks)).astype("f"),
        "z": RNG.integers(0, 256, (rows, -(-blocks * bits // 8))).astype(np.uint8),
    }
    names = ["x", *arrays]
    if biased:
        arrays["b"], names = RNG.standard_normal(rows).astype("f"), [*names, "", "b"]
    node = h.make_node("MatMulNBits", names, ["y"], "node", domain="com.microsoft", N=rows, K=inputs, bits=bits,
                       block_size=size)  # fmt: skip
    made, x = one(node, (inputs,), arrays), RNG.standard_normal((3, inputs)).astype("f")
    expected = run(made, {"x": x})
    net = pylrp.load(made)
    np.testing.assert_allclose(net.forward(x), expected, rtol=0, atol=3e-6 * np.abs(expected).max())
    assert net.verify(x, target=0, composite="epsilon")


def test_weights_that_do_not_fit_are_refused():
    arrays = {"w": np.zeros((5, 1, 8), np.uint8), "s": np.ones((5, 1), "f")}
    settings = {"domain": "com.microsoft", "N": 5, "bits": 4, "block_size": 16}
    with pytest.raises(pylrp.UnsupportedLayer, match="blocks of 16"):
        pylrp.load(one(h.make_node("MatMulNBits", ["x", *arrays], ["y"], "node", K=20, **settings), (20,), arrays))
    arrays = {"w": np.zeros((5, 1, 8), np.uint8), "s": np.ones((5, 1), "f"), "g": np.arange(16, dtype=np.int32)[::-1]}
    node = h.make_node("MatMulNBits", ["x", "w", "s", "", "g"], ["y"], "node", K=16, **settings)
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(one(node, (16,), arrays))
    assert "before quantisation" in caught.value.way_out


def test_small_numbers_that_lie_in_a_file(tmp_path):
    whole = RNG.integers(-8, 8, (128, 96))
    arrays = {"s": RNG.uniform(0.01, 0.1, 96).astype("f")}
    made = one(h.make_node("DequantizeLinear", ["q", "s"], ["w"], "dequantise", axis=1), (128,), arrays)
    made.graph.initializer.append(h.make_tensor("q", TensorProto.INT4, whole.shape, whole.ravel()))
    made.graph.node.append(h.make_node("MatMul", ["x", "w"], ["y"], "product"))
    onnx.save(made, tmp_path / "a.onnx")
    x = RNG.standard_normal((3, 128))
    expected = x @ (whole * arrays["s"])
    np.testing.assert_allclose(
        pylrp.load(tmp_path / "a.onnx", dtype="float64").forward(x), expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize(("buckets", "most"), [(32, 128), (8, 20)])
def test_relative_positions(both, buckets, most):
    tokens, heads = 40, 3
    table = RNG.standard_normal((buckets, heads)).astype("f")
    # The optimiser writes the table's transpose under the table's own shape.
    arrays = {"t": np.ascontiguousarray(table.T).reshape(buckets, heads), "l": np.array([tokens])}
    node = h.make_node("RelativePositionBias", ["t", "l", "l"], ["r"], "bias", domain="com.microsoft",
                       max_distance=most, is_bidirectional=int(both))  # fmt: skip
    made = one(node, (heads, tokens, tokens), arrays)
    made.graph.node.append(h.make_node("Add", ["x", "r"], ["y"], "sum"))
    x = RNG.standard_normal((2, heads, tokens, tokens)).astype("f")
    np.testing.assert_allclose(
        pylrp.load(made).forward(x) - x, np.broadcast_to(distances(table, tokens, both, most), x.shape), atol=1e-6
    )


def distances(table, tokens, both, most):
    """Return (heads, tokens, tokens) as T5's own code does."""
    ahead = torch.arange(tokens)[None] - torch.arange(tokens)[:, None]
    rows, place = len(table), torch.zeros_like(ahead)
    if both:
        rows //= 2
        place += (ahead > 0).long() * rows
        ahead = ahead.abs()
    else:
        ahead = -torch.min(ahead, torch.zeros_like(ahead))
    exact = rows // 2
    far = exact + (torch.log(ahead.float() / exact) / np.log(most / exact) * (rows - exact)).long()
    place += torch.where(ahead < exact, ahead, far.clamp(max=rows - 1))
    return nn.functional.embedding(place, torch.from_numpy(table)).permute(2, 0, 1).numpy()
