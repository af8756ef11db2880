"""Which factor of a product is the signal: by what the factors come from, under every rule and composite."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.network.graph import Graph, Node
from pylrp.rules import Gate, Half, Signal, Zero

IMAGE = (4, 3, 3)


class Net:
    """A graph in the making, on one input of four channels."""

    def __init__(self, seed=0):
        self.rng, self.nodes = np.random.default_rng(seed), []

    def add(self, name, layer, *inputs):
        self.nodes.append(Node(name, layer, inputs or (self.nodes[-1].name,)))
        return name

    def conv(self, name, value, channels=4):
        return self.add(name, L.Conv(self.rng.normal(size=(channels, 4, 1, 1)), self.rng.normal(size=channels)), value)

    def product(self, *factors, layer=None):
        self.add("p", layer or L.Multiply(), *factors)
        self.add("flat", L.Flatten(), "p")
        self.add("y", L.Dense(self.rng.normal(size=(2, 36))), "flat")
        return pylrp.Network.from_graph(Graph({"x": IMAGE}, self.nodes, ["y"]))


def squeeze(b, *functions):
    """A gate of one number a channel; returns its value."""
    b.add("pool", L.GlobalAveragePool(), "h")
    b.conv("z", "pool")
    for number, function in enumerate(functions):
        b.add(f"f{number}", function)
    return b.nodes[-1].name


HARD = [L.Affine(1.0, 3.0), L.Clip(0.0, 6.0), L.Affine(1 / 6, 0.0)]
GATES = {
    "sigmoid": [L.Sigmoid()],
    "hard sigmoid": [L.HardSigmoid()],
    "softmax": [L.Softmax()],
    "hard sigmoid as a clip": HARD,
    "hard sigmoid as a clip, unscaled": HARD[:2],
    "tanh from 0 to 1": [L.Affine(0.5, 0.0), L.Tanh(), L.Affine(0.5, 0.5)],
    "its complement": [L.Sigmoid(), L.Affine(-1.0, 1.0)],
    "one and a sigmoid": [L.Sigmoid(), L.Affine(1.0, 1.0)],
    "twice a sigmoid": [L.Sigmoid(), L.Affine(2.0, 0.0)],
    "moved and repeated": [L.Sigmoid(), L.Flatten(), L.Reshape((4, 1, 1)), L.Expand(IMAGE)],
    "identity": [L.Sigmoid(), L.Dropout()],
    "sigmoid of a function": [L.Function("sigmoid(abs(x) - 1)")],
    "resized": [L.Sigmoid(), L.Resize((3, 3), mode="linear")],
    "upsampled": [L.Sigmoid(), L.Upsample(3)],
}


def chosen(net, composite="epsilon"):
    """Return the signal's name as the table of layers has it, and the gate's."""
    (line,) = [line for line in str(net.summary(composite)).splitlines() if line.startswith("p ")]
    words = line.replace(",", "").split()
    return words[words.index("signal") + 1], words[words.index("gate") + 1]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", GATES)
def test_a_gate_is_known_by_what_it_comes_from(rng, name, first):
    b = Net()
    b.conv("h", "x")
    gate = squeeze(b, *GATES[name])
    net = b.product(*((gate, "h") if first else ("h", gate)))
    signal, other = chosen(net)
    assert signal == "h"
    assert other != "h"
    x = rng.normal(size=(2, *IMAGE))
    ex = net.explain(x, 1, composite=Zero(), layers="all")
    np.testing.assert_allclose(ex.layers["h"], ex.layers["p"], rtol=1e-12)
    assert not ex.layers["z"].any()


PLAIN = {
    "a negative factor": [L.Sigmoid(), L.Affine(-1.0, 0.0)],
    "less than a sigmoid": [L.Sigmoid(), L.Affine(1.0, -0.5)],
    "relu": [L.ReLU()],
    "relu6": [L.Clip(0.0, 6.0)],
    "tanh": [L.Tanh()],
    "abs": [L.Function("abs(x)")],
    "relu by a formula": [L.Function("max(x, 0)")],
    "nothing": [],
}


@pytest.mark.parametrize("name", PLAIN)
def test_neither_is_a_gate(rng, name):
    b = Net()
    b.conv("h", "x")
    other = squeeze(b, *PLAIN[name])
    net = b.product("h", other)
    x = rng.normal(size=(2, *IMAGE))
    with pytest.raises(pylrp.UndecidedGate) as caught:
        net.explain(x, 1, composite="epsilon")
    error = caught.value
    assert isinstance(error, pylrp.UnsupportedLayer)
    assert (error.node, error.factors[0]) == ("p", "h")
    assert all(repr(name) in str(error) for name in error.factors)
    assert "Gate(signal='h')" in error.way_out
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.factors) == (str(error), error.factors)
    assert "the signal?" in str(net.summary("epsilon"))
    net.forward(x)  # a prediction needs no rule
    halves = net.explain(x, 1, composite=pylrp.Composite("m", Zero(), {"product": Half()}), layers="all")
    np.testing.assert_allclose(
        halves.layers[error.factors[1]].sum(axis=(1, 2, 3)), halves.layers["p"].sum(axis=(1, 2, 3)) / 2, rtol=1e-9
    )
    for said, expected in ((0, "h"), ("h", "h"), (1, error.factors[1]), ("z", error.factors[1])):
        composite = pylrp.Composite("m", Zero(), names={"p": Gate(signal=said)})
        assert chosen(net, composite)[0] == expected
        ex = net.explain(x, 1, composite=composite, layers="all")
        np.testing.assert_allclose(
            ex.layers[expected].sum(axis=(1, 2, 3)), ex.layers["p"].sum(axis=(1, 2, 3)), rtol=1e-9
        )


def test_both_are_gates(rng):
    b = Net()
    b.conv("h", "x")
    gate = squeeze(b, L.Sigmoid())
    b.add("s", L.Sigmoid(), "h")
    net = b.product("s", gate)
    with pytest.raises(pylrp.UndecidedGate) as caught:
        net.explain(rng.normal(size=IMAGE), 1, composite="epsilon")
    assert caught.value.factors == ("s", gate)


def test_a_gate_made_of_two_needs_no_decision(rng):
    """Nothing comes to a product inside of a gate, and a product of gates is a gate."""
    b = Net()
    b.conv("h", "x")
    gate = squeeze(b, L.Sigmoid())
    b.add("two", L.Multiply(), gate, b.add("other", L.Sigmoid(), b.conv("z2", "x")))
    net = b.product("two", "h")
    assert chosen(net) == ("h", "two")
    b = Net()
    b.conv("h", "x")
    b.add("plain", L.Multiply(), "h", b.conv("k", "x"))
    b.add("g", L.Sigmoid(), b.conv("z", "plain"))
    net = b.product("h", "g")
    assert np.isfinite(net.explain(rng.normal(size=IMAGE), 1, composite="epsilon").relevance).all()


SELF_GATED = (L.SiLU, L.GELU, L.HardSwish)
QUICK = L.Function("x * sigmoid(1.702 * x)")


@pytest.mark.parametrize("function", [*(k() for k in SELF_GATED), QUICK], ids=repr)
def test_gated_units(rng, function):
    """SwiGLU and its kin: the other branch takes all, but where a composite halves products."""
    b = Net()
    b.conv("up", "x")
    b.add("gate", function, b.conv("g", "x"))
    net = b.product("gate", "up")
    assert chosen(net) == ("up", "gate")
    x = rng.normal(size=(2, *IMAGE))
    ex = net.explain(x, 1, composite=pylrp.Composite("m", Zero(), {"product": Half()}), layers="all")
    for name in ("up", "gate"):
        np.testing.assert_allclose(ex.layers[name], ex.layers["p"] / 2, rtol=1e-12)
    ex = net.explain(x, 1, composite=Zero(), layers="all")
    np.testing.assert_allclose(ex.layers["up"], ex.layers["p"], rtol=1e-12)


def test_sigmoid_gates_are_never_halved_but_by_name(rng):
    b = Net()
    b.conv("h", "x")
    net = b.product(squeeze(b, L.Sigmoid()), "h")
    x = rng.normal(size=(2, *IMAGE))
    halving = pylrp.Composite("m", Zero(), {"product": Half()})
    ex = net.explain(x, 1, composite=halving, layers="all")
    np.testing.assert_allclose(ex.layers["h"], ex.layers["p"], rtol=1e-12)
    assert ex.ledger["p"].rule == "Signal()"
    by_name = pylrp.Composite("m", Zero(), names={"p": Half()})
    assert net.explain(x, 1, composite=by_name).ledger["p"].rule == "Half()"
    for name in pylrp.COMPOSITES:
        assert chosen(net, name)[0] == "h"


def test_the_same_value_twice_and_its_own_gate(rng):
    """x x, x sigmoid(x) and x hard sigmoid(x) are functions of one value with f(0) = 0: relevance passes."""
    for function in (None, L.Sigmoid(), L.HardSigmoid(), L.SiLU()):
        b = Net()
        b.conv("h", "x")
        other = "h" if function is None else b.add("f", function, "h")
        net = b.product("h", other)
        for rule in (Signal(), Half()):
            composite = pylrp.Composite("m", Zero(), {"product": rule})
            ex = net.explain(rng.normal(size=(2, *IMAGE)), 0, composite=composite, layers="all")
            np.testing.assert_allclose(ex.layers["h"], ex.layers["p"], rtol=1e-12)


def test_rules_that_do_not_fit(rng):
    b = Net()
    b.conv("h", "x")
    net = b.product(squeeze(b, L.Sigmoid()), "h")
    x = rng.normal(size=IMAGE)
    for rule in (pylrp.Pass(), pylrp.Norm(), pylrp.Epsilon(), pylrp.rules.Taylor()):
        with pytest.raises(ValueError, match="product"):
            net.explain(x, 0, composite=pylrp.Composite("m", Zero(), names={"p": rule}))
    with pytest.raises(ValueError, match="no factor"):
        net.explain(x, 0, composite=pylrp.Composite("m", Zero(), names={"p": Gate(signal="nowhere")}))
    b = Net()
    net = b.product(b.conv("h", "x"), b.conv("k", "x"))
    with pytest.raises(ValueError, match="no factor"):  # it leads to both
        net.explain(x, 0, composite=pylrp.Composite("m", Zero(), names={"p": Gate(signal="x")}))
    for signal in (2, -1, True, 0.5, None):
        with pytest.raises(ValueError, match="signal"):
            Gate(signal=signal)


def test_a_signal_that_was_said_stays(rng):
    b = Net()
    b.conv("h", "x")
    net = b.product(squeeze(b, L.Sigmoid()), "h", layer=L.Multiply(signal=0))
    assert chosen(net)[0] != "h"
