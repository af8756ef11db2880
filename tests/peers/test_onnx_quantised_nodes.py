"""Quantised transformers operator by operator: each one's result of onnxruntime's own inputs is the file's, ties apart.

A whole network amplifies one step, which a tie in single precision decides; an operator alone does not.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper as h
from onnx import numpy_helper as nh
from torch import nn

import pylrp

from .exports import exported
from .test_onnx_quantised import Calibration
from .transformers import Bert

quantization = pytest.importorskip("onnxruntime.quantization")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
#: Where an operator takes values and tells its own scale; scale and zero point follow a value.
PLACES = {
    "QLinearMatMul": ((0, 3), 6),
    "QLinearAdd": ((0, 3), 6),
    "QLinearMul": ((0, 3), 6),
    "QLinearSoftmax": ((0,), 3),
}
TIES = 5e-4  # the share of entries that may lie one step apart


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Return a BERT with all nodes quantised, its constants and all values by onnxruntime."""
    torch.manual_seed(5)
    module = Bert(width=64, heads=4).eval()
    module.head = nn.Identity()
    ids = torch.randint(0, 50, (1, 9))
    x = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": (ids > 20).long()}
    folder = tmp_path_factory.mktemp("quantised")
    path = exported(module, x, folder / "a.onnx", "torchscript 17")
    given = {name: value.numpy() for name, value in x.items()}
    quantization.quantize_static(
        path, folder / "q.onnx", Calibration([given]), quant_format=quantization.QuantFormat.QOperator,
        # Unsigned weights are multiplied exactly on every CPU, signed ones saturate at 16 bits where there is no VNNI.
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QUInt8,
    )  # fmt: skip
    model = onnx.load(folder / "q.onnx")
    told = onnx.ModelProto()
    told.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del told.graph.output[:]
    told.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(told.SerializeToString(), options, providers=["CPUExecutionProvider"])
    constants = {tensor.name: nh.to_array(tensor) for tensor in model.graph.initializer}
    return model, constants, dict(zip(names, session.run(None, given), strict=True))


def numbers(whole, scale, zero):
    """Return what whole numbers stand for."""
    return ((whole.astype(np.float64) - zero) * scale).astype("f")


def alone(node, model, constants, known):
    """Return a model of one operator that takes and gives numbers, and what it takes."""
    places, _ = PLACES[node.op_type]
    inner, nodes, fed = onnx.NodeProto(), [], {}
    inner.CopyFrom(node)
    for i in places:
        if node.input[i] in known:
            scale, zero = node.input[i + 1 : i + 3]
            inner.input[i] = f"q{i}"
            nodes.append(h.make_node("QuantizeLinear", [f"x{i}", scale, zero], [f"q{i}"], f"q{i}"))
            fed[f"x{i}"] = numbers(known[node.input[i]], constants[scale], constants[zero])
    last = PLACES[node.op_type][1]
    nodes += [inner, h.make_node("DequantizeLinear", [node.output[0], *node.input[last : last + 2]], ["y"], "y")]
    initial = [tensor for tensor in model.graph.initializer if any(tensor.name in each.input for each in nodes)]
    inputs, outputs = (
        [h.make_tensor_value_info(name, 1, ["n", *array.shape[1:]]) for name, array in arrays.items()]
        for arrays in (fed, {"y": known[node.output[0]]})
    )
    graph = h.make_graph(nodes, "one", inputs, outputs, initial)
    return h.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version), fed


def test_each_operator_rounds_as_in_the_file(file):
    model, constants, known = file
    off, entries = defaultdict(int), defaultdict(int)
    for node in model.graph.node:
        if node.op_type not in PLACES or not any(node.input[i] in known for i in PLACES[node.op_type][0]):
            continue
        made, fed = alone(node, model, constants, known)
        if any(array.ndim < 2 for array in fed.values()):
            continue
        last = PLACES[node.op_type][1]
        scale, zero = (constants[name] for name in node.input[last : last + 2])
        expected = numbers(known[node.output[0]], scale, zero)
        net = pylrp.load(made, keep_top=True, keep_softmax=True)
        y = net.forward(fed if len(fed) > 1 else next(iter(fed.values())))
        steps = np.abs(y - expected) / scale
        assert steps.max() < 1.001, node.name
        off[node.op_type] += int((steps > 0.5).sum())
        entries[node.op_type] += steps.size
    assert set(entries) == set(PLACES)
    assert all(off[op] <= TIES * entries[op] for op in entries), (dict(off), dict(entries))
