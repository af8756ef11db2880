"""Products with one constant matrix for each head, places that are constant, and what models compute of sizes alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.errors import UnsupportedLayer

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402

RANDOM = np.random.default_rng(5)


def model(text: str, inputs: dict[str, Any], opset: int = 17, **constants: Any) -> Any:
    whole = {"ids": TensorProto.INT64}
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in text.split(";")],
        "test",
        [helper.make_tensor_value_info(n, whole.get(n, TensorProto.FLOAT), shape) for n, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def require_linear(made: Any, shape: tuple[int, ...], function: Any) -> None:
    """A linear function of x: relevance is x times what the function makes of ones, sent back."""
    x = RANDOM.normal(size=(3, *shape))
    net = pylrp.load(made, dtype="float64")
    y = function(x)
    np.testing.assert_allclose(net.forward(x), y, rtol=1e-10, atol=1e-12)
    unit = np.eye(x[0].size).reshape(-1, *shape)
    jacobian = function(unit).reshape(len(unit), -1)
    top = RANDOM.normal(size=y.shape)
    for composite in ("attnlrp", "cp_lrp"):
        ex = net.explain(x, top * y, composite=composite)
        expected = x * (top.reshape(3, -1) @ jacobian.T).reshape(x.shape)
        np.testing.assert_allclose(ex.relevance, expected, rtol=1e-9, atol=1e-12)
        rounding = max((np.abs(row.rounding).max() for row in ex.ledger), default=0.0)
        assert rounding <= 1e-11 * np.abs(top * y).sum()


@pytest.mark.parametrize(
    ("shape", "constant"),
    [
        ((4, 5, 3), (1, 4, 3, 2)),  # a matrix for each head
        ((4, 5, 3), (4, 3, 2)),
        ((1, 5, 3), (4, 3, 2)),  # the value is repeated
        ((2, 4, 5, 3), (2, 1, 3, 2)),
        ((2, 4, 5, 3), (4, 3, 6)),
        ((5, 3), (3, 2)),
        ((3,), (3, 2)),
    ],
)
def test_a_matrix_for_each_head(shape, constant):
    weight = RANDOM.normal(size=constant)
    require_linear(model("y = MatMul(x, w)", {"x": ["n", *shape]}, w=weight), shape, lambda x: np.matmul(x, weight))


@pytest.mark.parametrize(
    ("shape", "constant"),
    [((4, 3, 5), (4, 2, 3)), ((4, 3, 5), (1, 1, 2, 3)), ((2, 4, 3, 5), (2, 1, 6, 3)), ((3, 5), (2, 3))],
)
def test_a_matrix_before_the_value(shape, constant):
    weight = RANDOM.normal(size=constant)
    require_linear(model("y = MatMul(w, x)", {"x": ["n", *shape]}, w=weight), shape, lambda x: np.matmul(weight, x))


@pytest.mark.parametrize(
    ("equation", "shape", "constant"),
    [
        ("nhtd,hdk->nhtk", (4, 5, 3), (4, 3, 2)),
        ("nthd,dhk->nkht", (5, 4, 3), (3, 4, 2)),
        ("nthd,hd->nth", (5, 4, 3), (4, 3)),
        ("...d,dk->...k", (5, 3), (3, 2)),
    ],
)
def test_einsum_by_heads(equation, shape, constant):
    weight = RANDOM.normal(size=constant)
    text = f'y = Einsum<equation="{equation}">(x, w)'
    require_linear(model(text, {"x": ["n", *shape]}, w=weight), shape, lambda x: np.einsum(equation, x, weight))


def test_matrices_that_differ_from_sample_to_sample_are_refused():
    with pytest.raises(UnsupportedLayer):
        pylrp.load(model("y = MatMul(x, w)", {"x": ["n", 5, 3]}, w=np.ones((2, 3, 3))))


@pytest.mark.parametrize("axis", [3, 2, 1, -1])
def test_constant_places(axis):
    """The places of relative positions, repeated for each sample and head, and those that differ from head to head."""
    shape, length = (4, 5, 3), 6
    n, others = shape[axis - 1 if axis > 0 else axis], list(shape)
    own = (axis - 1) if axis > 0 else 2
    rows = [length if a == own else m for a, m in enumerate(others)]
    for places in (RANDOM.integers(-n, n, (1, *rows)), RANDOM.integers(0, n, (1, 1, *rows[1:]))):
        text = "s = Shape(x); b = Slice(s, zero, one); r = Concat<axis=0>(b, rows); p = Expand(i, r)"
        made = model(
            f"{text}; y = GatherElements<axis={axis}>(x, p)", {"x": ["n", *shape]},
            i=places, zero=np.array([0]), one=np.array([1]), rows=np.array(rows),
        )  # fmt: skip
        whole = np.broadcast_to(places, (1, *rows))

        def taken(x: Any, whole: Any = whole) -> Any:
            return np.take_along_axis(x, np.repeat(whole, len(x), 0), own + 1)

        require_linear(made, shape, taken)


def test_constants_repeated_for_samples_and_heads():
    """As some models write what meets (batch * heads, tokens, width)."""
    heads, tokens, width = 2, 5, 3
    weight = RANDOM.normal(size=(heads, width, 4))
    text = (
        "f = Reshape(x, flat); s = Shape(x); b = Gather<axis=0>(s, zero); r = Concat<axis=0>(b, ones);"
        "w = Tile(k, r); z = MatMul(f, w); y = Reshape(z, back)"
    )
    made = model(
        text, {"x": ["n", heads, tokens, width]}, k=weight, flat=np.array([-1, tokens, width]), zero=np.array([0]),
        ones=np.array([1, 1]), back=np.array([-1, heads, tokens, 4]),
    )  # fmt: skip
    require_linear(made, (heads, tokens, width), lambda x: np.matmul(x, weight))


def by_length() -> Any:
    """A model of ids that goes one way up to 12 tokens, and another beyond."""
    short, long = (
        helper.make_graph(
            [parser.parse_node(f"{name} = {op}(h, h)")], name, [], [helper.make_tensor_value_info(name, 1, None)]
        )
        for name, op in (("few", "Add"), ("many", "Mul"))
    )
    nodes = [
        parser.parse_node(part)
        for part in (
            "e = Gather(table, ids)",
            "g = Relu(e)",
            "h = Add(g, shift)",
            "s = Shape(ids)",
            "t = Gather<axis=0>(s, one)",
            "c = LessOrEqual(t, most)",
        )
    ]
    nodes += [helper.make_node("If", ["c"], ["z"], then_branch=short, else_branch=long)]
    nodes += [parser.parse_node("y = ReduceMean<axes=[1], keepdims=0>(z)")]
    constants = {
        "table": RANDOM.normal(size=(20, 4)), "shift": np.ones(4), "one": np.array(1), "most": np.array(12)
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "test", [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), constants


def test_a_branch_by_length_is_chosen_for_each():
    """Also where three lengths have been learnt that took the same branch."""
    made, constants = by_length()
    net = pylrp.load(made, dtype="float64")
    for length in (3, 4, 7, 9, 12, 13, 20, 5):
        ids = RANDOM.integers(0, 20, (2, length))
        h = np.maximum(constants["table"][ids], 0) + 1
        expected = (2 * h if length <= 12 else h * h).mean(1)
        np.testing.assert_allclose(net.forward({"ids": ids}), expected, rtol=1e-12)


def looked_up(text: str) -> Any:
    constants = {
        "table": RANDOM.normal(size=(20, 4)), "begin": np.array([0]), "one": np.array([1]), "end": np.array([2**62]),
        "back": np.array([-1]), "axis": np.array([1]), "w": np.ones((4, 2)),
    }  # fmt: skip
    parts = f"{text}; e = Gather(table, i); m = ReduceMean<axes=[1], keepdims=0>(e); y = MatMul(m, w)"
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in parts.split(";")], "test",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), constants["table"]


@pytest.mark.parametrize("text", ["i = Slice(ids, begin, end, axis)", "i = Identity(ids)"])
def test_ids_in_their_places_are_looked_up(text):
    made, table = looked_up(text)
    ids = RANDOM.integers(0, 20, (2, 6))
    y = pylrp.load(made, dtype="float64").explain({"ids": ids}, 0, "cp_lrp")
    np.testing.assert_allclose(y.relevance, table[ids].sum(-1) / 6, rtol=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "i = Slice(ids, one, end, axis)",
        "i = Slice(ids, back, begin, axis, back)",
        "j = Slice(ids, begin, one, axis); i = Concat<axis=1>(j, ids)",
    ],
)
def test_ids_elsewhere_are_refused(text):
    """Their relevance would find back to no id, and be lost in silence where other lookups carry some."""
    with pytest.raises(UnsupportedLayer):
        pylrp.load(looked_up(text)[0])


@pytest.mark.parametrize("places", [(4, 3), (1, 1)])
def test_a_response_that_is_normalised_is_a_gate(places):
    """The product of a value with a statistic of its own: its length over all places, over the mean of the lengths."""
    w, e = RANDOM.normal(size=5), np.full(1, 1e-6)
    text = (
        "g = ReduceL2<axes=[1, 2]>(x); m = ReduceMean<axes=[3]>(g); d = Add(m, e); n = Div(g, d); p = Mul(x, n);"
        "q = Mul(p, w); y = Add(q, x)"
    )
    net = pylrp.load(model(text, {"x": ["n", *places, 5]}, w=w, e=e), dtype="float64")
    x = RANDOM.normal(size=(2, *places, 5))
    length = np.sqrt((x * x).sum((1, 2), keepdims=True))
    factor = 1 + w * length / (length.mean(-1, keepdims=True) + e)
    top = RANDOM.normal(size=x.shape)
    for composite in ("attnlrp", "cp_lrp", "epsilon"):
        ex = net.explain(x, top, composite=composite)
        np.testing.assert_allclose(ex.output, factor * x, rtol=1e-9)
        if composite != "epsilon":
            np.testing.assert_allclose(ex.relevance, top, rtol=1e-9, atol=1e-12)


def test_constants_with_the_batch_on_another_axis():
    """Steps first, as recurrent networks and their heirs have them."""
    weight = RANDOM.normal(size=(5, 1, 3))
    text = (
        "s = Shape(x); b = Slice(s, zero, one); r = Concat<axis=0>(five, b, three); c = Expand(w, r);"
        'h = Transpose<perm=[1, 0, 2]>(x); y = Einsum<equation="ibd,jbd->bij">(h, c)'
    )
    made = model(
        text, {"x": ["n", 4, 3]}, w=weight, zero=np.array([0]), one=np.array([1]), five=np.array([5]),
        three=np.array([3]),
    )  # fmt: skip
    require_linear(made, (4, 3), lambda x: np.einsum("bid,jd->bij", x, weight[:, 0]))


def test_parts_of_no_width_are_joined():
    """The part of a head that is not rotated, where all of it is."""
    text = "a = Slice(x, zero, two, last); b = Slice(x, two, end, last); c = Neg(a); y = Concat<axis=-1>(c, b)"
    made = model(
        text, {"x": ["n", 3, 2]}, zero=np.array([0]), two=np.array([2]), last=np.array([-1]), end=np.array([2**62])
    )
    require_linear(made, (3, 2), lambda x: -x)
