"""A signal front end, ONNX's STFT with what stands behind it, against the verification's own formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.layers import Conv

onnx = pytest.importorskip("onnx")
parser = pytest.importorskip("onnx.parser")

BODY = """
    xs = Unsqueeze(x, two)
    s = STFT{sides}(xs, hop{window}, size)
    sq = Mul(s, s)
    p = ReduceSum<keepdims=0>(sq, three)
    m = Sqrt(p)
    me = Add(m, e)
    l = Log(me)
    t = Transpose<perm=[1, 0, 2]>(l)
    Y, H = LSTM<hidden_size=4>(t, W, R, B)
    h = Squeeze(H, zero)
    y = MatMul(h, V)
"""


def _model(size: int, hop: int, *, window: bool = True, onesided: int = 1, length: int = 61) -> Any:
    rng = np.random.default_rng(size)
    count = size // 2 + 1 if onesided else size
    arrays = {
        "two": np.array([2]), "three": np.array([3]), "zero": np.array([0]), "hop": np.array(hop),
        "size": np.array(size), "w": np.hanning(size + 2)[1:-1], "e": np.array(1e-3),
        "W": rng.normal(size=(1, 16, count)) / 3, "R": rng.normal(size=(1, 16, 4)) / 3,
        "B": rng.normal(size=(1, 32)) / 10, "V": rng.normal(size=(4, 3)),
    }  # fmt: skip
    body = BODY.format(sides=f"<onesided={onesided}>", window=", w" if window else ", ")
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[n, {length}] x) => (float[n, 3] y) {{ {body} }}'
    model = parser.parse_model(text)
    for name, array in arrays.items():
        kind = np.float32 if array.dtype.kind == "f" else np.int64
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array, kind), name))
    return model


SIGNALS = np.random.default_rng(1).normal(size=(2, 61)).astype(np.float32)


@pytest.mark.parametrize("composite", ["cp_lrp", "epsilon", "epsilon_plus_flat", "epsilon_alpha2_beta1_flat"])
@pytest.mark.parametrize(
    ("size", "hop", "more"), [(16, 8, {}), (15, 4, {}), (8, 8, {"window": False}), (16, 5, {"onesided": 0})]
)
def test_transform(size: int, hop: int, more: dict[str, Any], composite: str) -> None:
    verification = pylrp.load(_model(size, hop, **more)).verify(SIGNALS, composite=composite)
    assert verification.passed, verification


def test_another_transform_is_found() -> None:
    net = pylrp.load(_model(16, 8))
    nodes = [
        replace(node, layer=replace(node.layer, weight=node.layer.weight[:, :, ::-1].copy()))  # the conjugate, turned
        if isinstance(node.layer, Conv) else node
        for node in net.graph.nodes
    ]  # fmt: skip
    other = pylrp.Network.from_graph(net.graph.changed(nodes=nodes))
    assert not other.verify(SIGNALS, model=_model(16, 8), composite="cp_lrp").passed
