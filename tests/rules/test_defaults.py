"""The composite that is used where none is named: by the network, never by its input, the same for everything."""

import json

import numpy as np
import pytest
from cli_world import photo_network

import pylrp
from pylrp import layers as L
from pylrp.cli import main
from pylrp.evaluate import evaluate, randomisation, sensitivity
from pylrp.network.graph import Graph, Node
from pylrp.report import Report
from pylrp.rules.defaults import default_for, usual_for

RNG = np.random.default_rng(5)


def conv(*shape, **options):
    return L.Conv(RNG.standard_normal(shape), **options)


def dense(*shape):
    return L.Dense(RNG.standard_normal(shape), RNG.standard_normal(shape[0]))


def network(*layers, shape):
    return pylrp.Network([*layers, L.Flatten()], input_shape=shape)


def two_inputs(first, second):
    """An image and a signal, in either order."""
    shapes = {"image": (2, 5, 5), "signal": (3, 9)}
    parts = {"image": conv(4, 2, 3, 3), "signal": conv(4, 3, 3)}
    nodes = []
    for name in (first, second):
        nodes += [
            Node(f"conv_{name}", parts[name], (name,)),
            Node(f"pool_{name}", L.GlobalMaxPool(), (f"conv_{name}",)),
        ]
        nodes += [Node(f"flat_{name}", L.Flatten(), (f"pool_{name}",))]
    nodes += [Node("joined", L.Concat(), (f"flat_{first}", f"flat_{second}")), Node("top", dense(3, 8), ("joined",))]
    return pylrp.Network.from_graph(Graph({n: shapes[n] for n in (first, second)}, nodes, ["top"]))


NETWORKS = [
    ("epsilon", lambda: pylrp.Network([dense(4, 6), L.ReLU(), dense(3, 4)])),
    ("epsilon_plus_flat", lambda: network(conv(4, 2, 3, 3), L.ReLU(), shape=(2, 6, 6))),
    ("epsilon_plus_flat", lambda: network(conv(4, 2, 1, 1), L.ReLU(), shape=(2, 6, 6))),
    ("epsilon_plus_flat", lambda: network(conv(4, 2, 2, 2, 2), L.ReLU(), shape=(2, 3, 3, 3))),
    ("epsilon_plus_flat", lambda: network(conv(4, 2, 1, 1), L.ReLU(), shape=(2, 1, 1))),
    ("epsilon_plus_flat", lambda: network(L.ConvTranspose(RNG.standard_normal((2, 4, 3, 3))), shape=(2, 3, 3))),
    ("epsilon_plus_flat", lambda: network(L.MaxPool(2), conv(4, 2, 3, 3), L.ReLU(), shape=(2, 8, 8))),
    ("epsilon_plus_flat", lambda: network(L.Reshape((1, 5, 5)), conv(4, 1, 3, 3), shape=(25,))),
    ("epsilon_plus", lambda: network(conv(4, 2, 3), L.ReLU(), shape=(2, 9))),
    ("epsilon_plus", lambda: network(conv(4, 2, 1, 3), L.ReLU(), shape=(2, 1, 9))),  # as tf2onnx writes Conv1D
    ("epsilon_plus", lambda: network(dense(8, 3), L.ReLU(), L.Reshape((2, 2, 2)), conv(4, 2, 2, 2), shape=(3,))),
    ("epsilon_plus_flat", lambda: two_inputs("image", "signal")),
    ("epsilon_plus_flat", lambda: two_inputs("signal", "image")),
]


@pytest.mark.parametrize(("expected", "make"), NETWORKS)
def test_by_the_kind_of_network(expected, make):
    net = make()
    assert default_for(net.graph) == expected
    assert net.summary() == net.summary(expected)
    x = {name: RNG.standard_normal((2, *shape)) for name, shape in net.graph.inputs.items()}
    ex = net.explain(x)
    assert ex.composite == expected
    named = net.explain(x, composite=expected)
    assert named.composite == expected
    for name in x:
        np.testing.assert_array_equal(ex.layers[name], named.layers[name])
    for bounds in (False, True):
        usual = usual_for(net.graph, bounds=bounds)
        assert expected in usual
        assert any(name.endswith("_box") for name in usual) <= bounds
        for name in usual:
            made = pylrp.composite(name, low=-99, high=99) if name.endswith("_box") else name
            if name.endswith("_box") and isinstance(net.graph.nodes[0].layer, L.MaxPool):
                with pytest.raises(pylrp.UnsupportedLayer):  # no bounds through a max pool
                    net.explain(x, composite=made)
            else:
                net.explain(x, composite=made)  # each of them fits


def test_not_by_the_input():
    net = pylrp.Network([conv(4, 2, 3), L.ReLU()], input_shape=(2, 9))
    for x in (np.zeros((2, 9)), np.ones((0, 2, 9)), 1e3 * RNG.standard_normal((5, 2, 9))):
        assert net.explain(x, target=0).composite == "epsilon_plus"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("deep_taylor", "deep_taylor"),
        (pylrp.Composite("mine", pylrp.Epsilon()), "mine"),
        (pylrp.ZPlus(), "ZPlus()"),
        ([pylrp.Flat(), pylrp.Epsilon(0.5)], "[Flat(), Epsilon(0.5)]"),
    ],
)
def test_told_in_the_explanation(given, shown, tmp_path):
    net = pylrp.Network([dense(4, 6), L.ReLU(), dense(3, 4)])
    ex = net.explain(RNG.standard_normal(6), composite=given)
    assert ex.composite == shown
    assert shown in repr(ex)
    ex.save(tmp_path / "ex.npz")
    with np.load(tmp_path / "ex.npz") as stored:
        assert str(stored["composite"]) == shown


@pytest.fixture(scope="module")
def signals():
    net = pylrp.Network([conv(4, 2, 3), L.ReLU(), L.Flatten(), dense(3, 28)], input_shape=(2, 9))
    return net, RNG.standard_normal((6, 2, 9))


def test_the_evaluation_takes_the_same(signals):
    net, x = signals
    found = evaluate(net, x, checks=("agreement",))
    assert "epsilon_plus" in found.composites
    np.testing.assert_array_equal(found.relevance["epsilon_plus"], net.explain(x).relevance)
    for measure in (sensitivity, randomisation):
        mine, named = (measure(net, x, *given) for given in ((), ("epsilon_plus",)))
        assert repr(mine) == repr(named)
        assert repr(mine) != repr(measure(net, x, "epsilon_plus_flat"))


def test_the_report_takes_the_same(signals):
    net, x = signals
    pages = []
    for options in ({}, {"composites": "epsilon_plus"}):
        report = Report(net)
        report.add(x[0], **options)
        pages.append(report.html())
    assert pages[0] == pages[1]


@pytest.mark.parametrize("kind", ["image", "signal", "dense"])
def test_the_command_line_takes_the_same(kind, signals, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net, x = {
        "image": lambda: (photo_network(), RNG.random((3, *photo_network().graph.inputs["input"]))),
        "signal": lambda: signals,
        "dense": lambda: (pylrp.Network([dense(4, 6), L.ReLU(), dense(3, 4)]), RNG.standard_normal((3, 6))),
    }[kind]()
    x = x.astype(net.dtype)
    net.save("net.pylrp.npz")
    np.save("x.npy", x)
    assert main(["explain", "net.pylrp.npz", "x.npy", "-o", "out.npz", "-q"]) == 0
    ex = net.explain(x)
    with np.load("out.npz") as found:
        np.testing.assert_allclose(found["relevance"], ex.relevance, rtol=1e-4, atol=1e-6)
        assert str(found["composite"]) == ex.composite == default_for(net.graph)
        assert json.loads(str(found["settings"]))["composite"] == ex.composite
