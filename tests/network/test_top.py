"""The function at the top: what is explained is its argument, however the function is written.

The reference is the network without the function: gradient x input with frozen ReLUs, by hand in float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.network.graph import Graph, Node
from pylrp.present.outputs import Outputs
from pylrp.report import Report

RNG = np.random.default_rng(20)
FIRST, WEIGHT, BIAS = RNG.normal(size=(7, 4)), RNG.normal(size=(3, 7)), np.array([0.1, -0.2, 0.3])
X = RNG.normal(size=(9, 4))


def logits(x: Any) -> Any:
    return np.maximum(x @ FIRST.T, 0) @ WEIGHT.T + BIAS


def map_of(x: Any, target: int) -> Any:
    """Gradient x input of a logit with the ReLUs as they are."""
    return x * (((x @ FIRST.T > 0) * WEIGHT[target]) @ FIRST)


def below() -> list[L.Layer]:
    return [L.Dense(FIRST), L.ReLU(), L.Dense(WEIGHT, BIAS)]


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


SIGNS = np.array([2.0, -1.0, 0.5])
#: Layers at the top, what they compute, the name, and by what the logits are multiplied that are explained.
TOPS: dict[str, tuple[list[L.Layer], Any, str, Any]] = {
    "sigmoid": ([L.Sigmoid()], sigmoid, "sigmoid", 1),
    "softplus": ([L.Softplus()], lambda z: np.log1p(np.exp(z)), "softplus", 1),
    "exp": ([L.Exp()], np.exp, "exp", 1),
    "hard sigmoid": ([L.HardSigmoid(0.2)], lambda z: np.clip(0.2 * z + 0.5, 0, 1), "hard_sigmoid", 1),
    "1 - p": ([L.Sigmoid(), L.Affine(-1.0, 1.0)], lambda z: 1 - sigmoid(z), "sigmoid", -1),
    "percent": ([L.Sigmoid(), L.Affine(100.0)], lambda z: 100 * sigmoid(z), "sigmoid", 1),
    "clip and movement": (
        [L.Sigmoid(), L.Clip(1e-12, 1 - 1e-12), L.Reshape((3, 1)), L.Flatten()],
        sigmoid,
        "sigmoid",
        1,
    ),
    "logarithm of p": ([L.Sigmoid(), L.Log()], lambda z: np.log(sigmoid(z)), "sigmoid", 1),
    "log sigmoid": (
        [L.Affine(-1.0), L.Softplus(), L.Affine(-1.0)],
        lambda z: np.log(sigmoid(z)),
        "-softplus",
        1,
    ),
    "signs": ([L.Sigmoid(), L.Affine(SIGNS)], lambda z: SIGNS * sigmoid(z), "sigmoid", np.sign(SIGNS)),
    "tanh": ([L.Affine(0.5), L.Tanh(), L.Affine(0.5, 0.5)], sigmoid, "sigmoid", 1),
    "clip": (
        [L.Affine(1.0, 3.0), L.Clip(0, 6), L.Affine(1 / 6)],
        lambda z: np.clip(z / 6 + 0.5, 0, 1),
        "hard_sigmoid",
        1,
    ),
    "share": ([L.Sigmoid(), L.Normalize("l1")], lambda z: sigmoid(z) / sigmoid(z).sum(1, keepdims=True), "sigmoid", 1),
    "softmax": ([L.Softmax()], lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True), "softmax", 1),
    "log softmax": (
        [L.Softmax(), L.Log()],
        lambda z: z - np.log(np.exp(z).sum(1, keepdims=True)),
        "log_softmax",
        1,
    ),
    "minus log softmax": (
        [L.LogSoftmax(), L.Affine(-1.0)],
        lambda z: np.log(np.exp(z).sum(1, keepdims=True)) - z,
        "-log_softmax",
        -1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOPS)
def test_the_argument_is_explained(name: str) -> None:
    tops, function, kind, sign = TOPS[name]
    net = pylrp.load([*below(), *tops])
    assert net.top == kind
    assert len(net.notes) == 1
    z = logits(X)
    assert (z[:, 1] < 0).any()
    np.testing.assert_allclose(net.forward(X), sign * z, rtol=1e-12)
    for target in range(3):
        own = np.broadcast_to(sign, 3)[target]
        np.testing.assert_allclose(
            net.explain(X, target, pylrp.Epsilon(0)).relevance, own * map_of(X, target), rtol=1e-9, atol=1e-12
        )
    kept = pylrp.load([*below(), *tops], keep_top=True)
    assert kept.top is None
    np.testing.assert_allclose(kept.forward(X), function(z), rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(pylrp.load([*below(), *tops], keep_softmax=True).forward(X), kept.forward(X))


@pytest.mark.parametrize("layer", [L.Tanh(), L.ReLU(), L.Clip(-1, 1), L.Affine(2.0, 1.0), L.GELU()])
def test_what_is_zero_at_zero_stays(layer: L.Layer) -> None:
    net = pylrp.load([*below(), layer])
    assert (net.top, net.notes) == (None, ())


def joined(order: str, shape: tuple[int, ...] = ()) -> Graph:
    """[1 - p, p] or [p, 1 - p] of the first logit."""
    nodes = [
        Node("f", L.Dense(FIRST), ("x",)),
        Node("r", L.ReLU(), ("f",)),
        Node("z", L.Dense(WEIGHT[:1], BIAS[:1]), ("r",)),
        Node("p", L.Sigmoid(), ("z",)),
        Node("q", L.Affine(-1.0, 1.0), ("p",)),
        Node("both", L.Concat(0), tuple(order)),
        Node("moved", L.Reshape(shape or (2,)), ("both",)),
    ]
    return Graph({"x": (4,)}, nodes, {"probabilities": "moved" if shape else "both"})


@pytest.mark.parametrize(("order", "sign"), [("qp", 1), ("pq", -1)])
def test_two_probabilities_have_one_logit(order: str, sign: int) -> None:
    net = pylrp.load(joined(order))
    z = logits(X)[:, :1]
    assert (net.top, net.graph.outputs, net.graph.facts.classes) == ("sigmoid", ("probabilities",), (0, 1))
    np.testing.assert_allclose(net.forward(X), sign * z, rtol=1e-12)
    expected = sign * map_of(X, 0)
    for target, own in ((1, 1), (0, -1), (None, 1)):
        ex = net.explain(X, target, pylrp.Epsilon(0))
        np.testing.assert_allclose(ex.relevance, own * expected, rtol=1e-9, atol=1e-12)
    kept = pylrp.load(joined(order), keep_top=True).forward(X)
    np.testing.assert_allclose(kept, np.concatenate([sigmoid(-sign * z), sigmoid(sign * z)], axis=1), rtol=1e-12)


def test_two_probabilities_that_are_moved_stay_two() -> None:
    net = pylrp.load(joined("qp", (2, 1)))
    z = logits(X)[:, 0]
    np.testing.assert_allclose(net.forward(X)[..., 0], np.stack([-z, z], axis=1), rtol=1e-12)
    R = net.explain(X, 0, pylrp.Epsilon(0)).relevance
    np.testing.assert_allclose(R, -map_of(X, 0), rtol=1e-9, atol=1e-12)
    assert net.top == "sigmoid"


def test_heads_that_are_joined() -> None:
    nodes = [
        Node("z", L.Dense(WEIGHT @ FIRST), ("x",)),
        Node("boxes", L.Dense(FIRST), ("x",)),
        Node("p", L.Sigmoid(), ("z",)),
        Node("both", L.Concat(0), ("boxes", "p")),
    ]
    net = pylrp.load(Graph({"x": (4,)}, nodes, ["both"]))
    np.testing.assert_allclose(net.forward(X), np.concatenate([X @ FIRST.T, X @ (WEIGHT @ FIRST).T], axis=1))
    assert net.top == "sigmoid"


def test_several_outputs_and_who_else_reads() -> None:
    nodes = [
        Node("z", L.Dense(WEIGHT @ FIRST), ("x",)),
        Node("p", L.Sigmoid(), ("z",)),
        Node("s", L.Softmax(), ("z",)),
        Node("next", L.Dense(np.ones((2, 3))), ("p",)),
    ]
    net = pylrp.load(Graph({"x": (4,)}, nodes, {"p": "p", "s": "s", "next": "next"}))
    z = X @ (WEIGHT @ FIRST).T
    found = net.forward(X)
    assert list(found) == ["p", "s", "next"]
    np.testing.assert_allclose(found["p"], z)
    np.testing.assert_allclose(found["s"], z)
    np.testing.assert_allclose(found["next"], sigmoid(z) @ np.ones((3, 2)))
    assert net.top == {"p": "sigmoid", "s": "softmax"}
    kinds = [node.layer.kind for node in net.graph.nodes]
    assert kinds == ["dense", "sigmoid", "dense"]
    R = net.explain(X, 1, "epsilon", output="p")
    np.testing.assert_allclose(R.relevance, X * (WEIGHT @ FIRST)[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(R.layers["p"], R.layers["z"])
    mask = net.explain(X, 1, "epsilon", output="p", masks={"p": [1]})
    np.testing.assert_array_equal(mask.relevance, net.explain(X, 1, "epsilon", output="z").relevance)


def test_rules_by_either_name() -> None:
    net = pylrp.load(joined("qp"))
    by_name = [
        net.explain(X, 1, pylrp.Composite("c", pylrp.Epsilon(), names={name: pylrp.ZPlus()})).relevance
        for name in ("probabilities", "z")
    ]
    np.testing.assert_array_equal(*by_name)
    assert not np.array_equal(by_name[0], net.explain(X, 1, "epsilon").relevance)


def test_saved_and_loaded(tmp_path: Path) -> None:
    net = pylrp.load(joined("qp"))
    net.save(tmp_path / "net.pylrp.npz")
    again = pylrp.load(tmp_path / "net.pylrp.npz")
    assert (again.top, again.graph.outputs, again.notes) == (net.top, net.graph.outputs, net.notes)
    np.testing.assert_array_equal(again.explain(X, 0).relevance, net.explain(X, 0).relevance)
    kept = pylrp.load([*below(), L.Sigmoid()], keep_top=True)
    kept.save(tmp_path / "kept.npz")
    np.testing.assert_array_equal(pylrp.load(tmp_path / "kept.npz").forward(X), kept.forward(X))


def test_arrays_with_activations(tmp_path: Path) -> None:
    for name in ("sigmoid", "softplus", "softmax", "exp", "hardsigmoid"):
        path = tmp_path / f"{name}.npz"
        np.savez(path, W0=FIRST, W1=WEIGHT, b0=np.zeros(7), b1=BIAS, activations=["relu", name])
        net = pylrp.load(path)
        assert net.top == {"hardsigmoid": "hard_sigmoid"}.get(name, name)
        np.testing.assert_allclose(net.explain(X, 1, pylrp.Epsilon(0)).relevance, map_of(X, 1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("layer", "keep", "expected"),
    [
        (L.Softmax(), False, lambda z: np.exp(z) / np.exp(z).sum()),
        (L.LogSoftmax(), False, lambda z: np.exp(z) / np.exp(z).sum()),
        (L.Sigmoid(), False, sigmoid),
        (L.Sigmoid(), True, sigmoid),
        (L.Softmax(), True, lambda z: np.exp(z) / np.exp(z).sum()),
        (L.Softplus(), False, None),
        (L.Exp(), True, None),
    ],
)  # fmt: skip
def test_probabilities_are_shown_for_heads_of_probabilities(layer: L.Layer, keep: bool, expected: Any) -> None:
    net = pylrp.load([*below(), layer], keep_top=keep)
    outputs = Outputs(net, net.graph.outputs[0], {}, "auto")
    z = logits(X)[0]
    found = outputs.probabilities(net.forward(X)[0])
    if expected is None:
        assert found is None
    else:
        np.testing.assert_allclose(found, expected(z), rtol=1e-12)
    Report(net).add(X[:1], composites=["epsilon"])


def test_flipping_by_probability_of_a_logit() -> None:
    net = pylrp.load([*below(), L.Sigmoid()])
    R = net.explain(X, 1, "epsilon").relevance
    found = pylrp.evaluate.pixel_flipping(net, X, R, target=1, score="probability")
    np.testing.assert_allclose(found.scores["most"][:, 0], sigmoid(logits(X)[:, 1]), rtol=1e-10)
