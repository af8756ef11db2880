"""`pylrp.verify.reference_relevance` against numbers worked out by hand, and against dense matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from verify_models import model, normal

import pylrp
from pylrp import rules as R
from pylrp.verify import reference_relevance


def dense(rule: Any, a: Any, w: Any, b: Any, r: Any) -> Any:
    """Return what one layer y = a W + b hands down."""
    made = model("y = Gemm(x, W, b)", (len(a),), double=True, W=np.transpose(w), b=np.array(b, float))
    return reference_relevance(made, np.array([a], float), np.array([r], float), rule).relevance["x"][0]


def test_rules_of_weights_by_hand() -> None:
    # One neuron, contributions 2, -3, 4 and a bias of 1: z = 4.
    a, w, b, r = [1.0, -1.0, 2.0], [[2.0, 3.0, 2.0]], [1.0], [8.0]
    np.testing.assert_allclose(dense(pylrp.Zero(), a, w, b, r), [4, -6, 8])
    np.testing.assert_allclose(dense(pylrp.Epsilon(4), a, w, b, r), [2, -3, 4])
    np.testing.assert_allclose(dense(pylrp.Zero(bias=False), a, w, b, r), np.array([2, -3, 4]) / 3 * 8)
    np.testing.assert_allclose(dense(pylrp.ZPlus(0), a, w, b, r), [16 / 7, 0, 32 / 7])
    np.testing.assert_allclose(dense(pylrp.AlphaBeta(2, 1, stabilizer=0), a, w, b, r), [32 / 7, -8, 64 / 7])
    # Gamma 1 counts what is positive twice: 4, -3, 8, bias 2, sum 11.
    np.testing.assert_allclose(dense(pylrp.Gamma(1, stabilizer=0), a, w, b, r), np.array([4, -3, 8]) / 11 * 8)
    np.testing.assert_allclose(dense(pylrp.WSquare(0), a, w, b, r), np.array([4, 9, 4]) / 18 * 8)
    np.testing.assert_allclose(dense(pylrp.Flat(0), a, w, b, r), [8 / 3] * 3)
    # Low -2, high 2: contributions less low w+: 2 + 4, -3 + 6, 4 + 4.
    np.testing.assert_allclose(dense(pylrp.ZBox(-2, 2, stabilizer=0), a, w, b, r), np.array([6, 3, 8]) / 17 * 8)
    # Where z < 0 gamma favours what is negative: contributions -2, 3, -4, bias -1.
    np.testing.assert_allclose(dense(pylrp.Gamma(1, stabilizer=0), a, [[-2.0, -3.0, -2.0]], [-1.0], r),
                               np.array([4, -3, 8]) / 11 * 8)  # fmt: skip
    np.testing.assert_allclose(dense(pylrp.Zero(), a, [[0.0, 0, 0]], [0.0], r), [0, 0, 0])


@pytest.mark.parametrize(
    "rule",
    [
        pylrp.Epsilon(0.1), pylrp.ZPlus(0.1), pylrp.AlphaBeta(3, 2), pylrp.Gamma(0.3), pylrp.WSquare(0.1),
        pylrp.Flat(0.1), pylrp.ZBox(-3, 3), pylrp.ZPlus(bias=False), pylrp.Gamma(0.3, bias=False),
    ],
    ids=str,
)  # fmt: skip
def test_convolutions_are_dense_layers_with_many_zeros(rule: Any) -> None:
    """The same as a dense layer whose matrix holds the kernel; a scaling behind it is part of the weights."""
    w, b, s, t = normal(3, 2, 2, 2), normal(3), np.array([1.5, -0.5, 2.0]).reshape(3, 1, 1), normal(3, 1, 1)
    text = "c = Conv<strides=[2,1], pads=[1,0,0,1]>(x, W, B); m = Mul(c, s); y = Add(m, t)"
    made = model(text, (2, 3, 3), double=True, W=w, B=b, s=s, t=t)
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 3))
    start = np.random.default_rng(1).standard_normal((1, 3, 2, 3))
    found = reference_relevance(made, x, start, rule)
    # Unit vectors pushed through: the matrix, where it is connected, and the bias.
    columns = [reference_relevance(made, e[None], start).values["y"] for e in np.eye(18).reshape(18, 2, 3, 3)]
    bias = reference_relevance(made, 0 * x, start).values["y"].ravel()
    matrix = np.stack([column.ravel() - bias for column in columns], axis=1)
    assert np.allclose(matrix @ x.ravel() + bias, found.values["y"].ravel())
    if isinstance(rule, pylrp.Flat):  # a place without a connection is not one of the n
        matrix, rule = np.where(np.abs(matrix) > 1e-12, 1.0, 0.0), pylrp.WSquare(rule.stabilizer, bias=False)
    np.testing.assert_allclose(found.relevance["x"].ravel(), dense(rule, x.ravel(), matrix, bias, start.ravel()),
                               rtol=1e-10, atol=1e-12)  # fmt: skip


def one(text: str, x: Any, start: Any, rules: Any = None, **constants: Any) -> Any:
    made = model(text, np.shape(x)[1:], double=True, **constants)
    return reference_relevance(made, np.array(x, float), np.array(start, float), rules).relevance["x"]


def test_functions_softmax_and_sums_by_hand() -> None:
    np.testing.assert_allclose(one("y = Sigmoid(x)", [[0.0, 1.0]], [[2.0, 3.0]]), [[2, 3]])
    by_share = one("y = Sigmoid(x)", [[0.0, 1.0]], [[2.0, 3.0]], {"function": R.Zero()})
    f = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(by_share, [[0, 3 * (f - 0.5) / f]])
    x, r = np.array([[1.0, 2.0, 4.0]]), np.array([[3.0, -1.0, 2.0]])
    p = np.exp(x) / np.exp(x).sum()
    np.testing.assert_allclose(one("y = Softmax(x)", x, r), x * (r - p * r.sum()))
    np.testing.assert_allclose(one("y = Softmax(x)", x, r, {"softmax": R.Stop()}), 0 * x)
    # 1 + 3 = 4 and x - 2 x: -x.
    np.testing.assert_allclose(one("k = Mul(x, two); y = Sub(x, k)", [[3.0]], [[5.0]], two=np.array(2.0)), [[5]])
    np.testing.assert_allclose(one("y = ReduceMean<axes=[1]>(x)", [[1.0, 3.0]], [[8.0]]), [[2, 6]])
    np.testing.assert_allclose(one("y = ReduceMax<axes=[1]>(x)", [[1.0, 3.0]], [[8.0]]), [[0, 8]])


def test_products_by_hand() -> None:
    g = 1 / (1 + np.exp(-1.0))
    gate = "a = Mul(x, two); z = Mul(x, one); g = Sigmoid(z); y = Mul(g, a)"
    both = {"two": np.array(2.0), "one": np.array(0.5)}
    np.testing.assert_allclose(one(gate, [[2.0]], [[4 * g]], **both), [[4 * g]])
    half = one(gate, [[2.0]], [[4 * g]], {"product": R.Half()}, **both)
    np.testing.assert_allclose(half, [[4 * g]])  # half through the gate, which passes all
    np.testing.assert_allclose(one("y = Mul(x, x)", [[3.0]], [[9.0]]), [[9]])
    np.testing.assert_allclose(one("q = Mul(x, x); y = Div(x, q)", [[4.0]], [[0.25]]), [[0.25]])
    # A written GELU is a function: all relevance passes.
    gelu = "d = Div(x, r2); e = Erf(d); o = Add(e, one); m = Mul(x, o); y = Mul(m, half)"
    constants = {"r2": np.array(np.sqrt(2)), "one": np.array(1.0), "half": np.array(0.5)}
    np.testing.assert_allclose(one(gelu, [[1.0, -2.0]], [[3.0, 4.0]], **constants), [[3, 4]])


def test_attention_by_hand() -> None:
    """c of a product of two values: half of the gradient each; of the values alone under ``value``."""
    x = np.random.default_rng(2).standard_normal((1, 3, 2))
    text = "t = Transpose<perm=[0,2,1]>(x); s = MatMul(x, t); p = Softmax<axis=-1>(s); y = MatMul(p, x)"
    r = np.random.default_rng(3).standard_normal((1, 3, 2))
    p = np.exp(x @ x.swapaxes(1, 2))
    p /= p.sum(-1, keepdims=True)
    y = p @ x
    c = r / y
    np.testing.assert_allclose(one(text, x, r, {"matmul": "value", "softmax": "stop"}), x * (p.swapaxes(1, 2) @ c))
    c_p = c / 2 @ x.swapaxes(1, 2)
    c_s = p * (c_p - (p * c_p).sum(-1, keepdims=True))
    expected = x * (p.swapaxes(1, 2) @ (c / 2) + (c_s / 2) @ x + (c_s / 2).swapaxes(1, 2) @ x)
    np.testing.assert_allclose(one(text, x, r), expected)


@pytest.mark.parametrize("written", [False, True])
def test_layer_norm_by_hand(written: bool) -> None:
    """The standard deviation is a constant, the mean takes part; written out in nodes it is the same."""
    x = np.array([[1.0, 2.0, 6.0]])
    r = np.array([[1.0, -2.0, 3.0]])
    g, b = np.array([1.0, 2.0, 0.5]), np.array([0.5, -1.0, 0.25])
    node = "y = LayerNormalization<axis=-1, epsilon=0.5>(x, g, b)"
    if written:
        node = """m = ReduceMean<axes=[-1]>(x); d = Sub(x, m); q = Pow(d, two); v = ReduceMean<axes=[-1]>(q);
        w = Add(v, e); s = Sqrt(w); n = Div(d, s); k = Mul(n, g); y = Add(k, b)"""
    sigma = np.sqrt(x.var() + 0.5)
    y = (x - x.mean()) / sigma * g + b
    t = g * r / y / sigma
    np.testing.assert_allclose(one(node, x, r, g=g, b=b, two=np.array(2.0), e=np.array(0.5)), x * (t - t.mean()))


def test_ids_get_what_their_rows_get() -> None:
    from onnx import helper, numpy_helper, parser

    table, weight = normal(5, 3), normal(3, 2)
    nodes = [parser.parse_node(text) for text in ("e = Gather(T, ids)", "m = ReduceMean<axes=[1], keepdims=0>(e)",
                                                  "y = MatMul(m, W)")]  # fmt: skip
    graph = helper.make_graph(
        nodes, "ids", [helper.make_tensor_value_info("ids", 7, ["n", 4])],
        [helper.make_tensor_value_info("y", 11, None)],
        [numpy_helper.from_array(table, "T"), numpy_helper.from_array(weight, "W")],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    ids = np.array([[0, 4, 2, 0]])
    found = reference_relevance(made, {"ids": ids}, target=1)
    np.testing.assert_allclose(found.relevance["ids"], (table[ids] @ weight[:, 1]) / 4)


@pytest.mark.parametrize("rows", ["comparison", "one-hot"])
def test_ids_get_what_their_rows_of_a_product_with_one_hot_rows_get(rows: str) -> None:
    from onnx import helper, numpy_helper, parser

    table, weight, bias = normal(5, 3), normal(3, 2), normal(3)
    made = {
        "comparison": ["u = Unsqueeze(ids, last)", "b = Expand(u, sizes)", "o = Equal(b, all)", "h = Cast<to=11>(o)"],
        "one-hot": ["h = OneHot(ids, depth, values)"],
    }[rows]
    graph = helper.make_graph(
        [parser.parse_node(text) for text in (*made, "e = MatMul(h, T)", "a = Add(e, B)",
                                              "m = ReduceMean<axes=[1], keepdims=0>(a)", "y = MatMul(m, W)")],
        "ids", [helper.make_tensor_value_info("ids", 7, ["n", 4])],
        [helper.make_tensor_value_info("y", 11, None)],
        [numpy_helper.from_array(array, name) for name, array in {
            "T": table, "W": weight, "B": bias, "last": np.array([-1]), "sizes": np.array([1, 4, 5]),
            "all": np.arange(5).reshape(1, 1, 5), "depth": np.array([5]), "values": np.array([0.0, 1.0]),
        }.items()],
    )  # fmt: skip
    model_of_ids = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    ids = np.array([[0, 4, 2, 0], [1, 1, 3, 2]])
    found = reference_relevance(model_of_ids, {"ids": ids}, target=1)
    np.testing.assert_allclose(found.relevance["ids"], (table[ids] @ weight[:, 1]) / 4)


def test_rules_by_name_kind_and_composite() -> None:
    text = "h = Gemm(x, W); a = Relu(h); y = Gemm(a, V)"
    made = model(text, (4,), double=True, W=normal(4, 5), V=normal(5, 2))
    x = np.random.default_rng(4).standard_normal((2, 4))
    mine = pylrp.Composite("mine", pylrp.Epsilon(0.1), first=pylrp.ZPlus())
    expected = reference_relevance(made, x, 1, mine).relevance["x"]
    for rules in (
        {"h": pylrp.ZPlus(), "dense": pylrp.Epsilon(0.1)},
        {"h": pylrp.ZPlus(), "y": pylrp.Epsilon(0.1)},
        pylrp.Composite("m", pylrp.ZPlus(), last=pylrp.Epsilon(0.1)),
        pylrp.Composite("m", pylrp.Epsilon(0.1), names={"h": pylrp.ZPlus()}),
    ):
        np.testing.assert_array_equal(reference_relevance(made, x, 1, rules).relevance["x"], expected)
    assert not np.allclose(reference_relevance(made, x, 1).relevance["x"], expected)
    ex = pylrp.load(made).explain(x, 1, mine)
    np.testing.assert_allclose(ex.relevance, expected, rtol=1e-12)


def test_what_has_no_formula_is_said() -> None:
    made = model("c = Hardmax(x); y = Relu(c)", (4,), double=True)
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        reference_relevance(made, np.ones((1, 4)))
    assert caught.value.operator == "Hardmax"

    @dataclass(frozen=True, repr=False)
    class Mine(pylrp.Rule):
        pass

    made = model("y = Gemm(x, W)", (4,), double=True, W=normal(4, 2))
    with pytest.raises(ValueError, match="Mine"):
        reference_relevance(made, np.ones((1, 4)), 0, Mine())
