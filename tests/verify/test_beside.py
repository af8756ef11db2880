"""What no relevance lies on and has no formula in the verification is computed by onnx's own evaluator."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto, helper, parser
from verify_models import model, normal

import pylrp


def test_constants_of_any_operator():
    """Scattered masks, tables that are resized by the cubic filter."""
    made = model(
        """
        t = Resize<mode="cubic", coordinate_transformation_mode="half_pixel">(table, , , sizes);
        p = Reshape(t, flat);
        m = ScatterND(zeros, at, ones);
        a = Add(x, p);
        b = Mul(a, m);
        y = MatMul(b, w)
        """,
        (12,), table=normal(1, 1, 3, 3), sizes=np.array([1, 1, 4, 3]), flat=np.array([1, 12]), zeros=np.zeros(12),
        at=np.array([[0], [3], [7]]), ones=np.ones(3), w=normal(12, 2),
    )  # fmt: skip
    net = pylrp.load(made, dtype="float64")
    found = net.verify(np.ones((2, 12)), target=1, composite="attnlrp")
    assert found.ok, str(found)


def test_matrices_for_each_head():
    """The right one passes; one whose heads are exchanged does not, and is named."""
    text = "h = Relu(x); m = MatMul(h, w); r = Reshape(m, flat); y = MatMul(r, v)"
    constants = {"w": normal(3, 4, 2), "flat": np.array([0, 30]), "v": normal(30, 2)}
    right = model(text, (3, 5, 4), **constants)
    wrong = model(text, (3, 5, 4), **constants | {"w": constants["w"][[1, 0, 2]]})
    net, x = pylrp.load(right, dtype="float64"), np.abs(normal(2, 3, 5, 4)) + 0.1
    assert net.verify(x, target=1, composite="attnlrp").ok
    found = net.verify(x, wrong, target=1, composite="attnlrp")
    assert not found.ok
    assert "'m'" in str(found)


def test_branches_that_sizes_decide():
    """An If whose condition is computed of a value's shape."""
    few, many = (
        helper.make_graph(
            [parser.parse_node(f"{name} = MatMul(h, {weight})")], name, [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name, weight in (("few", "w"), ("many", "v"))
    )  # fmt: skip
    made = model(
        "h = Relu(x); s = Shape(h); t = Gather<axis=0>(s, one); c = Less(t, most); y = MatMul(h, w)", (5,),
        w=normal(5, 2), v=normal(5, 2), one=np.array(1), most=np.array(9),
    )  # fmt: skip
    made.graph.node.pop()
    made.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=few, else_branch=many))
    net, x = pylrp.load(made, dtype="float64"), np.abs(normal(2, 5))
    found = net.verify(x, target=1, composite="epsilon")
    assert found.ok, str(found)
