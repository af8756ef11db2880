"""Rounding to whole steps, given or of each sample: against NumPy, in both precisions; relevance passes."""

from __future__ import annotations

import numpy as np
import pytest

import pylrp
from pylrp import layers as L

RNG = np.random.default_rng(5)


def rounded(x, step, low, high):
    return step * np.clip(np.rint(x / step), low, high)


def dynamic(x, levels):
    made = []
    for sample in x:
        low, high = min(sample.min(), 0), max(sample.max(), 0)
        step = (high - low) / levels if high > low else x.dtype.type(1)
        zero = np.clip(np.rint(-low / step), 0, levels)
        made.append(rounded(sample, step, -zero, levels - zero))
    return np.array(made)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["one step", "by channel", "dynamic"])
def test_values(kind, dtype):
    x = (3 * RNG.normal(size=(4, 3, 5, 40))).astype(dtype)
    x[0, 0, 0, :3] = [0.25, 0.75, -0.25]  # ties go to even numbers of steps
    steps = np.array([0.5, 0.25, 0.125], dtype).reshape(3, 1, 1)
    layer, expected = {
        "one step": (L.Quantize(0.5, -3, 4), rounded(x, dtype(0.5), -3, 4)),
        "by channel": (L.Quantize(steps, np.full_like(steps, -8), np.full_like(steps, 9)), rounded(x, steps, -8, 9)),
        "dynamic": (L.DynamicQuantize(15), dynamic(x, dtype(15))),
    }[kind]
    net = pylrp.Network([L.Affine(np.ones((3, 1, 1), dtype), 0.0), layer], input_shape=x.shape[1:])
    np.testing.assert_allclose(net.forward(x), expected, rtol=0, atol=4e-7 if dtype is np.float32 else 1e-14)


def test_a_sample_has_its_own_steps():
    x = RNG.normal(size=(3, 7)) * [[1], [10], [0]]
    net = pylrp.Network([L.Dense(np.eye(7)), L.DynamicQuantize()])
    alone = np.concatenate([net.forward(sample[None]) for sample in x])
    np.testing.assert_array_equal(net.forward(x), alone)
    assert not net.forward(x)[2].any()


@pytest.mark.parametrize("layer", [L.Quantize(0.5, 0, 15), L.DynamicQuantize(31)])
@pytest.mark.parametrize("rule", ["passes", "by contributions"])
def test_relevance(layer, rule):
    W, V = RNG.normal(size=(6, 4)), RNG.normal(size=(3, 6))
    net = pylrp.Network([L.Dense(W), layer, L.Dense(V)])
    x = RNG.normal(size=(5, 4)) * 3
    composite = pylrp.Composite(
        "mine", pylrp.Epsilon(0), kinds={"function": pylrp.Epsilon(0)} if rule != "passes" else {}
    )
    ex = net.explain(x, target=1, composite=composite)
    hidden = x @ W.T
    upper = net.forward(x)[:, 1:2]
    y = dynamic(hidden, 31.0) if isinstance(layer, L.DynamicQuantize) else rounded(hidden, 0.5, 0, 15)
    np.testing.assert_allclose(upper[:, 0], y @ V[1], rtol=1e-12)
    arrived = y * V[1]
    expected = x * ((arrived / hidden) @ W)
    np.testing.assert_allclose(ex.relevance, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("settings", [(0.0, -1, 1), (-1.0, -1, 1), (1.0, 1, 2), (1.0, -2, -1)])
def test_what_is_no_scale(settings):
    with pytest.raises(ValueError):  # noqa: PT011
        L.Quantize(*settings)


def test_saved_and_read(tmp_path):
    layers = [L.Quantize(0.5, 0, 15), L.DynamicQuantize(31), L.Quantize(np.array([[0.5], [1.0]]), -4, 4)]
    net = pylrp.Network(layers, input_shape=(2, 3))
    net.save(tmp_path / "n.npz")
    x = RNG.normal(size=(2, 2, 3))
    np.testing.assert_array_equal(pylrp.load(tmp_path / "n.npz").forward(x), net.forward(x))
