"""A function without a value at 0 and the constant or bound before it, against shares written down by hand."""

from __future__ import annotations

import numpy as np
import pytest

import pylrp
from pylrp.layers import Affine, Clip, Conv, Dense, Flatten, Function, Log, ReLU, Transpose
from pylrp.network.graph import Graph, Node

E = 1e-3
rng = np.random.default_rng(3)
KERNEL, TOP = rng.normal(size=(2, 1, 3)), rng.normal(size=(3, 2 * 6))
X = rng.normal(size=(2, 1, 8))

#: What stands between a ReLU and a dense layer, and what it computes.
CHAINS = {
    "constant": ([Affine(1.0, E), Log()], lambda a: np.log(a + E)),
    "scaled": ([Affine(0.5, E), Log()], lambda a: np.log(0.5 * a + E)),
    "by channel": ([Affine(1.0, np.array([[E], [0.1]])), Log()], lambda a: np.log(a + np.array([[E], [0.1]]))),
    "bound": ([Clip(low=E), Log()], lambda a: np.log(np.maximum(a, E))),
    "decibels": (
        [Clip(E, 1e3), Log(), Affine(20 / np.log(10))],
        lambda a: 20 * np.log10(np.clip(a, E, 1e3)),
    ),
    "reciprocal": ([Affine(1.0, 1.0), Function("1 / x")], lambda a: 1 / (a + 1)),
    "two constants": ([Affine(1.0, E), Affine(1.0, -E), Affine(2.0, E), Log()], lambda a: np.log(2 * a + E)),
    "formula below": ([Function("x * x"), Affine(1.0, E), Log()], lambda a: np.log(a * a + E)),
}


def networks(layers: list[pylrp.layers.Layer]) -> pylrp.Network:
    return pylrp.Network([Conv(KERNEL), ReLU(), *layers, Flatten(), Dense(TOP)], input_shape=(1, 8))


def expected(function: object, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the map, and what functions keep at 0: contributions of each layer, in NumPy."""
    windows = np.lib.stride_tricks.sliding_window_view(X[:, 0], 3, axis=1)
    z = np.einsum("nwk,ok->now", windows, KERNEL[:, 0])
    a = np.maximum(z, 0)
    made, zero = function(a), function(np.zeros_like(a))  # type: ignore[operator]
    above = TOP[target].reshape(2, 6)
    passed = (made - zero) * above  # R / f(a) = the weight, R (f(a) - f(0)) / f(a)
    s = np.divide(passed, z, out=np.zeros_like(z), where=a != 0)
    relevance = np.zeros_like(X[:, 0])
    for k in range(3):
        relevance[:, k : k + 6] += X[:, 0, k : k + 6] * np.einsum("now,o->nw", s, KERNEL[:, 0, k])
    return relevance, (zero * above).sum((1, 2))


@pytest.mark.parametrize("name", CHAINS)
def test_a_constant_before_a_logarithm_is_part_of_it(name: str) -> None:
    layers, function = CHAINS[name]
    net = networks(layers)
    ex = net.explain(X, target=1, composite=pylrp.Composite("all", pylrp.Zero()))
    relevance, kept = expected(function, 1)
    np.testing.assert_allclose(ex.relevance[:, 0], relevance, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sum(row.constant for row in ex.ledger), kept, rtol=1e-10)
    assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-12


def test_what_only_moves_values_may_lie_between() -> None:
    apart = pylrp.Network(
        [Conv(KERNEL), ReLU(), Affine(1.0, E), Transpose((1, 0)), Transpose((1, 0)), Log(), Flatten(), Dense(TOP)],
        input_shape=(1, 8),
    )
    one, other = (net.explain(X, target=0, composite="cp_lrp") for net in (apart, networks(CHAINS["constant"][0])))
    np.testing.assert_array_equal(one.relevance, other.relevance)
    channel = Affine(1.0, np.array([[E], [0.1]]))  # whose axes would have to move along
    layers = [Conv(KERNEL), ReLU(), channel, Transpose((1, 0)), Log(), Flatten(), Dense(TOP)]
    with pytest.raises(pylrp.UnsuitableRule):
        pylrp.Network(layers, input_shape=(1, 8)).explain(X, composite="cp_lrp")


def test_a_constant_that_others_read_stays_for_them() -> None:
    nodes = [
        Node("conv", Conv(KERNEL), ("x",)),
        Node("relu", ReLU(), ("conv",)),
        Node("shift", Affine(1.0, E), ("relu",)),
        Node("log", Log(), ("shift",)),
        Node("both", pylrp.layers.Add(), ("log", "shift")),
        Node("flat", Flatten(), ("both",)),
        Node("top", Dense(TOP), ("flat",)),
    ]
    ex = pylrp.Network.from_graph(Graph({"x": (1, 8)}, nodes, ["top"])).explain(X, target=2, composite="cp_lrp")
    z = np.einsum("nwk,ok->now", np.lib.stride_tricks.sliding_window_view(X[:, 0], 3, axis=1), KERNEL[:, 0])
    a = np.maximum(z, 0)
    np.testing.assert_allclose(ex.output[:, 2], (np.log(a + E) + a + E).reshape(2, -1) @ TOP[2])
    np.testing.assert_allclose(sum(row.constant for row in ex.ledger), (np.log(E) + E) * TOP[2].sum(), rtol=1e-10)
    assert not any(row.batchnorm.any() for row in ex.ledger)


def test_a_logarithm_of_a_sum_of_products_is_still_refused() -> None:
    net = pylrp.Network([Dense(TOP[:2, :4]), Affine(2.0), Log(), Dense(TOP[:, :2])], input_shape=(4,))
    with pytest.raises(pylrp.UnsuitableRule):
        net.explain(np.ones(4), composite="cp_lrp")
