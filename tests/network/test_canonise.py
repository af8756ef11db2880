"""Canonised graphs: the same output with fewer layers, and what must stay as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reference.graph_forward import forward

from pylrp import layers as L
from pylrp.network.canonise import canonise
from pylrp.network.graph import Graph, Node

RNG = np.random.default_rng(5)


def array(*shape: int) -> Any:
    return RNG.standard_normal(shape)


def norm(channels: int) -> L.BatchNorm:
    return L.BatchNorm(array(channels), array(channels), array(channels), RNG.uniform(0.5, 2, channels), 1e-3)


def kinds(graph: Graph) -> list[str]:
    return [node.layer.kind for node in graph.nodes]


def assert_same_outputs(before: Graph, after: Graph) -> None:
    x = {name: array(2, *shape) for name, shape in before.inputs.items()}
    first, second = forward(before, x), forward(after, x)
    assert len(before.outputs) == len(after.outputs)
    for old, new in zip(before.outputs, after.outputs, strict=True):
        np.testing.assert_allclose(second[new], first[old], rtol=1e-11, atol=1e-11)


def dense(out: int, into: int, bias: bool = True) -> L.Dense:
    return L.Dense(array(out, into), array(out) if bias else None)


def conv(out: int, into: int, **settings: Any) -> L.Conv:
    return L.Conv(array(out, into, 3, 3), array(out), **settings)


SEQUENCES: list[tuple[str, list[L.Layer], L.Shape, list[str]]] = [
    ("norm after conv", [conv(6, 2, groups=2, padding=1), norm(6), L.ReLU()], (4, 5, 5), ["conv", "relu"]),
    ("norm after dense", [dense(4, 3, bias=False), norm(4)], (3,), ["dense"]),
    (
        "norm after transposed conv",
        [L.ConvTranspose(array(4, 3, 2, 2), stride=2, groups=2), norm(6)],
        (4, 3, 3),
        ["conv_transpose"],
    ),
    (
        "scalings in a row",
        [conv(3, 2), norm(3), L.Affine(array(3, 1, 1), 0.0), L.Affine(2.0, array(3, 1, 1))],
        (2, 5, 5),
        ["conv"],
    ),
    ("scaling of every feature", [dense(4, 3), L.Affine(array(4), array(1))], (3,), ["dense"]),
    ("norm at the input stays", [norm(4), conv(6, 2, groups=2)], (4, 5, 5), ["batchnorm", "conv"]),
    ("scaling at the input stays", [L.Affine(2.0, array(4)), dense(3, 4)], (4,), ["affine", "dense"]),
    (
        "norm on moved input stays",
        [L.Flatten(), norm(8), L.ReLU(), dense(3, 8)],
        (2, 4),
        ["flatten", "batchnorm", "relu", "dense"],
    ),
    ("norm before conv", [conv(4, 2), L.ReLU(), norm(4), conv(6, 2, groups=2)], (2, 7, 7), ["conv", "relu", "conv"]),
    (
        "norm before dense",
        [dense(4, 3), L.ReLU(), norm(4), dense(2, 4, bias=False)],
        (3,),
        ["dense", "relu", "dense"],
    ),
    (
        "two scalings before conv",
        [conv(2, 1), L.ReLU(), L.Affine(1.0, array(2, 1, 1)), L.Affine(array(2, 1, 1)), conv(3, 2)],
        (1, 7, 7),
        ["conv", "relu", "conv"],
    ),
    (
        "scale before padded conv",
        [conv(2, 1), L.ReLU(), L.Affine(array(2, 1, 1)), conv(3, 2, padding=1)],
        (1, 7, 7),
        ["conv", "relu", "conv"],
    ),
    ("shift before padded conv stays", [norm(2), conv(3, 2, padding=1)], (2, 5, 5), ["batchnorm", "conv"]),
    ("norm after pool stays", [L.MaxPool(2), norm(2), L.ReLU()], (2, 4, 4), ["maxpool", "batchnorm", "relu"]),
    ("scaling by place stays", [conv(3, 2), L.Affine(array(3, 3, 3))], (2, 5, 5), ["conv", "affine"]),
    ("joined but left", [norm(2), L.Affine(2.0, 1.0), L.ReLU()], (2, 3), ["batchnorm", "relu"]),
    ("joined scalings", [L.Affine(3.0, 2.0), L.Affine(2.0, 1.0), L.ReLU()], (2, 3), ["affine", "relu"]),
    ("zeros around", [L.Pad([(0, 0), (1, 2), (0, 1)]), conv(3, 2, padding=1)], (2, 4, 4), ["conv"]),
    (
        "zeros around, then SAME",
        [L.Pad([(0, 0), (1, 2), (0, 1)]), conv(3, 2, padding="same_upper", stride=2)],
        (2, 4, 4),
        ["conv"],
    ),
    ("ones around stay", [L.Pad([(0, 0), (1, 1), (1, 1)], value=1), conv(3, 2)], (2, 4, 4), ["pad", "conv"]),
    ("mirrored stays", [L.Pad([(0, 0), (1, 1), (1, 1)], "reflect"), conv(3, 2)], (2, 4, 4), ["pad", "conv"]),
    ("more channels stay", [L.Pad([(0, 1), (1, 1), (1, 1)]), conv(3, 2)], (1, 4, 4), ["pad", "conv"]),
    ("cropping stays", [L.Pad([(0, 0), (-1, 1), (1, 1)]), conv(3, 2)], (2, 4, 4), ["pad", "conv"]),
    ("dropout", [L.Dropout(), dense(3, 4), L.Identity(), L.ReLU(), L.Dropout()], (4,), ["dense", "relu"]),
    (
        "bias after a transpose",
        [L.Conv(array(3, 2, 1)), L.Transpose((1, 0)), L.Affine(1.0, array(3))],
        (2, 4),
        ["conv", "transpose"],
    ),
    ("tanh at the top stays", [dense(3, 4), L.Tanh()], (4,), ["dense", "tanh"]),
    ("softmax inside stays", [dense(3, 4), L.Softmax(), dense(2, 3)], (4,), ["dense", "softmax", "dense"]),
    ("nothing but softmax stays", [L.Softmax()], (4,), ["softmax"]),
    ("nothing but identity stays", [L.Identity()], (4,), ["identity"]),
    ("one identity of two stays", [L.Dropout(), L.Identity()], (4,), ["identity"]),
]


@pytest.mark.parametrize(
    ("layers", "shape", "expected"), [case[1:] for case in SEQUENCES], ids=[c[0] for c in SEQUENCES]
)
def test_sequences(layers: list[L.Layer], shape: L.Shape, expected: list[str]) -> None:
    before = Graph.sequential(layers, shape)
    after = canonise(before)
    assert kinds(after) == expected
    assert after.notes == ()
    assert_same_outputs(before, after)
    assert kinds(canonise(after)) == expected


def test_folding_is_done_in_double_precision() -> None:
    weight, bias, ones = array(4, 3).astype("f"), array(4).astype("f"), np.ones(4, "f")
    graph = canonise(Graph.sequential([L.Dense(weight, bias), L.BatchNorm(ones, ones, ones, ones, 1e-5)]))
    layer: Any = graph.nodes[0].layer
    factor = 1 / np.sqrt(1 + 1e-5)
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    np.testing.assert_array_equal(layer.weight, (weight.astype(float) * factor).astype("f"))
    np.testing.assert_array_equal(layer.bias, ((bias.astype(float) - 1) * factor + 1).astype("f"))


def test_adding_a_bias_leaves_the_weight_where_it_is() -> None:
    weight = array(4, 3)
    layer: Any = canonise(Graph.sequential([L.Dense(weight), L.Affine(1.0, array(4))])).nodes[0].layer
    assert layer.weight is weight
    unbiased: Any = canonise(Graph.sequential([L.Dense(weight), L.Affine(2.0)])).nodes[0].layer
    assert unbiased.bias is None


def branching(first: L.Layer, second: L.Layer, outputs: list[str]) -> Graph:
    nodes = [
        Node("first", first, ("x",)),
        Node("second", second, ("first",)),
        Node("sum", L.Add(), ("first", "second")),
    ]
    return Graph({"x": (4, 5, 5)}, nodes, outputs)


@pytest.mark.parametrize(
    ("first", "second"), [(conv(4, 4, padding=1), norm(4)), (norm(4), conv(4, 4, padding=1)), (norm(4), norm(4))]
)
def test_a_value_with_two_takers_is_left_alone(first: L.Layer, second: L.Layer) -> None:
    before = branching(first, second, ["sum"])
    after = canonise(before)
    assert kinds(after) == kinds(before)
    assert_same_outputs(before, after)


def test_an_output_is_left_alone() -> None:
    before = Graph.sequential([dense(4, 3), norm(4)]).changed(outputs=["0", "batchnorm0"])
    after = canonise(before)
    assert kinds(after) == ["dense", "batchnorm"]
    assert_same_outputs(before, after)
    padded = Graph.sequential([L.Pad([(0, 0), (1, 1), (1, 1)]), conv(2, 2)], (2, 4, 4)).changed(outputs=["pad0", "0"])
    assert kinds(canonise(padded)) == ["pad", "conv"]


def test_weights_used_twice_are_folded_each_for_itself() -> None:
    shared = conv(4, 4, padding=1)
    nodes = [
        Node("a", shared, ("x",)),
        Node("a_norm", norm(4), ("a",)),
        Node("b", shared, ("a_norm",)),
        Node("b_norm", norm(4), ("b",)),
    ]
    before = Graph({"x": (4, 5, 5)}, nodes, ["b_norm"])
    after = canonise(before)
    assert [node.name for node in after.nodes] == ["a", "b"]
    assert after.outputs == ("b",)
    assert_same_outputs(before, after)
    assert before.nodes[0].layer is before.nodes[2].layer is shared


def test_what_no_output_needs_is_dropped() -> None:
    nodes = [Node("a", L.ReLU(), ("x",)), Node("b", L.Tanh(), ("a",)), Node("c", L.Sigmoid(), ("b",))]
    assert [node.name for node in canonise(Graph({"x": (3,)}, nodes, ["a"])).nodes] == ["a"]


@pytest.mark.parametrize("kind", [L.Softmax, L.LogSoftmax])
def test_softmax_at_the_top(kind: type[L.Softmax]) -> None:
    graph = Graph.sequential([dense(3, 4), L.Dropout(), kind(0), L.Reshape((3, 1)), L.Identity()])
    after = canonise(graph)
    assert kinds(after) == ["dense", "reshape"]
    assert (len(after.notes), after.facts.top) == (1, {"reshape0": kind.kind})
    assert kinds(canonise(graph, keep_top=True)) == ["dense", kind.kind, "reshape"]


def test_softmax_beside_its_logits() -> None:
    graph = Graph.sequential([dense(3, 4), L.Softmax()]).changed(outputs=["softmax0", "0"], notes=["first"])
    after = canonise(graph)
    assert (after.outputs, kinds(after), len(after.notes)) == (("0",), ["dense"], 2)


@pytest.mark.parametrize("named", [False, True])
def test_a_function_that_others_read_stays_for_them(named: bool) -> None:
    nodes = [Node("d", dense(3, 4), ("x",)), Node("p", L.Sigmoid(), ("d",)), Node("t", dense(2, 3), ("p",))]
    graph = Graph({"x": (4,)}, nodes, {"p": "p", "t": "t"} if named else ["p", "t"])
    after = canonise(graph)
    assert kinds(after) == ["dense", "sigmoid", "dense"]
    assert after.outputs == (("p", "t") if named else ("d", "t"))
    assert after.value(after.outputs[0]) == "d"
    assert after.facts.top == {after.outputs[0]: "sigmoid"}
    x = {"x": array(2, 4)}
    before, now = forward(graph, x), forward(after, x)
    np.testing.assert_allclose(now["t"], before["t"])
    np.testing.assert_allclose(now["d"], before["d"])
