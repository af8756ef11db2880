"""Each layer kind with its corner cases against the oracle on graphs: alone, and between other layers.

`network/test_graph_relevance.py` has the comparison itself, and random graphs.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
import pytest
from network.test_graph_relevance import DTYPES, assert_like_the_oracle, back, conv, settled, weights
from reference.networks import every_rule
from reference.random_graphs import Case, expectation

from pylrp import layers as kinds
from pylrp.layers import (
    AdaptiveAveragePool,
    AdaptiveMaxPool,
    Affine,
    AveragePool,
    BatchNorm,
    ChannelShuffle,
    Dense,
    DepthToSpace,
    Expand,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    LocalResponseNorm,
    MaxPool,
    Pad,
    PReLU,
    ReLU,
    Reshape,
    Resize,
    Slice,
    SpaceToDepth,
    Take,
    Transpose,
    Upsample,
)
from pylrp.network.canonise import canonise
from pylrp.network.graph import Graph, Node
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Norm, Pass, WSquare, ZBox, Zero, ZPlus


def one(make, *args, **options):
    """A layer with weights to be made in a dtype."""
    return lambda dtype: make(*args, dtype=dtype, **options)


def by_position(make, shape, *args, **options):
    """A convolution to be made in a dtype, with a bias of its own at every entry of its output."""

    def made(dtype):
        layer = make(*args, bias=False, dtype=dtype, **options)
        return replace(layer, bias=weights(*layer.output_shape(shape), seed=3, dtype=dtype))

    return made, shape


WITH_WEIGHTS = {  # name: (layer, input shape)
    "dense": (lambda dtype: Dense(weights(7, 33, dtype=dtype), weights(7, dtype=dtype)), (33,)),
    "1-D": (one(conv, 5, 3, 3), (3, 11)),
    "2-D": (one(conv, 5, 3, 3, 3), (3, 6, 7)),
    "3-D": (one(conv, 3, 2, 2, 3, 2), (2, 4, 4, 3)),
    "1 x 1": (one(conv, 9, 17, 1, 1), (17, 3, 3)),
    "many channels": (one(conv, 33, 17, 3, 2), (17, 3, 4)),
    "16 channels": (one(conv, 16, 16, 3, 3, padding=1), (16, 3, 4)),
    "one value": (one(conv, 3, 2, 1, 1, bias=False), (2, 1, 1)),
    "whole image": (one(conv, 4, 3, 4, 5), (3, 4, 5)),
    "padded": (one(conv, 4, 3, 3, 3, padding=1), (3, 4, 5)),
    "padding as wide as the kernel": (one(conv, 2, 2, 2, 2, padding=2), (2, 3, 3)),
    "asymmetric padding": (one(conv, 4, 3, 3, 2, padding=((2, 0), (0, 1))), (3, 5, 4)),
    "more padding than image": (one(conv, 2, 2, 3, padding=((4, 3),)), (2, 2)),
    "same upper, even kernel": (one(conv, 3, 2, 2, 4, padding="same_upper"), (2, 5, 5)),
    "same lower, even kernel": (one(conv, 3, 2, 2, 4, padding="same_lower"), (2, 5, 5)),
    "same upper, stride": (one(conv, 3, 2, 3, 3, padding="same_upper", stride=2), (2, 6, 5)),
    "same lower, dilation": (one(conv, 3, 2, 2, 3, padding="same_lower", dilation=2), (2, 6, 5)),
    "stride 2": (one(conv, 4, 3, 3, 3, stride=2, padding=1), (3, 7, 6)),
    "stride over kernel": (one(conv, 4, 3, 2, 1, stride=(3, 4)), (3, 9, 10)),
    "stride leaves a rest": (one(conv, 2, 3, 2, 2, stride=3), (3, 7, 9)),
    "1 x 1, stride 2": (one(conv, 5, 4, 1, 1, stride=2), (4, 5, 6)),
    "dilation": (one(conv, 4, 3, 3, 3, dilation=(2, 3), padding=(2, 3)), (3, 6, 7)),
    "dilation and stride": (one(conv, 3, 2, 3, 2, dilation=2, stride=2, padding=1), (2, 8, 7)),
    "groups": (one(conv, 6, 4, 3, 3, groups=2, padding=1), (4, 4, 4)),
    "groups of many": (one(conv, 34, 18, 2, 2, groups=2), (18, 3, 3)),
    "depthwise": (one(conv, 5, 5, 3, 3, groups=5, padding=1), (5, 4, 4)),
    "depthwise of 17, stride 2": (one(conv, 17, 17, 3, 3, groups=17, stride=2, padding=((0, 1), (0, 1))), (17, 4, 4)),
    "depthwise 1-D": (one(conv, 9, 9, 3, groups=9, dilation=2), (9, 8)),
    "depth multiplier": (one(conv, 8, 4, 3, 3, groups=4, padding=1), (4, 4, 4)),
    "one channel in": (one(conv, 4, 1, 3, 3), (1, 5, 5)),
    "one channel out": (one(conv, 1, 4, 3, 3, bias=False), (4, 5, 5)),
    "transposed 1-D": (one(back, 3, 4, 3, stride=2), (3, 5)),
    "transposed": (one(back, 3, 4, 3, 3), (3, 3, 4)),
    "transposed 3-D": (one(back, 2, 2, 2, 2, 2, stride=2), (2, 2, 2, 3)),
    "transposed, kernel = stride": (one(back, 4, 3, 2, 2, stride=2), (4, 3, 3)),
    "transposed, stride over kernel": (one(back, 3, 2, 2, 1, stride=3), (3, 3, 3)),
    "transposed, output padding": (one(back, 3, 2, 3, 3, stride=2, padding=1, output_padding=1), (3, 3, 3)),
    "transposed, asymmetric": (one(back, 3, 2, 3, 2, stride=2, padding=((1, 0), (0, 1))), (3, 3, 3)),
    "transposed, dilation": (one(back, 2, 3, 2, 2, dilation=2, stride=2), (2, 3, 3)),
    "transposed, groups": (one(back, 4, 6, 3, 3, groups=2, stride=2), (4, 3, 3)),
    "transposed, depthwise": (one(back, 4, 4, 3, 3, groups=4, stride=2, padding=1), (4, 3, 3)),
    "transposed, many channels": (one(back, 18, 33, 2, 2, bias=False), (18, 2, 3)),
    "bias by position": by_position(conv, (3, 4, 5), 4, 3, 3, 3, padding=1),
    "bias by position, 1-D, dilation": by_position(conv, (3, 9), 5, 3, 3, padding=((4, 0),), dilation=2),
    "bias by position, 1 x 1": by_position(conv, (17, 4, 4), 18, 17, 1, 1),
    "bias by position, 1 x 1, padded, stride 2": by_position(conv, (4, 5, 6), 5, 4, 1, 1, stride=2, padding=1),
    "bias by position, stride 2": by_position(conv, (3, 7, 6), 17, 3, 3, 3, stride=2, padding=1),
    "bias by position, to few": by_position(conv, (2, 4, 4), 34, 2, 3, 3, padding=1),
    "bias by position, groups": by_position(conv, (4, 4, 4), 6, 4, 3, 3, groups=2, padding=1),
    "bias by position, depthwise": by_position(conv, (17, 4, 4), 17, 17, 3, 3, groups=17, stride=2, padding=1),
    "bias by position, transposed": by_position(back, (4, 3, 3), 4, 6, 3, 3, groups=2, stride=2, padding=1),
    "bias by position, transposed, depthwise": by_position(back, (4, 3, 3), 4, 4, 3, 3, groups=4, stride=2),
}
WITHOUT_WEIGHTS = {
    "max": (MaxPool(2), (3, 6, 4)),
    "max, overlapping": (MaxPool(3, 2), (17, 5, 5)),
    "max, stride over kernel": (MaxPool(2, 3), (2, 8, 8)),
    "max, padded": (MaxPool(3, 2, padding=1), (4, 5, 6)),
    "max, asymmetric": (MaxPool((2, 3), 2, padding=((0, 1), (2, 1))), (3, 5, 6)),
    "max, ceil": (MaxPool(3, 2, ceil_mode=True), (3, 6, 6)),
    "max, ceil and padding": (MaxPool(2, 2, padding=1, ceil_mode=True), (3, 5, 4)),
    "max, ceil, a window that would begin outside": (MaxPool(2, 3, ceil_mode=True), (3, 6, 4)),
    "max, dilation": (MaxPool(2, 1, dilation=(2, 3)), (3, 5, 6)),
    "max, dilation and padding": (MaxPool(3, 2, padding=1, dilation=2), (2, 7, 6)),
    "max, same": (MaxPool(2, 2, padding="same_upper"), (2, 5, 5)),
    "max 1-D": (MaxPool(3), (5, 10)),
    "max 3-D": (MaxPool(2, 1, padding=1), (2, 3, 3, 2)),
    "max of all": (GlobalMaxPool(), (9, 3, 4)),
    "adaptive max, overlapping": (AdaptiveMaxPool((3, 4)), (3, 5, 6)),
    "adaptive max, larger than the input": (AdaptiveMaxPool(5), (3, 3, 4)),
    "average": (AveragePool(2), (3, 6, 4)),
    "average, stride over kernel": (AveragePool((1, 2), (2, 3)), (9, 5, 7)),
    "average, padded": (AveragePool(3, 2, padding=1), (4, 5, 6)),
    "average, padding counts": (AveragePool(3, 2, padding=1, count_include_pad=True), (4, 5, 6)),
    "average, asymmetric": (AveragePool((2, 3), 2, padding=((0, 1), (2, 1))), (3, 5, 6)),
    "average, asymmetric, padding counts": (
        AveragePool((2, 3), 2, padding=((1, 0), (0, 2)), count_include_pad=True),
        (3, 5, 6),
    ),
    "average, ceil": (AveragePool(3, 2, ceil_mode=True), (3, 6, 6)),
    "average, ceil, padding counts": (AveragePool(3, 2, padding=1, ceil_mode=True, count_include_pad=True), (3, 6, 5)),
    "average, dilation": (AveragePool(2, 1, dilation=2, padding=1), (3, 5, 5)),
    "average, same lower": (AveragePool(2, 1, padding="same_lower"), (3, 4, 4)),
    "average 1-D": (AveragePool(3, 2), (17, 9)),
    "average 3-D": (AveragePool(2, padding=1, count_include_pad=True), (2, 3, 4, 2)),
    "average of all": (GlobalAveragePool(), (33, 2, 3)),
    "average of all 1-D": (GlobalAveragePool(), (4, 7)),
    "adaptive average, overlapping": (AdaptiveAveragePool((3, 4)), (3, 5, 6)),
    "adaptive average, larger than the input": (AdaptiveAveragePool(5), (3, 3, 4)),
    "adaptive average, one axis": (AdaptiveAveragePool((None, 2)), (3, 3, 5)),
    "per-channel slopes": (PReLU(np.array([0.25, -0.5, 1.5])), (3, 4, 4)),
    "local response": (LocalResponseNorm(5, alpha=0.5, beta=0.75, bias=2.0), (9, 2, 3)),
    "local response, even": (LocalResponseNorm(4, alpha=0.5, beta=0.75, bias=2.0), (9, 2, 3)),
    "local response, two": (LocalResponseNorm(2, alpha=2.0, beta=0.5), (5,)),
    "linear resize": (Resize(size=(5, 7), mode="linear"), (3, 3, 4)),
    "linear resize, smaller": (Resize(scales=(0.5, 0.5), mode="linear"), (3, 6, 4)),
    "linear resize, corners": (Resize(size=(5, 4), mode="linear", coordinates="align_corners"), (3, 3, 4)),
    "linear resize, one place": (Resize(size=(1, 3), mode="linear", coordinates="pytorch_half_pixel"), (3, 3, 4)),
    "linear resize 1-D": (Resize(scales=(2.0,), mode="linear", coordinates="asymmetric"), (9, 4)),
    "linear resize 3-D": (Resize(size=(3, 3, 2), mode="linear"), (2, 2, 2, 3)),
    "nearest resize": (Resize(size=(5, 2), coordinates="asymmetric", nearest="floor"), (3, 3, 4)),
    "nearest resize of channels": (Resize(size=(6,), axes=(0,), coordinates="asymmetric", nearest="floor"), (3, 2, 2)),
    "upsample": (Upsample((2, 3)), (3, 2, 2)),
    "pad with a number": (Pad([(0, 0), (1, 0), (0, 2)], value=0.5), (3, 3, 4)),
    "pad with numbers": (Pad([(0, 0), (1, 0), (0, 2)], value=np.array([[[0.5]], [[-1.0]], [[2.0]]])), (3, 3, 4)),
    "pad channels": (Pad([(1, 2), (0, 0), (0, 0)]), (3, 2, 2)),
    "pad by mirror": (Pad([(0, 0), (2, 1), (0, 2)], "reflect"), (3, 3, 4)),
    "pad by edge": (Pad([(1, 0), (2, 1), (0, 2)], "edge"), (3, 3, 4)),
    "crop": (Pad([(0, -1), (-1, 0), (1, -1)]), (3, 3, 4)),
    "slice": (Slice((0, -1), (99, -9), (0, 2), (2, -1)), (5, 3, 4)),
    "take": (Take([2, 0, 0, -1], 0), (3, 2, 3)),
    "take away an axis": (Take(1, 1), (3, 2, 3)),
    "transpose": (Transpose((2, 0, 1)), (3, 2, 4)),
    "reshape": (Reshape((4, -1, 2)), (3, 2, 4)),
    "flatten from 1": (Flatten(1), (3, 2, 4)),
    "expand": (Expand((3, 4, 2)), (3, 1, 1)),
    "depth to space": (DepthToSpace(2), (8, 2, 3)),
    "depth to space, CRD": (DepthToSpace(2, "CRD"), (8, 2, 3)),
    "space to depth": (SpaceToDepth(2), (3, 4, 2)),
    "shuffle": (ChannelShuffle(3), (6, 2, 2)),
}


def arrays_as(layer, dtype):
    """Return a layer with its arrays in a dtype."""
    return replace(layer, **{name: np.asarray(getattr(layer, name), dtype) for name in layer.arrays})


def alone(layer, shape, dtype):
    return Graph({"x": shape}, [Node("layer", layer, ("x",))], ["layer"], dtype=dtype)


def between(layer, shape, dtype):
    """Another layer and ReLU before it, ReLU and a dense layer after it."""
    # Beside a 0 rounding decides whether a resize's weight is 0 or nearly: no zeros for it.
    cut = kinds.LeakyReLU(0.25) if isinstance(layer, Resize) else ReLU()
    first = conv(shape[0], shape[0], *[1] * (len(shape) - 1), dtype=dtype) if len(shape) > 1 else None
    first = Dense(weights(shape[0], shape[0], seed=1, dtype=dtype)) if first is None else first
    size = prod(layer.output_shape(shape))
    nodes = [
        Node("first", first, ("x",)),
        Node("below", cut, ("first",)),
        Node("layer", layer, ("below",)),
        Node("above", ReLU(), ("layer",)),
        Node("flat", Flatten(), ("above",)),
        Node("top", Dense(weights(3, size, dtype=dtype), weights(3, seed=2, dtype=dtype)), ("flat",)),
    ]
    return Graph({"x": shape}, nodes, ["top"], dtype=dtype)


RULES = [*every_rule(1), Gamma(0.5, bias=False), AlphaBeta(bias=False), Zero(bias=False)]


def with_every_rule():
    """Layers and rules: every other pair in float64, the others in float32; at night the other way round."""
    for (i, name), (j, rule), (k, dtype) in product(*map(enumerate, (WITH_WEIGHTS, RULES, ("float64", "float32")))):
        marks = pytest.mark.nightly if (i + j + k) % 2 else pytest.mark.slow if dtype == "float32" else ()
        yield pytest.param(name, rule, np.dtype(dtype).type, marks=marks, id=f"{name}-{rule}-{dtype}")


@pytest.mark.parametrize(("name", "rule", "dtype"), list(with_every_rule()))
def test_layers_with_weights(name, rule, dtype):
    make, shape = WITH_WEIGHTS[name]
    assert_like_the_oracle(*settled(alone(make(dtype), shape, dtype), lambda _: rule, dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_layers_with_weights_between_others(name, dtype):
    make, shape = WITH_WEIGHTS[name]
    graph = between(make(dtype), shape, dtype)
    for rule in (ZPlus(), Gamma(), AlphaBeta(), Epsilon(0.25), Flat(), WSquare()):
        rule_of = {"first": ZBox(-5.0, 5.0), "layer": rule, "top": Epsilon()}
        assert_like_the_oracle(*settled(graph, lambda node, rule_of=rule_of: rule_of[node.name], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_layers_without_weights(name, dtype):
    layer, shape = WITHOUT_WEIGHTS[name]
    layer = arrays_as(layer, dtype)
    zeros = 0.0 if isinstance(layer, Resize) else 0.1
    assert_like_the_oracle(*settled(alone(layer, shape, dtype), lambda _: None, dtype, zeros=zeros))
    assert_like_the_oracle(*settled(alone(layer, shape, dtype), lambda _: None, dtype, batch=1, zeros=zeros))
    assert_like_the_oracle(*settled(between(layer, shape, dtype), lambda _: Epsilon(), dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", [Epsilon(), Epsilon(0.25), Zero()], ids=repr)
@pytest.mark.parametrize("count", range(2, 10))
def test_sums_of_many(count, rule, dtype):
    # More than four values are added up in two steps; which one is left out shows, since all of them differ.
    names = [f"v{k}" for k in range(count)]
    nodes = [Node(name, Dense(weights(7, 5, seed=k, dtype=dtype)), ("x",)) for k, name in enumerate(names)]
    graph = Graph({"x": (5,)}, [*nodes, Node("sum", kinds.Add(), tuple(names))], ["sum"])
    assert_like_the_oracle(*settled(graph, lambda _: rule, dtype))


LARGER = {
    "image": (one(conv, 9, 3, 3, 3, padding=1), (3, 15, 14)),
    "stride 2": (one(conv, 17, 5, 3, 3, stride=2, padding=1), (5, 13, 12)),
    "depthwise": (one(conv, 20, 20, 3, 3, groups=20, padding=1), (20, 7, 9)),
    "1 x 1": (one(conv, 40, 33, 1, 1), (33, 5, 6)),
    "transposed": (one(back, 8, 5, 3, 3, stride=2), (8, 7, 7)),
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ZPlus(), Epsilon(bias=False), Gamma(), Flat()], ids=repr)
@pytest.mark.parametrize("name", LARGER)
def test_more_than_one_tile(name, rule):
    make, shape = LARGER[name]
    graph = alone(make(np.float32), shape, np.float32)
    assert_like_the_oracle(*settled(graph, lambda _: rule, np.float32, batch=1))


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ZPlus(), Gamma(), AlphaBeta(bias=False)], ids=repr)
@pytest.mark.parametrize("name", ["dense", "1-D", "stride 2", "groups", "depthwise", "transposed"])
@pytest.mark.parametrize("batch", [7, 21])
def test_larger_batches(batch, name, rule):
    make, shape = WITH_WEIGHTS[name]
    graph = between(make(np.float32), shape, np.float32)
    rule_of = {"first": Flat(), "layer": rule, "top": Epsilon()}
    assert_like_the_oracle(*settled(graph, lambda node: rule_of[node.name], np.float32, batch=batch))


ACTIVATIONS = [
    *[ReLU(), kinds.LeakyReLU(0.25), kinds.ELU(0.5), kinds.ReLU6(), kinds.Clip(-0.5, 0.25), kinds.GELU()],
    *[kinds.GELU(approximate=True), kinds.SiLU(), kinds.HardSwish(), kinds.Mish(), kinds.Tanh(), kinds.Sigmoid()],
    *[kinds.HardSigmoid(), kinds.HardSigmoid(0.25, 0.5), kinds.Softplus(), kinds.Dropout()],
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
def test_functions_between_convolutions(layer, dtype):
    nodes = [
        Node("below", conv(5, 2, 3, 3, dtype=dtype), ("x",)),
        Node("f", layer, ("below",)),
        Node("above", conv(3, 5, 2, 2, dtype=dtype), ("f",)),
    ]
    graph = Graph({"x": (2, 5, 5)}, nodes, ["above"])
    assert_like_the_oracle(*settled(graph, lambda _: Epsilon(), dtype))
    assert_like_the_oracle(*settled(graph, lambda _: Gamma(), dtype, batch=1))


NORMS = {
    "batch": BatchNorm([1.5, -0.5, 0.0], [0.5, 0.0, 1.0], [0.25, -1.0, 0.5], [1.0, 0.5, 2.0]),
    "shift": Affine(np.array([[[2.0]], [[-1.0]], [[0.5]]]), np.array([[[0.5]], [[0.0]], [[-0.25]]])),
    "numbers": Affine(np.array(2.0), np.array(-0.75)),
    "place by place": Affine(np.linspace(-1, 2, 36).reshape(3, 3, 4), np.linspace(1, -1, 36).reshape(3, 3, 4)),
    "a row": Affine(np.array([1.0, -2.0, 0.5, 3.0]), np.array([0.0, 0.25, 0.0, -1.0])),
    "no shift": Affine(np.array([[[2.0]], [[-1.0]], [[0.0]]]), np.array(0.0)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NORMS)
def test_shifts_that_stay(name, dtype):
    # Behind a pool, in front of an activation: nothing to fold them into.
    layer = arrays_as(NORMS[name], dtype)
    nodes = [
        Node("conv", conv(3, 2, 2, 2, dtype=dtype), ("x",)),
        Node("pool", MaxPool(2, 1), ("conv",)),
        Node("norm", layer, ("pool",)),
        Node("f", ReLU(), ("norm",)),
        Node("top", conv(2, 3, 2, 2, dtype=dtype), ("f",)),
    ]
    graph = Graph({"x": (2, 5, 6)}, nodes, ["top"])
    assert "norm" in canonise(graph).shapes
    for rule in (None, Epsilon(0.25), Zero(), Pass()):
        case, _ = settled(graph, lambda _: Epsilon(), dtype)
        case = replace(case, rules=case.rules | ({} if rule is None else {"norm": rule}))
        assert_like_the_oracle(case, expectation(case))
    case, _ = settled(alone(layer, (3, 3, 4), dtype), lambda _: None, dtype)
    for rule in (Norm(), Pass()):  # with no weights below it is a scaling, whose default is Pass()
        ruled = replace(case, rules={"layer": rule})
        assert_like_the_oracle(ruled, expectation(ruled))


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_in_a_pool_go_to_the_first(dtype):
    graph = Graph({"x": (2, 6, 5)}, [Node("max", MaxPool(3, 2, padding=1), ("x",))], ["max"], dtype=dtype)
    x = np.random.default_rng(0).integers(0, 2, (3, 2, 6, 5)).astype(dtype)
    case = Case(graph, graph, {"x": x}, {}, "max", np.arange(1, 55, dtype=dtype).reshape(3, 2, 3, 3))
    assert_like_the_oracle(case, expectation(case))
