"""What is computed while an ONNX model is loaded, against onnxruntime; constants as large as the batch from torch."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import pylrp

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper, parser  # noqa: E402

RNG = np.random.default_rng(14)


def array(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def assert_like_onnxruntime(made: Any, x: Any) -> pylrp.Network:
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected = runtime.InferenceSession(made.SerializeToString(), options).run(None, {"x": x})[0]
    network = pylrp.load(made, keep_softmax=True)
    np.testing.assert_allclose(network.forward(x), expected, rtol=0, atol=3e-6 * np.abs(expected).max())
    return network


def model(text: str, shape: Any, opset: int, **constants: Any) -> Any:
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in text.split(";")],
        "test",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


FOLDED = [
    ("BatchNormalization(c, s, t, m, v)", (7, 9, 13, 14, 15)),
    ("Softmax(c)", (7, 11, 13)),
    ("Softmax<axis=-1>(c)", (11, 13)),
    ("LogSoftmax<axis=2>(c)", (11, 13)),
    ("LogSoftmax(c)", (11, 13)),
    ("Dropout(c)", (7, 12, 13)),
    ('Conv<strides=[1], auto_pad="VALID">(c, k)', (11, 13)),
    ("AveragePool<kernel_shape=[3], pads=[1, 1]>(c)", (11, 19)),
    ("PRelu(c, p)", (9, 16)),
    ("Mod<fmod=1>(c, p)", (13,)),
]


@pytest.mark.parametrize(("node", "opset"), [(node, opset) for node, opsets in FOLDED for opset in opsets])
def test_constants(node: str, opset: int) -> None:
    constants = {
        "c": array(1, 3, 4), "s": array(3), "t": array(3), "m": array(3), "v": np.abs(array(3)) + 0.2,
        "k": array(3, 3, 1), "p": array(3, 1),
    }  # fmt: skip
    x = array(2, 3, 4)
    assert_like_onnxruntime(model(f"r = {node}; y = Add(x, r)", ["n", 3, 4], opset, **constants), x)


class Beside(torch.nn.Module):
    """Zeros, ones and a learnt array beside and under the input."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.token = torch.nn.Parameter(torch.randn(1, 2, 1))
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        first = {
            "zeros": lambda: torch.cat([x, torch.zeros_like(x)], 1),
            "ones between": lambda: torch.cat([x, torch.ones_like(x) * 0.5, x], 1),
            "new": lambda: torch.cat([x.new_zeros(x.shape[0], 1, 4), x], 1),
            "token": lambda: torch.cat([self.token.expand(x.shape[0], -1, 4), x], 1),
            "sum": lambda: x + torch.ones_like(x) * 2,
            "product": lambda: x * torch.full_like(x, 3.0),
        }[self.kind]()
        return torch.relu(self.linear(first))


@pytest.mark.parametrize("kind", ["zeros", "ones between", "new", "token", "sum", "product"])
def test_constants_as_large_as_the_batch(kind: str) -> None:
    module, file = Beside(kind).eval(), io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            module, torch.zeros(1, 2, 4), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
        )
    x = array(3, 2, 4)
    network = assert_like_onnxruntime(onnx.load_from_string(file.getvalue()), x)
    target = np.abs(array(*network.forward(x).shape))
    ex = network.explain(x, target, "epsilon")
    absorbed = ex.ledger.data[:, 2:].sum(axis=(0, 1))
    np.testing.assert_allclose(ex.relevance.sum(axis=(1, 2)) + absorbed, target.sum(axis=(1, 2)), rtol=1e-4)


SHAPES = {
    "softplus": ("e = Exp(x); f = Add(e, one); y = Log(f)", "softplus"),
    "mish": ("e = Exp(x); f = Add(e, one); l = Log(f); t = Tanh(l); y = Mul(x, t)", "mish"),
    "sigmoid": ("n = Neg(x); e = Exp(n); f = Add(e, one); y = Reciprocal(f)", "sigmoid"),
    "relu6": ("a = Max(x, zero); b = Abs(a); c = Min(b, six); y = Mul(c, one)", "clip"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_functions_that_overflow_far_out_are_recognised(name: str) -> None:
    text, kind = SHAPES[name]
    made = model(text, ["n", 5], 13, one=np.float32(1), zero=np.float32(0), six=np.float32(6))
    network = assert_like_onnxruntime(made, 3 * array(4, 5))
    assert kind in [node.layer.kind for node in network.graph.nodes]


SOFTMAXES = [
    ("a = Gemm(x, w); s = Softmax(a); y = Reshape(s, r)", (2, 3), 13, {"w": array(3, 4), "r": np.array([0, 4, 1])}),
    ("a = Gemm(x, w); s = Softmax(a); y = Unsqueeze(s, r)", (2, 3), 13, {"w": array(3, 4), "r": np.array([1])}),
    ("a = Conv(x, w); s = Softmax<axis=1>(a); y = Flatten(s)", (2, 3, 1, 1), 13, {"w": array(4, 3, 1, 1)}),
    ("a = Relu(x); y = Softmax<axis=1>(a)", (2, 3, 2, 2), 11, {}),
]


@pytest.mark.parametrize(("text", "shape", "opset", "constants"), SOFTMAXES, ids=[case[0] for case in SOFTMAXES])
def test_a_softmax_that_is_kept_may_be_moved(text: str, shape: Any, opset: int, constants: dict[str, Any]) -> None:
    x = array(*shape)
    network = assert_like_onnxruntime(model(text, ["n", *shape[1:]], opset, **constants), x)
    ex = network.explain(x, 0, "epsilon", start="one")
    assert np.isfinite(ex.relevance).all()
