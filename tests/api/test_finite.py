"""Numbers that are not finite: settings, arrays of another dtype, results; each is refused and says where."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.layers.attention import Attention
from pylrp.layers.base import Layer
from pylrp.layers.custom import CustomLayer
from pylrp.layers.normalisation import Standardized
from pylrp.layers.packed import SegmentedAttention
from pylrp.layers.recurrent import Recurrent
from pylrp.network.graph import Graph, Node
from pylrp.rules import Group, Term

RNG = np.random.default_rng(0)

#: A layer of each kind with numbers among its settings.
SETTINGS: list[tuple[Any, tuple[str, ...]]] = [
    (L.LeakyReLU, ("slope",)),
    (L.ELU, ("alpha",)),
    (L.Clip, ("low", "high")),
    (L.HardSigmoid, ("alpha", "beta")),
    (L.LocalResponseNorm, ("alpha", "beta", "bias")),
    (L.PReLU, ("slope",)),
    (L.Pad, ("value",)),
    (L.BatchNorm, ("epsilon",)),
    (L.Affine, ("scale", "shift")),
    (L.Resize, ("scales",)),
    (L.MatMul, ("scale",)),
    (L.DynamicQuantize, ("levels",)),
    *((kind, ("clip",)) for kind in (L.LSTM, L.GRU, L.RNN)),
    *((kind, ("epsilon",)) for kind in (Standardized, *Standardized.__subclasses__(), L.RMSNorm, L.Normalize)),
]
NEEDED: dict[Any, dict[str, Any]] = {
    L.LSTM: {"weight": np.ones((8, 3)), "recurrent": np.ones((8, 2))},
    L.GRU: {"weight": np.ones((6, 3)), "recurrent": np.ones((6, 2))},
    L.RNN: {"weight": np.ones((2, 3)), "recurrent": np.ones((2, 2))},
    L.LocalResponseNorm: {"size": 3},
    L.PReLU: {"slope": 0.1},
    L.Pad: {"widths": ((0, 0), (1, 1))},
    L.BatchNorm: dict.fromkeys(("scale", "shift", "mean", "variance"), np.ones(3)),
    L.Resize: {"scales": (2.0,)},
}
BOUNDS = {(L.Clip, "low"), (L.Clip, "high"), (L.Pad, "value")}


def kinds(base: type = Layer) -> set[type]:
    return {base, *(kind for child in base.__subclasses__() for kind in kinds(child))}


class TestSettings:
    @pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in SETTINGS for name in names])
    @pytest.mark.parametrize("value", [np.nan, np.inf, np.float32(np.nan), np.array(np.nan)])
    def test_nan_is_refused_at_construction(self, kind: Any, name: str, value: Any) -> None:
        given = (value,) if name == "scales" else value
        needed = {**NEEDED.get(kind, {}), name: given}
        if not np.isnan(value) and (kind, name) in BOUNDS:
            kind(**needed)
            return
        with pytest.raises(ValueError, match=name):
            kind(**needed)

    def test_all_kinds_with_numbers_are_here(self) -> None:
        known = dict(SETTINGS)
        for kind in kinds():
            # made by pylrp, of layers with known numbers; the base of three
            if kind in (Attention, SegmentedAttention, Recurrent):
                continue
            if kind.__module__.startswith("pylrp.layers.") and dataclasses.is_dataclass(kind):
                floats = {f.name for f in dataclasses.fields(kind) if "float" in str(f.type)}
                assert floats <= set(known.get(kind, ())), kind

    def test_what_is_infinite_on_purpose(self) -> None:
        assert L.Clip(low=-np.inf, high=6.0).high == 6
        net = pylrp.Network([L.Pad(((0, 0), (1, 1)), value=-np.inf), L.MaxPool(3, stride=1)], input_shape=(1, 4))
        x = np.array([[-1.0, -3.0, -2.0, -4.0]], np.float32)
        assert net.forward(x).tolist() == [[-1, -1, -2, -2]]
        ex = net.explain(x, np.ones((1, 4), np.float32), layers="all")
        assert ex.relevance.tolist() == [[2, 0, 2, 0]]
        assert all(np.isfinite(R).all() for R in ex.layers.values())

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Term("input", (np.nan, 1.0)),
            lambda: Term("input", (1.0, np.inf)),
            lambda: Term("input", sign=np.nan),
            lambda: Group((Term("input"),), (np.nan, 1.0)),
            lambda: Group((Term("input"),), coefficient=np.nan),
            lambda: Group((Term("input"),), stabilizer=np.nan),
            lambda: Group((Term("input"),), stabilizer=-1.0),
            lambda: pylrp.Epsilon(np.nan),
            lambda: pylrp.Epsilon(np.inf),
            lambda: pylrp.Gamma(np.nan),
            lambda: pylrp.AlphaBeta(np.nan, np.nan),
            lambda: pylrp.ZPlus(stabilizer=np.nan),
            lambda: pylrp.Norm(stabilizer=np.nan),
            lambda: pylrp.WSquare(stabilizer=np.inf),
            lambda: pylrp.Flat(stabilizer=np.nan),
            lambda: pylrp.ZBox(np.nan, 1),
            lambda: pylrp.ZBox([0.0, np.nan], 1),
        ],
    )
    def test_rules(self, make: Any) -> None:
        with pytest.raises(ValueError, match=r"finite|must be"):
            make()


class TestDtypes:
    @pytest.mark.parametrize(("network", "given"), [(np.float32, np.float64), (np.float64, np.float32)])
    def test_are_converted_with_a_note(self, network: Any, given: Any) -> None:
        W = RNG.standard_normal((4, 5)).astype(network)
        x = RNG.standard_normal((3, 5)).astype(given)
        net = pylrp.Network([L.Dense(W)])
        z = x.astype(network).astype(float) @ W.T.astype(float)
        assert net.forward(x).dtype == network
        np.testing.assert_allclose(net.forward(x), z, rtol=1e-5)
        ex = net.explain(x, 1, pylrp.Epsilon(0.0))
        np.testing.assert_allclose(ex.relevance, x.astype(network) * W[1], rtol=1e-5, atol=1e-6)
        assert ex.relevance.dtype == network
        assert ex.input.dtype == given
        assert len(ex.notes) == 1
        assert net.explain(x.astype(network), 1).notes == ()
        R = np.zeros((3, 4), given)
        R[:, 2] = 1
        top = net.explain(x.astype(network), R, pylrp.Epsilon(0.0))
        np.testing.assert_allclose(top.relevance, x.astype(network) * W[2] / z[:, 2:3], rtol=1e-4, atol=1e-6)
        assert len(top.notes) == 1

    def test_what_is_too_large_is_an_error(self) -> None:
        net = pylrp.Network([L.Dense(np.ones((2, 3), np.float32))])
        x = np.array([[1.0, 2.0, 3.0], [1.0, -1e39, 3.0]])
        with pytest.raises(pylrp.NotFinite):
            net.forward(x)
        with pytest.raises(pylrp.NotFinite, match=r"x\[1, 1\]") as caught:
            net.explain(x)
        assert (caught.value.layer, caught.value.what) == (None, "x")
        with pytest.raises(pylrp.NotFinite, match=r"target\[0, 1\]") as caught:
            net.explain(np.ones((1, 3), np.float32), np.array([[0, 1e300]]))
        assert caught.value.what == "target"
        x[1, 1] = np.inf
        with pytest.raises(pylrp.NotFinite, match="inf"):
            net.explain(x)

    @pytest.mark.parametrize("dtype", [int, np.uint8, np.float16, bool])
    def test_others_are_refused(self, dtype: Any) -> None:
        with pytest.raises(TypeError, match="float32 or float64"):
            pylrp.Network([L.Dense(np.ones((2, 3)))]).forward(np.ones((1, 3), dtype))


class _Bad(CustomLayer):
    """Puts out, or hands down, what it is told."""

    def __init__(self, value: float, down: float):
        self.value, self.down = value, down

    def output_shape(self, *shapes: Any) -> Any:
        return shapes[0]

    def forward(self, *inputs: Any) -> Any:
        return inputs[0] + inputs[0].dtype.type(self.value)

    def relevance(self, inputs: Any, output: Any, relevance: Any) -> Any:
        return (relevance + self.down,)


def chain(*layers: Any, dtype: Any = np.float32, size: int = 3) -> pylrp.Network:
    nodes, below = [], "x"
    for name, layer in layers:
        nodes.append(Node(name, layer, (below,)))
        below = name
    return pylrp.Network.from_graph(Graph({"x": (size,)}, nodes, [below], dtype=dtype))


EYE = np.eye(3, dtype=np.float32)


class TestResults:
    def test_a_forward_pass_that_overflows_names_the_layer(self) -> None:
        big = EYE * np.float32(1e30)
        net = chain(("first", L.Dense(EYE)), ("second", L.Dense(big)), ("third", L.Dense(big)), ("last", L.Dense(big)))
        x = np.ones((2, 3), np.float32)
        for call in (net.forward, net.explain):
            with pytest.raises(pylrp.NotFinite) as caught:
                call(x)
            assert (caught.value.layer, caught.value.what) == ("third", "output")
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.layer, again.what, str(again)) == ("third", "output", str(caught.value))

    @pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
    @pytest.mark.parametrize("after", [[], [("last", L.Dense(EYE))]])
    def test_a_layer_of_ones_own_too(self, value: float, after: Any) -> None:
        net = chain(("first", L.Dense(EYE)), ("mine", _Bad(value, 0)), *after)
        for call in (net.forward, net.explain):
            with pytest.raises(pylrp.NotFinite) as caught:
                call(np.ones((2, 3), np.float32))
            assert caught.value.layer == "mine"

    @pytest.mark.parametrize("value", [np.inf, np.nan])
    def test_relevance_names_the_layer_that_hands_it_down(self, value: float) -> None:
        net = chain(("first", L.Dense(EYE)), ("mine", _Bad(0, value)), ("last", L.Dense(EYE)))
        with pytest.raises(pylrp.NotFinite) as caught:
            net.explain(np.ones((2, 3), np.float32), 0, "epsilon")
        assert caught.value.layer == "mine"
        assert caught.value.what in ("relevance", "ledger")  # what is infinite may get lost further down

    def test_a_denominator_that_is_nearly_zero(self) -> None:
        # z = 1e-30: without a stabilizer 1e30 / 1e-30 leaves float32, and the input is not 0
        tiny = np.array([[1.0, -1.0 + 1e-7, 0]], np.float32)
        net = chain(("first", L.Dense(EYE)), ("second", L.Dense(tiny)))
        x = np.array([[1e20, 1e20, 0]], np.float32)
        with pytest.raises(pylrp.NotFinite) as caught:
            net.explain(x, np.array([[1e38]], np.float32), pylrp.Epsilon(0.0))
        assert caught.value.layer in ("second", "first")

    def test_every_part_of_an_explanation_is_finite_or_an_error(self) -> None:
        """Networks whose values and relevance come close to the ends of float32, and go beyond."""
        rng = np.random.default_rng(3)
        refused = answered = 0
        for power in range(0, 40, 2):
            scale = np.float32(10.0) ** np.float32(power)
            weights = [(rng.standard_normal((3, 3)) * scale).astype(np.float32) for _ in range(2)]
            net = chain(("a", L.Dense(weights[0])), ("relu", L.ReLU()), ("b", L.Dense(weights[1])))
            x = rng.standard_normal((4, 3)).astype(np.float32)
            for rule in (pylrp.Zero(), pylrp.ZPlus(), pylrp.AlphaBeta(2, 1), pylrp.WSquare(), pylrp.Gamma(1e30)):
                try:
                    ex = net.explain(x, composite=rule, layers="all")
                except pylrp.NotFinite as error:
                    refused += error.layer in ("a", "relu", "b")
                    continue
                answered += 1
                assert np.isfinite(ex.output).all()
                assert all(np.isfinite(R).all() for R in ex.layers.values())
                assert np.isfinite(ex.ledger.data).all()
        assert refused > 0
        assert answered > 0
        assert refused + answered == 100  # each that is refused names its layer

    def test_without_a_network(self) -> None:
        W, a = np.array([[1e-30, 0]], np.float32), np.array([[1e-15, 1]], np.float32)
        with pytest.raises(pylrp.NotFinite) as caught:
            pylrp.relevance([W], [a * np.float32(np.nan)], np.ones((1, 1), np.float32), rules="epsilon")
        assert caught.value.what == "acts[0]"
