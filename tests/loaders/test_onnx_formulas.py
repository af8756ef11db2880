"""Functions written out in ONNX: a bias is the layer's below a function, however an exporter writes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pylrp

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402

RNG = np.random.default_rng(3)
CONSTANTS = {
    "w": RNG.standard_normal((3, 4)),
    "b": RNG.standard_normal(4),
    "v": RNG.standard_normal((4, 2)),
    "two": np.array(2.0),
    "zero": np.array(0.0),
}
#: Layer below by two exporters, and functions of it.
BELOW = ("h = Gemm(x, w, b)", "m = MatMul(x, w); h = Add(m, b)", "m = MatMul(x, w); h = Add(b, m)")
FUNCTIONS = {
    "f = Abs(h)": "abs(x)",
    "n = Sin(h); f = Mul(n, h)": "sin(x) * x",
    "n = Mul(h, h); f = Mul(n, h)": "(x * x) * x",
    "s = Exp(h); f = Add(s, b)": "exp(x) + c0",
    "c = Less(h, zero); n = Mul(h, two); f = Where(c, n, h)": "where(x < 0, x * 2, x)",
}


def model(text: str) -> Any:
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in text.split(";")],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_bias_before_a_function_is_the_layers(function: str) -> None:
    x = RNG.standard_normal((5, 3))
    maps = []
    for below in BELOW:
        net = pylrp.load(model(f"{below}; {function}; y = MatMul(f, v)"))
        ex = net.explain(x, 0, composite="epsilon", layers="all")
        assert [(n.layer.kind, getattr(n.layer, "formula", None)) for n in net.graph.nodes] == [
            ("dense", None),
            ("function", FUNCTIONS[function]),
            ("dense", None),
        ]
        maps.append(ex.relevance)
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=1e-12)


def test_a_choice_by_another_value_is_refused() -> None:
    text = "h = MatMul(x, w); k = Add(h, b); c = Less(h, k); f = Where(c, h, k); y = MatMul(f, v)"
    assert pylrp.load(model(text)).forward(np.zeros((1, 3))).shape == (1, 2)  # both are functions of h
    with pytest.raises(pylrp.UnsupportedLayer):
        pylrp.load(model("h = MatMul(x, w); g = Gemm(x, w, b); c = Less(h, g); f = Where(c, h, g); y = MatMul(f, v)"))
