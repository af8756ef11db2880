"""Products and quotients of two values in the core: the forward pass, relevance and the ledger.

Expected numbers are NumPy's in float64; gates are chosen in ``rules/test_gates.py``.
"""

from __future__ import annotations

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.network.graph import Graph, Node
from pylrp.rules import Gate, Half, Zero

SHAPES = [
    ((5,), (5,)),
    ((3, 4, 5), (3, 4, 5)),
    ((3, 1, 1), (3, 4, 5)),
    ((3, 4, 5), (3, 1, 1)),
    ((1, 4, 5), (3, 4, 5)),
    ((3, 1, 5), (3, 4, 1)),
    ((3, 1, 1), (1, 4, 5)),
    ((1, 1, 1), (3, 4, 5)),
    ((4, 7), (4, 1)),
    ((2, 3, 1, 4), (2, 1, 5, 1)),
    ((1, 130, 150), (2, 130, 150)),  # more than a piece
    ((17000,), (1,)),
]


def network(one, other, layer, dtype):
    nodes = [Node("p", layer, ("u", "v")), Node("flat", L.Flatten(), ("p",))]
    shape = tuple(map(max, zip(one, other, strict=True)))
    weight = np.random.default_rng(3).normal(size=(2, int(np.prod(shape)))).astype(dtype)
    nodes.append(Node("y", L.Dense(weight), ("flat",)))
    return pylrp.Network.from_graph(Graph({"u": one, "v": other}, nodes, ["y"])), weight.astype(float)


def summed(R, shape):
    axes = tuple(axis for axis, size in enumerate(shape, start=1) if size == 1 and R.shape[axis] > 1)
    return R.sum(axis=axes, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("one", "other"), SHAPES)
def test_every_way_of_repeating(rng, one, other, dtype):
    net, weight = network(one, other, L.Multiply(), dtype)
    u, v = (rng.normal(size=(3, *shape)).astype(dtype) for shape in (one, other))
    product = u.astype(float) * v
    tolerance = {"rtol": 2e-5, "atol": 2e-4} if dtype == np.float32 else {"rtol": 1e-11, "atol": 1e-11}
    np.testing.assert_allclose(net.forward((u, v)), product.reshape(3, -1) @ weight.T, **tolerance)
    R = product * weight[1].reshape(product.shape[1:])
    parts = {Half(): (0.5, 0.5), Gate(signal=0): (1, 0), Gate(signal=1): (0, 1)}
    for rule, factors in parts.items():
        composite = pylrp.Composite("mine", Zero(), names={"p": rule})
        by_threads = [net.explain((u, v), 1, composite=composite, threads=n) for n in (1, 2)]
        for name, shape, factor in zip("uv", (one, other), factors, strict=True):
            found = by_threads[0].relevance[name]
            np.testing.assert_array_equal(found, by_threads[1].relevance[name])
            np.testing.assert_allclose(found, factor * summed(R, shape), **tolerance)
        row = by_threads[0].ledger["p"]
        assert row.rule == repr(rule)
        size = np.abs(R).sum(axis=tuple(range(1, R.ndim)))
        assert (np.abs(row.rounding) <= (1e-5 if dtype == np.float32 else 1e-12) * size).all()


def test_several_targets_have_the_relevance_of_each(rng):
    net, _ = network((3, 4, 5), (3, 1, 1), L.Multiply(0), np.float64)
    x = rng.normal(size=(4, 3, 4, 5)), rng.normal(size=(4, 3, 1, 1))
    together = net.explain(x, targets=[0, 1], composite="epsilon").relevance
    for t in (0, 1):
        alone = net.explain(x, t, composite="epsilon").relevance
        for name in "uv":
            np.testing.assert_array_equal(together[name][:, t], alone[name])
        assert not alone["v"].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("one", "other"), SHAPES)
def test_only_the_numerator_takes(rng, one, other, dtype):
    net, weight = network(one, other, L.Divide(), dtype)
    u, v = rng.normal(size=(3, *one)).astype(dtype), rng.uniform(0.5, 2, size=(3, *other)).astype(dtype)
    quotient = u.astype(float) / v
    ex = net.explain((u, v), 0, composite=Zero())
    tolerance = {"rtol": 2e-5, "atol": 2e-4} if dtype == np.float32 else {"rtol": 1e-11, "atol": 1e-11}
    np.testing.assert_allclose(ex.output, quotient.reshape(3, -1) @ weight.T, **tolerance)
    R = quotient * weight[0].reshape(quotient.shape[1:])
    np.testing.assert_allclose(ex.relevance["u"], summed(R, one), **tolerance)
    assert not ex.relevance["v"].any()


def test_a_division_by_zero_is_named(rng):
    net, _ = network((3,), (3,), L.Divide(), np.float64)
    with pytest.raises(pylrp.NotFinite) as caught:
        net.explain((np.ones((1, 3)), np.array([[1.0, 0.0, 1.0]])), 0, composite="epsilon")
    assert (caught.value.layer, caught.value.what) == ("p", "output")


@pytest.mark.parametrize("layer", [L.Multiply(), L.Divide()], ids=repr)
@pytest.mark.parametrize("shapes", [((3,),), ((3,), (4,)), ((3, 4), (4,)), ((2,), (2,), (2,))], ids=repr)
def test_shapes_that_do_not_fit(layer, shapes):
    with pytest.raises(ValueError, match=type(layer).__name__):
        layer.output_shape(*shapes)


@pytest.mark.parametrize("signal", [2, -1, "x"])
def test_a_signal_that_is_no_factor(signal):
    with pytest.raises(ValueError, match="signal"):
        L.Multiply(signal)


def test_a_gate_gets_nothing_and_costs_nothing(rng):
    """The gate's layers have rows of zeros, also where the caller asks for their relevance."""
    W, V = rng.normal(size=(4, 3)), rng.normal(size=(2, 4))
    nodes = [Node("h", L.Dense(W), ("x",)), Node("z", L.Dense(W[::-1].copy()), ("x",)), Node("g", L.Sigmoid(), ("z",))]
    nodes += [Node("p", L.Multiply(), ("g", "h")), Node("y", L.Dense(V), ("p",))]
    net = pylrp.Network.from_graph(Graph({"x": (3,)}, nodes, ["y"]))
    x = rng.normal(size=(2, 3))
    ex = net.explain(x, 1, composite=Zero(), layers="all")
    gate = 1 / (1 + np.exp(-x @ W[::-1].T))
    np.testing.assert_allclose(ex.relevance, ((V[1] * gate) @ W) * x, rtol=1e-12)
    assert not ex.layers["z"].any()
    assert not ex.layers["g"].any()
    assert not ex.ledger["z"].incoming.any()
