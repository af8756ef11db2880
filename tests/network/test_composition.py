"""Weightless linear operations below a first layer, as one with it under rules that look at constants.

The reference is dense: unit vectors pushed through plain NumPy loops (`reference/graph_forward.py`) give J = W L, and
the rules' definitions are applied to all of its entries (`reference/contributions.py`).
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from reference.contributions import distribute
from reference.graph_forward import forward
from reference.graph_relevance import Matrix, handing, joined, parted, pushed

import pylrp
from pylrp import layers as L
from pylrp.errors import AbsorbedValue, UnsupportedLayer
from pylrp.network.graph import Graph, Node
from pylrp.rules import Epsilon, Flat, Group, Rule, Term, WSquare, ZBox, ZPlus

rng = np.random.default_rng(11)


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) * 7 + len(shape)).normal(size=shape)


def sequence(shape: L.Shape, *layers: L.Layer) -> Graph:
    graph = Graph.sequential([*layers], shape)
    return graph.changed(nodes=[*graph.nodes[:-1], replace(graph.nodes[-1], name="first")], outputs=["first"])


def of(inputs: dict[str, L.Shape], *nodes: tuple[str, L.Layer, tuple[str, ...]]) -> Graph:
    return Graph(inputs, [Node(*node) for node in nodes], ["first"])


MINUS = L.Affine(-1.0)
LATER, EARLIER = L.Slice([1], [99], axes=[1]), L.Slice([0], [-1], axes=[1])


def difference(layer: L.Layer, *, factor: L.Layer = MINUS, dense: bool = False) -> Graph:
    """x[1:] - x[:-1], then a layer."""
    return of(
        {"x": (2, 7)},
        ("later", LATER, ("x",)),
        ("earlier", EARLIER, ("x",)),
        ("minus", factor, ("earlier",)),
        ("difference", L.Add(), ("later", "minus")),
        *([("flat", L.Flatten(), ("difference",))] if dense else []),
        ("first", layer, ("flat" if dense else "difference",)),
    )


def centred(axis: int, shape: L.Shape, layer: L.Layer) -> Graph:
    """x - mean(x) along an axis of (C, L), as loaders write it: moved to the end, averaged, repeated."""
    order = (1, 0) if axis == 0 else (0, 1)
    return of(
        {"x": shape},
        ("turned", L.Transpose(order), ("x",)),
        ("mean", L.GlobalAveragePool(), ("turned",)),
        ("back", L.Transpose(order), ("mean",)),
        ("repeated", L.Expand(shape), ("back",)),
        ("minus", MINUS, ("repeated",)),
        ("centred", L.Add(), ("x", "minus")),
        ("first", layer, ("centred",)),
    )


CASES: dict[str, Graph] = {
    "two inputs, difference": of(
        {"a": (2, 6), "b": (2, 6)},
        ("minus", MINUS, ("b",)),
        ("sum", L.Add(), ("a", "minus")),
        ("first", L.Conv(array(3, 2, 3), array(3), padding=1), ("sum",)),
    ),
    "difference, padded": difference(L.Conv(array(3, 2, 3), array(3), padding=1)),
    "difference, stride and groups": difference(L.Conv(array(4, 1, 3), array(4), padding=2, stride=2, groups=2)),
    "difference, depthwise, dilated": difference(L.Conv(array(2, 1, 2), padding=1, dilation=2, groups=2)),
    "difference, transposed": difference(L.ConvTranspose(array(2, 3, 3), array(3), stride=2, padding=1)),
    "difference, transposed in groups": difference(L.ConvTranspose(array(2, 2, 3), stride=2, groups=2)),
    "difference, dense": difference(L.Dense(array(3, 12), array(3)), dense=True),
    "pre-emphasis": difference(L.Conv(array(3, 2, 3), array(3), padding=1), factor=L.Affine(-0.9, 0.3)),
    "factors by channel": difference(
        L.Conv(array(3, 2, 3), array(3), padding=1), factor=L.Affine(np.array([[-0.5], [2.0]]), array(2, 1))
    ),
    "average": sequence((2, 6, 6), L.AveragePool(2), L.Conv(array(4, 2, 3, 3), array(4), padding=1)),
    "average, overlapping": sequence(
        (2, 7, 6), L.AveragePool(3, 2, 1), L.Conv(array(3, 2, 3, 3), array(3), padding="same_upper", stride=2)
    ),
    "average, padding counts": sequence(
        (1, 5, 5), L.AveragePool(3, 1, 1, count_include_pad=True), L.Conv(array(2, 1, 2, 2), array(2))
    ),
    "average to a size": sequence((2, 7), L.AdaptiveAveragePool(3), L.Conv(array(3, 2, 2), array(3), padding=1)),
    "average, dense": sequence((1, 4, 4), L.AveragePool(2), L.Flatten(), L.Dense(array(3, 4), array(3))),
    "global average, dense": sequence((3, 2, 2), L.GlobalAveragePool(), L.Flatten(), L.Dense(array(2, 3), array(2))),
    "larger": sequence((2, 4), L.Resize(scales=[2], mode="linear"), L.Conv(array(3, 2, 3), array(3), padding=1)),
    "smaller, crooked": sequence(
        (1, 7, 5), L.Resize(size=[5, 4], mode="linear"), L.Conv(array(2, 1, 3, 3), array(2), padding=1)
    ),
    "corners aligned": sequence(
        (1, 5), L.Resize(size=[9], mode="linear", coordinates="align_corners"), L.Conv(array(2, 1, 3), array(2))
    ),
    "mean over time": centred(1, (2, 6), L.Conv(array(3, 2, 3), array(3), padding=1)),
    "mean over channels": centred(0, (3, 5), L.Conv(array(2, 3, 3), array(2), padding=1)),
    "stacked": sequence(
        (1, 8, 8),
        L.AveragePool(2),
        L.Resize(scales=[2, 2], mode="linear"),
        L.Transpose((0, 2, 1)),
        L.AveragePool(3, 1, 1),
        L.Conv(array(2, 1, 3, 3), array(2), padding=1),
    ),
    "ones around, then an average": sequence(
        (1, 4, 4), L.Pad([(0, 0), (1, 1), (1, 1)], value=1.0), L.AveragePool(2), L.Conv(array(2, 1, 2, 2), array(2))
    ),
    "mirrored, then an average": sequence(
        (1, 5), L.Pad([(0, 0), (2, 2)], "reflect"), L.AveragePool(3, 1), L.Conv(array(2, 1, 3), array(2), padding=1)
    ),
    "average, then scaled": sequence(
        (2, 6),
        L.AveragePool(2),
        L.BatchNorm(array(2), array(2), array(2), array(2) ** 2),
        L.Conv(array(3, 2, 3), array(3), padding=1),
    ),
    "value and average side by side": of(
        {"x": (1, 6)},
        ("average", L.AveragePool(3, 1, 1), ("x",)),
        ("both", L.Concat(0), ("x", "average")),
        ("first", L.Conv(array(3, 2, 3), array(3), padding=1), ("both",)),
    ),
    "far into the padding": sequence((1, 4), L.AveragePool(2), L.Conv(array(2, 1, 2), array(2), padding=3)),
    "difference that cancels": of(
        {"x": (1, 5)},
        ("minus", MINUS, ("x",)),
        ("sum", L.Add(), ("x", "minus", "x")),
        ("first", L.Conv(array(2, 1, 3), array(2), padding=1), ("sum",)),
    ),
}


def with_factors(graph: Graph, factor: Any) -> Graph:
    """Return the graph with other factors in its scalings and no shifts."""
    nodes = []
    for node in graph.nodes:
        layer: Any = node.layer
        shape = graph.shapes[node.name]
        if isinstance(layer, L.BatchNorm):
            scale = layer.scale / np.sqrt(layer.variance + layer.epsilon)
            layer = L.Affine(factor(scale).reshape(-1, *[1] * (len(shape) - 1)), 0.0)
        elif isinstance(layer, L.Affine):
            layer = L.Affine(factor(np.asarray(layer.scale)), 0.0)
        elif isinstance(layer, L.Pad):
            layer = replace(layer, value=0.0)
        nodes.append(replace(node, layer=layer))
    return graph.changed(nodes=nodes)


def without_bias(graph: Graph, weight: Any) -> Graph:
    *below, last = graph.nodes
    layer: Any = last.layer
    return graph.changed(nodes=[*below, replace(last, layer=replace(layer, weight=weight(layer.weight), bias=None))])


def as_matrix(graph: Graph, name: str = "first") -> np.ndarray:
    """Return the matrix of a graph without constants, (entries of the output, entries of the inputs)."""
    shapes = list(graph.inputs.values())
    return pushed(lambda *xs: forward(graph, dict(zip(graph.inputs, xs, strict=True)))[name], shapes)[0]


def reference(graph: Graph, rule: Rule, x: dict[str, np.ndarray], R: np.ndarray) -> Any:
    """Return what the rule hands from R at the layer "first" to the inputs, all entries at once."""
    factor = (lambda scale: scale) if isinstance(rule, ZBox) else np.sign
    J = as_matrix(without_bias(with_factors(graph, factor), np.asarray))
    connected = as_matrix(without_bias(with_factors(graph, np.ones_like), np.ones_like)) > 1e-9
    layer: Any = graph.nodes[-1].layer
    bias = np.zeros(graph.shapes["first"][0]) if layer.bias is None else np.asarray(layer.bias, float)
    made = Matrix(J, np.repeat(bias, len(J) // len(bias)), connected * 1.0)
    if isinstance(rule, ZBox):
        sides = [joined([np.broadcast_to(b, (1, *s)) for s in graph.inputs.values()])[0] for b in rule.bounds()]
        rule = ZBox(*sides, stabilizer=rule.stabilizer)
    outcome = distribute(handing(rule, made, joined(list(x.values()))), R.reshape(len(R), -1))
    return dict(zip(graph.inputs, parted(outcome.relevance, list(graph.inputs.values())), strict=True)), outcome.causes


def relevance_of(net: pylrp.Network, ex: Any) -> dict[str, np.ndarray]:
    return ex.relevance if isinstance(ex.relevance, dict) else {next(iter(net.graph.inputs)): ex.relevance}


def samples(graph: Graph, dtype: Any = float, batch: int = 3) -> tuple[dict[str, np.ndarray], np.ndarray]:
    x = {name: rng.uniform(-1, 2, (batch, *shape)).astype(dtype) for name, shape in graph.inputs.items()}
    return x, rng.normal(size=(batch, *graph.shapes["first"])).astype(dtype)


RULES = [Flat(), WSquare(), WSquare(bias=False), ZBox(-1.0, 2.0), ZBox(-1.5, 2.5, stabilizer=0.0)]


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("case", CASES)
def test_operations_and_layer_are_one(case: str, rule: Rule) -> None:
    graph = CASES[case]
    net = pylrp.Network.from_graph(graph)
    x, R = samples(graph)
    ex = net.explain(x, R, [rule])
    expected, causes = reference(graph, rule, x, R)
    for name, found in relevance_of(net, ex).items():
        np.testing.assert_allclose(found, expected[name], atol=1e-11 * np.abs(expected[name]).max(), rtol=0)
    assert ex.ledger.names[-1] == "first"
    assert ex.ledger.rules[-1] == repr(rule)
    row = ex.ledger["first"]
    if case == "far into the padding":  # where nothing is seen, bias and stabiliser count as dead
        np.testing.assert_allclose(row.absorbed, sum(causes.values()), atol=1e-10)
    else:
        for cause in ("bias", "stabilizer", "dead"):
            np.testing.assert_allclose(getattr(row, cause), causes[cause], atol=1e-10)
    assert np.abs(row.rounding).max() < 1e-10
    np.testing.assert_array_equal(ex.output, net.forward(x))


@pytest.mark.parametrize("rule", [Flat(), WSquare(), ZBox(-1.0, 2.0)], ids=repr)
@pytest.mark.parametrize("case", ["difference, padded", "average", "mean over time", "average, then scaled"])
def test_in_float32(case: str, rule: Rule) -> None:
    graph = CASES[case]
    x, R = samples(graph, np.float32)
    single = Graph(graph.inputs, [replace(n, layer=cast(n.layer)) for n in graph.nodes], graph.outputs)
    ex = pylrp.Network.from_graph(single).explain(x, R, [rule])
    expected, _ = reference(graph, rule, x, R)
    found = ex.relevance
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected["x" if "x" in x else "input"], atol=2e-5 * np.abs(found).max(), rtol=0)


def cast(layer: Any) -> L.Layer:
    arrays = {name: np.float32(getattr(layer, name)) for name in layer.arrays if getattr(layer, name) is not None}
    return replace(layer, **arrays) if arrays else layer


def whole(first: L.Layer) -> Graph:
    """A difference, a layer, a skip connection around it, and more layers above."""
    return Graph(
        {"x": (2, 8)},
        [
            Node("minus", MINUS, ("x",)),
            Node("back", L.Slice([0], [-1], axes=[1]), ("minus",)),
            Node("later", LATER, ("x",)),
            Node("difference", L.Add(), ("later", "back")),
            Node("first", first, ("difference",)),
            Node("relu", L.ReLU(), ("first",)),
            Node("skip", L.Add(), ("relu", "difference")),
            Node("flat", L.Flatten(), ("skip",)),
            Node("head", L.Dense(array(4, 14), array(4)), ("flat",)),
        ],
        ["head"],
    )


def test_within_a_network() -> None:
    """Several targets, masks, layers; another reader of the operations gets what it got before."""
    graph = whole(L.Conv(array(2, 2, 3), array(2), padding=1))
    net = pylrp.Network.from_graph(graph)
    x = rng.normal(size=(3, 2, 8))
    flat = pylrp.Composite("flat", Epsilon(), first=Flat())
    ex = net.explain(x, composite=flat, targets=[0, 2], layers="all", masks={"first": [1]})
    plain = net.explain(
        x, composite="epsilon", targets=[0, 2], layers=["first", "minus", "later", "back", "difference"]
    )
    first = ex.layers["first"]
    assert not first[:, :, 0].any()
    np.testing.assert_array_equal(first[:, :, 1], plain.layers["first"][:, :, 1])
    below = Graph(graph.inputs, graph.nodes[:5], ["first"])
    # What the skip connection sends down: the value's own share of the sum, by the operations as they are.
    aside = net.explain(x, composite="epsilon", targets=[0, 2], masks={"first": []}).relevance
    for t in range(2):
        expected, _ = reference(below, Flat(), {"x": x}, first[:, t])
        np.testing.assert_allclose(ex.relevance[:, t], expected["x"] + aside[:, t], atol=1e-10)
    names = ex.ledger[0].names
    assert {"first", "difference", "skip", "head"} <= set(names)  # the difference has another reader
    assert len(set(names)) == len(names)
    np.testing.assert_allclose(ex.ledger[1]["first"].masked, first_lost(net, x, flat), atol=1e-10)


def first_lost(net: pylrp.Network, x: np.ndarray, composite: Any) -> np.ndarray:
    return net.explain(x, 2, composite).layers["first"][:, 0].sum(axis=1)


@pytest.mark.parametrize("rule", [Flat(), WSquare(stabilizer=0, bias=False), ZBox(-5.0, 5.0)], ids=repr)
def test_the_sum_arrives(rule: Rule) -> None:
    """Shares by contribution, as under Norm(), send down many times what arrives: the difference is nearly 0."""
    nodes = [*CASES["two inputs, difference"].nodes]
    nodes += [Node("relu", L.ReLU(), ("first",)), Node("head", L.Conv(array(1, 3, 6)), ("relu",))]
    net = pylrp.Network.from_graph(Graph({"a": (2, 6), "b": (2, 6)}, nodes, ["head"]))
    a = rng.normal(size=(2, 2, 6))
    ex = net.explain({"a": a, "b": a + 1e-4 * rng.normal(size=a.shape)}, 0, pylrp.Composite("c", Epsilon(), first=rule))
    row = ex.ledger["first"]
    sent = sum(R.sum(axis=(1, 2)) for R in ex.relevance.values())
    np.testing.assert_allclose(sent, row.incoming - row.stabilizer - row.dead, rtol=1e-9)
    assert sum(np.abs(R).sum() for R in ex.relevance.values()) <= 1.01 * np.abs(ex.layers["first"]).sum()


def test_values_inside_a_layer() -> None:
    graph = CASES["stacked"]
    net = pylrp.Network.from_graph(graph)
    x, R = samples(graph)
    ex = net.explain(x, R, [Flat()])
    inner = graph.nodes[1].name
    for ask in (
        lambda: ex.layers[inner],
        lambda: net.explain(x, R, [Flat()], layers=[inner]),
        lambda: net.explain(x, R, [Flat()], masks={inner: [0]}),
    ):
        with pytest.raises(AbsorbedValue) as caught:
            ask()
        assert (caught.value.value, caught.value.layer, caught.value.rule) == (inner, "first", "Flat()")
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.value, str(again)) == (inner, str(caught.value))
    assert set(ex.layers) == {"input", "first"}
    assert ex.ledger.names == ("first",)
    assert "part of first" in net.summary([Flat()])
    # The way out, and where relevance starts below the layer.
    other = net.explain(x, R, pylrp.Composite("c", Flat(), names={"first": ZPlus()}))
    assert other.layers[inner].shape == (3, *graph.shapes[inner])
    from_inner = net.explain(x, rng.normal(size=(3, *graph.shapes[inner])), [Flat()], output=inner)
    assert inner in from_inner.layers


def test_rules_that_look_at_the_input_share_as_before() -> None:
    graph = CASES["difference, padded"]
    net = pylrp.Network.from_graph(graph)
    x, R = samples(graph)
    ex = net.explain(x, R, [Epsilon()], layers="all")
    parts = np.stack([x["x"][:, :, 1:], -x["x"][:, :, :-1]])
    z = parts.sum(axis=0)
    shares = parts / (z + np.where(z < 0, -1e-6, 1e-6)) * ex.layers["difference"]
    np.testing.assert_allclose(ex.layers["later"], shares[0], rtol=1e-9)
    np.testing.assert_allclose(ex.layers["earlier"], shares[1], rtol=1e-9)


def test_a_rule_of_ones_own() -> None:
    class Halves(Rule):
        """Half by w², as a rule of a user's own may do."""

        def groups(self) -> tuple[Group, ...]:
            return (Group((Term("one", "square"),), None, 0.5, stabilizer=0.0),)

        def __repr__(self) -> str:
            return "Halves()"

    graph = CASES["average"]
    x, R = samples(graph)
    found = pylrp.Network.from_graph(graph).explain(x, R, [Halves()]).relevance
    expected, _ = reference(graph, WSquare(stabilizer=0.0, bias=False), x, R)
    np.testing.assert_allclose(found, expected["input"] / 2, atol=1e-12)


@pytest.mark.slow
def test_too_large() -> None:
    graph = sequence((1, 200, 200), L.AveragePool(151, 1), L.Conv(array(1, 1, 1, 1)))
    net = pylrp.Network.from_graph(graph)
    x = rng.normal(size=(1, 200, 200))
    R = np.ones((1, 50, 50))
    with pytest.raises(UnsupportedLayer) as caught:
        net.explain(x, R, [Flat()])
    assert caught.value.node == "first"
    net.explain(x, R, pylrp.Composite("c", Flat(), names={"first": ZPlus()}))


def test_crooked_sizes_need_few_layers() -> None:
    """Most positions of a resize by an odd factor have weights of their own: they stand side by side in one layer."""
    graph = sequence((1, 17, 19), L.Resize(size=[23, 29], mode="linear"), L.Conv(array(2, 1, 3, 3), padding=1))
    x, R = samples(graph, batch=1)
    net = pylrp.Network.from_graph(graph)
    found = net.explain(x, R, [WSquare()]).relevance
    expected, _ = reference(graph, WSquare(), x, R)
    np.testing.assert_allclose(found, expected["input"], atol=1e-11)
    (made,) = net._execution._composed.values()
    assert len(made.composed.graph.nodes) < 60
