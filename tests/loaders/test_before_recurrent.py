"""What stands before and behind an LSTM: magnitudes of spectra, logarithms, attention pooling over steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pylrp

onnx = pytest.importorskip("onnx")
parser = pytest.importorskip("onnx.parser")

RNG = np.random.default_rng(0)
STEPS, BINS, UNITS = 6, 4, 3
W = 0.5 * RNG.normal(size=(1, 4 * UNITS, BINS))
U = 0.5 * RNG.normal(size=(1, 4 * UNITS, UNITS))


def _load(inputs: str, outputs: str, body: str, **constants: Any) -> Any:
    text = f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({outputs}) {{ {body} }}'
    model = parser.parse_model(text.replace(";", "\n"))
    for name, array in {"W": W, "U": U, "one": np.array([1]), **constants}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return pylrp.load(model)


def _after_lstm(states: str = "m") -> str:
    return (
        f"t = Transpose<perm = [1, 0, 2]>({states}); Y, H = LSTM<hidden_size = {UNITS}>(t, W, U); y = Squeeze(H, zero)"
    )


LSTM = {"zero": np.array([0])}
INPUTS = f"double[n, {STEPS}, {BINS}] a, double[n, {STEPS}, {BINS}] b"


def test_magnitude_shares_by_squares() -> None:
    """sqrt(re² + im²): each part takes re² / (re² + im²) of what the magnitude has."""
    body = f"p = Mul(a, a); q = Mul(b, b); s = Add(p, q); m = Sqrt(s); {_after_lstm()}"
    net = _load(INPUTS, "double[n, d] y", body, **LSTM)
    a, b = RNG.uniform(0.3, 2, size=(2, 2, STEPS, BINS)) * RNG.choice([-1, 1], size=(2, 2, STEPS, BINS))
    ex = net.explain({"a": a, "b": b}, target=1, composite="epsilon")
    alone = _load(f"double[n, {STEPS}, {BINS}] m", "double[n, d] y", _after_lstm(), **LSTM)
    m = alone.explain(np.hypot(a, b), target=1, composite="epsilon")
    np.testing.assert_allclose(ex.output, m.output, atol=1e-12)
    np.testing.assert_allclose(ex.relevance["a"], m.relevance * a**2 / (a**2 + b**2), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(ex.relevance["b"], m.relevance * b**2 / (a**2 + b**2), rtol=1e-4, atol=1e-9)


def test_logarithm_keeps_what_it_is_at_0() -> None:
    """log(x + e): f(0) = log(e) takes its share of f(x), which the ledger has; (f(x) - f(0)) / f(x) passes."""
    layer = pylrp.layers.LSTM(W[0], U[0], gates="iofg")
    net = pylrp.Network([pylrp.layers.Function("log(x + 0.01)"), layer], input_shape=(STEPS, BINS))
    a = RNG.uniform(0.1, 3, size=(2, STEPS, BINS))
    f, at_0 = np.log(a + 0.01), np.log(0.01)
    ex = net.explain(a, target=1, composite="cp_lrp")
    m = pylrp.Network([layer], input_shape=(STEPS, BINS)).explain(f, target=1, composite="cp_lrp")
    np.testing.assert_allclose(ex.relevance, m.relevance * (f - at_0) / f, rtol=1e-4, atol=1e-7)
    left = m.relevance.sum(axis=(1, 2)) - ex.relevance.sum(axis=(1, 2))
    constant = sum(row.constant for row in ex.ledger if row.constant is not None)
    np.testing.assert_allclose(constant, left, rtol=1e-4, atol=1e-6)


def test_attention_pooling_over_steps() -> None:
    """softmax(h v) over the steps weighs the states: weights are constants under cp_lrp, states take all."""
    body = (
        f"t = Transpose<perm = [1, 0, 2]>(m); Y, H = LSTM<hidden_size = {UNITS}>(t, W, U); k = Squeeze(Y, one);"
        "h = Transpose<perm = [1, 0, 2]>(k); g = MatMul(h, v); w = Softmax<axis = 1>(g); p = Mul(h, w);"
        "y = ReduceSum<keepdims = 0>(p, one)"
    )
    v = RNG.normal(size=(UNITS, 1))
    net = _load(f"double[n, {STEPS}, {BINS}] m", "double[n, d] y", body, v=v)
    x = RNG.normal(size=(2, STEPS, BINS))
    ex = net.explain(x, target=2, composite="cp_lrp")
    layer = pylrp.layers.LSTM(W[0], U[0], gates="iofg", returns="sequence")
    states = pylrp.Network([layer], input_shape=(STEPS, BINS))
    h = states.forward(x)
    weights = np.exp(h @ v)
    weights /= weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ex.output, (h * weights).sum(axis=1), atol=1e-12)
    parts = [states.explain(x, target=(t, 2), composite="cp_lrp").relevance for t in range(STEPS)]
    expected = sum(part * weights[:, t, :, None] for t, part in enumerate(parts))
    np.testing.assert_allclose(ex.relevance, expected, rtol=1e-4, atol=1e-6)
