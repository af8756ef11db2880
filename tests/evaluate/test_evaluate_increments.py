"""Flipping through a dense first layer by increments: the same curves as by whole predictions, and who gets which."""

from __future__ import annotations

import numpy as np
import pytest

import pylrp
from pylrp.demo import load_demo_digits, load_demo_network
from pylrp.evaluate import flipping, insertion_deletion, pixel_flipping
from pylrp.evaluate.evaluated_batch import EvaluatedBatch
from pylrp.evaluate.first_layer import FirstLayer
from pylrp.layers import Add, Conv, Dense, Flatten, ReLU, Reshape, Sigmoid, Slice, Softmax, Transpose
from pylrp.network.graph import Graph, Node

W, B = load_demo_network()
DIGITS = (load_demo_digits()[0][:6, None] / np.float32(255)).astype(np.float32)
DENSE = [Dense(W[0], B[0]), ReLU(), Dense(W[1], B[1])]


def both(monkeypatch, flip, falls_back=False):
    """Return what a function gives by increments, and by whole predictions; fail if it went another way."""
    short_cuts, wholes = [], []
    states, replaced = FirstLayer.states, flipping._replaced
    with monkeypatch.context() as patch:
        patch.setattr(FirstLayer, "states", lambda *a: short_cuts.append(1) or states(*a))
        patch.setattr(flipping, "_replaced", lambda *a: wholes.append(1) or replaced(*a))
        short = flip()
        assert short_cuts
        assert bool(wholes) == falls_back
        patch.setattr(FirstLayer, "of", lambda *a: None)
        short_cuts.clear()
        whole = flip()
        assert not short_cuts
    return short, whole


@pytest.mark.parametrize("replacement", [0.0, 0.1307, "mean", "blur", "array"])
@pytest.mark.parametrize(("patch", "score"), [(1, "probability"), (3, "logit")])
def test_same_curves_of_digits(monkeypatch, rng, replacement, patch, score) -> None:
    net = pylrp.Network([Flatten(), *DENSE], input_shape=(1, 28, 28))
    R = net.explain(DIGITS, composite="epsilon").relevance
    if replacement == "array":
        replacement = rng.normal(size=DIGITS.shape).astype(np.float32)

    def flip():
        return pixel_flipping(
            net, DIGITS, R, replacement=replacement, patch=patch, score=score, steps=40, until=0.9, repeats=1
        )

    short, whole = both(monkeypatch, flip)
    for order, scores in whole.scores.items():
        np.testing.assert_allclose(short.scores[order], scores, atol=1e-5)
        assert np.ptp(scores) > 0.1


def shapes(rng):
    """Yield networks that bring a (2, 5, 7) input to a dense layer in different ways, and an input for each."""
    head = [Dense(rng.normal(size=(9, 70)), rng.normal(size=9)), ReLU(), Dense(rng.normal(size=(3, 9)))]
    x = rng.normal(size=(4, 2, 5, 7))
    yield pylrp.Network(head), x.reshape(4, 70)
    yield pylrp.Network([Reshape((70,)), *head], (2, 5, 7)), x
    turned = pylrp.Network([Transpose((2, 0, 1)), Flatten(), *head], (2, 5, 7))
    yield turned, x
    last = Graph(turned.graph.inputs, turned.graph.nodes, turned.graph.outputs, channels_last=["input"])
    yield pylrp.Network.from_graph(last), np.moveaxis(x, 1, -1)


@pytest.mark.parametrize("which", range(4))
def test_each_way_to_the_dense_layer(monkeypatch, rng, which) -> None:
    net, x = list(shapes(rng))[which]
    R, background = rng.normal(size=x.shape), rng.normal(size=x.shape)
    short, whole = both(monkeypatch, lambda: pixel_flipping(net, x, R, replacement=background, steps=30))
    for order, scores in whole.scores.items():
        np.testing.assert_allclose(short.scores[order], scores, atol=1e-12)
    games = both(monkeypatch, lambda: insertion_deletion(net, x, R, deleted=background, inserted_into=0.0, steps=30))
    for name in ("deletion", "insertion"):
        np.testing.assert_allclose(getattr(games[0], name), getattr(games[1], name), atol=1e-12)


@pytest.mark.parametrize("top", [Softmax(), Sigmoid()])
def test_a_kept_top_is_kept(monkeypatch, rng, top) -> None:
    graph = Graph.sequential([Dense(rng.normal(size=(6, 40))), ReLU(), Dense(rng.normal(size=(3, 6))), top])
    net = pylrp.Network.from_graph(graph, keep_top=True)
    x = rng.normal(size=(5, 40))
    short, whole = both(monkeypatch, lambda: pixel_flipping(net, x, x, replacement=0.5, score="probability"))
    np.testing.assert_allclose(short.scores["most"], whole.scores["most"], atol=1e-12)
    assert whole.scores["most"].max() <= 1


def test_chunks_do_not_show(monkeypatch, rng) -> None:
    net, x = next(shapes(rng))
    scores = pixel_flipping(net, x, x, replacement=0.0, steps=35, order=("most",)).scores["most"]
    for numbers in (1, 20, 60):
        monkeypatch.setattr("pylrp.evaluate.first_layer._NUMBERS", numbers)
        again = pixel_flipping(net, x, x, replacement=0.0, steps=35, order=("most",)).scores["most"]
        np.testing.assert_allclose(again, scores, atol=1e-12)


def test_what_cancels_is_predicted_as_a_whole(monkeypatch) -> None:
    """In float32 the weights times 1e8 leave a rounding of some units in z, which tells once the 1e8 is gone."""
    net = pylrp.Network(DENSE)
    x = DIGITS.reshape(6, 784).copy()
    x[:, 300] = 1e8
    R = np.zeros_like(x)
    R[:, 300] = 1

    def flip():
        return pixel_flipping(net, x, R, target=3, replacement=0.0, score="probability", order=("most",))

    short, whole = both(monkeypatch, flip, falls_back=True)
    np.testing.assert_array_equal(short.scores["most"], whole.scores["most"])
    seen = []
    curves = pixel_flipping(net, x, R, replacement=0.0, score="probability", progress=lambda *done: seen.append(done))
    assert seen[-1] == (curves.scores["most"].size * 5,) * 2


def first_layer(layers, shape, steps=100):
    net = pylrp.Network(layers, input_shape=shape)
    return FirstLayer.of(EvaluatedBatch(net, np.ones((1, *shape), net.dtype)), steps)


def test_who_takes_the_short_cut(rng, monkeypatch) -> None:
    head = Dense(rng.normal(size=(3, 32)))
    first, second = Dense(rng.normal(size=(16, 32))), Dense(rng.normal(size=(3, 16)))
    assert first_layer([first, ReLU(), second], (32,)) is not None
    assert first_layer([first, ReLU(), second], (32,), steps=10) is None  # the compiled core is as fast
    assert first_layer([head], (32,)) is None  # nothing behind it
    assert first_layer([Conv(rng.normal(size=(2, 2, 1, 1))), ReLU(), Flatten(), head], (2, 4, 4)) is None
    assert first_layer([ReLU(), first, ReLU(), second], (32,)) is None  # not linear in the input
    assert first_layer([Slice([0], [32]), first, ReLU(), second], (40,)) is None
    monkeypatch.setattr("pylrp.evaluate.first_layer._LARGEST", 100)
    assert first_layer([first, ReLU(), second], (32,)) is None

    nodes = [Node("a", Dense(rng.normal(size=(32, 32))), ("x",)), Node("sum", Add(), ("x", "a"))]
    graph = Graph({"x": (32,)}, [*nodes, Node("head", head, ("sum",))], ["head"])
    assert FirstLayer.of(EvaluatedBatch(pylrp.Network.from_graph(graph), np.ones((1, 32))), 100) is None
