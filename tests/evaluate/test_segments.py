"""Segments of a signal replaced: scores by hand for networks that add up, and every baseline by its definition."""

from __future__ import annotations

import numpy as np
import pytest

import pylrp
from pylrp.evaluate import leave_one_segment_out, segment_flipping
from pylrp.layers import LSTM, RNN, Conv, Dense, Flatten

STEPS, FEATURES = 12, 2


@pytest.fixture
def adds() -> pylrp.Network:
    """Return a network of steps by features whose output is the sum of the first feature, and minus it."""
    rnn = RNN(np.array([[1.0, 0.0]]), np.array([[1.0]]), activations=("linear",))
    return pylrp.Network([rnn, Dense(np.array([[1.0], [-1.0]]))], input_shape=(STEPS, FEATURES))


def test_without_a_segment_the_score_falls_by_its_part(adds, rng):
    x = rng.normal(size=(3, STEPS, FEATURES))
    R = adds.explain(x, target=0).relevance
    found = leave_one_segment_out(adds, x, R, target=0, segments=4, baseline="zero")
    by_hand = x[:, :, 0].reshape(3, 4, 3).sum(2)
    np.testing.assert_allclose(found.left_out, by_hand)
    np.testing.assert_allclose(found.relevance, by_hand, rtol=1e-4)
    np.testing.assert_allclose(found.pearson, 1)
    np.testing.assert_allclose(found.rank, 1)
    np.testing.assert_array_equal(found.edges, [0, 3, 6, 9, 12])
    other = leave_one_segment_out(adds, x, np.ones_like(R), target=1, segments=[0, 5], baseline="zero")
    np.testing.assert_allclose(other.left_out, -np.stack([x[:, :5, 0].sum(1), x[:, 5:, 0].sum(1)], 1))
    np.testing.assert_allclose(other.relevance, [[10, 14]] * 3)


def test_the_order_is_that_of_relevance(adds, rng):
    x = rng.normal(size=(2, STEPS, FEATURES))
    curves = segment_flipping(adds, x, x[:, :, 0], target=0, segments=STEPS, baseline=0.0)
    total = x[:, :, 0].sum(1, keepdims=True)
    for name, order in {"most": -np.sort(-x[:, :, 0], 1), "least": np.sort(x[:, :, 0], 1)}.items():
        left = np.concatenate([total, total - order.cumsum(1)], 1)
        np.testing.assert_allclose(curves.scores[name], left, atol=1e-12)
    np.testing.assert_allclose(curves.scores["random"][:, [0, -1]], np.hstack([total, 0 * total]), atol=1e-12)
    assert (curves.abpc > 0).all()
    np.testing.assert_allclose(curves.fractions, np.arange(STEPS + 1) / STEPS)


def test_baselines(adds, rng):
    x = rng.normal(size=(1, STEPS, FEATURES))

    def without(baseline):
        found = leave_one_segment_out(adds, x, x, target=0, segments=[0, 4, 8], baseline=baseline)
        return x[0, :, 0].sum() - found.left_out[0]  # the sum of what stands there then

    first = x[0, :, 0]
    np.testing.assert_allclose(
        without("mean"), [first.sum() - first[i : i + 4].sum() + 4 * first.mean() for i in (0, 4, 8)]
    )
    line = np.interp([4, 5, 6, 7], [3, 8], first[[3, 8]])
    wanted = [
        4 * first[4] + first[4:].sum(),
        first[:4].sum() + line.sum() + first[8:].sum(),
        first[:8].sum() + 4 * first[7],
    ]
    np.testing.assert_allclose(without("linear"), wanted)
    np.testing.assert_allclose(without(2.0), [first.sum() - first[i : i + 4].sum() + 8 for i in (0, 4, 8)])
    filled = rng.normal(size=(STEPS, FEATURES))
    kept = [first.sum() + (filled[i : i + 4, 0] - first[i : i + 4]).sum() for i in (0, 4, 8)]
    np.testing.assert_allclose(without(filled), kept)
    np.testing.assert_array_equal(without("noise"), without("noise"))  # drawn from the seed
    assert not np.allclose(without("noise"), without("mean"))
    curves = segment_flipping(adds, x, x, target=0, segments=3, baseline="linear", order=("most",))
    np.testing.assert_allclose(
        curves.scores["most"][0, -1], STEPS * first.mean()
    )  # nothing is left to draw a line from


def test_time_is_the_last_axis_of_convolutions(rng):
    net = pylrp.Network([Conv(np.ones((1, 2, 1))), Flatten(), Dense(np.ones((1, 8)))], input_shape=(2, 8))
    x = rng.normal(size=(1, 2, 8))
    found = leave_one_segment_out(net, x, net.explain(x, composite="epsilon").relevance, segments=2, baseline="zero")
    np.testing.assert_allclose(found.left_out[0], x[0].reshape(2, 2, 4).sum((0, 2)))
    np.testing.assert_allclose(found.relevance, found.left_out, rtol=1e-5)


def test_a_trained_kind_of_map_beats_chance(rng):
    units = 8
    lstm = LSTM(rng.normal(size=(4 * units, 3)), rng.normal(size=(4 * units, units)) / 3, rng.normal(size=4 * units))
    net = pylrp.Network([lstm, Dense(rng.normal(size=(2, units)))], input_shape=(40, 3))
    x = rng.normal(size=(8, 40, 3))
    found = leave_one_segment_out(net, x, net.explain(x, target=1).relevance, target=1, segments=20, baseline="mean")
    assert np.nanmean(found.pearson) > 0.5
    assert (
        abs(np.nanmean(leave_one_segment_out(net, x, rng.normal(size=x.shape), target=1, baseline="mean").pearson))
        < 0.3
    )


def test_what_does_not_fit_is_refused(adds, rng):
    x = rng.normal(size=(1, STEPS, FEATURES))
    for wrong in (
        {"segments": 0}, {"segments": STEPS + 1}, {"segments": [1, 4]}, {"segments": [0, 0]}, {"segments": [0, STEPS]},
        {"baseline": "blur"}, {"baseline": np.ones(5)},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"segments|baseline"):
            leave_one_segment_out(adds, x, x, **wrong)
    for wrong in ({"order": ["best"]}, {"repeats": 0}):
        with pytest.raises(ValueError, match=r"order|repeats"):
            segment_flipping(adds, x, x, **wrong)
    with pytest.raises(ValueError, match="relevance"):
        leave_one_segment_out(adds, x, x[:, :5], segments=4)


@pytest.mark.parametrize("layer", ["LSTM", "GRU", "RNN"])
def test_networks_of_any_length_are_evaluated_at_that_of_the_input(layer: str) -> None:
    """As networks for that length are; weights of recurrent layers are random, too, where they are to be."""
    rng = np.random.default_rng(0)
    rows = {"LSTM": 4, "GRU": 3, "RNN": 1}[layer] * 5
    arrays = [rng.normal(size=shape) for shape in ((rows, 3), (rows, 5), (rows,))]
    layers = [getattr(pylrp.layers, layer)(*arrays), pylrp.layers.Dense(rng.normal(size=(2, 5)))]
    x = rng.normal(size=(3, 21, 3))
    found = []
    for net in (pylrp.Network(layers), pylrp.Network(layers, input_shape=(21, 3))):
        relevance = net.explain(x, target=1).relevance
        curves = pylrp.evaluate.segment_flipping(net, x, relevance, target=1, baseline="zero")
        left_out = pylrp.evaluate.leave_one_segment_out(net, x, relevance, target=1, baseline="zero")
        random = pylrp.evaluate.randomisation(net, x, target=1)
        changed = pylrp.evaluate.randomised(net, ["0"]) if hasattr(pylrp.evaluate, "randomised") else None
        assert changed is None or not np.array_equal(changed.graph.nodes[0].layer.recurrent, arrays[1])
        report = pylrp.Report(net)
        report.add(net.explain(x, target=1))
        report.add(x)
        found.append((curves.abpc, left_out.pearson, random.cosine))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    assert abs(found[0][2][:, -1]).max() < 1 - 1e-9
