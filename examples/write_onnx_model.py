"""Write ``model.onnx``, the small file that README.md and docs/models.md load: a residual conv net that knows digits.

    python examples/write_onnx_model.py [model.onnx]

Its filters are random; the dense layer on top is fitted to 80 of the bundled digits (least squares). A probability
for each of the ten classes comes out. Needs the package onnx; tests/docs/test_docs.py calls :func:`write_model`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import pylrp
from pylrp.demo import load_demo_digits
from pylrp.layers import Add, BatchNorm, Conv, Flatten, MaxPool, ReLU
from pylrp.network.graph import Graph, Node

Array = NDArray[np.float64]
FITTED = 80  # digits; the other 20 are new to the network


def write_model(path: Path) -> None:
    """Write the model: opset 17, any batch size."""
    weights = _weights()
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], "conv1", pads=[2, 2, 2, 2]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "variance"], ["n1"], "bn1"),
        helper.make_node("Relu", ["n1"], ["r1"], "relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "p1"], ["s"], "add"),
        helper.make_node("Relu", ["s"], ["r2"], "relu2"),
        helper.make_node("MaxPool", ["r2"], ["p2"], "pool2", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p2"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["z"], "logits", transB=1),
        helper.make_node("Softmax", ["z"], ["probabilities"], "softmax"),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _weights() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    digits, labels = load_demo_digits()
    images = digits[:FITTED, None] / 255.0
    w1, w2 = rng.normal(size=(8, 1, 5, 5)) / 5, rng.normal(size=(8, 8, 3, 3)) / 9
    b2 = rng.normal(size=8) / 9
    conv1 = Conv(w1, padding=2)
    responses: Array = pylrp.Network([conv1], images.shape[1:]).forward(images)
    norm = BatchNorm(np.ones(8), np.full(8, -0.5), responses.mean((0, 2, 3)), responses.var((0, 2, 3)))
    features: Array = _body(conv1, norm, Conv(w2, b2, padding=1)).forward(images)
    w3, b3 = _readout(features, labels[:FITTED])
    batchnorm: dict[str, Any] = {name: getattr(norm, name) for name in norm.arrays}
    return {"w1": w1, **batchnorm, "w2": w2, "b2": b2, "w3": w3, "b3": b3}


def _body(conv1: Conv, norm: BatchNorm, conv2: Conv) -> pylrp.Network:
    """Return all but the dense layer."""
    nodes = [
        Node("conv1", conv1, ("image",)),
        Node("bn1", norm, ("conv1",)),
        Node("relu1", ReLU(), ("bn1",)),
        Node("pool1", MaxPool(2), ("relu1",)),
        Node("conv2", conv2, ("pool1",)),
        Node("add", Add(), ("conv2", "pool1")),
        Node("relu2", ReLU(), ("add",)),
        Node("pool2", MaxPool(2), ("relu2",)),
        Node("flatten", Flatten(), ("pool2",)),
    ]
    return pylrp.Network.from_graph(Graph({"image": (1, 28, 28)}, nodes, ["flatten"]))


def _readout(features: Array, labels: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Return the dense layer that tells the classes apart best, by ridge regression on logits of 5 and 0."""
    wanted = 5.0 * np.eye(10)[labels]
    centre, middle = features.mean(0), wanted.mean(0)
    x = features - centre
    kernel = x @ x.T
    dual = np.linalg.solve(kernel + 0.05 * np.trace(kernel) / len(x) * np.eye(len(x)), wanted - middle)
    weight = (x.T @ dual).T
    return weight, middle - weight @ centre


if __name__ == "__main__":
    write_model(Path(sys.argv[1] if len(sys.argv) > 1 else "model.onnx"))
