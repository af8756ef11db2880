"""ONNX files that compute a layer once for each of its readers."""

from __future__ import annotations

import numpy as np
import pytest

import pylrp

onnx = pytest.importorskip("onnx")
RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(4, 6)), RNG.normal(size=(6, 3))
#: Lines of a graph and of one that computes the same, layers once for each reader.
GRAPHS = {
    "SiLU of a dense layer": (
        "h = MatMul (x, W)  s = Sigmoid (h)  g = Mul (h, s)",
        "h = MatMul (x, W)  k = MatMul (x, W)  s = Sigmoid (h)  g = Mul (k, s)",
    ),
    "root mean square of a dense layer": (
        "h = MatMul (x, W)  q = Mul (h, h)  m = ReduceMean <axes = [-1]> (q)  r = Sqrt (m)  g = Div (h, r)",
        "h = MatMul (x, W)  k = MatMul (x, W)  l = MatMul (x, W)  q = Mul (h, k)  m = ReduceMean <axes = [-1]> (q)"
        "  r = Sqrt (m)  g = Div (l, r)",
    ),
}


def network(lines):
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    net (double[n, 4] x) => (double[n, 3] y) {{ {lines}  y = MatMul (g, V) }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for a, n in ((W, "W"), (V, "V")))
    return pylrp.load(model)


@pytest.mark.parametrize("name", GRAPHS)
def test_one_map(name):
    one, other = map(network, GRAPHS[name])
    x = RNG.normal(size=(3, 4))
    a, b = (net.explain(x, 1, composite="attnlrp") for net in (one, other))
    np.testing.assert_allclose(b.relevance, a.relevance, rtol=1e-12)
    h = x @ W
    f = h / (1 + np.exp(-h)) if "SiLU" in name else h / np.sqrt((h * h).mean(-1, keepdims=True))
    wanted = x * ((f / h * V[:, 1]) @ W.T)  # f(h) / h is a constant
    np.testing.assert_allclose(a.relevance, wanted, rtol=1e-9)
    assert other.verify(x, target=1, composite="attnlrp").ok
