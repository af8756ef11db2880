"""Graphs: names, order, shapes, arrays, and every sentence about a wrong one."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.errors import UnsupportedLayer
from pylrp.network.graph import Graph, Node

W = np.ones((3, 4))


def relu(name: str, *inputs: str) -> Node:
    return Node(name, L.ReLU(), inputs)


def test_a_graph_knows_its_shapes() -> None:
    conv = L.Conv(np.ones((2, 3, 3, 3), np.float32))
    nodes = [Node("conv", conv, ("image",)), relu("relu", "conv"), Node("sum", L.Add(), ("conv", "relu"))]
    graph = Graph({"image": (3, 8, 8)}, nodes, ["sum", "conv"], channels_last=["image"], notes=["a note"])
    assert graph.shapes == {"image": (3, 8, 8), "conv": (2, 6, 6), "relu": (2, 6, 6), "sum": (2, 6, 6)}
    assert graph.outputs == ("sum", "conv")
    assert graph.channels_last == {"image"}
    assert graph.notes == ("a note",)
    assert graph.dtype == np.float32
    assert [(node.name, at) for node, at in graph.consumers("conv")] == [("relu", 0), ("sum", 0)]
    assert graph.consumers("sum") == []
    assert repr(graph) == "<Graph image (3, 8, 8) -> sum (2, 6, 6), conv (2, 6, 6), 3 nodes, float32>"


def test_nodes_are_sorted() -> None:
    nodes = [Node("c", L.Add(), ("a", "b")), relu("b", "a"), relu("a", "x")]
    assert [node.name for node in Graph({"x": (2,)}, nodes, ["c"]).nodes] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (({}, [relu("a", "x")], ["a"]), ValueError, "at least one input"),
        (({"x": (2,)}, [relu("a", "x")], []), ValueError, "at least one output"),
        (({"x": (2,)}, [relu("x", "x")], ["x"]), ValueError, "'x' is there 2 times"),
        (({"x": (2,)}, [relu("a", "y")], ["a"]), ValueError, r"node 'a' \(ReLU\) takes 'y', which is no input"),
        (({"x": (2,)}, [relu("a", "x")], ["b"]), ValueError, "output 'b' is no input"),
        (({"x": (2,)}, [relu("a", "x")], ["a", "a"]), ValueError, "outputs must differ, got a, a"),
        (({"x": (2,)}, [relu("a", "b"), relu("b", "a")], ["a"]), ValueError, "in a circle: a, b"),
        (({"x": (0,)}, [relu("a", "x")], ["a"]), ValueError, r"input 'x' has shape \(0,\), expected sizes"),
        (({"x": ()}, [relu("a", "x")], ["a"]), ValueError, r"input 'x' has shape \(\)"),
        (({"x": (2,)}, [relu("a", "x", "x")], ["a"]), ValueError, r"node 'a' \(ReLU\): ReLU takes 1 input, got 2"),
        (({"x": (2,)}, [Node("a", L.Dense(W), ("x",))], ["a"]), ValueError, r"node 'a' \(Dense\): weight is \(3, 4\)"),
    ],
)
def test_wrong_graphs(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Graph(*arguments)
    with pytest.raises(ValueError, match="channels_last names y, the inputs are x"):
        Graph({"x": (2,)}, [relu("a", "x")], ["a"], channels_last=["y"])


def test_names_in_a_sequence() -> None:
    dense, act = L.Dense(np.ones((4, 4))), L.ReLU()
    layers = [dense, act, dense, act, L.Dense(W, name="top"), L.Affine(2.0), L.Dense(np.ones((2, 3))), L.Softmax()]
    graph = Graph.sequential(layers)
    assert [node.name for node in graph.nodes] == ["0", "relu0", "0_2", "relu1", "top", "affine0", "3", "softmax0"]
    assert graph.inputs == {"input": (4,)}
    assert graph.outputs == ("softmax0",)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([], ValueError, "layers is empty"),
        ([L.ReLU(), L.Dense(W)], ValueError, r"layers\[0\] is ReLU\(\): pass input_shape="),
        ([L.Dense(W), L.Dense(W)], ValueError, r"layers\[1\]: weight is \(3, 4\), its input has 3 features"),
        ([L.Dense(W[0])], ValueError, r"layers\[0\]: weight has shape \(4,\)"),
        ([L.Dense(W, np.ones(3, np.float32))], TypeError, r"layers\[0\]: bias is float32, the first weight is float64"),
        ([L.Dense(W.astype(int))], TypeError, "int64"),
        ([L.Dense(W * np.nan)], ValueError, r"not finite: layers\[0\]: weight\[0, 0\] is nan"),
        ([L.Dense(W), "relu"], TypeError, r"layers\[1\] is not a layer of pylrp.layers: 'relu'"),
        ([L.Dense(W, name="a"), L.Dense(W.T, name="a")], ValueError, "names of layers must differ, got a, a"),
    ],
)
def test_wrong_sequences(layers: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Graph.sequential(layers)


def test_not_finite_in_a_kernel_or_a_number() -> None:
    weight = np.ones((2, 3, 3, 3))
    weight[1, 2, 0, 1] = np.inf
    with pytest.raises(ValueError, match=r"layers\[0\]: weight\[1, 2, 0, 1\] is inf"):
        Graph.sequential([L.Conv(weight)], (3, 5, 5))
    with pytest.raises(ValueError, match=r"scale.* is nan"):
        Graph.sequential([L.Affine(np.nan)], (3,))


def test_arrays_that_fit_are_used_in_place() -> None:
    dense, conv = L.Dense(np.ones((3, 4))[:, :2]), L.Conv(np.ones((2, 3, 3, 3)))
    graph = Graph({"x": (2,), "y": (3, 4, 4)}, [Node("d", dense, ("x",)), Node("c", conv, ("y",))], ["d", "c"])
    assert graph.nodes[0].layer is dense
    assert graph.nodes[1].layer is conv


def test_arrays_that_do_not_fit_are_copied_once() -> None:
    weight = np.ones((4, 4), np.float32)[::-1, ::-1]
    first, second = L.Dense(weight), L.Dense(weight)
    made: list[Any] = [node.layer for node in Graph.sequential([first, second, first]).nodes]
    assert made[0] is made[2]
    assert made[0] is not first
    assert made[0].weight is made[1].weight
    assert made[0].weight.flags.c_contiguous
    kernel: Any = Graph.sequential([L.Conv(np.ones((2, 3, 4, 4))[..., 1:, :3])], (3, 4, 4)).nodes[0].layer
    assert kernel.weight.flags.c_contiguous
    swapped: Any = Graph.sequential([L.Dense(np.ones((2, 2), ">f4"))]).nodes[0].layer
    assert swapped.weight.dtype == np.float32


def test_plain_numbers_follow_the_other_arrays() -> None:
    for dtype in (np.float32, np.float64):
        graph = Graph.sequential([L.Affine(2, 0.5), L.Dense(np.ones((3, 4), dtype)), L.PReLU(0.1)], (4,))
        assert graph.dtype == dtype
        assert {np.asarray(getattr(n.layer, a)).dtype for n in graph.nodes for a in n.layer.arrays if a != "bias"} == {
            np.dtype(dtype)
        }


def test_a_graph_without_arrays_has_a_dtype() -> None:
    assert Graph({"x": (2,)}, [relu("a", "x")], ["a"]).dtype == np.float32
    assert Graph({"x": (2,)}, [relu("a", "x")], ["a"], dtype=np.float64).dtype == np.float64
    with pytest.raises(TypeError, match="dtype is int64, relevance is computed in float32 or float64"):
        Graph({"x": (2,)}, [relu("a", "x")], ["a"], dtype=int)


def test_a_changed_graph_does_not_look_at_its_arrays_again(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph.sequential([L.Dense(W), L.ReLU()])
    seen: list[str] = []
    monkeypatch.setattr("pylrp.network.weights.require_finite", lambda array, name: seen.append(name))
    changed = graph.changed(nodes=graph.nodes[:1], outputs=["0"], notes=["shorter"])
    assert (changed.outputs, changed.notes, seen) == (("0",), ("shorter",), [])
    assert changed.nodes[0].layer is graph.nodes[0].layer
    more = graph.changed(nodes=[*graph.nodes, Node("d", L.Dense(np.ones((1, 3))), ("relu0",))])
    assert seen == ["node 'd' (Dense): weight"]
    assert more.outputs == ("relu0",)


def test_unsupported_layer() -> None:
    error = UnsupportedLayer("conv1", "DeformConv", "has no rule of LRP", "leave it out")
    assert str(error) == "node 'conv1' (DeformConv) has no rule of LRP: leave it out"
    assert (error.node, error.operator) == ("conv1", "DeformConv")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.node) == (str(error), "conv1")
    assert isinstance(error, ValueError)
    assert pylrp.UnsupportedLayer is UnsupportedLayer
