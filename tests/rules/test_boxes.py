"""Scalings of the input, and bounds of a z-box in units of the network's input.

The reference is the network without what prepares its input, given the prepared input and bounds mapped by hand.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.errors import MisplacedBox, UnsupportedLayer
from pylrp.network.graph import Graph, Node
from pylrp.rules import Epsilon, Flat, Norm, Pass, Rule, WSquare, ZBox, ZPlus

rng = np.random.default_rng(5)
MEAN, STD = np.array([0.4, -0.2, 0.1]), np.array([0.5, -0.25, 2.0])  # one of the scales is negative
SCALED = L.Affine((1 / STD).reshape(3, 1, 1), (-MEAN / STD).reshape(3, 1, 1))
LOW, HIGH = np.array([-0.1, 0.0, -1.0]), np.array([1.0, 1.5, 0.5])
X = rng.uniform(LOW[:, None, None], HIGH[:, None, None], (2, 3, 6, 5))


def prepared(values: np.ndarray) -> np.ndarray:
    return (values - MEAN.reshape(3, 1, 1)) / STD.reshape(3, 1, 1)


def body(channels: int = 3, padding: int = 1, dtype: Any = float) -> list[L.Layer]:
    draw = np.random.default_rng(channels + padding).normal
    return [
        L.Conv(draw(size=(4, channels, 3, 3)).astype(dtype), draw(size=4).astype(dtype), padding=padding, name="stem"),
        L.ReLU(),
        L.Conv(draw(size=(3, 4, 2, 2)).astype(dtype), draw(size=3).astype(dtype), name="upper"),
        L.ReLU(),
        L.GlobalAveragePool(),
        L.Flatten(),
        L.Dense(draw(size=(4, 3)).astype(dtype), draw(size=4).astype(dtype), name="head"),
    ]


def first(rule: Rule) -> pylrp.Composite:
    return pylrp.Composite("mine", Epsilon(), {"conv": ZPlus()}, first=rule)


def both(before: list[L.Layer], x: np.ndarray, y: np.ndarray, rule: Rule, mapped: Rule, padding: int = 1) -> Any:
    """Return the relevance of the prepared value: found on the whole network, and on the network from there on."""
    whole = pylrp.Network([*before, *body(y.shape[1], padding)], x.shape[1:])
    rest = pylrp.Network(body(y.shape[1], padding), y.shape[1:])
    ex, expected = whole.explain(x, 1, first(rule)), rest.explain(y, 1, first(mapped))
    np.testing.assert_allclose(ex.output, expected.output, rtol=1e-10)
    return ex, expected.relevance


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max(), rtol=0)


RAW = ZBox(LOW, HIGH)
ENDS = [np.broadcast_to(prepared(b.reshape(3, 1, 1)), (3, 6, 5)) for b in (LOW, HIGH)]
MAPPED = ZBox(np.minimum(*ENDS), np.maximum(*ENDS))


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(
    ("rule", "mapped"),
    [(r, r) for r in (Flat(), WSquare(), ZPlus(), Epsilon())] + [(RAW, MAPPED)],
    ids=repr,
)
@pytest.mark.parametrize(
    "before",
    [
        [SCALED],
        [L.BatchNorm(np.sign(STD), np.zeros(3), MEAN, STD**2, epsilon=0.0)],
        [L.Affine(1.0, -MEAN.reshape(3, 1, 1)), L.Affine((1 / STD).reshape(3, 1, 1))],
        [L.Transpose((1, 2, 0)), L.Affine(1 / STD, -MEAN / STD), L.Transpose((2, 0, 1))],
    ],
    ids=["affine", "batchnorm", "two", "channels last"],
)
def test_a_scaled_input_gets_what_the_scaled_one_would(
    before: list[L.Layer], rule: Rule, mapped: Rule, padding: int
) -> None:
    ex, expected = both(before, X, prepared(X), rule, mapped, padding)
    assert_equal(ex.relevance, expected)
    for row in ex.ledger:
        if row.rule == "Pass()":
            np.testing.assert_array_equal(row.incoming, row.outgoing)
    assert any(row.rule == "Pass()" for row in ex.ledger)


def test_a_dense_layer_behind_a_scaling() -> None:
    """Where the scaling could be folded, as for a StandardScaler in a pipeline."""
    W, b = rng.normal(size=(5, 4)), rng.normal(size=5)
    mean, std = rng.normal(size=4), rng.uniform(0.5, 3, 4)
    x = rng.normal(size=(3, 4))
    above = [L.ReLU(), L.Dense(rng.normal(size=(2, 5)))]
    whole = pylrp.Network([L.Affine(1 / std, -mean / std), L.Dense(W, b, name="first"), *above], (4,))
    rest = pylrp.Network([L.Dense(W, b, name="first"), *above])
    assert [node.layer.kind for node in whole.graph.nodes][:2] == ["affine", "dense"]
    for rules in (
        "epsilon",
        "deep_taylor",
        [Flat(), Epsilon()],
        ZPlus(),
        pylrp.Composite("c", Epsilon(), {"batchnorm": Norm()}),
    ):
        assert_equal(whole.explain(x, 1, rules).relevance, rest.explain((x - mean) / std, 1, rules).relevance)
    assert "Pass()" in whole.summary("epsilon")


def test_the_two_kinds_of_scalings() -> None:
    norm = L.BatchNorm(np.ones(3), np.full(3, 0.3), np.zeros(3), np.ones(3))
    layers = [norm, L.Conv(rng.normal(size=(3, 3, 3)), name="conv"), L.ReLU(), norm, L.ReLU(), L.Flatten()]
    net = pylrp.Network([*layers, L.Dense(rng.normal(size=(2, 12)), name="head")], (3, 6))
    x = rng.normal(size=(2, 3, 6))

    def rules_of(composite: Any) -> list[str]:
        return [row.rule for row in net.explain(x, 0, composite).ledger if "batchnorm" in row.name]

    assert rules_of("epsilon") == rules_of(Epsilon()) == ["Pass()", "Norm()"]
    kinds = {"scaling": Epsilon(0.5), "batchnorm": Pass()}
    assert rules_of(pylrp.Composite("c", Epsilon(), kinds)) == ["Epsilon(0.5)", "Pass()"]


PADDED = [L.Pad([(0, 0), (1, 2), (0, 1)], value=0.7)]
CLIPPED = [L.Clip(-0.05, 0.4), L.Affine(-2.0, 0.5)]


@pytest.mark.parametrize("case", ["padded", "mirrored", "clipped", "relu", "turned", "cut", "resized", "repeated"])
def test_bounds_are_mapped(case: str) -> None:
    low, high = (np.broadcast_to(b.reshape(3, 1, 1), (3, 6, 5)) for b in (LOW, HIGH))
    reflected: Any = [(0, 0), (2, 1), (1, 0)]
    before, of = {
        "padded": (
            PADDED,
            lambda v: np.pad(v, [(0, 0)] * (v.ndim - 3) + [(0, 0), (1, 2), (0, 1)], constant_values=0.7),
        ),
        "mirrored": (
            [L.Pad(reflected, "reflect")],
            lambda v: np.pad(v, [(0, 0)] * (v.ndim - 3) + reflected, "reflect"),
        ),
        "clipped": (CLIPPED, lambda v: -2 * np.clip(v, -0.05, 0.4) + 0.5),
        "relu": ([L.ReLU()], lambda v: np.maximum(v, 0)),
        "turned": ([L.Transpose((0, 2, 1)), L.Affine(3.0)], lambda v: 3 * v.swapaxes(-1, -2)),
        "cut": ([L.Slice([1], [6], axes=[1], steps=[2])], lambda v: v[..., 1:6:2, :]),
        "resized": ([L.Resize(scales=[2, 2])], lambda v: v.repeat(2, -1).repeat(2, -2)),
        "repeated": ([L.Slice([0], [1], axes=[0]), L.Expand((3, 6, 5))], lambda v: v[..., [0, 0, 0], :, :]),
    }[case]
    ends = of(low), of(high)
    ex, expected = both(before, X, of(X), RAW, ZBox(np.minimum(*ends), np.maximum(*ends)))
    value = ex.layers[[*ex.layers][len(before)]]
    assert_equal(value, expected)


def test_channels_changed_one_by_one() -> None:
    """GoogLeNet's transform_input: channels cut out, scaled and joined."""
    nodes: list[Node] = []
    for c in range(3):
        nodes.append(Node(f"cut{c}", L.Slice([c], [c + 1], axes=[0]), ("x",)))
        nodes.append(Node(f"scaled{c}", L.Affine(1 / STD[c], -MEAN[c] / STD[c]), (f"cut{c}",)))
    nodes.append(Node("joined", L.Concat(0), ("scaled0", "scaled1", "scaled2")))
    value = "joined"
    for i, layer in enumerate(body()):
        nodes.append(Node(getattr(layer, "name", None) or f"n{i}", layer, (value,)))
        value = nodes[-1].name
    net = pylrp.Network.from_graph(Graph({"x": (3, 6, 5)}, nodes, [value]))
    rest = pylrp.Network(body(), (3, 6, 5))
    for rule, mapped in ((Flat(), Flat()), (RAW, MAPPED), (ZPlus(), ZPlus())):
        assert_equal(net.explain(X, 2, first(rule)).relevance, rest.explain(prepared(X), 2, first(mapped)).relevance)


def test_two_inputs_and_channels_last() -> None:
    nodes = [Node("turned", L.Affine(-1.0, 1.0), ("b",)), Node("both", L.Concat(0), ("a", "turned"))]
    conv = L.Conv(rng.normal(size=(3, 4, 3)), padding=1)
    graph = Graph({"a": (2, 5), "b": (2, 5)}, [*nodes, Node("conv", conv, ("both",))], ["conv"], channels_last=["a"])
    a, b = rng.uniform(0, 1, (2, 5, 2)), rng.uniform(0, 1, (2, 2, 5))
    R = rng.normal(size=(2, 3, 5))
    low, high = np.array([-0.5, 0.0]), np.array([1.0, 2.0])
    ex = pylrp.Network.from_graph(graph).explain({"a": a, "b": b}, R, [ZBox(low, high)])
    rest = pylrp.Network([conv], (4, 5))
    joined = np.concatenate([a.swapaxes(1, 2), 1 - b], axis=1)
    box = ZBox(np.concatenate([low, 1 - high]), np.concatenate([high, 1 - low]))
    expected = rest.explain(joined, R, [box]).relevance
    assert_equal(ex.relevance["a"], expected[:, :2].swapaxes(1, 2))
    assert_equal(ex.relevance["b"], expected[:, 2:])
    with pytest.warns(UserWarning, match="outside"):
        pylrp.Network.from_graph(graph).explain({"a": a, "b": b + 3}, R, [ZBox(low, high)])


def test_in_units_of_the_layer_by_name() -> None:
    """Upper layers have a box of their own, given by name, in units of their input."""
    net = pylrp.Network([SCALED, *body()], (3, 6, 5))
    mine = pylrp.Composite("mine", Epsilon(), names={"upper": ZBox(0.0, 30.0), "stem": RAW})
    ex = net.explain(X, 1, mine)
    rest = pylrp.Network(body()[2:], (4, 6, 5))
    hidden = np.maximum(net.explain(X, 1, "epsilon", output="stem").output, 0)
    expected = rest.explain(hidden, 1, [ZBox(0.0, 30.0), Epsilon()])
    assert_equal(ex.layers["stem"], expected.relevance)
    for composite in (pylrp.Composite("c", Epsilon(), {"conv": RAW}), ZBox(-9, 9)):
        with pytest.raises(MisplacedBox) as caught:
            net.explain(X, 1, composite)
        assert caught.value.node == "upper"
    # A list names each layer by its place.
    listed = net.explain(X, 1, [RAW, ZBox(0.0, 30.0), Epsilon()])
    np.testing.assert_array_equal(listed.relevance, ex.relevance)


@pytest.mark.parametrize(
    ("layer", "name"), [(L.MaxPool(2), "maxpool0"), (L.Tanh(), "tanh0"), (L.LeakyReLU(), "leaky_relu0")]
)
def test_bounds_that_cannot_be_mapped(layer: L.Layer, name: str) -> None:
    net = pylrp.Network([layer, SCALED, *body()], (3, 12, 10))
    x = rng.normal(size=(1, 3, 12, 10))
    with pytest.raises(UnsupportedLayer) as caught:
        net.explain(x, 1, first(RAW))
    assert caught.value.node == name
    assert net.explain(x, 1, pylrp.Composite("c", Epsilon(), first=Flat())).relevance.any()


def test_an_average_below_a_clip_is_no_way_for_bounds() -> None:
    net = pylrp.Network([L.AveragePool(2), L.ReLU(), *body()], (3, 12, 10))
    with pytest.raises(UnsupportedLayer) as caught:
        net.explain(rng.normal(size=(1, 3, 12, 10)), 1, first(RAW))
    assert caught.value.node == "avgpool0"


def test_a_box_without_a_layer() -> None:
    dense = pylrp.Network([L.Dense(rng.normal(size=(3, 4)), name="only")])
    x = rng.uniform(size=(2, 4))
    for composite in (
        pylrp.Composite("c", Epsilon(), {"conv": ZBox(0, 1)}),
        pylrp.Composite("c", Epsilon(), first=ZBox(0, 1), names={"only": Epsilon()}),
    ):
        for call in (lambda c: dense.explain(x, 1, c), dense.summary):
            with pytest.raises(MisplacedBox) as caught:
                call(composite)
            assert caught.value.node is None
            assert pickle.loads(pickle.dumps(caught.value)).rule == "ZBox(0, 1)"
    # The way out.
    dense.explain(x, 1, pylrp.Composite("c", Epsilon(), names={"only": ZBox(0, 1)}))


def test_bounds_of_another_shape() -> None:
    net = pylrp.Network([SCALED, *body()], (3, 6, 5))
    with pytest.raises(ValueError, match=r"\(4,\).*\(3, 6, 5\)"):
        net.explain(X, 1, first(ZBox(np.zeros(4), np.ones(4))))


def test_the_warning_is_in_units_of_the_input() -> None:
    net = pylrp.Network([SCALED, *body()], (3, 6, 5))
    net.explain(X, 1, first(RAW))  # warnings are errors here
    with pytest.warns(UserWarning, match="outside"):
        net.explain(X + 2, 1, first(RAW))
    pixels = pylrp.Network([L.Affine(np.float32(1 / 255)), *body(dtype=np.float32)], (3, 6, 5))
    x = np.full((1, 3, 6, 5), np.float32(0.1))
    pixels.explain(x, 1, first(ZBox(0.0, 0.1)))  # float32(0.1) > 0.1
