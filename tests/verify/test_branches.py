"""`Network.verify` of models with ONNX's If: the branch that is taken is compared, and named where it differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pylrp

onnx = pytest.importorskip("onnx")

_BRANCHES = """<then_branch = t () => (float[n, 3] a) { k = MatMul (h, W)
    a = Relu (k) }, else_branch = e () => (float[n, 3] a) { k = MatMul (h, V)
    a = Tanh (k) }>"""
_NESTED = f"""<then_branch = t () => (float[n, 3] o) {{ p = Not (c)
    o = If (p) {_BRANCHES} }}, else_branch = e () => (float[n, 3] o) {{ o = If (c) {_BRANCHES} }}>"""
#: Conditions, twice the same names, one in the other, a value of outside as the branch's own.
BODIES = {
    "constant": f"b = If (c) {_BRANCHES}",
    "computed": f"n0 = Cast <to = 7> (c)\n c2 = Equal (n0, one)\n b = If (c2) {_BRANCHES}",
    "twice": f"b0 = If (c) {_BRANCHES}\n z = MatMul (b0, S)\n b = If (c) {_BRANCHES.replace('(h', '(z')}",
    "nested": f"b = If (c) {_NESTED}",
}


def model(body: str, value: bool) -> Any:
    random = np.random.default_rng(0)
    text = f"""<ir_version: 8, opset_import: ["": 17]> g (float[n, 4] x) => (float[n, 2] y)
    {{ f = MatMul (x, F)\n h = Tanh (f)\n {body}\n y = MatMul (b, H) }}"""
    made = onnx.parser.parse_model(text)
    shapes = {"F": (4, 4), "W": (4, 3), "V": (4, 3), "S": (3, 4), "H": (3, 2)}
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {"c": np.array(value), "one": np.array(1)}
    made.graph.initializer.extend([onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()])
    return made


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("body", BODIES)
def test_the_branch_that_is_taken(rng, body, value):
    made = model(BODIES[body], value)
    x = rng.normal(size=(3, 4)).astype(np.float32)
    net = pylrp.load(made)
    found = net.verify(x, composite="epsilon")
    assert found.ok, str(found)
    taken = "W" if value and body != "nested" else "V"
    broken = onnx.ModelProto()
    broken.CopyFrom(made)
    for tensor in broken.graph.initializer:
        if tensor.name == taken:
            array = onnx.numpy_helper.to_array(tensor).copy()
            array[1] *= -1
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, taken))
    wrong = net.verify(x, broken, composite="epsilon")
    assert not wrong.ok
    layer: Any = next(node.layer for node in net.graph.nodes if node.name == wrong.first_wrong)
    weight = next(onnx.numpy_helper.to_array(t) for t in made.graph.initializer if t.name == taken)
    np.testing.assert_array_equal(layer.weight.T, weight)
