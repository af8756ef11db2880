"""Scalings and padding parted by movement from the layers they belong to; shifts before padded convolutions.

Outputs are checked with the oracle's forward pass. That the maps are those of a twin folded by hand, whichever writer
wrote the file, is for `tests/peers/test_one_map.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from network.test_canonise import array, assert_same_outputs, conv, dense, kinds, norm
from reference.graph_forward import forward

from pylrp import layers as L
from pylrp.network.canonise import canonise
from pylrp.network.graph import Graph, Node

LAST, FIRST = L.Transpose((1, 2, 0)), L.Transpose((2, 0, 1))
IMAGE = (2, 6, 5)


def affine(*shape: int) -> L.Affine:
    return L.Affine(array(*shape), array(*shape))


def shift(*shape: int) -> L.Affine:
    return L.Affine(1.0, array(*shape))


DOWN: list[tuple[str, list[L.Layer], L.Shape, list[str]]] = [
    ("transpose", [conv(3, 2), LAST, affine(3), L.ReLU()], IMAGE, ["conv", "transpose", "relu"]),
    (
        "Add, Sub, Mul, Add",
        [conv(3, 2), LAST, shift(3), shift(3), L.Affine(array(3), 0.0), shift(3), L.ReLU()],
        IMAGE,
        ["conv", "transpose", "relu"],
    ),
    (
        "norm between inverse transposes",
        [conv(3, 2), LAST, shift(3), FIRST, norm(3), LAST, L.ReLU()],
        IMAGE,
        ["conv", "transpose", "transpose", "transpose", "relu"],
    ),
    ("flatten", [conv(3, 2), L.Flatten(), affine(36), L.ReLU()], IMAGE, ["conv", "flatten", "affine", "relu"]),
    ("shift of every feature", [conv(3, 2), L.Flatten(), shift(36), L.ReLU()], IMAGE, ["conv", "flatten", "relu"]),
    ("reshape", [dense(12, 3), L.Reshape((3, 2, 2)), norm(3), L.ReLU()], (3,), ["dense", "reshape", "relu"]),
    ("squeeze", [conv(3, 2), L.Reshape((3, 12)), norm(3), L.ReLU()], IMAGE, ["conv", "reshape", "relu"]),
    ("chomp", [L.Conv(array(4, 2, 3), padding=2), L.Slice([0], [7], [1]), norm(4)], (2, 7), ["conv", "slice"]),
    ("taken channels", [conv(3, 2), L.Take([2, 0]), norm(2), L.ReLU()], IMAGE, ["conv", "take", "relu"]),
    ("a channel twice", [conv(3, 2), L.Take([2, 2]), norm(2), L.ReLU()], IMAGE, ["conv", "take", "batchnorm", "relu"]),
    ("shuffle", [conv(4, 2), L.ChannelShuffle(2), norm(4)], IMAGE, ["conv", "channel_shuffle"]),
    ("pixels", [conv(4, 2), L.DepthToSpace(2), affine(1), L.ReLU()], IMAGE, ["conv", "depth_to_space", "relu"]),
    ("nearest", [conv(3, 2), L.Upsample(2), norm(3)], IMAGE, ["conv", "upsample"]),
    ("resized", [conv(3, 2), L.Resize(scales=(2, 2), mode="nearest"), norm(3)], IMAGE, ["conv", "resize"]),
    (
        "linear stays",
        [conv(3, 2), L.Resize(scales=(2, 2), mode="linear"), norm(3)],
        IMAGE,
        ["conv", "resize", "batchnorm"],
    ),
    (
        "scale past zeros",
        [conv(3, 2), L.Pad([(0, 0), (1, 1), (0, 2)]), L.Affine(array(3, 1, 1))],
        IMAGE,
        ["conv", "pad"],
    ),
    ("one shift past zeros", [dense(3, 4), L.Pad([(1, 2)]), L.Affine(array(1), array(1))], (4,), ["dense", "pad"]),
    ("shifts past zeros", [conv(3, 2), L.Pad([(0, 0), (1, 1), (1, 0)]), norm(3)], IMAGE, ["conv", "pad"]),
    ("mirrored", [conv(3, 2), L.Pad([(0, 0), (1, 1), (1, 0)], "reflect"), norm(3)], IMAGE, ["conv", "pad"]),
    ("repeated", [dense(3, 4), L.Reshape((3, 1)), L.Expand((3, 4)), norm(3)], (4,), ["dense", "reshape", "expand"]),
    (
        "repeated and scaled apart",
        [dense(3, 4), L.Reshape((3, 1)), L.Expand((3, 4)), affine(4)],
        (4,),
        ["dense", "reshape", "expand", "affine"],
    ),
    (
        "transposed conv",
        [L.ConvTranspose(array(2, 3, 2, 2), stride=2, groups=2), LAST, affine(6)],
        IMAGE,
        ["conv_transpose", "transpose"],
    ),
    ("shift by place", [conv(3, 2), shift(3, 4, 3), L.ReLU()], IMAGE, ["conv", "relu"]),
    (
        "rows of a table",
        [L.Transpose((1, 0)), L.Conv(array(4, 3, 1)), L.Transpose((1, 0)), affine(4), L.ReLU()],
        (5, 3),
        ["transpose", "conv", "transpose", "relu"],
    ),
    (
        "through a ReLU not",
        [conv(3, 2), L.ReLU(), LAST, affine(3), L.ReLU()],
        IMAGE,
        ["conv", "relu", "transpose", "affine", "relu"],
    ),
]
BELOW = [conv(3, 2, padding=1), L.ReLU()]
UP: list[tuple[str, list[L.Layer], L.Shape, list[str]]] = [
    ("past a constant", [norm(3), L.Pad([(0, 0), (1, 1), (0, 2)], value=0.7), conv(2, 3)], IMAGE, ["pad", "conv"]),
    (
        "past constants of each channel",
        [norm(3), L.Pad([(0, 0), (0, 1), (0, 2)], value=array(3, 1, 1)), conv(2, 3)],
        IMAGE,
        ["pad", "conv"],
    ),
    ("norm before a padded conv", [norm(3), conv(2, 3, padding=1)], IMAGE, ["conv"]),
    (
        "before a strided grouped conv",
        [norm(3), L.Conv(array(6, 1, 3, 2), stride=2, padding=((2, 0), (0, 3)), groups=3, dilation=(1, 2))],
        IMAGE,
        ["conv"],
    ),
    (
        "before a transposed conv",
        [
            norm(3),
            L.ConvTranspose(
                array(3, 2, 3, 2), array(2), stride=2, padding=1, groups=1, dilation=(1, 2), output_padding=1
            ),
        ],
        IMAGE,
        ["conv_transpose"],
    ),
    (
        "before a transposed grouped conv",
        [norm(3), L.ConvTranspose(array(3, 2, 3, 3), stride=(3, 1), groups=3)],
        IMAGE,
        ["conv_transpose"],
    ),
    ("transposes", [LAST, affine(3), FIRST, conv(2, 3, padding=1)], IMAGE, ["transpose", "transpose", "conv"]),
    ("flatten, dense", [norm(3), L.Flatten(), dense(4, 90)], IMAGE, ["flatten", "dense"]),
    ("by place, dense", [affine(3, 6, 5), LAST, L.Flatten(), dense(4, 90)], IMAGE, ["transpose", "flatten", "dense"]),
    ("scale by place, conv", [affine(3, 6, 5), conv(4, 3)], IMAGE, ["affine", "conv"]),
    ("shift by place, conv", [shift(3, 6, 5), conv(4, 3)], IMAGE, ["conv"]),
    ("zeros after a norm", [norm(3), L.Pad([(0, 0), (2, 0), (1, 1)]), conv(4, 3)], IMAGE, ["conv"]),
    ("zeros before a norm", [L.Pad([(0, 0), (2, 0), (1, 1)]), norm(3), conv(4, 3)], IMAGE, ["conv"]),
    (
        "ones after a norm",
        [norm(3), L.Pad([(0, 0), (2, 0), (1, 1)], value=1), conv(4, 3)],
        IMAGE,
        ["pad", "conv"],
    ),
    ("slice", [norm(3), L.Slice([1], [3]), conv(4, 2)], IMAGE, ["slice", "conv"]),
    ("a pool between stays", [norm(3), L.MaxPool(2), conv(4, 3, padding=1)], IMAGE, ["batchnorm", "maxpool", "conv"]),
    ("a ReLU between stays", [norm(3), L.ReLU(), conv(4, 3)], IMAGE, ["batchnorm", "relu", "conv"]),
    (
        "joined and left",
        [LAST, affine(3), FIRST, norm(3), L.Tanh()],
        IMAGE,
        ["transpose", "affine", "transpose", "tanh"],
    ),
]
ZEROS = L.Pad([(2, 0), (1, 1), (0, 0)])
PADDED: list[tuple[str, list[L.Layer], L.Shape, list[str]]] = [
    ("channels last", [ZEROS, FIRST, conv(4, 3, padding=1)], (6, 5, 3), ["transpose", "conv"]),
    (
        "three steps",
        [ZEROS, FIRST, LAST, FIRST, conv(4, 3)],
        (6, 5, 3),
        ["transpose", "transpose", "transpose", "conv"],
    ),
    (
        "squeezed",
        [L.Pad([(0, 0), (4, 0)]), L.Reshape((3, 1, 10)), L.Conv(array(4, 3, 1, 3), dilation=2)],
        (3, 6),
        ["reshape", "conv"],
    ),
    (
        "rows merge",
        [L.Pad([(0, 0), (1, 1), (0, 0)]), L.Reshape((3, 40)), L.Conv(array(4, 3, 3))],
        (3, 6, 5),
        ["reshape", "conv"],
    ),
    (
        "no frame",
        [L.Pad([(0, 0), (0, 0), (1, 1)]), L.Reshape((3, 42)), L.Conv(array(4, 3, 3))],
        (3, 6, 5),
        ["pad", "reshape", "conv"],
    ),
    (
        "channels of zeros",
        [L.Pad([(1, 1), (0, 0), (0, 0)]), L.Transpose((0, 2, 1)), conv(4, 5)],
        (3, 6, 5),
        ["pad", "transpose", "conv"],
    ),
    ("behind a ReLU", [ZEROS, L.ReLU(), FIRST, conv(4, 3)], (6, 5, 3), ["pad", "relu", "transpose", "conv"]),
]


@pytest.mark.parametrize(
    ("below", "layers", "shape", "expected"),
    [([], *case[1:]) for case in DOWN + PADDED] + [(BELOW, *case[1:]) for case in UP],
    ids=[case[0] for case in DOWN + PADDED + UP],
)
def test_sequences(below: list[L.Layer], layers: list[L.Layer], shape: L.Shape, expected: list[str]) -> None:
    before = Graph.sequential([*below, *layers], shape)
    after = canonise(before)
    assert kinds(after)[len(below) :] == expected
    assert_same_outputs(before, after)
    assert kinds(canonise(after))[len(below) :] == expected


@pytest.mark.parametrize("layers", [case[1] for case in UP], ids=[case[0] for case in UP])
def test_what_prepares_the_input_stays(layers: list[L.Layer]) -> None:
    graph = canonise(Graph.sequential(layers, (3, 6, 5)))
    assert {"batchnorm", "affine"} & set(kinds(graph))
    assert_same_outputs(Graph.sequential(layers, (3, 6, 5)), graph)


def graph(nodes: dict[str, tuple[Any, ...]], outputs: list[str], shape: L.Shape = (3, 6, 5)) -> Graph:
    return Graph({"x": shape}, [Node(name, layer, inputs) for name, (layer, *inputs) in nodes.items()], outputs)


def left(before: Graph) -> list[str]:
    after = canonise(before)
    assert_same_outputs(before, after)
    return [node.name for node in after.nodes]


def test_slices_are_scaled_apart() -> None:
    weight, bias, of_first, of_last = array(5, 2, 3, 3), array(5), norm(2), norm(1)
    made = graph(
        {
            "c": (L.Conv(weight, bias), "x"),
            "a": (L.Slice([0], [2], [0]), "c"),
            "b": (L.Slice([2], [4], [0]), "c"),  # nobody scales it
            "d": (L.Slice([4], [5], [0]), "c"),
            "an": (of_first, "a"),
            "dn": (of_last, "d"),
            "y": (L.Concat(0), "an", "b", "dn"),
        },
        ["y"],
        IMAGE,
    )
    assert sorted(left(made)) == ["an", "b", "c", "dn", "y"]
    folded: Any = next(node.layer for node in canonise(made).nodes if node.name == "c")
    (first, first_shift), (last, last_shift) = of_first.affine64(), of_last.affine64()
    scale, shifts = np.r_[first, 1, 1, last], np.r_[first_shift, 0, 0, last_shift]
    np.testing.assert_allclose(folded.weight, weight * scale[:, None, None, None], rtol=0, atol=1e-6)
    np.testing.assert_allclose(folded.bias, bias * scale + shifts, rtol=0, atol=1e-6)


def test_a_shift_stands_on_the_padding() -> None:
    weight, scaling = array(3, 2, 3, 3), norm(3)
    made = graph(
        {"c": (L.Conv(weight), "x"), "p": (L.Pad([(0, 0), (1, 0), (0, 2)]), "c"), "y": (scaling, "p")}, ["y"], IMAGE
    )
    assert_same_outputs(made, canonise(made))
    layers: dict[str, Any] = {node.layer.kind: node.layer for node in canonise(made).nodes}
    assert set(layers) == {"conv", "pad"}
    scale, shifts = scaling.affine64()
    np.testing.assert_allclose(layers["conv"].weight, weight * scale[:, None, None, None], rtol=0, atol=1e-6)
    np.testing.assert_allclose(layers["conv"].bias, shifts, rtol=0, atol=1e-6)
    frame = np.pad(np.zeros((3, 4, 3)), [(0, 0), (1, 0), (0, 2)], constant_values=1)
    np.testing.assert_allclose(layers["pad"].value, frame * shifts[:, None, None], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (L.Slice([0], [2], [1]), L.Slice([2], [4], [1])),  # both read every channel
        (L.Slice([0], [2], [0]), L.Slice([1], [3], [0])),  # both read channel 1
        (L.Slice([0], [2], [0]), L.ReLU()),
    ],
    ids=["rows", "overlap", "all"],
)
def test_what_others_read_is_not_scaled(first: L.Layer, last: L.Layer) -> None:
    nodes = {
        "c": (conv(3, 2), "x"),
        "a": (first, "c"),
        "b": (last, "c"),
        "n": (norm(first.output_shape((3, 4, 3))[0]), "a"),
    }
    assert "n" in left(graph(nodes, ["n", "b"], IMAGE))
    nodes = {"c": (conv(3, 2), "x"), "a": (L.Slice([0], [2], [0]), "c"), "n": (norm(2), "a")}
    assert "n" in left(graph(nodes, ["n", "c"], IMAGE))


def test_past_a_concatenation() -> None:
    branches: dict[str, tuple[Any, ...]] = {
        "a": (conv(2, 3), "x"),
        "b": (conv(4, 3), "x"),
        "both": (L.Concat(0), "a", "b"),
        "norm": (norm(6), "both"),
        "relu": (L.ReLU(), "norm"),
    }
    # The value after both keeps its name.
    assert left(graph(branches, ["relu"])) == ["a", "b", "norm", "relu"]
    assert left(graph({**branches, "used": (L.Add(), "a", "a")}, ["relu", "used"])) == [*branches, "used"]
    branches["b"] = (L.ReLU(), "x")
    branches["a"] = (conv(2, 3, padding=1), "x")
    branches["norm"] = (norm(5), "both")
    assert left(graph(branches, ["relu"])) == [*branches]
    branches["relu"] = (conv(2, 5, padding=1), "norm")  # nothing but a convolution takes it
    assert left(graph(branches, ["relu"])) == ["a", "b", "both", "relu"]


def test_a_scaled_part_of_a_concatenation() -> None:
    nodes: dict[str, tuple[Any, ...]] = {
        "a": (conv(2, 3, padding=1), "x"),
        "relu": (L.ReLU(), "a"),
        "norm": (norm(2), "relu"),
        "both": (L.Concat(0), "norm", "relu", "norm"),
        "y": (conv(2, 6, padding=1), "both"),
    }
    assert left(graph(nodes, ["y"])) == ["a", "relu", "both", "y"]


def test_several_layers_take_a_scaling() -> None:
    nodes: dict[str, tuple[Any, ...]] = {
        "a": (conv(2, 3, padding=1), "x"),
        "relu": (L.ReLU(), "a"),
        "norm": (norm(2), "relu"),
        "b": (conv(4, 2, padding=1), "norm"),
        "c": (conv(4, 2, padding=1), "norm"),
        "y": (L.Add(), "b", "c"),
    }
    assert left(graph(nodes, ["y"])) == ["a", "relu", "b", "c", "y"]
    assert left(graph({**nodes, "t": (L.Tanh(), "norm")}, ["y", "t"])) == [*nodes, "t"]
    assert left(graph(nodes, ["y", "norm"])) == [*nodes]


def test_zeros_for_several_convolutions() -> None:
    nodes: dict[str, tuple[Any, ...]] = {
        "pad": (L.Pad([(0, 0), (1, 1), (1, 1)]), "x"),
        "b": (conv(4, 3), "pad"),
        "c": (conv(4, 3), "pad"),
        "y": (L.Add(), "b", "c"),
    }
    assert left(graph(nodes, ["y"])) == ["b", "c", "y"]
    assert left(graph({**nodes, "t": (L.Tanh(), "pad")}, ["y", "t"])) == [*nodes, "t"]


def test_the_output_keeps_its_name() -> None:
    before = Graph.sequential([conv(3, 2), LAST, affine(3)], IMAGE)
    assert canonise(before).outputs == before.outputs


def test_a_layer_is_rounded_once() -> None:
    layers = [L.Conv(array(2, 3, 1).astype("f"), array(2).astype("f")), L.Transpose((1, 0))]
    pairs = [(RNG.uniform(0.5, 2, 2).astype("f"), array(2).astype("f")) for _ in range(6)]
    made: Any = canonise(Graph.sequential([*layers, *(L.Affine(*pair) for pair in pairs)], (3, 4))).nodes[0].layer
    weight, bias = (np.asarray(v, np.float64) for v in (layers[0].weight, layers[0].bias))
    for scale, added in pairs:
        weight, bias = weight * scale.astype(float)[:, None, None], bias * scale.astype(float) + added
    np.testing.assert_array_equal(made.weight, weight.astype("f"))
    np.testing.assert_array_equal(made.bias, bias.astype("f"))


RNG = np.random.default_rng(8)


def test_the_bias_at_every_position_is_what_the_shift_makes() -> None:
    kernel, added = array(4, 3, 3, 3), array(3)
    layers = [L.Conv(array(3, 2, 3, 3), padding=1), L.ReLU(), L.Affine(1.0, added.reshape(3, 1, 1))]
    made: Any = canonise(Graph.sequential([*layers, L.Conv(kernel, padding=1)], IMAGE)).nodes[-1].layer
    inside = np.pad(np.ones((6, 5)), 1)
    expected = np.zeros((4, 6, 5))
    for y, x in np.ndindex(6, 5):
        expected[:, y, x] = np.einsum("ochw,c,hw->o", kernel, added, inside[y : y + 3, x : x + 3])
    np.testing.assert_allclose(made.bias, expected, rtol=1e-12, atol=1e-12)
    assert made.weight is not None
    values = forward(Graph.sequential([made], (3, 6, 5)), {"input": np.zeros((1, 3, 6, 5))})
    np.testing.assert_allclose(values["0"][0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [(3,), (4, 5), (4, 1, 1), (3, 6, 5)])
def test_a_bias_of_another_shape_is_refused(bias: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="bias has shape"):
        Graph.sequential([L.Conv(array(4, 2, 3, 3), array(*bias), padding=1)], IMAGE)
