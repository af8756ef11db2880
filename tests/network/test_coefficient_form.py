"""Blocks of a transformer, where coefficients go from layer to layer, against NumPy in R, with its divisions.

The reference divides relevance by each output and multiplies by each input, as the rules are written; nothing in it
knows coefficients. Its arrays are (batch, tokens, features), those of the network have the features first.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.network.graph import Graph, Node

TOKENS, WIDTH, WIDE = 6, 8, 20
EXACT = {"add": pylrp.Zero(), "normalisation": pylrp.rules.Detach(), "pool": pylrp.Zero()}
MINE = pylrp.Composite("mine", pylrp.Zero(), EXACT)


def quotient(R, z):
    return np.divide(R, z, out=np.zeros_like(z * R), where=z != 0)


erf = np.vectorize(math.erf)


def turned(a):
    return np.ascontiguousarray(np.swapaxes(a, -1, -2))


class Blocks:
    """Norm, dense, GELU, dense, and the sum with what was there; at the end a head for each token."""

    def __init__(self, blocks, seed=0, width=WIDTH, wide=WIDE):
        rng = np.random.default_rng(seed)
        self.blocks = [
            {
                "scale": 1 + 0.3 * rng.normal(size=width),
                "shift": 0.2 * rng.normal(size=width),
                "up": rng.normal(size=(wide, width)) / np.sqrt(width),
                "b": 0.2 * rng.normal(size=wide),
                "down": rng.normal(size=(width, wide)) / np.sqrt(wide),
                "d": 0.2 * rng.normal(size=width),
            }
            for _ in range(blocks)
        ]
        self.head = rng.normal(size=(3, width))

    def network(self, tokens=TOKENS, dtype=np.float64):
        nodes, last = [], "x"

        def add(name, layer, *inputs):
            nodes.append(Node(name, layer, inputs))
            return name

        def linear(name, value, weight, bias=None):
            bias = None if bias is None else bias.astype(dtype)
            return add(name, L.PositionwiseDense.along(1, weight.astype(dtype), bias), value)

        for i, block in enumerate(self.blocks):
            scale, shift = block["scale"].astype(dtype), block["shift"].astype(dtype)
            normed = add(f"n{i}", L.LayerNorm(scale, shift, axes=0), last)
            wide = add(f"g{i}", L.GELU(), linear(f"up{i}", normed, block["up"], block["b"]))
            last = add(f"s{i}", L.Add(), last, linear(f"down{i}", wide, block["down"], block["d"]))
        linear("y", last, self.head)
        return pylrp.Network.from_graph(Graph({"x": (self.head.shape[1], tokens)}, nodes, ["y"], dtype=np.dtype(dtype)))

    def relevance(self, x, start, off=()):
        """Return relevance of x and of each block's sum, for relevance `start` at the output; off: closed in up0."""
        kept = []
        for block in self.blocks:
            mean, d = x.mean(-1, keepdims=True), np.sqrt(x.var(-1, keepdims=True) + 1e-5)
            normed = (x - mean) / d * block["scale"] + block["shift"]
            u = normed @ block["up"].T + block["b"]
            g = u * (1 + erf(u / np.sqrt(2))) / 2
            f = g @ block["down"].T + block["d"]
            kept.append((x, d, normed, u, g, f))
            x = x + f
        R = x * (quotient(start, x @ self.head.T) @ self.head)
        layers = [R]
        for block, (x, d, normed, u, g, f) in zip(self.blocks[::-1], kept[::-1], strict=True):
            s = quotient(R, x + f)
            R_g = g * (quotient(f * s, f) @ block["down"])
            if block is self.blocks[0]:
                R_g[..., list(off)] = 0
            R_n = normed * (quotient(R_g, u) @ block["up"])
            t = block["scale"] / d * quotient(R_n, normed)
            R = x * s + x * (t - t.mean(-1, keepdims=True))
            layers.append(R)
        return layers


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_relevance_as_by_division(dtype):
    blocks = Blocks(3)
    net = blocks.network(dtype=dtype)
    x = np.random.default_rng(1).normal(size=(2, TOKENS, WIDTH)).astype(dtype)
    start = np.random.default_rng(2).normal(size=(2, TOKENS, 3)).astype(dtype)
    call = {"target": turned(start), "composite": MINE}
    ex = net.explain(turned(x), layers=["s1", "s0"], **call)
    expected = blocks.relevance(np.float64(x), np.float64(start))
    within = 1e-9 if dtype == np.float64 else 2e-5
    for found, wanted in zip((ex.layers["s1"], ex.layers["s0"], ex.relevance), expected[1:], strict=True):
        assert np.abs(turned(found) - wanted).max() <= within * np.abs(wanted).max()
    for row in ex.ledger:
        assert np.abs(row.rounding).max() <= within * np.abs(start).sum()
    for threads in (1, 2):
        np.testing.assert_array_equal(net.explain(turned(x), threads=threads, **call).relevance, ex.relevance)
    np.testing.assert_array_equal(net.explain(turned(x), checkpoint=True, **call).relevance, ex.relevance)


def test_masks_close_coefficients():
    blocks = Blocks(2)
    net = blocks.network()
    x, start = np.random.default_rng(3).normal(size=(1, TOKENS, WIDTH)), np.ones((1, TOKENS, 3))
    keep = [i for i in range(WIDE) if i not in (2, 5)]
    ex = net.explain(turned(x), target=turned(start), composite=MINE, masks={"up0": keep})
    wanted = blocks.relevance(x, start, off=(2, 5))[-1]
    assert np.abs(turned(ex.relevance) - wanted).max() <= 1e-9 * np.abs(wanted).max()
    (row,) = [row for row in ex.ledger if row.name == "up0"]
    assert np.abs(row.masked).max() > 1e-3
    assert np.abs(row.rounding).max() <= 1e-9


def test_a_value_of_0_keeps_its_coefficient():
    """R is 0 there; its coefficient is what the limit from beside it is."""
    blocks = Blocks(1)
    blocks.blocks[0]["up"][4] = blocks.blocks[0]["b"][4] = 0
    x, start = np.random.default_rng(4).normal(size=(1, TOKENS, WIDTH)), np.ones((1, 3, TOKENS))
    ex = blocks.network().explain(turned(x), target=start, composite=MINE)
    assert np.all(ex.layers["up0"][0][4] == 0)
    at_zero = ex.coefficients["up0"][0][4]
    blocks.blocks[0]["b"][4] = 1e-7
    beside = blocks.network().explain(turned(x), target=start, composite=MINE).coefficients["up0"][0][4]
    np.testing.assert_allclose(at_zero, beside, rtol=1e-5)
    assert np.abs(at_zero).max() > 1e-3
    assert all(np.all(row.dead == 0) for row in ex.ledger)


@pytest.mark.slow
def test_values_made_again_are_the_same():
    """A batch whose values take more than is kept, and its samples, whose values don't."""
    blocks = Blocks(6, width=64, wide=256)
    net = blocks.network(tokens=48)
    rng = np.random.default_rng(5)
    x, start = rng.normal(size=(90, 48, 64)), rng.normal(size=(90, 48, 3))
    together = net.explain(turned(x), target=turned(start), composite=MINE)
    wanted = blocks.relevance(x[:2], start[:2])[-1]
    assert np.abs(turned(together.relevance[:2]) - wanted).max() <= 1e-9 * np.abs(wanted).max()
    for row in together.ledger:
        assert np.abs(row.rounding).max() <= 1e-9 * np.abs(start[0]).sum()
    alone = net.explain(turned(x[5:6]), target=turned(start[5:6]), composite=MINE)
    np.testing.assert_allclose(together.relevance[5:6], alone.relevance, rtol=1e-9, atol=1e-12)
