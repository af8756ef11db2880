"""`Network.verify`: intact models pass, models broken on purpose fail and the layer is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from verify_models import MODELS, make, model, normal

import pylrp
from pylrp import layers as L
from pylrp.layers.base import Layer
from pylrp.network.graph import Node
from pylrp.verify import against

CONTRIBUTIONS = pylrp.Composite(
    "contributions", pylrp.Gamma(0.3), {"function": pylrp.Norm(), "conv": pylrp.WSquare()}, first=pylrp.ZBox(-4, 4)
)


@pytest.mark.parametrize("composite", [None, "epsilon", "epsilon_alpha2_beta1_flat", "deep_taylor", CONTRIBUTIONS])
@pytest.mark.parametrize("name", MODELS)
def test_an_intact_model_passes(name: str, composite: Any) -> None:
    for double, limit in ((False, 1e-4), (True, 1e-12)):
        model, x = make(name, double=double)
        if composite is CONTRIBUTIONS and name in (
            "norm_first",
            "moves",
            "attention_written_out",
        ):  # an input's bounds are not mapped through
            composite = "excitation_backprop"
        found = pylrp.load(model).verify(x, composite=composite)
        assert found, str(found)
        assert found.passed
        assert found.first_wrong is None
        assert found.deviation is None
        assert max(found.relevance_error, found.ledger_error) < limit
        values, relevance = found.compared
        written = [layer for layer in found.layers if "/" not in layer.name]
        assert min(values, relevance - 1) >= 0.8 * len(written) - 1
        assert relevance == sum(layer.incoming_error is not None for layer in found.layers)


WRITTEN = [
    "a = Softsign(h)", "a = Exp(h)", "a = Pow(h, three)", "a = Sin(h)", "a = Abs(h)", "a = Mul(h, h)",
    "p = Mul(h, b); q = Sin(p); r = Mul(q, q); a = Add(h, r)", "p = Mul(h, b); q = Sigmoid(p); a = Mul(h, q)",
    "p = Mul(h, h); q = Neg(p); a = Exp(q)", "p = Add(h, one); q = Tanh(p); a = Mul(q, b)",
    "p = Abs(h); q = Add(p, one); a = Sqrt(q)", "p = Exp(h); q = Add(p, one); a = Div(h, q)",
    "p = Add(h, three); q = Clip(p, zero, six); a = Mul(q, h)", "p = Pow(h, two); q = Sqrt(p); a = Erf(q)",
]  # fmt: skip


@pytest.mark.parametrize("text", WRITTEN)
def test_any_function_of_one_value_passes(text: str) -> None:
    numbers = {"zero": 0.0, "b": 0.6, "one": 1.0, "two": 2.0, "three": 3.0, "six": 6.0}
    constants = {name: np.array(value) for name, value in numbers.items()}
    rng = np.random.default_rng(1)
    made = model(
        f"h0 = MatMul(x, W); h = Add(h0, B); {text}; y = MatMul(a, V)", (5,), double=True,
        W=rng.normal(size=(5, 7)), B=rng.normal(size=7), V=rng.normal(size=(7, 3)), **constants,
    )  # fmt: skip
    net = pylrp.load(made)
    for composite in ("epsilon", "attnlrp", CONTRIBUTIONS):
        found = net.verify(rng.normal(size=(3, 5)), composite=composite)
        assert found, str(found)
        assert found["h0"].value_error is not None


def test_the_result_tells_its_numbers() -> None:
    model, x = make("conv")
    found = pylrp.load(model).verify(x[0])
    assert found.evaluator in ("onnx", "onnxruntime")
    assert found.tolerance == 1e-4
    assert 0 < found.prediction_error < 1e-5
    assert found["c"].kind == "conv"
    assert found["c"].rule == "Flat()"
    assert found["c"].value_error is not None
    assert found["x"].outgoing_error is None
    assert [layer.name for layer in found.layers][:2] == ["x", "c"]
    text = str(found)
    assert text.splitlines()[-1] == found.verdict
    assert all(layer.name in text for layer in found.layers)
    assert "<table" in found._repr_html_()
    with pytest.raises(KeyError):
        found["nothing"]


# -- broken on purpose ----------------------------------------------------------------------------------------------


def broken(name: str, change: Callable[[list[Node]], list[Node]]) -> tuple[pylrp.Network, Any]:
    """Return a network whose layers are not those of its file."""
    model, x = make(name)
    net = pylrp.load(model)
    made = pylrp.Network.from_graph(net.graph.changed(nodes=change(list(net.graph.nodes))), keep_top=True)
    made._model = model
    return made, x


def setting(name: str, **settings: Any) -> Callable[[list[Node]], list[Node]]:
    return lambda nodes: [replace(n, layer=replace(n.layer, **settings)) if n.name == name else n for n in nodes]


def weights(name: str, field: str, change: Callable[[Any], Any]) -> Callable[[list[Node]], list[Node]]:
    def changed(layer: Any) -> Layer:
        return replace(layer, **{field: np.ascontiguousarray(change(getattr(layer, field)))})

    return lambda nodes: [replace(n, layer=changed(n.layer)) if n.name == name else n for n in nodes]


def layer(name: str, made: Layer) -> Callable[[list[Node]], list[Node]]:
    return lambda nodes: [replace(n, layer=made) if n.name == name else n for n in nodes]


def inputs(name: str, *values: str) -> Callable[[list[Node]], list[Node]]:
    return lambda nodes: [replace(n, inputs=values) if n.name == name else n for n in nodes]


def without(name: str) -> Callable[[list[Node]], list[Node]]:
    def change(nodes: list[Node]) -> list[Node]:
        (below,) = next(n.inputs for n in nodes if n.name == name)
        rest = [n for n in nodes if n.name != name]
        return [replace(n, inputs=tuple(below if v == name else v for v in n.inputs)) for n in rest]

    return change


def scaled_twice(nodes: list[Node]) -> list[Node]:
    more = Node("again", L.Affine(1.5, 0.2), ("c",))
    return [replace(n, inputs=("again",)) if n.name == "a" else n for n in nodes] + [more]


def zeroed(rows: slice) -> Callable[[Any], Any]:
    def change(weight: Any) -> Any:
        made = weight.copy()
        made[rows] = 0
        return made

    return change


BROKEN: dict[str, tuple[str, Any, str]] = {
    "a head dropped": ("conv", weights("d", "weight", zeroed(slice(0, 3))), "d"),
    "a weight transposed": ("differences", weights("h", "weight", lambda w: w.reshape(w.shape[::-1]).T), "h"),
    "kernels turned over": ("conv", weights("d", "weight", lambda w: w[..., ::-1]), "d"),
    "a bias changed": ("dense", weights("k", "bias", lambda b: b + np.float32([0, 0.01, 0])), "k"),
    "a bias added twice": ("written_out", weights("h", "bias", lambda b: 2 * b), "h"),
    "another stride's padding": ("dilated", setting("c", padding=((1, 1), (0, 1))), "c"),
    "another dilation": ("padded", setting("d", padding=1, dilation=2), "d"),
    "groups in another order": ("conv", weights("d", "weight", lambda w: np.roll(w, 3, axis=0)), "d"),
    "a BatchNorm that counts twice": ("conv", scaled_twice, "c"),
    "a factor lost": ("differences", without("m"), "e"),
    "a branch counted twice": ("residual", inputs("r", "a", "a"), "r"),
    "a sign lost": ("differences", weights("k", "weight", lambda w: -w), "k"),
    "another activation": ("functions", layer("t", L.SiLU()), "t"),
    "an activation lost": ("conv", without("a"), "p"),
    "an activation's slope": ("dilated", setting("a", slope=0.3), "a"),
    "another pool": ("conv", layer("p", L.AveragePool(2)), "p"),
    "a pool that counts its padding": ("dilated", setting("p", count_include_pad=False), "p"),
    "an axis in another order": ("moves", layer("t", L.Transpose((2, 1, 0))), "t"),
    "joined in another order": ("moves", inputs("k", "l/0", "l/1"), "k"),
    "another entry taken": ("moves", layer("g", L.Take(np.array([0, 3, 4, 5]), 0)), "g"),
    "another interpolation": ("padded", setting("u", coordinates="align_corners"), "u"),
    "a softmax over the other axis": ("norms", layer("s", L.SiLU()), "s"),
    "another normalisation": ("norms", setting("l", size=5), "l"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_wrong_layer_is_named(case: str) -> None:
    name, change, expected = BROKEN[case]
    try:
        net, x = broken(name, change)
    except ValueError as error:  # the graph itself has noticed
        pytest.fail(str(error))
    found = net.verify(x)
    assert not found
    assert found.deviation == "values"
    assert found.first_wrong == expected, str(found)
    assert repr(expected) in found.verdict
    assert found.prediction_error > found.tolerance


# -- relevance alone is wrong ---------------------------------------------------------------------------------------

OWN = pylrp.Composite("own", pylrp.Epsilon(), {"conv": pylrp.ZPlus()})
WRONG_RULES = {
    "conv": {"d": pylrp.AlphaBeta(2, 1), "c": pylrp.Gamma(0.25), "g": pylrp.Norm(0.1), "y": pylrp.Epsilon(0.05)},
    "residual": {"d": pylrp.Epsilon(), "e": pylrp.Epsilon(), "r": pylrp.Norm(0.5), "g/pool": pylrp.Norm(0.5)},
    "differences": {"k": pylrp.ZPlus(), "h": pylrp.WSquare(), "d": pylrp.Norm(0.1)},
    "norms": {"s": pylrp.rules.Stop(), "e": pylrp.Gamma(0.5)},
}


@pytest.mark.parametrize(("name", "layer"), [(name, layer) for name, rules in WRONG_RULES.items() for layer in rules])
def test_a_layer_with_another_rule_than_it_says_is_named(
    name: str, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = make(name)
    net = pylrp.load(model)
    wrong = pylrp.Composite("wrong", OWN.default, OWN.kinds, names={layer: WRONG_RULES[name][layer]})
    execution = net._execution
    said, done = execution.plan(OWN, "zennit"), execution.plan(wrong, "zennit")
    monkeypatch.setattr(done, "assignment", said.assignment)
    monkeypatch.setattr(execution, "plan", lambda *asked: done)
    found = net.verify(x, composite=OWN)
    assert found.deviation == "relevance"
    assert found.first_wrong == layer, str(found)
    assert found.prediction_error < 1e-5


class Gate(L.CustomLayer):
    """x * sigmoid(gate); ``share``: what of the relevance the signal gets."""

    def __init__(self, share: float):
        self.share = share

    def output_shape(self, *shapes: L.Shape) -> L.Shape:
        return shapes[0]

    def forward(self, *arrays: Any) -> Any:
        return arrays[0] * arrays[1]

    def relevance(self, inputs: Any, output: Any, relevance: Any) -> Any:
        return self.share * relevance, np.zeros_like(inputs[1])


def gated() -> Any:
    return model(
        "h = Gemm(x, W); z = Gemm(x, G); g = Sigmoid(z); s = Mul(h, g); y = Gemm(s, V)",
        (3,), W=normal(3, 4), G=normal(3, 4), V=normal(4, 2),
    )  # fmt: skip


def test_a_layer_of_the_users_own_is_verified() -> None:
    x = np.array([[1, 2, -1], [0.5, -2, 1]], np.float32)
    net = pylrp.load(gated(), operators={"Mul": lambda attributes, constants: Gate(1.0)})
    assert net.verify(x)
    net = pylrp.load(gated(), operators={"Mul": lambda attributes, constants: Gate(0.5)})
    found = net.verify(x)
    assert found.deviation == "relevance"
    assert found.first_wrong == "s"


def test_a_ledger_that_does_not_close_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = make("dense")
    net = pylrp.load(model)
    explain = net.explain

    def wrong(*args: Any, **options: Any) -> Any:
        ex = explain(*args, **options)
        ex.ledger.data[0, -1] += 0.01
        return ex

    monkeypatch.setattr(net, "explain", wrong)
    found = net.verify(x)
    assert found.deviation == "ledger"
    assert found.first_wrong == "h"
    assert found.ledger_error > found.tolerance


def test_a_prediction_that_rounding_moves_passes_and_another_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variance as the difference of two large numbers; the evaluator's differs by more than the tolerance."""
    made = model(
        """h = MatMul(x, W); a = Add(h, far); m = ReduceMean<axes=[-1]>(a); d = Sub(a, m); q = Mul(a, a);
        v = ReduceMean<axes=[-1]>(q); k = Mul(m, m); w = Sub(v, k); e = Add(w, small); s = Sqrt(e); n = Div(d, s);
        y = MatMul(n, V)""",
        (5,), W=normal(5, 7), far=np.array(30.0), V=normal(7, 3), small=np.array(1e-5),
    )  # fmt: skip
    x = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    net = pylrp.load(made)
    told = against.predicted

    def off(share: float) -> Any:
        def changed(*args: Any) -> Any:
            name, values = told(*args)
            return name, {key: array * (1 + share) for key, array in values.items()}

        return changed

    monkeypatch.setattr(against, "predicted", off(2e-4))
    found = net.verify(x)
    assert found, str(found)
    assert found.prediction_error > found.tolerance
    monkeypatch.setattr(against, "predicted", off(0.05))
    assert net.verify(x).deviation == "prediction"
    monkeypatch.setattr(against, "predicted", off(2e-4))
    net, x = pylrp.load(make("dense")[0]), make("dense")[1]
    assert net.verify(x).deviation == "prediction"  # rounding is small there


# -- the call -------------------------------------------------------------------------------------------------------


def test_a_network_without_a_model_says_how(tmp_path: Any) -> None:
    import onnx

    model, x = make("dense")
    net = pylrp.load(model)
    net.save(tmp_path / "net.pylrp.npz")
    again = pylrp.load(tmp_path / "net.pylrp.npz")
    with pytest.raises(pylrp.MissingModel):
        again.verify(x)
    onnx.save(model, tmp_path / "model.onnx")
    assert again.verify(x, tmp_path / "model.onnx")
    assert pylrp.load(tmp_path / "model.onnx").verify(x)
    bare = pylrp.Network([L.Dense(np.eye(6, dtype=np.float32))])
    with pytest.raises(pylrp.MissingModel):
        bare.verify(x)


def test_another_model_is_not_the_networks(tmp_path: Any) -> None:
    model, x = make("dense")
    other, _ = make("dense")
    weight = next(t for t in other.graph.initializer if t.name == "W")
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * np.float32(1.01)).tobytes()
    found = pylrp.load(model).verify(x, other)
    assert found.first_wrong == "h"


def test_targets_and_a_fixed_batch() -> None:
    model, x = make("dense")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    net = pylrp.load(model)
    for target in (None, 1, [0, 2, 1], np.eye(3, dtype=np.float32)):
        assert net.verify(x, target=target), target
    assert net.verify(x[1], target=2)


def test_layers_called_otherwise_get_their_rules_by_kind_and_place() -> None:
    model, x = make("conv")
    renamed, _ = make("conv")
    for node in renamed.graph.node:
        node.name = f"node_of_{node.output[0]}"
    found = pylrp.load(model).verify(x, renamed, composite="epsilon_plus_flat")
    assert found
    assert found.notes
    assert found["x"].incoming_error is not None
    worse = pylrp.load(model).verify(
        x, renamed, composite=pylrp.Composite("n", pylrp.Epsilon(), names={"d": pylrp.Flat()})
    )
    assert not worse


def test_operations_that_are_one_with_a_first_layer_are_taken_over() -> None:
    text = "p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x); c = Conv(p, W); a = Relu(c); f = Flatten(a);"
    text += "y = Gemm(f, V)"
    made = model(text, (2, 8, 8), W=normal(3, 2, 3, 3), V=normal(12, 3))
    found = pylrp.load(made).verify(np.random.default_rng(0).normal(size=(2, 2, 8, 8)).astype(np.float32))
    assert found, str(found)
    assert found["c"].rule == "Flat()"
    assert found.notes


def test_a_tolerance_can_be_given() -> None:
    model, x = make("conv")
    assert not pylrp.load(model).verify(x, tolerance=1e-9)
