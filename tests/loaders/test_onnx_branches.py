"""ONNX's If: where the condition is constant, the branch that is taken is read, against onnx's own evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pylrp

onnx = pytest.importorskip("onnx")
parser = pytest.importorskip("onnx.parser")

HEAD = '<ir_version: 8, opset_import: ["": 17]> g (float[n, 4] x, bool q) => (float[n, d] y)'
RNG = np.random.default_rng(0)
W = {"W": RNG.normal(size=(4, 3)), "V": RNG.normal(size=(4, 3))}
TWO = (
    "<then_branch = t () => (float[n, 3] a) {{ k = MatMul(h, W); a = Relu(k) }}, "
    "else_branch = e () => (float[n, 3] a) {{ k = MatMul(h, V); a = Tanh(k) }}>"
)


def _model(body: str, **constants: Any) -> Any:
    lines = f"h = Tanh(x); {body}".replace(";", "\n").replace("{{", "{").replace("}}", "}")
    model = parser.parse_model(f"{HEAD} {{ {lines} }}")
    for name, array in {**W, **constants}.items():
        array = np.asarray(array)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def _expected(model: Any, x: Any) -> Any:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, {"x": x, "q": np.array(True)})[0]


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize(
    "body",
    [
        f"y = If(c) {TWO}",
        f"c2 = Not(c); c3 = And(c2, c2); y = If(c3) {TWO}",
        f"n0 = Cast<to = 7>(c); c2 = Equal(n0, one); y = If(c2) {TWO}",
        # twice, with the same names inside; the first as an input of the second
        f"h2 = If(c) {TWO}; z = MatMul(h2, S); y = If(c) {TWO.replace('MatMul(h', 'MatMul(z')}",
        # one in the other
        f"y = If(c) <then_branch = t () => (float[n, 3] o) {{{{ p = Not(c); o = If(p) {TWO} }}}}, "
        f"else_branch = e () => (float[n, 3] o) {{{{ o = If(c) {TWO} }}}}>",
        # a value of outside as the branch's own output
        "y = If(c) <then_branch = t () => (float[n, 4] o) {{ o = Identity(h) }}, "
        "else_branch = e () => (float[n, 4] o) {{ o = Sigmoid(h) }}>",
    ],
)
def test_constant_condition(body: str, value: bool) -> None:
    model = _model(body, c=np.array(value), one=np.array(1), S=RNG.normal(size=(3, 4)))
    x = RNG.normal(size=(5, 4)).astype(np.float32)
    net = pylrp.load(model, keep_top=True)
    np.testing.assert_allclose(net.forward(x), _expected(model, x), atol=1e-6)
    assert list(net.graph.inputs) == ["x"]
    assert net.explain(x, target=1).relevance.shape == x.shape


def test_constants_of_a_branch() -> None:
    body = f"y = If(c) {TWO}".replace("{{ k = MatMul(h, W)", "{{ B = Constant<value = float[3] {1, 2, 3}>(); "
                                      "m = MatMul(h, W); k = Add(m, B)")  # fmt: skip
    model = _model(body, c=np.array([True]))
    branch = model.graph.node[1].attribute[0].g
    branch.initializer.append(onnx.numpy_helper.from_array(-W["W"].astype(np.float32), "W2"))
    branch.node[1].input[1] = "W2"
    x = RNG.normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(pylrp.load(model).forward(x), _expected(model, x), atol=1e-6)


def test_what_an_input_decides_is_refused() -> None:
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(_model(f"s = ReduceMax<keepdims = 0>(x); c = Greater(s, zero); y = If(c) {TWO}", zero=np.array(0.0)))
    assert caught.value.operator in ("If", "Greater", "ReduceMax")


def test_a_branch_that_is_missing() -> None:
    model = _model(f"y = If(c) {TWO}", c=np.array(False))
    del model.graph.node[1].attribute[1]
    with pytest.raises(pylrp.errors.BrokenFile):
        pylrp.load(model)
