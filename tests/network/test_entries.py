"""Targets that are entries of an output: (position, token), weighted ones, one a sample, and those that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_text

import pylrp
from pylrp.layers import Dense

pytest.importorskip("onnx")
WORDS = small_text.WORDS


@pytest.fixture(scope="module")
def net() -> pylrp.Network:
    return pylrp.load(small_text.model("tokens"), dtype="float64")


@pytest.fixture
def x(rng: np.random.Generator) -> dict[str, Any]:
    return small_text.batch(rng, 3, 5)


def by_array(net: pylrp.Network, x: Any, weights: Any, **options: Any) -> Any:
    """Explain entries as relevance that is written out: weight times value."""
    start = np.asarray(weights) * net.forward(x)
    return net.explain(x, start, **options)


def weights(*samples: dict[tuple[int, int], float]) -> Any:
    made = np.zeros((3, 5, WORDS))
    for i in range(3):
        for place, weight in samples[i % len(samples)].items():
            made[(i, *place)] += weight
    return made


CASES: dict[str, tuple[Any, tuple[dict[tuple[int, int], float], ...]]] = {
    "one": ((3, 7), ({(3, 7): 1},)),
    "from the end": ((-1, 7), ({(4, 7): 1},)),
    "NumPy's integers": ((np.int64(3), np.int32(7)), ({(3, 7): 1},)),
    "two weighted": ({(3, 7): 1, (-2, 2): -1}, ({(3, 7): 1, (3, 2): -1},)),
    "weights": ({(3, 7): 0.5, (0, 2): -2.0}, ({(3, 7): 0.5, (0, 2): -2},)),
    "one a sample": ([(0, 1), (1, 2), (-1, 0)], ({(0, 1): 1}, {(1, 2): 1}, {(4, 0): 1})),
    "some a sample": ([(0, 1), {(1, 2): 1, (1, 3): -1}, (2, 2)], ({(0, 1): 1}, {(1, 2): 1, (1, 3): -1}, {(2, 2): 1})),
    "an array of one a sample": (np.array([[0, 1], [1, 2], [-1, 0]]), ({(0, 1): 1}, {(1, 2): 1}, {(4, 0): 1})),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("composite", ["cp_lrp", "attnlrp"])
def test_entries_are_relevance_there(net, x, case, composite):
    target, places = CASES[case]
    expected = by_array(net, x, weights(*places), composite=composite)
    ex = net.explain(x, target, composite)
    scale = np.abs(expected.relevance).max()
    np.testing.assert_allclose(ex.relevance, expected.relevance, atol=1e-12 * scale)
    np.testing.assert_allclose(ex.ledger.data, expected.ledger.data, atol=1e-10 * scale)
    np.testing.assert_allclose(ex.layers["h"], expected.layers["h"], atol=1e-12 * scale)
    assert ex.target is None
    several = net.explain(x, targets=[target, (0, 0)], composite=composite)
    np.testing.assert_allclose(several.relevance[:, 0], expected.relevance, atol=1e-12 * scale)


def test_starts_of_one(net, x):
    values = net.forward(x)
    for target in ((3, 7), {(3, 7): 2.0, (1, 1): -1.0}):
        entries = target if isinstance(target, dict) else {target: 1.0}
        started = sum(weight * values[(slice(None), *place)] for place, weight in entries.items())
        ex, one = net.explain(x, target, "cp_lrp"), net.explain(x, target, "cp_lrp", start="one")
        np.testing.assert_allclose(one.relevance, ex.relevance / np.abs(started)[:, None], atol=1e-9)


def test_a_sample_alone(net, x):
    alone = {name: array[1] for name, array in x.items()}
    one, several = net.explain(alone, (-2, 4)), net.explain(x, (-2, 4))
    np.testing.assert_allclose(one.relevance, several.relevance[1], atol=1e-9)
    with pytest.raises(ValueError, match="has 2 entries, x has 1 samples"):
        net.explain(alone, [(0, 1), (0, 2)])


def test_classes_with_weights(rng):
    net = pylrp.Network([Dense(rng.normal(size=(4, 3)))])
    x = rng.normal(size=(2, 3))
    ex = net.explain(x, {1: 1, 3: -1}, "epsilon")
    np.testing.assert_allclose(ex.relevance, net.explain(x, 1, "epsilon", against=3).relevance, rtol=1e-9)
    several = net.explain(x, targets=[{0: 2}, 1, np.ones((2, 4))], composite="epsilon")
    np.testing.assert_allclose(several.relevance[:, 0], 2 * net.explain(x, 0, "epsilon").relevance, rtol=1e-9)
    np.testing.assert_allclose(several.relevance[:, 2], net.explain(x, np.ones((2, 4)), "epsilon").relevance, rtol=1e-9)


def test_an_image_s_entry(rng):
    """Of (channels, height, width) the last two are positions."""
    from pylrp.layers import Conv

    net = pylrp.Network([Conv(rng.normal(size=(4, 2, 3, 3)))], input_shape=(2, 6, 5))
    x = rng.normal(size=(2, 2, 6, 5))
    start = np.zeros((2, 4, 4, 3))
    start[:, 2, 1, -1] = net.forward(x)[:, 2, 1, -1]
    for target in ((2, 1, -1), (2, 1, 2)):
        np.testing.assert_allclose(
            net.explain(x, target, "epsilon").relevance, net.explain(x, start, "epsilon").relevance, atol=1e-12
        )


def test_saved(net, x, tmp_path):
    net.explain(x, targets=[(0, 1), {(1, 2): 1, (1, 3): -1}]).save(tmp_path / "ex.npz")
    assert pylrp.Explanation.load(tmp_path / "ex.npz").settings["targets"] == [[0, 1], [[[1, 2], 1.0], [[1, 3], -1.0]]]


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ((5, 1), ValueError, r"target \(5, 1\): 'y' has shape \(5, 11\), there is no position 5 along axis 0: -5 to 4"),
        ((-6, 1), ValueError, "no position -6"),
        ((0, 11), ValueError, "no class 11 along axis 1: 0 to 10"),
        ((0, -1), ValueError, "no class -1"),
        ({(0, 1, 2): 1}, TypeError, r"\(0, 1, 2\) is no entry of 'y', whose shape is \(5, 11\)"),
        ({3: 1}, TypeError, "3 is no entry of 'y'"),
        ({(0, 1): "1"}, TypeError, "it must be a number"),
        ({(0, 1): np.nan}, ValueError, "is nan"),
        ({}, ValueError, "empty dict"),
        ([(0, 1), (0, 2)], ValueError, "target has 2 entries, x has 3 samples"),
        (3, ValueError, r"say of which token, target=\(-1, 3\)"),
        (None, ValueError, "no single class is on top"),
    ],
)
def test_what_is_no_entry(net, x, target, error, message):
    with pytest.raises(error, match=message):
        net.explain(x, target)
