"""LSTM, GRU and RNN against the oracle of ``reference/recurrent.py``: every option, alone and with the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reference import recurrent as oracle

import pylrp
from pylrp.errors import UnsuitableRule
from pylrp.layers import GRU, LSTM, RNN, Add, Affine, Concat, Dense, Multiply, Sigmoid, Slice, Tanh
from pylrp.network.graph import Graph, Node
from pylrp.network.network import Network
from pylrp.rules.composites import COMPOSITES

LAYERS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
LETTERS = {"lstm": "ifgo", "gru": "rzn", "rnn": "n"}
FUNCTIONS = {
    "sigmoid": oracle.sigmoid,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "softsign": lambda z: z / (1 + np.abs(z)),
    ("affine", 0.8, 0.1): lambda z: 0.8 * z + 0.1,
    ("scaled_tanh", 1.5, 0.7): lambda z: 1.5 * np.tanh(0.7 * z),
    ("thresholded_relu", 0.2, 0.0): lambda z: np.where(z > 0.2, z, 0),
    ("leaky_relu", 0.1, 0.0): lambda z: np.where(z < 0, 0.1 * z, z),
    ("elu", 0.9, 0.0): lambda z: np.where(z < 0, 0.9 * np.expm1(np.minimum(z, 0)), z),
    ("hard_sigmoid", 0.2, 0.5): lambda z: np.clip(0.2 * z + 0.5, 0, 1),
}


class Case:
    """A layer with random weights, and the oracle's cells."""

    def __init__(
        self,
        kind: str,
        *,
        steps: int = 6,
        features: int = 3,
        units: int = 4,
        directions: int = 1,
        direction: str | None = None,
        returns: str = "last",
        constant_states: bool = True,
        takes: tuple[str, ...] = (),
        mask: str = "",
        batch: int = 3,
        seed: int = 0,
        scale: float = 1.0,
        dtype: Any = np.float64,
        **settings: Any,
    ):
        rng = np.random.default_rng(seed)
        letters = LETTERS[kind]
        self.kind, self.units, self.directions, self.returns, self.mask = kind, units, directions, returns, mask
        self.reverse = [direction == "reverse"] if directions == 1 else [False, True]
        lead = (2,) if directions == 2 else ()
        rows = len(letters) * units

        def draw(*shape: int) -> Any:
            return (scale * rng.normal(size=shape)).astype(dtype)

        self.arrays = [draw(*lead, rows, features), draw(*lead, rows, units), draw(*lead, rows), draw(*lead, rows)]
        self.states = {name: np.zeros((batch, directions, units)) for name in "hc"}
        given: dict[str, Any] = {}
        for name in ("h", "c") if kind == "lstm" else ("h",):
            if name in takes:
                self.states[name] = draw(batch, directions, units)
            elif constant_states:
                given[f"first_{name}"] = draw(directions, units)
                self.states[name] = np.broadcast_to(given[f"first_{name}"], (batch, directions, units))
        self.peepholes = draw(directions, 3 * units) if settings.pop("peepholes", False) else None
        if self.peepholes is not None:
            given["peepholes"] = self.peepholes
        self.settings = settings
        self.layer = LAYERS[kind](*self.arrays, direction=direction, returns=returns, takes=takes, **given, **settings)
        self.x = draw(batch, steps, features)
        self.lengths = rng.permutation(np.linspace(0, steps, batch).astype(int)) if mask == "lengths" else None
        self.part = np.ones((batch, steps), bool)
        if mask == "lengths":
            self.part = np.arange(steps) < self.lengths[:, None]
        elif mask == "steps":
            self.part = rng.random((batch, steps)) < 0.6
        inputs: dict[str, Any] = {"x": self.x}
        if mask:
            inputs["lengths"] = (self.lengths[:, None] if mask == "lengths" else self.part).astype(dtype)
        inputs |= {name: self.states[name].reshape(batch, -1).astype(dtype) for name in takes if name in "hc"}
        self.inputs = inputs if len(inputs) > 1 else self.x
        shapes = {name: array.shape[1:] for name, array in inputs.items()}
        self.net = Network.from_graph(Graph(shapes, [Node("rnn", self.layer, tuple(shapes))], ["rnn"]))

    def cell(self, d: int) -> oracle.Cell:
        arrays = [np.asarray(a if self.directions == 1 else a[d], np.float64) for a in self.arrays]
        settings = dict(self.settings)
        names = settings.pop("activations", None)
        curves = [FUNCTIONS[name] for name in names or ()]
        if self.kind == "rnn" and curves:
            settings["inner"] = curves[0]
        elif curves:
            settings |= dict(zip(("gate", "inner", "outer"), curves, strict=False))
        settings.pop("carried", None)
        if self.peepholes is not None:
            settings["peepholes"] = oracle.split(np.asarray(self.peepholes[d], np.float64), "ifo")
        return oracle.cell(self.kind, LETTERS[self.kind], *arrays, **settings)

    def expected(self, top: Any, epsilon: float = 0.0) -> dict[str, Any]:
        """Return output, relevance of every input and what was absorbed, for the relevance of the output."""
        batch, steps, _ = self.x.shape
        units, carried = self.units, self.settings.get("carried", False)
        made = {"output": np.zeros(top.shape), "x": np.zeros(self.x.shape), "lost": [{} for _ in range(batch)]}
        made |= {name: np.zeros((batch, self.directions, units)) for name in "hc"}
        for n in range(batch):
            for d in range(self.directions):
                cell, order = self.cell(d), slice(None, None, -1 if self.reverse[d] else 1)
                h, c = (np.asarray(self.states[name][n, d], np.float64) for name in "hc")
                part = self.part[n][order]
                walked = oracle.forward(cell, np.asarray(self.x[n][order], np.float64), h, c, part)
                last_h = [step.h for step in walked if step] or [h]
                last_c = [step.c for step in walked if step] or [c]
                own = slice(d * units, (d + 1) * units)
                r_steps, r_h, r_c = np.zeros((steps, units)), np.zeros(units), np.zeros(units)
                sequence = np.zeros((steps, units))
                for t, step in enumerate(walked):
                    before = next((s.h for s in walked[t::-1] if s), h)
                    sequence[t] = before if carried else step.h if step else 0
                if self.returns == "last":
                    made["output"][n, own], r_h = last_h[-1], top[n, own]
                elif self.returns == "sequence":
                    made["output"][n, :, own] = sequence[order]
                    r_steps = top[n, :, own][order]
                else:
                    ends = np.cumsum([steps * self.directions * units, self.directions * units])
                    parts, out = np.split(top[n], ends), np.split(made["output"][n], ends)
                    out[0].reshape(steps, -1)[:, own] = sequence[order]
                    out[1][own] = last_h[-1]
                    r_steps, r_h = parts[0].reshape(steps, -1)[:, own][order], parts[1][own]
                    if self.kind == "lstm":
                        out[2][own], r_c = last_c[-1], parts[2][own]
                if carried:  # what arrives at a step that is left out belongs to the step before
                    moved = np.zeros_like(r_steps)
                    at_start = np.zeros(units)
                    for t in range(steps):
                        at = next((s for s in range(t, -1, -1) if walked[s]), None)
                        if at is None:
                            at_start += r_steps[t]
                        else:
                            moved[at] += r_steps[t]
                    r_steps = moved
                else:
                    at_start = np.zeros(units)
                if not any(walked):
                    at_start, r_h = at_start + r_h, np.zeros(units)
                r_x, r_first, r_first_c, lost = oracle.backward(cell, walked, r_steps, r_h, r_c, epsilon=epsilon)
                r_first = r_first + np.where(h == 0, 0, at_start)
                made["x"][n] += r_x[order]
                made["h"][n, d], made["c"][n, d] = r_first, r_first_c
                for name, value in lost.items():
                    made["lost"][n][name] = made["lost"][n].get(name, 0.0) + value
        return made


def check(case: Case, composite: Any = "epsilon", epsilon: float = 0.0, tolerance: float = 1e-9) -> None:
    top = np.random.default_rng(1).normal(size=case.net.forward(case.inputs).shape).astype(case.x.dtype)
    ex = case.net.explain(case.inputs, target=top, composite=composite)
    expected = case.expected(top, epsilon)
    np.testing.assert_allclose(ex.output, expected["output"], atol=tolerance)
    relevance = ex.relevance if isinstance(ex.relevance, dict) else {"x": ex.relevance}
    scale = max(np.abs(expected["x"]).max(), 1.0)
    for name, found in relevance.items():
        if name != "lengths":
            np.testing.assert_allclose(found, expected[name].reshape(found.shape), atol=tolerance * scale)
    row = ex.ledger[0]
    state = sum(expected[name].sum(axis=(1, 2)) for name in "hc" if name not in relevance)
    for n, lost in enumerate(expected["lost"]):
        for name in ("bias", "stabilizer", "constant", "dead"):
            assert getattr(row, name)[n] == pytest.approx(lost.get(name, 0.0), abs=tolerance * scale * 100), name
        if np.ndim(state):
            assert row.state[n] == pytest.approx(state[n], abs=tolerance * scale * 100)
    assert np.abs(row.rounding).max() <= tolerance * scale * 100


@pytest.mark.parametrize("returns", ["last", "sequence", "all"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_every_kind_and_output(kind: str, directions: int, returns: str) -> None:
    check(Case(kind, directions=directions, returns=returns))


OPTIONS: dict[str, dict[str, Any]] = {
    "reverse": {"direction": "reverse"},
    "one step": {"steps": 1},
    "zero states": {"constant_states": False},
    "states are inputs": {"takes": ("h", "c"), "directions": 2},
    "h is an input": {"takes": ("h",), "returns": "all"},
    "peepholes": {"peepholes": True, "directions": 2},
    "peepholes and clip": {"peepholes": True, "clip": 0.7},
    "clip": {"clip": 0.5},
    "coupled": {"coupled": True},
    "cell with f(0) != 0": {"activations": ("sigmoid", "sigmoid", "tanh")},
    "cell with f(0) != 0 and clip": {"activations": ("sigmoid", "sigmoid", "sigmoid"), "clip": 0.4},
    "output with f(0) != 0": {"activations": ("sigmoid", "tanh", "softplus")},
    "both": {"activations": ("sigmoid", ("affine", 0.8, 0.1), "sigmoid"), "scale": 0.5},
    "hard sigmoid": {"activations": (("hard_sigmoid", 0.2, 0.5), "softsign", ("elu", 0.9, 0.0))},
    "relu": {"activations": ("sigmoid", "relu", ("scaled_tanh", 1.5, 0.7)), "scale": 0.5},
    "thresholded": {"activations": ("sigmoid", ("thresholded_relu", 0.2, 0.0), ("leaky_relu", 0.1, 0.0))},
    "many features": {"features": 300, "units": 37, "scale": 0.1, "steps": 5},
    "batch of 40": {"batch": 40, "units": 7},
    "no features' worth": {"features": 1, "units": 1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_an_lstm(name: str) -> None:
    check(Case("lstm", **OPTIONS[name]))


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("options", [{}, {"directions": 2, "returns": "sequence"}, {"clip": 0.6}, {"takes": ("h",)}])
def test_options_of_a_gru(options: dict[str, Any], reset_after: bool) -> None:
    check(Case("gru", reset_after=reset_after, **options))


@pytest.mark.parametrize("function", ["relu", "sigmoid", "softplus"])
def test_functions_of_an_rnn(function: str) -> None:
    check(Case("rnn", activations=(function,), scale=0.5))


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("mask", ["lengths", "steps"])
@pytest.mark.parametrize("returns", ["last", "sequence", "all"])
@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_steps_that_are_left_out(kind: str, returns: str, mask: str, carried: bool) -> None:
    """Lengths from 0 to all, in both directions: the reverse one begins at the last step that takes part."""
    case = Case(kind, returns=returns, mask=mask, takes=("lengths",), directions=2, carried=carried, batch=5)
    check(case)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_stabilised(kind: str) -> None:
    rule = pylrp.Composite("mine", pylrp.Epsilon(), {"recurrent": pylrp.Epsilon(0.01)})
    check(Case(kind, directions=2, returns="sequence"), rule, 0.01)


def test_float32() -> None:
    check(Case("lstm", directions=2, returns="sequence", dtype=np.float32, scale=0.5), tolerance=2e-4)


@pytest.mark.parametrize("units", [5, 16, 37])
@pytest.mark.parametrize("batch", [1, 2, 3, 17])
def test_samples_few_and_many(batch: int, units: int) -> None:
    """Few rows have a product of their own, steps of an LSTM a kernel: every batch is the oracle's."""
    for kind in ("lstm", "gru"):
        check(Case(kind, batch=batch, units=units, features=7, directions=2, returns="sequence", scale=0.4))


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_one_step_and_none(kind: str) -> None:
    check(Case(kind, steps=1, directions=2, returns="all"))
    case = Case(kind, takes=("lengths",), mask="lengths", batch=1)  # of length 0: the first state is the last one
    ex = case.net.explain(case.inputs, target=0)
    assert not case.lengths.any()
    assert not ex.relevance["x"].any() if isinstance(ex.relevance, dict) else not ex.relevance.any()
    np.testing.assert_allclose(ex.ledger[0].state, ex.output[:, 0])
    np.testing.assert_allclose(ex.output, case.states["h"][:, 0])


def test_zero_states_hand_on_nothing_and_are_handed_nothing() -> None:
    """A first state of zeros is none; as inputs, zeros get no relevance."""
    case = Case("lstm", constant_states=False)
    given = Case("lstm", constant_states=False, takes=("h", "c"))
    inputs = {**given.inputs, "h": np.zeros((3, 4)), "c": np.zeros((3, 4))}
    one, other = case.net.explain(case.x, target=1), given.net.explain({**inputs, "x": case.x}, target=1)
    zeros = Network([LSTM(*case.arrays, first_h=np.zeros(4), first_c=np.zeros(4))], input_shape=(6, 3))
    np.testing.assert_allclose(zeros.explain(case.x, target=1).relevance, one.relevance, atol=1e-14)
    assert not other.relevance["h"].any()
    assert not other.relevance["c"].any()
    assert not zeros.explain(case.x, target=1).ledger[0].state.any()


def test_many_targets_are_one_by_one() -> None:
    case = Case("lstm", directions=2)
    together = case.net.explain(case.x, targets=[1, 5, 2])
    for i, target in enumerate((1, 5, 2)):
        np.testing.assert_allclose(
            together.relevance[:, i], case.net.explain(case.x, target=target).relevance, atol=1e-12
        )


def test_equal_bits_for_any_number_of_threads() -> None:
    case = Case("lstm", directions=2, returns="sequence", batch=40, steps=20, units=24, features=16, dtype=np.float32)
    one, two = (case.net.explain(case.x, target=case.net.forward(case.x), threads=n) for n in (1, 2))
    assert np.array_equal(one.relevance, two.relevance)
    assert np.array_equal(one.output, two.output)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("bias", [-1e4, 1e4])
def test_saturated_gates(kind: str, bias: float) -> None:
    """Gates of exactly 0 and 1: nothing is NaN, and what has no receiver is counted."""
    case = Case(kind, returns="sequence")
    for gate in range(len(LETTERS[kind])):
        if LETTERS[kind][gate] != ("g" if kind == "lstm" else "n"):
            case.arrays[2][gate * case.units : (gate + 1) * case.units] = bias
    case.layer = LAYERS[kind](*case.arrays, returns="sequence")
    case.states = {name: np.zeros((3, 1, case.units)) for name in "hc"}
    case.net = Network([case.layer], input_shape=case.x.shape[1:])
    check(case)


def test_a_long_sequence() -> None:
    case = Case("lstm", steps=5000, batch=1, scale=0.3, returns="sequence")
    check(case)


def _unrolled(case: Case) -> Network:
    """Return the LSTM as dense layers, functions and products, a step after the other."""
    w, u, b, rb = case.arrays
    units, (steps, features) = case.units, case.x.shape[1:]
    gates = {name: slice(k * units, (k + 1) * units) for k, name in enumerate("ifgo")}
    nodes: list[Node] = []

    def add(name: str, layer: Any, *inputs: str) -> str:
        nodes.append(Node(name, layer, inputs))
        return name

    h, c = "h", "c"
    for t in range(steps):
        x = add(f"x{t}", Slice([t * features], [(t + 1) * features], [0]), "x")
        state = add(f"in{t}", Concat(0), x, h)
        sums = {
            name: add(f"{name}_sum{t}", Dense(np.hstack([w[at], u[at]]), b[at] + rb[at]), state)
            for name, at in gates.items()
        }
        i, f, o = (add(f"{name}{t}", Sigmoid(), sums[name]) for name in "ifo")
        g = add(f"g{t}", Tanh(), sums["g"])
        new = add(f"ig{t}", Multiply(signal=0), g, i)
        c = add(f"c{t}", Add(), new, add(f"fc{t}", Multiply(signal=0), c, f))
        h = add(f"h{t}", Multiply(signal=0), add(f"tanh{t}", Tanh(), c), o)
    return Network.from_graph(Graph({"x": (steps * features,), "h": (units,), "c": (units,)}, nodes, [h]))


def test_one_pass_is_the_unrolled_network_with_the_same_rules() -> None:
    case = Case("lstm", takes=("h", "c"))
    rules = {"recurrent": pylrp.Epsilon(0.001), "add": pylrp.Epsilon(0.001)}
    composite = pylrp.Composite("mine", pylrp.Epsilon(0.001), rules)
    plain = _unrolled(case)
    flat = {**case.inputs, "x": case.x.reshape(len(case.x), -1)}
    np.testing.assert_allclose(plain.forward(flat), case.net.forward(case.inputs), atol=1e-14)
    expected = plain.explain(flat, target=2, composite=composite)
    found = case.net.explain(case.inputs, target=2, composite=composite)
    for name, relevance in found.relevance.items():
        np.testing.assert_allclose(relevance.reshape(len(relevance), -1), expected.relevance[name], atol=1e-12)


def test_gates_hand_nothing_down() -> None:
    """A feature that only gates read gets no relevance, though the output follows it."""
    case = Case("lstm", directions=1, returns="sequence")
    w = case.arrays[0].copy()
    w[2 * case.units : 3 * case.units, 0] = 0  # feature 0 is none of the cell gate's
    net = Network([LSTM(w, *case.arrays[1:])], input_shape=case.x.shape[1:])
    changed = case.x.copy()
    changed[..., 0] += 1
    assert np.abs(net.forward(changed) - net.forward(case.x)).max() > 0.01
    ex = net.explain(case.x, target=0)
    assert np.abs(ex.relevance[..., 1:]).max() > 0
    assert np.array_equal(ex.relevance[..., 0], np.zeros_like(ex.relevance[..., 0]))


@pytest.mark.parametrize("rule", [pylrp.rules.Half(), pylrp.ZPlus(), pylrp.Gamma(0.5), pylrp.Pass(), pylrp.Flat()])
def test_rules_that_do_not_fit(rule: Any) -> None:
    case = Case("lstm")
    with pytest.raises(UnsuitableRule) as caught:
        case.net.explain(case.x, composite=pylrp.Composite("mine", pylrp.Epsilon(), {"recurrent": rule}))
    assert caught.value.rule == repr(rule)


@pytest.mark.parametrize("name", [name for name in COMPOSITES if "box" not in name])
def test_every_composite_takes_gates_for_constants(name: str) -> None:
    """Also where the layer comes first: what a composite has for first layers is for dense ones and convolutions."""
    case = Case("lstm")
    head = Dense(np.random.default_rng(3).normal(size=(2, case.units)))
    alone = Network([case.layer], input_shape=case.x.shape[1:])
    net = Network([case.layer, head], input_shape=case.x.shape[1:])
    ex = net.explain(case.x, target=1, composite=name)
    top = Network([head], input_shape=(case.units,)).explain(
        alone.forward(case.x), target=1, composite=pylrp.Composite("same", net_rule(net, name))
    )
    expected = case.expected(top.relevance)
    np.testing.assert_allclose(ex.relevance, expected["x"], atol=1e-9 * max(1, np.abs(expected["x"]).max()))


def net_rule(net: Network, composite: str) -> Any:
    from pylrp.rules.choice import choose

    return choose(net.graph, composite)["1"]


class TestArras:
    """The equations of LRP_for_LSTM (Arras et al. 2017), rewritten from their description."""

    @staticmethod
    def linear(hin: Any, w: Any, b: Any, hout: Any, rout: Any, units: int, eps: float, factor: float) -> Any:
        sign = np.where(hout >= 0, 1.0, -1.0)
        numerator = w * hin[:, None] + factor * (b + eps * sign)[None, :] / units
        return (numerator / (hout + eps * sign)[None, :] * rout[None, :]).sum(axis=1)

    def direction(self, cell: oracle.Cell, x: Any, top: Any, eps: float, factor: float) -> tuple[Any, Any, Any]:
        steps, features = x.shape
        units = len(top)
        walked = oracle.forward(cell, x, np.zeros(units), np.zeros(units), np.ones(steps, bool))
        r_x, r_h, r_c, eye = np.zeros(x.shape), top, np.zeros(units), np.eye(units)
        none = np.zeros(units)
        for t in reversed(range(steps)):
            step = walked[t]
            v = step.values
            r_c = r_c + r_h
            r_g = self.linear(v["i"] * v["g"], eye, none, step.c, r_c, 2 * units, eps, factor)
            r_c = self.linear(v["f"] * step.c_before, eye, none, step.c, r_c, 2 * units, eps, factor)
            bias = cell.b["g"] + cell.rb["g"]
            r_x[t] = self.linear(x[t], cell.w["g"].T, bias, v["z"], r_g, units + features, eps, factor)
            r_h = self.linear(step.h_before, cell.u["g"].T, bias, v["z"], r_g, units + features, eps, factor)
        return r_x, r_h, r_c

    @pytest.mark.parametrize("factor", [0, 1])
    def test_equations(self, factor: int) -> None:
        case = Case("lstm", directions=2, constant_states=False, batch=1)
        top = np.random.default_rng(5).normal(size=(1, 2 * case.units))
        rule = pylrp.rules.Spread() if factor else pylrp.rules.Signal()
        composite = pylrp.Composite("mine", pylrp.Epsilon(), {"recurrent": rule})
        ex = case.net.explain(case.x, target=top, composite=composite, convention="arras")
        left = self.direction(case.cell(0), case.x[0], top[0, : case.units], 0.001, factor)
        right = self.direction(case.cell(1), case.x[0][::-1], top[0, case.units :], 0.001, factor)
        np.testing.assert_allclose(ex.relevance[0], left[0] + right[0][::-1], atol=1e-12, rtol=1e-12)
        if factor:  # their check of sums: nothing is lost but what the first states keep
            rest = sum(each.sum() for each in (*left[1:], *right[1:]))
            assert ex.relevance.sum() + rest == pytest.approx(top.sum(), abs=1e-10)
            assert ex.ledger[0].state == pytest.approx(rest, abs=1e-10)
            assert ex.ledger[0].bias == ex.ledger[0].stabilizer == 0


def test_a_network_around_it() -> None:
    """Stacked layers of two directions between dense ones; the ledger closes."""
    rng = np.random.default_rng(0)
    one, two = Case("lstm", directions=2, returns="sequence"), Case("gru", features=8, units=3)
    net = Network(
        [Affine(2.0, 0.0), one.layer, two.layer, Dense(rng.normal(size=(2, 3)), rng.normal(size=2))],
        input_shape=one.x.shape[1:],
    )
    ex = net.explain(one.x, target=1)
    total = sum(getattr(row, name) for row in ex.ledger for name in ("bias", "stabilizer", "state", "dead", "constant"))
    np.testing.assert_allclose(ex.relevance.sum(axis=(1, 2)) + total, ex.output[:, 1], atol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {"gates": "ifgg"},
        {"returns": "first"},
        {"direction": "left"},
        {"takes": ("c", "h")},
        {"clip": 0.0},
        {"activations": ("sigmoid", "tanh")},
        {"activations": ("sigmoid", "tanh", "nothing")},
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any]) -> None:
    case = Case("lstm")
    with pytest.raises(ValueError, match=next(iter(settings))):
        LSTM(*case.arrays, **settings)


def test_arrays_that_do_not_fit() -> None:
    case = Case("lstm")
    w, u, b, _ = case.arrays
    for arrays in ((w[:-1], u, b), (w, u[:, :-1], b), (w, u, b[:-1]), (w[:, :-1], u, b)):
        with pytest.raises(ValueError, match=r"weight|bias"):
            Network([LSTM(*arrays)], input_shape=case.x.shape[1:])


def test_other_orders_of_gates() -> None:
    case = Case("lstm")
    order = [0, 3, 1, 2]  # ONNX: i o f c
    blocks = [np.concatenate([np.split(array, 4)[k] for k in order]) for array in case.arrays]
    first = {name: case.states[name][0] for name in "hc"}
    other = LSTM(*blocks, gates="iofc", first_h=first["h"], first_c=first["c"])
    net = Network([other], input_shape=case.x.shape[1:])
    assert np.array_equal(net.forward(case.x), case.net.forward(case.x))
