"""Products of two computed values and softmax along any axis: forward, relevance, ledger, by NumPy in float64.

The references are the formulas of the rules (AttnLRP's propositions 3.1 and 3.3, CP-LRP's value path) written with
NumPy on whole arrays; nothing of the library computes them.
"""

from __future__ import annotations

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.network.graph import Graph, Node
from pylrp.rules import Stop, Taylor, Value, Zero

TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 2e-5}


def network(shapes, nodes, outputs, dtype=np.float64):
    return pylrp.Network.from_graph(Graph(shapes, nodes, outputs, dtype=dtype), keep_top=True)


def product(left, right, dtype=np.float64, scale=1.0):
    """One product, explained at its own values."""
    return network({"a": left, "b": right}, [Node("c", L.MatMul(scale), ("a", "b"))], ["c"], dtype)


def summed_to(array, shape):
    """What falls on an operand that was repeated, (batch, *shape)."""
    lead = array.ndim - 1 - len(shape)
    array = array.sum(axis=tuple(range(1, 1 + lead)))
    axes = tuple(i + 1 for i, n in enumerate(shape) if n == 1 and array.shape[i + 1] > 1)
    return array.sum(axis=axes, keepdims=True)


SHAPES = [
    ((2, 3), (3, 4)),
    ((1, 1), (1, 1)),
    ((5, 2, 3), (5, 3, 4)),
    ((2, 3, 7, 5), (2, 3, 5, 6)),
    ((2, 3, 7, 5), (2, 1, 5, 6)),  # shared keys and values
    ((1, 3, 7, 5), (2, 1, 5, 6)),
    ((3, 7, 5), (2, 3, 5, 6)),
    ((4, 40, 300), (4, 300, 33)),  # more than one block of the reduction
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1.0, -0.25])
@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_half(rng, left, right, scale, dtype):
    net = product(left, right, dtype, scale)
    a, b = (rng.normal(size=(3, *shape)).astype(dtype) for shape in (left, right))
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    rank = max(len(left), len(right)) + 1
    wide = [x.reshape(3, *(1,) * (rank - x.ndim), *x.shape[1:]) for x in (a64, b64)]
    c = scale * wide[0] @ wide[1]
    tolerance = TOLERANCE[np.dtype(dtype)]
    np.testing.assert_allclose(net.forward({"a": a, "b": b}), c, atol=tolerance * np.abs(c).max())
    start = rng.normal(size=c.shape).astype(dtype)
    # C times what is random: the quotient that goes down is then of ordinary size.
    start = (start * c).astype(dtype)
    ex = net.explain({"a": a, "b": b}, target=start, composite="attnlrp", layers="all")
    q = scale * np.divide(start.astype(np.float64), 2 * c)
    r_a = summed_to(wide[0] * (q @ wide[1].swapaxes(-1, -2)), left)
    r_b = summed_to(wide[1] * (wide[0].swapaxes(-1, -2) @ q), right)
    for name, expected in (("a", r_a), ("b", r_b)):
        np.testing.assert_allclose(ex.relevance[name], expected, atol=100 * tolerance * np.abs(expected).max())
    row = ex.ledger["c"]
    assert row.rule == "Half()"
    assert np.abs(row.rounding).max() <= (1e-12 if dtype == np.float64 else 1e-5) * np.abs(start).sum()


def test_half_by_hand():
    net = product((1, 2), (2, 1))
    ex = net.explain({"a": [[[1.0, 2.0]]], "b": [[[3.0], [0.5]]]}, target=np.array([[[8.0]]]), composite="attnlrp")
    # c = 1 * 3 + 2 * 0.5 = 4; each factor gets 8 / 2, shared by the contributions 3 and 1
    assert ex.relevance["a"].tolist() == [[[3.0, 1.0]]]
    assert ex.relevance["b"].tolist() == [[[3.0], [1.0]]]


def test_nothing_is_handed_on_where_the_product_is_zero():
    net = product((2, 2), (2, 1))
    a = np.array([[[1.0, 1.0], [1.0, 2.0]]])
    ex = net.explain({"a": a, "b": [[[1.0], [-1.0]]]}, target=np.array([[[5.0], [-1.0]]]), composite="attnlrp")
    assert ex.ledger["c"].dead == 5
    assert ex.relevance["a"].tolist() == [[[0, 0], [0.5, -1.0]]]
    assert ex.ledger["c"].rounding == 0


def attention(queries, keys, width, axis=-1, softmax=L.Softmax):
    """softmax(q k / 2) v along the last axis, with k as (width, keys)."""
    shapes = {"q": (3, queries, width), "k": (3, width, keys), "v": (3, keys, width)}
    nodes = [
        Node("s", L.MatMul(0.5), ("q", "k")),
        Node("p", softmax(axis), ("s",)),
        Node("o", L.MatMul(), ("p", "v")),
    ]
    return shapes, nodes


def gradients(x, start, taylor):
    """R of q, k, v by coefficients, R = x c: the gradient with halves, or with the probabilities constant."""
    s = 0.5 * x["q"] @ x["k"]
    e = np.exp(s - s.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    o = p @ x["v"]
    c = start / o
    if not taylor:
        return p, {"q": 0 * x["q"], "k": 0 * x["k"], "v": x["v"] * (p.swapaxes(-1, -2) @ c)}
    c_p = c @ x["v"].swapaxes(-1, -2) / 2
    c_s = 0.25 * p * (c_p - (p * c_p).sum(-1, keepdims=True))
    return p, {
        "q": x["q"] * (c_s @ x["k"].swapaxes(-1, -2)),
        "k": x["k"] * (x["q"].swapaxes(-1, -2) @ c_s),
        "v": x["v"] * (p.swapaxes(-1, -2) @ c) / 2,
    }


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ["attnlrp", "cp_lrp"])
def test_attention(rng, name, dtype):
    net = network(*attention(5, 7, 4), ["o"], dtype)
    x = {name: rng.normal(size=(2, *shape)).astype(dtype) for name, shape in net.graph.inputs.items()}
    wide = {name: array.astype(np.float64) for name, array in x.items()}
    start = (rng.normal(size=(2, 3, 5, 4)) * net.forward(x)).astype(dtype)
    ex = net.explain(x, target=start, composite=name, layers="all")
    _, expected = gradients(wide, start.astype(np.float64), name == "attnlrp")
    for key, array in expected.items():
        np.testing.assert_allclose(ex.relevance[key], array, atol=100 * TOLERANCE[np.dtype(dtype)])
    rules = {row.name: row.rule for row in ex.ledger}
    expected_rules = ("Half()", "Taylor()", "Half()") if name == "attnlrp" else ("Half()", "Stop()", "Value()")
    assert tuple(rules[node] for node in "spo") == expected_rules
    size = sum(np.abs(array).sum() for array in ex.layers.values())
    for row in ex.ledger:
        assert np.abs(row.rounding).max() <= (1e-12 if dtype == np.float64 else 1e-5) * size
    kept = ex.ledger["p"].softmax
    np.testing.assert_allclose(kept, ex.ledger["p"].incoming - ex.ledger["p"].outgoing, atol=1e-9 * size + 1e-5)


def test_value_takes_the_other_factor(rng):
    """Also where the probabilities stand on the right, and behind what moves and scales them."""
    shapes = {"s": (3, 4, 5), "v": (3, 2, 4)}
    nodes = [
        Node("p", L.Softmax(1), ("s",)),
        Node("scaled", L.Affine(0.5), ("p",)),
        Node("o", L.MatMul(), ("v", "scaled")),
    ]
    net = network(shapes, nodes, ["o"])
    x = {name: rng.normal(size=(2, *shape)) for name, shape in shapes.items()}
    start = rng.normal(size=(2, 3, 2, 5))
    ex = net.explain(x, target=start, composite="cp_lrp")
    p = np.exp(x["s"]) / np.exp(x["s"]).sum(2, keepdims=True)
    np.testing.assert_allclose(ex.relevance["v"], x["v"] * ((start / (x["v"] @ p)) @ p.swapaxes(-1, -2)))
    assert not ex.relevance["s"].any()


def test_value_by_name_needs_probabilities():
    net = product((2, 3), (3, 4))
    composite = pylrp.Composite("mine", Zero(), names={"c": Value()})
    x = {"a": np.ones((2, 3)), "b": np.ones((3, 4))}
    with pytest.raises(ValueError, match="Half"):
        net.explain(x, target=np.ones((2, 4)), composite=composite)
    by_kind = pylrp.Composite("mine", Zero(), {"matmul": Value()})
    ex = net.explain(x, target=np.ones((2, 4)), composite=by_kind)
    assert ex.ledger["c"].rule == "Half()"


@pytest.mark.parametrize("rule", [pylrp.Epsilon(), pylrp.Pass(), Taylor()], ids=repr)
def test_other_rules_do_not_fit(rule):
    net = product((2, 3), (3, 4))
    with pytest.raises(ValueError, match="kind matmul"):
        net.explain(
            {"a": np.ones((2, 3)), "b": np.ones((3, 4))},
            target=np.ones((2, 4)),
            composite=pylrp.Composite("mine", Zero(), {"matmul": rule}),
        )


def test_a_value_times_itself(rng):
    nodes = [Node("t", L.Transpose((1, 0)), ("x",)), Node("c", L.MatMul(), ("x", "t"))]
    net = network({"x": (3, 2)}, nodes, ["c"])
    x, start = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 3))
    q = start / (x @ x.swapaxes(-1, -2)) / 2
    np.testing.assert_allclose(
        net.explain(x, target=start, composite="attnlrp").relevance, x * (q @ x) + x * (q.swapaxes(-1, -2) @ x)
    )


def test_targets_and_threads_give_equal_bits(rng):
    shapes, nodes = attention(40, 50, 16)
    net = network(shapes, nodes, ["o"], np.float32)
    x = {name: rng.normal(size=(4, *shape)).astype(np.float32) for name, shape in shapes.items()}
    starts = [rng.normal(size=(4, 3, 40, 16)).astype(np.float32) for _ in range(2)]
    alone = net.explain(x, target=starts[1], composite="attnlrp", threads=1)
    many = net.explain(x, target=starts[1], composite="attnlrp", threads=3)
    for name in shapes:
        np.testing.assert_array_equal(alone.relevance[name], many.relevance[name])
        one = {key: array[2] for key, array in x.items()}
        np.testing.assert_array_equal(
            net.explain(one, target=starts[1][2], composite="attnlrp").relevance[name], alone.relevance[name][2]
        )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rule", [Taylor(), Stop()], ids=repr)
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 4, 5), 0), ((3, 4, 5), 1), ((3, 4, 5), -1), ((6,), 0), ((2, 3, 4, 5), 2)]
)
def test_softmax_along_any_axis(rng, shape, axis, rule, dtype):
    nodes = [Node("p", L.Softmax(axis), ("x",)), Node("y", L.Add(), ("p", "p"))]
    net = network({"x": shape}, nodes, ["y"], dtype)
    x, start = (rng.normal(size=(3, *shape)).astype(dtype) for _ in range(2))
    wide, r, at = x.astype(np.float64), start.astype(np.float64), axis % len(shape) + 1
    p = np.exp(wide) / np.exp(wide).sum(at, keepdims=True)
    tolerance = TOLERANCE[np.dtype(dtype)]
    np.testing.assert_allclose(net.forward(x), 2 * p, atol=tolerance)
    ex = net.explain(x, target=start, composite=pylrp.Composite("mine", Zero(), {"softmax": rule, "add": Zero()}))
    expected = wide * (r - p * r.sum(at, keepdims=True)) if isinstance(rule, Taylor) else 0 * wide
    np.testing.assert_allclose(ex.relevance, expected, atol=tolerance)
    row = ex.ledger["p"]
    np.testing.assert_allclose(row.softmax, (r - expected).reshape(3, -1).sum(1), atol=100 * tolerance)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_masked_entries_take_nothing(rng, dtype):
    """-inf before a softmax: no NaN; a row of nothing else gives zeros and takes nothing."""
    largest = np.finfo(dtype).max
    mask = np.array([[0, 0, largest], [0, largest, largest], [largest, largest, largest]], dtype)
    nodes = [
        Node("m", L.Shift(mask), ("s",)),
        Node("p", L.Softmax(-1), ("m",)),
        Node("o", L.MatMul(), ("p", "v")),
    ]
    shapes = {"s": (2, 3, 3), "v": (2, 3, 4)}
    net = network(shapes, nodes, ["o"], dtype)
    x = {name: rng.normal(size=(2, *shape)).astype(dtype) for name, shape in shapes.items()}
    out = net.forward(x)
    e = np.where(mask == 0, np.exp(x["s"].astype(np.float64)), 0)
    total = e.sum(-1, keepdims=True)
    p = np.divide(e, total, out=np.zeros_like(e), where=total > 0)
    np.testing.assert_allclose(out, p @ x["v"], atol=TOLERANCE[np.dtype(dtype)])
    assert not out[:, :, 2].any()
    for name in ("attnlrp", "cp_lrp"):
        ex = net.explain(x, target=np.ones_like(out), composite=name)
        for array in ex.relevance.values():
            assert np.isfinite(array).all()
        assert not ex.relevance["s"][:, :, mask != 0].any()
        np.testing.assert_allclose(ex.ledger["o"].dead, 2 * 4)  # the masked rows of both heads
        assert np.abs([row.rounding for row in ex.ledger]).max() <= 1e-4


def test_what_is_added_takes_its_share():
    table = np.array([[1.0, 0.0], [3.0, -1.0]])
    shapes = {"x": (2, 2)}
    for position, column in ((True, "position"), (False, "constant")):
        nodes = [
            Node("d", L.PositionwiseDense.along(1, np.eye(2)), ("x",)),
            Node("y", L.Shift(table, position=position), ("d",)),
        ]
        net = network(shapes, nodes, ["y"])
        ex = net.explain(
            np.array([[3.0, 1.0], [1.0, 0.0]]), target=np.array([[8.0, 1.0], [4.0, 2.0]]), composite="attnlrp"
        )
        # 3 + 1, 1 + 0; 1 + 3, 0 - 1
        assert ex.relevance.tolist() == [[6.0, 1.0], [1.0, 0.0]]
        row = ex.ledger["y"]
        assert getattr(row, column) == 2 + 0 + 3 + 2
        assert row.rounding == 0


def test_a_mask_of_the_call_gets_no_relevance(rng):
    nodes = [Node("y", L.ShiftBy(), ("x", "m"))]
    net = network({"x": (2, 3, 4), "m": (3, 1)}, nodes, ["y"])
    x, m, start = rng.normal(size=(5, 2, 3, 4)), rng.normal(size=(5, 3, 1)), rng.normal(size=(5, 2, 3, 4))
    ex = net.explain({"x": x, "m": m}, target=start, composite="attnlrp")
    q = start / (x + m[:, None])
    np.testing.assert_allclose(ex.relevance["x"], x * q)
    assert not ex.relevance["m"].any()
    np.testing.assert_allclose(ex.ledger["y"].constant, (m[:, None] * q).reshape(5, -1).sum(1))


@pytest.mark.parametrize(
    ("left", "right"), [((3,), (3, 2)), ((2, 3), (4, 2)), ((2, 2, 3), (3, 3, 4))], ids=["rank", "depth", "leading"]
)
def test_shapes_that_do_not_fit(left, right):
    with pytest.raises(ValueError, match="multiply"):
        product(left, right)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 1, 3, 4), (5, 4, 3, 2, 6)])
def test_axes_in_another_order(rng, shape):
    x = rng.normal(size=(2, *shape)).astype(np.float32)
    for _ in range(4):
        permutation = tuple(int(i) for i in rng.permutation(len(shape)))
        net = network({"x": shape}, [Node("y", L.Transpose(permutation), ("x",))], ["y"], np.float32)
        moved = x.transpose(0, *(i + 1 for i in permutation))
        np.testing.assert_array_equal(net.forward(x), moved)
        start = rng.normal(size=moved.shape).astype(np.float32)
        back = start.transpose(0, *(int(i) + 1 for i in np.argsort(permutation)))
        np.testing.assert_array_equal(net.explain(x, target=start).relevance, back)
