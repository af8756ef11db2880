"""`Network.verify` of attention that the core computes as one layer: beside its nodes one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from verify_models import make, model

import pylrp
from pylrp.network import fused
from pylrp.rules import assignment

ATTENTION = """q = MatMul(x, Q); k = MatMul(x, K); v = MatMul(x, V); t = Transpose<perm=[0,2,1]>(k); s = MatMul(q, t);
    w = Softmax<axis=-1>(s); c = MatMul(w, v); r = Add(c, x); q2 = MatMul(r, Q2); k2 = MatMul(r, K2);
    v2 = MatMul(r, V2); t2 = Transpose<perm=[0,2,1]>(k2); s2 = MatMul(q2, t2); w2 = Softmax<axis=-1>(s2);
    c2 = MatMul(w2, v2); f = ReduceMean<axes=[1], keepdims=0>(c2); y = MatMul(f, H)"""


def attending(*, double: bool = False) -> Any:
    """Return a model of two layers of attention, and an input."""
    rng = np.random.default_rng(4)
    weights = {name: rng.normal(size=(6, 6)) / 2 for name in ("Q", "K", "V", "Q2", "K2", "V2")}
    x = rng.normal(size=(2, 4, 6)).astype(np.float64 if double else np.float32)
    return model(ATTENTION, (4, 6), double=double, H=rng.normal(size=(6, 3)), **weights), x


@pytest.mark.slow
def test_fused_attention_is_compared_with_its_nodes() -> None:
    for double, limit in ((False, 1e-5), (True, 1e-12)):
        made, x = attending(double=double)
        net = pylrp.load(made)
        for composite in ("attnlrp", "cp_lrp"):
            for given in (x, x[0]):
                found = net.verify(given, composite=composite)
                assert found, str(found)
                assert found.fused_error is not None
                assert found.fused_error < limit
    assert pylrp.load(make("dense")[0]).verify(make("dense")[1]).fused_error is None


@pytest.mark.parametrize("wrong", ["c", "c2"])
def test_fused_attention_of_another_scale_is_named(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes one by one are right, the one layer that stands for them is not."""
    make_layer = fused._Finder._layer

    def changed(self: Any, chains: Any, last: Any) -> Any:
        made = make_layer(self, chains, last)
        return replace(made, scale=1.1 * made.scale) if self._product.name == wrong else made

    monkeypatch.setattr(fused._Finder, "_layer", changed)
    made, x = attending()
    found = pylrp.load(made).verify(x, composite="attnlrp")
    assert not found
    assert found.deviation == "attention"
    assert found.first_wrong == wrong
    assert repr(wrong) in found.verdict
    assert found.fused_error is not None
    assert found.fused_error > found.tolerance
    assert found.prediction_error < 1e-5  # nothing else is wrong
    assert found.relevance_error < found.tolerance


def test_fused_attention_that_hands_down_other_relevance_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "mode", lambda fusion, *_: "stop" if fusion.product == "c2" else None)
    made, x = attending()
    found = pylrp.load(made).verify(x, composite="attnlrp")
    assert found.deviation == "attention"
    assert found.first_wrong == "c2"
