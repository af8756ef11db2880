"""`Network.verify` where a layer stands for nodes that are apart: biases behind a crop, normalisations written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from verify_models import model, normal, positive

import pylrp

CROP = "s = Slice(c, first, end, axis)"
CROPS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "squeezed": (
        f"c = Conv(x, W); {CROP}; q = Squeeze(s, last); b = Add(q, B); a = Relu(b); f = Flatten(a); y = Gemm(f, V)",
        (2, 7, 1), {"W": normal(4, 2, 3, 1), "last": np.array([3]), "B": normal(4, 1), "V": normal(12, 3)},
    ),
    "turned": (
        "d = Conv(x, W); c = Transpose<perm=[0,1,3,2]>(d); s = Slice(c, first, end, three); m = Mul(s, S);"
        "b = Add(m, B); a = Relu(b); f = Flatten(a); y = Gemm(f, V)",
        (2, 7, 1), {"W": normal(4, 2, 3, 1), "S": positive(4, 1, 1), "B": normal(4, 1, 1), "V": normal(12, 3),
                    "three": np.array([3])},
    ),
    "normalised": (
        f"c = Conv(x, W); {CROP}; b = BatchNormalization(s, S, B, B, S); a = Relu(b); f = Flatten(a); y = Gemm(f, V)",
        (2, 7, 1), {"W": normal(4, 2, 3, 1), "S": positive(4), "B": normal(4), "V": normal(12, 3)},
    ),
    "of channels": (
        "c = Conv(x, W); s = Slice(c, first, three, one); b = Add(s, B); a = Relu(b); f = Flatten(a); y = Gemm(f, V)",
        (2, 7, 1), {"W": normal(4, 2, 3, 1), "one": np.array([1]), "three": np.array([3]), "B": normal(2, 1, 1),
                    "V": normal(10, 3)},
    ),
    "one of two": (
        f"c = Conv(x, W); {CROP}; q = Slice(c, end, eight, axis); b = Add(s, B); a = Relu(b); d = Relu(q);"
        "e = Concat<axis=2>(a, d); f = Flatten(e); y = Gemm(f, V)",
        (2, 7, 1), {"W": normal(4, 2, 3, 1), "eight": np.array([8]), "B": normal(4, 1, 1), "V": normal(16, 3)},
    ),
    "one token": (
        "c = MatMul(x, W); s = Gather<axis=1>(c, token); b = Add(s, B); a = Relu(b); y = Gemm(a, V)",
        (5, 4), {"W": normal(4, 6), "token": np.array(2), "B": normal(6), "V": normal(6, 3)},
    ),
}  # fmt: skip


def cropped(name: str) -> tuple[Any, Any]:
    text, shape, constants = CROPS[name]
    edges = {"first": np.array([1]), "end": np.array([4]), "axis": np.array([2])}
    made = model(text, shape, **{key: v for key, v in {**edges, **constants}.items() if key in text})
    return made, np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", CROPS)
def test_a_bias_behind_a_crop_passes(name: str) -> None:
    made, x = cropped(name)
    for composite in ("epsilon", "epsilon_plus_flat", "attnlrp"):
        found = pylrp.load(made).verify(x, composite=composite)
        assert found, str(found)


def test_a_wrong_bias_behind_a_crop_is_named() -> None:
    made, x = cropped("squeezed")
    net = pylrp.load(made)

    def shifted(node: Any) -> Any:
        bias = node.layer.bias + np.float32([0, 0.01, 0, 0])
        return replace(node, layer=replace(node.layer, bias=bias))

    nodes = [shifted(node) if node.name == "c" else node for node in net.graph.nodes]
    wrong = pylrp.Network.from_graph(net.graph.changed(nodes=nodes))
    wrong._model = made
    found = wrong.verify(x)
    assert found.deviation == "values"
    assert found.first_wrong == "c"


# -- normalisations that are written out ----------------------------------------------------------------------------


def normalising() -> Any:
    return model(
        """h = MatMul(x, W); m = ReduceMean<axes=[-1]>(h); d = Sub(h, m); q = Mul(d, d); v = ReduceMean<axes=[-1]>(q);
        e = Add(v, small); s = Sqrt(e); n = Div(d, s); g = Mul(n, G); o = Add(g, B); y = MatMul(o, V)""",
        (5,), W=normal(5, 7), V=normal(7, 3), G=positive(7), B=normal(7), small=np.array(1e-5),
    )  # fmt: skip


def test_a_normalisation_written_out_passes_with_its_mean_as_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = normalising(), np.random.default_rng(1).normal(size=(3, 5)).astype("f")
    net = pylrp.load(made)
    said = pylrp.Composite("all", pylrp.Epsilon(), {"normalisation": pylrp.rules.DetachAll()})
    found = net.verify(x, composite=said)
    assert found, str(found)
    assert found["h"].incoming_error is not None
    other = pylrp.Composite("scale", pylrp.Epsilon(), {"normalisation": pylrp.rules.Detach()})
    execution = net._execution
    rules, done = execution.plan(said, "zennit"), execution.plan(other, "zennit")
    monkeypatch.setattr(done, "assignment", rules.assignment)
    monkeypatch.setattr(execution, "plan", lambda *asked: done)
    found = net.verify(x, composite=said)
    assert found.deviation == "relevance"
    assert found.first_wrong == "o"
