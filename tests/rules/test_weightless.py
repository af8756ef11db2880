"""Rules of layers without weights: functions by their contributions, softmax inside a network, who takes what.

Expected numbers are the formulas of the rules written out in float64 NumPy; nothing of the library computes them.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.rules import WEIGHTLESS, Detach, DetachAll, Epsilon, Gamma, Norm, Pass, Stop, Zero

ROOT = Path(__file__).parents[2]


def erf(x):
    return np.vectorize(math.erf)(x)


FUNCTIONS = {
    "sigmoid": (L.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
    "softplus": (L.Softplus(), lambda x: np.log1p(np.exp(x))),
    "hard sigmoid": (L.HardSigmoid(0.2, 0.5), lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    "clip above zero": (L.Clip(0.5, 2.0), lambda x: np.clip(x, 0.5, 2.0)),
    "relu": (L.ReLU(), lambda x: np.maximum(x, 0)),
    "gelu": (L.GELU(), lambda x: x * (1 + erf(x / np.sqrt(2))) / 2),
    "tanh": (L.Tanh(), np.tanh),
    "prelu": (L.PReLU([0.1, -0.3, 0.5, 2.0, 0.0]), lambda x: np.where(x < 0, x * [0.1, -0.3, 0.5, 2.0, 0.0], x)),
}


@pytest.fixture
def weights(rng):
    return rng.normal(size=(5, 4)), rng.normal(size=(3, 5))


def network(weights, middle, dtype=np.float64):
    below, above = (w.astype(dtype) for w in weights)
    return pylrp.Network([L.Dense(below, name="below"), middle, L.Dense(above, name="above")])


def stabilised(z, epsilon):
    return np.where(z < 0, z - epsilon, z + epsilon)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("rule", "epsilon"), [(Zero(), 0.0), (Epsilon(0.25), 0.25), (Norm(), 1e-6)], ids=repr)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_by_their_contributions(rng, weights, name, rule, epsilon, dtype):
    layer, f = FUNCTIONS[name]
    layer = L.PReLU(np.asarray(layer.slope, dtype)) if name == "prelu" else layer
    net = network(weights, layer, dtype)
    x = rng.normal(size=(6, 4)).astype(dtype)
    composite = pylrp.Composite("mine", Zero(), {"function": rule})
    ex = net.explain(x, target=1, composite=composite, layers="all")
    z = x.astype(np.float64) @ weights[0].T
    y, zero = f(z), f(np.zeros(z.shape))
    incoming = y * weights[1][1]  # the top layer has no stabiliser
    q = np.divide(incoming, stabilised(y, epsilon), out=np.zeros_like(y), where=y != 0)
    node = net.graph.nodes[1].name
    tolerance = 1e-12 if dtype == np.float64 else 2e-5
    np.testing.assert_allclose(ex.layers["below"], (y - zero) * q, atol=tolerance)
    row = ex.ledger[node]
    assert row.rule == repr(rule)
    np.testing.assert_allclose(row.incoming, incoming.sum(1), atol=tolerance)
    np.testing.assert_allclose(row.constant, (zero * q).sum(1), atol=tolerance)
    np.testing.assert_allclose(row.stabilizer, np.where(y != 0, incoming - y * q, 0).sum(1), atol=tolerance)
    np.testing.assert_allclose(row.rounding, 0, atol=tolerance)


def test_several_targets_and_threads(rng, weights):
    net = network(weights, L.Sigmoid())
    x = rng.normal(size=(300, 4))
    composite = pylrp.Composite("mine", Zero(), {"function": Norm()})
    together = net.explain(x, targets=[0, 2], composite=composite, threads=2).relevance
    for t, target in enumerate((0, 2)):
        np.testing.assert_array_equal(together[:, t], net.explain(x, target, composite=composite, threads=1).relevance)


OF_ZENNIT = sorted({*pylrp.COMPOSITES} - {"epsilon_gamma_box", "attnlrp", "cp_lrp", "attnlrp_gamma"})


@pytest.mark.parametrize("name", OF_ZENNIT)
def test_composites_of_zennit_pass_relevance_through_functions(rng, weights, name):
    net = network(weights, L.Sigmoid())
    x = rng.uniform(size=(4, 4))
    ex = net.explain(x, 0, composite=name, layers="all")
    np.testing.assert_array_equal(ex.layers["below"], ex.layers[net.graph.nodes[1].name])
    assert net.graph.nodes[1].name not in ex.ledger.names


@pytest.mark.parametrize("given", ["attnlrp", Zero(), [Zero(), Zero()], pylrp.Composite("mine", Zero())], ids=repr)
@pytest.mark.parametrize("name", ["sigmoid", "softplus", "hard sigmoid", "clip above zero", "tanh", "prelu"])
def test_what_a_function_gives_for_zero_takes_its_share_elsewhere(rng, weights, name, given):
    layer, f = FUNCTIONS[name]
    layer = L.PReLU(np.asarray(layer.slope, np.float64)) if name == "prelu" else layer
    net = network(weights, layer)
    x = rng.normal(size=(4, 4))
    ex = net.explain(x, 0, composite=given, layers="all")
    node = net.graph.nodes[1].name
    z = x @ weights[0].T
    y, zero = f(z), f(np.zeros(z.shape))
    share = np.divide(y - zero, y, out=np.zeros_like(y), where=y != 0) if zero.any() else np.ones_like(y)
    np.testing.assert_allclose(ex.layers["below"], ex.layers[node] * share, rtol=1e-12)
    assert (node in ex.ledger.names) == bool(zero.any())
    passed = net.explain(x, 0, composite=pylrp.Composite("m", Zero(), {"function": Pass()}), layers="all")
    np.testing.assert_array_equal(passed.layers["below"], passed.layers[node])


def test_a_function_without_a_value_at_zero(rng):
    layers = [L.Dense(rng.uniform(size=(5, 4))), L.Log(name="f"), L.Dense(rng.normal(size=(2, 5)))]
    x = rng.uniform(1, 2, size=(3, 4))
    for middle in (layers[1], L.Function("log(x)", name="f"), L.Function("1 / x", name="f")):
        net = pylrp.Network([layers[0], middle, layers[2]])
        with pytest.raises(pylrp.UnsuitableRule) as caught:
            net.explain(x, 0, composite=Zero())
        assert caught.value.node == "f"
        assert "names={'f': pylrp.Pass()}" in caught.value.way_out
        ways = (pylrp.Composite("m", Zero(), names={"f": Pass()}), "epsilon")
        for composite in ways:
            ex = net.explain(x, 0, composite=composite, layers="all")
            np.testing.assert_array_equal(ex.layers["0"], ex.layers["f"])


def softmax_by_hand(z, R):
    P = np.exp(z - z.max(1, keepdims=True))
    P /= P.sum(1, keepdims=True)
    return P, z * (R - P * R.sum(1, keepdims=True))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_softmax_inside(rng, weights, dtype):
    net = network(weights, L.Softmax(), dtype)
    x = rng.normal(size=(6, 4)).astype(dtype)
    ex = net.explain(x, 2, composite="epsilon", layers="all")
    z = x.astype(np.float64) @ weights[0].T
    P, _ = softmax_by_hand(z, np.zeros(z.shape))
    y = P @ weights[1][2]
    incoming = P * weights[1][2] * (y / stabilised(y, 1e-6))[:, None]
    tolerance = 1e-12 if dtype == np.float64 else 2e-5
    expected = softmax_by_hand(z, incoming)[1]
    np.testing.assert_allclose(ex.layers["below"], expected, atol=tolerance)
    row = ex.ledger[net.graph.nodes[1].name]
    np.testing.assert_allclose(row.softmax, incoming.sum(1) - expected.sum(1), atol=tolerance)
    assert row.rule == "Taylor()"
    np.testing.assert_allclose(row.rounding, 0, atol=tolerance)


def test_softmax_as_a_constant(rng, weights):
    net = network(weights, L.Softmax())
    x = rng.normal(size=(6, 4))
    ex = net.explain(x, 2, composite=pylrp.Composite("stopped", Epsilon(), {"softmax": Stop()}), layers="all")
    assert not ex.relevance.any()
    row = ex.ledger[net.graph.nodes[1].name]
    np.testing.assert_allclose(row.softmax, row.incoming, rtol=1e-12)
    assert np.abs(row.incoming).min() > 0


def test_softmax_over_the_channels_of_each_position(rng):
    w = rng.normal(size=(3, 2, 1, 1))
    net = pylrp.Network([L.Conv(w, name="c"), L.Softmax(), L.Flatten(), L.Dense(rng.normal(size=(2, 18)))], (2, 2, 3))
    x = rng.normal(size=(2, 2, 2, 3))
    ex = net.explain(x, 0, composite=pylrp.Composite("z", Zero()), layers="all")
    z = np.einsum("oi,bihw->bohw", w[:, :, 0, 0], x).transpose(0, 2, 3, 1).reshape(-1, 3)
    R = ex.layers[net.graph.nodes[1].name].transpose(0, 2, 3, 1).reshape(-1, 3)
    found = ex.layers["c"].transpose(0, 2, 3, 1).reshape(-1, 3)
    np.testing.assert_allclose(found, softmax_by_hand(z, R)[1], atol=1e-12)


def test_a_softmax_at_the_top_takes_no_rule(rng, weights):
    layers = [L.Dense(weights[0]), L.ReLU(), L.Dense(weights[1], name="last"), L.Softmax(name="p")]
    kept = pylrp.Network.from_graph(pylrp.network.Graph.sequential(layers), keep_top=True)
    x = rng.normal(size=(3, 4))
    ex = kept.explain(x, 1, composite="epsilon", layers="all")
    np.testing.assert_array_equal(ex.layers["p"], ex.layers["last"])
    assert "Taylor" not in str(kept.summary("epsilon"))


@pytest.mark.parametrize("rule", [Detach(), DetachAll(), Pass()], ids=repr)
def test_normalisations_without_a_mean_pass(rng, weights, rule):
    net = network(weights, L.Normalize())
    x = rng.normal(size=(3, 4))
    plain = net.explain(x, 1, composite="epsilon")
    ex = net.explain(x, 1, composite=pylrp.Composite("mine", Epsilon(), {"normalisation": rule}), layers="all")
    np.testing.assert_array_equal(ex.relevance, plain.relevance)
    np.testing.assert_array_equal(ex.layers["below"], ex.layers[net.graph.nodes[1].name])


def test_rules_by_name_position_and_pattern(weights):
    net = pylrp.Network([L.Dense(weights[0], name="block.a"), L.Sigmoid(name="block.f"), L.Dense(weights[1])])

    def chosen(**names):
        table = str(net.summary(pylrp.Composite("m", Zero(), **names)))
        return [line.split("  ")[-1].strip() for line in table.splitlines()]

    assert chosen()[2:5] == ["Zero()", "Zero()", "Zero()"]
    assert chosen(kinds={"function": Pass()})[2:5] == ["Zero()", "passes", "Zero()"]
    assert chosen(names={"block.f": Norm()})[2:5] == ["Zero()", "Norm()", "Zero()"]
    assert chosen(names={"block.*": Gamma()})[2:5] == ["Gamma(0.25)", "Zero()", "Zero()"]
    assert chosen(names={"*.f": Norm()})[2:5] == ["Zero()", "Norm()", "Zero()"]
    assert chosen(kinds={"function": Epsilon(0.5)})[2:5] == ["Zero()", "Epsilon(0.5)", "Zero()"]


def an_instance(name):
    made = getattr(pylrp.rules, name)
    return made(0.0, 1.0) if name == "ZBox" else made(0) if name == "Gate" else made()


EVERY = ["Zero", "Epsilon", "Gamma", "ZPlus", "AlphaBeta", "WSquare", "Flat", "ZBox", "Norm", "Pass"]
EVERY += [rule.__name__ for rule in pylrp.rules.TREATMENTS]
LAYERS = {
    "pool": [L.Conv(np.ones((1, 1, 1, 1)), name="w"), L.AveragePool(2, name="l")],
    "batchnorm": None,
    "resize": [L.Conv(np.ones((1, 1, 1, 1)), name="w"), L.Resize((3, 3), mode="linear", name="l")],
    "function": [L.Conv(np.ones((1, 1, 1, 1)), name="w"), L.Sigmoid(name="l"), L.Flatten(), L.Dense(np.ones((2, 16)))],
    "softmax": [L.Conv(np.ones((1, 1, 1, 1)), name="w"), L.Softmax(name="l"), L.Flatten(), L.Dense(np.ones((2, 16)))],
    "normalisation": [L.Conv(np.ones((1, 1, 1, 1)), name="w"), L.Normalize(name="l")],
    "conv": [L.Conv(np.ones((1, 1, 1, 1)), name="l")],
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", [kind for kind, layers in LAYERS.items() if layers])
def test_what_fits_explains_and_what_does_not_is_refused(rng, kind, name):
    net = pylrp.Network(LAYERS[kind], (1, 4, 4))
    x = rng.uniform(size=(2, 1, 4, 4))
    fits = name in WEIGHTLESS[kind].rules if kind in WEIGHTLESS else name in EVERY[:10]
    composite = pylrp.Composite("mine", Zero(), names={"l": an_instance(name)})
    top = np.ones((2, *net.graph.shapes[net.graph.outputs[0]]))
    if fits:
        assert np.isfinite(net.explain(x, top, composite=composite).relevance).all()
    else:
        with pytest.raises(ValueError, match=name):
            net.explain(x, top, composite=composite)


def test_the_documentation_has_the_table():
    text = (ROOT / "docs/rules.md").read_text()
    rows = dict(re.findall(r'^\| `"(\w+)"` \| [^|]* \| ([^|]*) \|$', text, re.M))
    for kind, entry in WEIGHTLESS.items():
        assert {name.strip("` ()") for name in rows[kind].split(",")} == set(entry.rules), kind
