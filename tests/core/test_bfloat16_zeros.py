"""Convolutions in bfloat16 whose operands are full of zeros: lists of words and of numbers, one of four below a pool.

References are dense matrices, rounded in NumPy and multiplied in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pylrp
from pylrp import _core
from pylrp.layers import Conv
from pylrp.rules import Epsilon, Flat, Rule, WSquare, ZPlus

Array = NDArray[Any]
PATHS = ("best", "words", "emulated", "numbers")
IN, OUT, SIDE = (40, 5, 6), 33, 3


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    yield
    _core.force_bfloat16_path("best")
    _core.force_left_path("counted")


def rounded(x: Array) -> Array:
    """Round to 8 bits of mantissa, ties to even."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)


def as_matrix(weight: Array, stride: int, groups: int) -> Array:
    """Return what a convolution with padding 1 does to an input of shape IN, as a matrix (out, in)."""
    channels, height, width = IN
    high, wide = (height - 1) // stride + 1, (width - 1) // stride + 1
    full = np.zeros((len(weight), high, wide, channels, height + 2, width + 2))
    for o, filters in enumerate(weight):
        first = o // (len(weight) // groups) * len(filters)
        for y in range(high):
            for x in range(wide):
                rows, columns = slice(y * stride, y * stride + SIDE), slice(x * stride, x * stride + SIDE)
                full[o, y, x, first : first + len(filters), rows, columns] = filters
    inside: Array = full[..., 1:-1, 1:-1].reshape(len(weight) * high * wide, -1)
    return inside


def expected(rule: Rule, matrix: Array, a: Array, R: Array) -> Array:
    kept = np.maximum(matrix, 0) if isinstance(rule, ZPlus) else matrix
    stabilizer = rule.groups()[0].stabilizer
    z = rounded(a) @ kept.T
    s = R / np.where(z < 0, z - stabilizer, z + stabilizer)
    return a * (rounded(s) @ kept)


def layer_of_zeros(groups: int, seed: int = 1) -> tuple[Array, Array]:
    """Return weights, and inputs whose channels are zero by turns seldom, often, always and never."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((OUT + groups - OUT % groups, IN[0] // groups, SIDE, SIDE)).astype(np.float32)
    x = np.abs(random.standard_normal((3, *IN))).astype(np.float32)
    share = np.resize([0.9, 0.3, 0.0, 1.0, 0.1], IN[0])[:, None, None]
    x[random.random(x.shape) >= share] = -0.0
    return weight, x


def one_of_four(top: Array) -> Array:
    """Leave the largest entry of each 2 x 2 window."""
    left = np.zeros_like(top)
    for y in range(0, top.shape[2], 2):
        for x in range(0, top.shape[3], 2):
            window = top[:, :, y : y + 2, x : x + 2]
            best = window.max(axis=(2, 3), keepdims=True)
            left[:, :, y : y + 2, x : x + 2] = np.where(window == best, window, 0)
    return left


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("way", ["counted", "tiles", "lists", "pairs"])
@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 2), (2, 8)])
def test_convolutions_of_zeros(path: str, way: str, stride: int, groups: int) -> None:
    weight, x = layer_of_zeros(groups)
    net = pylrp.Network([Conv(weight, padding=1, stride=stride, groups=groups)], input_shape=IN)
    matrix, a = as_matrix(rounded(weight), stride, groups), x.reshape(len(x), -1).astype(np.float64)
    top = np.random.default_rng(2).random(net.forward(x).shape).astype(np.float32)
    top[np.random.default_rng(3).random(top.shape) < 0.7] = 0
    _core.force_bfloat16_path(path)
    _core.force_left_path(way)
    for rule in (ZPlus(), Epsilon(0.1)):
        one, two = (net.explain(x, top, rules=rule, precision="bfloat16", threads=n) for n in (1, 2))
        np.testing.assert_array_equal(one.relevance, two.relevance)
        out = rounded(a) @ matrix.T
        np.testing.assert_allclose(one.output.reshape(out.shape), out, rtol=0, atol=2e-6 * np.abs(out).max())
        found = expected(rule, matrix, a, top.reshape(out.shape).astype(np.float64))
        # s is rounded from z in float32: now and then to the other neighbour, 1/256 away.
        gap = np.abs(one.relevance.reshape(found.shape) - found) / np.abs(found).max()
        assert gap.max() < 4e-3
        assert np.median(gap) < 1e-6


@pytest.mark.parametrize("way", ["counted", "tiles", "lists", "pairs"])
@pytest.mark.parametrize("rule", [ZPlus(), Epsilon(0.1)], ids=["zplus", "epsilon"])
def test_emulated_words_have_the_bits_of_the_instruction(way: str, rule: Rule) -> None:
    if _core.bfloat16_instruction() == "bfdot":
        pytest.skip("rounds once for two products")
    weight, x = layer_of_zeros(2)
    # Operands, products and sums on the way that are denormal.
    weight[::3] *= np.float32(1e-20)
    x[:, ::2] *= np.float32(1e-19)
    x[:, 1, 0] = np.float32(1e-39)
    net = pylrp.Network([Conv(weight, padding=1, groups=2)], input_shape=IN)
    top = np.random.default_rng(7).random(net.forward(x).shape).astype(np.float32)
    _core.force_left_path(way)
    found = []
    for path in ("words", "emulated"):
        _core.force_bfloat16_path(path)
        ex = net.explain(x, top, rules=rule, precision="bfloat16", threads=1)
        found.append((ex.output, ex.relevance))
    np.testing.assert_array_equal(*(output.view(np.uint32) for output, _ in found))
    np.testing.assert_array_equal(*(relevance.view(np.uint32) for _, relevance in found))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("way", ["counted", "tiles", "lists", "pairs"])
@pytest.mark.parametrize("groups", [2, 4])
def test_one_pixel_of_ones_serves_all_groups(path: str, way: str, groups: int) -> None:
    weight, x = layer_of_zeros(groups)
    net = pylrp.Network([Conv(weight, padding=1, groups=groups)], input_shape=IN)
    squares = rounded(as_matrix(weight, 1, groups) ** 2)
    top = np.random.default_rng(8).random(net.forward(x).shape).astype(np.float32)
    _core.force_bfloat16_path(path)
    _core.force_left_path(way)
    found = net.explain(x, top, rules=WSquare(), precision="bfloat16", threads=1).relevance.reshape(len(x), -1)
    s = rounded(top.reshape(len(x), -1) / (squares.sum(axis=1) + WSquare().stabilizer))
    gap = np.abs(found - s @ squares) / np.abs(found).max()
    assert gap.max() < 4e-3
    assert np.median(gap) < 1e-6


@pytest.mark.parametrize("path", PATHS)
def test_zeros_go_by_lists(path: str) -> None:
    random = np.random.default_rng(4)
    weight = random.standard_normal((64, 64, 3, 3)).astype(np.float32)
    x = random.random((2, 64, 24, 24)).astype(np.float32)
    net = pylrp.Network([Conv(weight, padding=1)], input_shape=x.shape[1:])
    _core.force_bfloat16_path(path)
    for share, by_lists in ((0.05, True), (1, False)):
        thin = np.where(random.random(x.shape) < share, x, 0)
        before = _core.left_work()
        net.explain(thin, np.ones((2, 64, 24, 24)), rules=Flat(), precision="bfloat16", threads=1)
        after = _core.left_work()
        assert (after["lists"] > before["lists"]) == by_lists


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("groups", [1, 2])
def test_one_of_four_below_a_pool(path: str, groups: int) -> None:
    weight, x = layer_of_zeros(groups, 5)
    net = pylrp.Network([Conv(weight, padding=1, groups=groups)], input_shape=IN)
    matrix, a = as_matrix(rounded(weight), 1, groups), x.reshape(len(x), -1).astype(np.float64)
    top = one_of_four(np.random.default_rng(6).random(net.forward(x).shape).astype(np.float32))
    _core.force_bfloat16_path(path)
    before = _core.conv_path_counts()["one_of_four"]
    one, two = (net.explain(x, top, rules=ZPlus(), precision="bfloat16", threads=n) for n in (1, 2))
    has_quads = _core.isa() in ("avx2", "avx512")
    assert (_core.conv_path_counts()["one_of_four"] > before) == (has_quads and groups == 1)
    np.testing.assert_array_equal(one.relevance, two.relevance)
    found = expected(ZPlus(), matrix, a, top.reshape(len(x), -1).astype(np.float64))
    gap = np.abs(one.relevance.reshape(found.shape) - found) / np.abs(found).max()
    assert gap.max() < 4e-3
    assert np.median(gap) < 1e-6


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("way", ["counted", "tiles", "lists", "pairs"])
@pytest.mark.parametrize("channel", [0, 1, 2, 39])
def test_a_weight_that_rounds_to_infinity_shows(path: str, way: str, channel: int) -> None:
    weight, x = layer_of_zeros(1)
    weight[7, channel, 1, 1] = 3.4e38
    net = pylrp.Network([Conv(weight, padding=1)], input_shape=IN)
    top = np.ones((3, OUT + 1, 5, 6))
    _core.force_bfloat16_path(path)
    _core.force_left_path(way)
    if channel == 2:  # of zeros, where lists do not read it; nor is there a way back
        out = net.explain(x, top, rules=Flat(), precision="bfloat16", threads=1).output
        assert np.isnan(out[:, 7]).all()
        assert np.isfinite(np.delete(out, 7, axis=1)).all()
    else:
        with pytest.raises(pylrp.NotFinite):
            net.explain(x, top, rules=Flat(), precision="bfloat16", threads=1)
