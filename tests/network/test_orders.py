"""Stored orders of values: which are views, what is copied, and that nothing else depends on them."""

import itertools
import math

import numpy as np
import pytest

import pylrp
from pylrp.layers import (
    GELU,
    Add,
    Conv,
    Dense,
    Flatten,
    LayerNorm,
    MatMul,
    PositionwiseDense,
    Reshape,
    Softmax,
    Transpose,
)
from pylrp.network.graph import Graph, Node
from pylrp.network.layout import from_core, regrouped, to_core
from pylrp.network.lowering import lower

T, D, H = 5, 12, 3


def test_regrouped_orders_are_views(rng):
    cases = [((4, 6), (4, 2, 3)), ((4, 2, 3), (4, 6)), ((2, 1, 3, 4), (6, 4)), ((4, 3, 2), (4, 1, 6)), ((2, 3), (3, 2))]
    found = 0
    for shape, into in cases:
        x = rng.standard_normal(shape)
        for order in itertools.permutations(range(len(shape))):
            made = regrouped(shape, order, into)
            flat = to_core(x, order)
            views = [
                o for o in itertools.permutations(range(len(into))) if np.array_equal(to_core(x.reshape(into), o), flat)
            ]
            assert (made is not None) == bool(views)
            if made is not None:
                found += 1
                np.testing.assert_array_equal(from_core(flat, into, made), x.reshape(into))
    assert found > 10


def attention(rng, dtype=np.float64):
    """Return a layer of a transformer: (tokens, width) to (tokens, width)."""
    nodes = []

    def add(name, layer, *inputs):
        nodes.append(Node(name, layer, inputs))
        return name

    def linear(name, value, width):
        add(f"{name}/first", Transpose((1, 0)), value)
        weight = rng.standard_normal((width, D, 1)).astype(dtype) / math.sqrt(D)
        add(f"{name}/product", PositionwiseDense(weight, rng.standard_normal(width).astype(dtype)), f"{name}/first")
        return add(name, Transpose((1, 0)), f"{name}/product")

    norm = add("norm", LayerNorm(rng.standard_normal(D).astype(dtype), rng.standard_normal(D).astype(dtype)), "x")
    heads = {}
    for name, turn in (("q", (1, 0, 2)), ("k", (1, 2, 0)), ("v", (1, 0, 2))):
        split = add(f"{name}/split", Reshape((T, H, D // H)), linear(name, norm, D))
        heads[name] = add(f"{name}/heads", Transpose(turn), split)
    scores = add("scores", MatMul(0.5), heads["q"], heads["k"])
    mixed = add("mixed", MatMul(), add("softmax", Softmax(-1), scores), heads["v"])
    joined = add("joined", Reshape((T, D)), add("turned", Transpose((1, 0, 2)), mixed))
    total = add("sum", Add(), linear("out", joined, D), norm)
    nodes.append(Node("flat", Flatten(), (add("gelu", GELU(), total),)))
    nodes.append(Node("top", Dense(rng.standard_normal((4, T * D)).astype(dtype)), ("flat",)))
    return Graph({"x": (T, D)}, nodes, ["top"])


def test_transformers_are_not_copied(rng):
    graph = attention(rng)
    lowered = lower(graph)
    assert lowered.core_nodes == len(graph.nodes)


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp"])
def test_orders_change_no_number(rng, monkeypatch, composite):
    graph = attention(rng)
    x = rng.standard_normal((2, T, D))
    once = pylrp.Network.from_graph(graph)
    ex = once.explain(x, composite=composite, targets=[0, 3], layers="all", masks={"mixed": [0, 2]})
    for kind in {type(node.layer) for node in graph.nodes} - {Transpose}:  # as if none knew of orders
        monkeypatch.setattr(kind, "wanted_orders", pylrp.layers.Layer.wanted_orders)
        monkeypatch.setattr(kind, "stored_orders", pylrp.layers.Layer.stored_orders)
        monkeypatch.setattr(kind, "any_order", False)
    usual = pylrp.Network.from_graph(graph)
    assert lower(graph).core_nodes > len(graph.nodes)
    other = usual.explain(x, composite=composite, targets=[0, 3], layers="all", masks={"mixed": [0, 2]})
    assert set(ex.layers) == set(other.layers)
    for name in ex.layers:
        np.testing.assert_allclose(
            ex.layers[name], other.layers[name], rtol=1e-9, atol=1e-12 * abs(ex.layers[name]).max()
        )
    masked = ex.layers["mixed"]
    assert not masked[:, :, 1].any()
    assert masked[:, :, 0].any()
    assert masked[:, :, 2].any()
    np.testing.assert_allclose(once.forward(x), usual.forward(x), rtol=1e-12)


def test_relevance_starts_at_values_in_any_order(rng):
    net = pylrp.Network.from_graph(attention(rng))
    x = rng.standard_normal((2, T, D))
    values = net.explain(x, composite="attnlrp", output="mixed", target=1).output  # (batch, heads, tokens, width)
    given = np.zeros_like(values)
    given[:, 1] = values[:, 1]
    by_class = net.explain(x, composite="attnlrp", output="mixed", target=1)
    by_array = net.explain(x, composite="attnlrp", output="mixed", target=given)
    np.testing.assert_allclose(by_class.relevance, by_array.relevance, rtol=1e-12)
    assert abs(by_class.relevance).max() > 0


def test_convolutions_behind_tokens_are_copied_to(rng):
    weight = rng.standard_normal((3, T, 3))
    nodes = [
        Node("norm", LayerNorm(), ("x",)),
        Node("conv", Conv(weight, padding=1), ("norm",)),
        Node("sum", Add(), ("norm", "turned")),
        Node("turned", Transpose((1, 0)), ("first",)),
        Node("first", Transpose((1, 0)), ("x",)),
        Node("both", Conv(weight, padding=1), ("sum",)),
        Node("all", Add(), ("conv", "both")),
    ]
    net = pylrp.Network.from_graph(Graph({"x": (T, D)}, nodes, ["all"]))
    x = rng.standard_normal((T, D))
    normed = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    total = np.pad(2 * normed + x, ((0, 0), (1, 1)))
    wanted = sum(np.einsum("oc,ct->ot", weight[..., k], total[:, k : k + D]) for k in range(3))
    np.testing.assert_allclose(net.forward(x), wanted, rtol=1e-9, atol=1e-12)
