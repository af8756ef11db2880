"""Signals over time: which axis is time, seconds, the map of time by feature, letters of a sequence."""

from __future__ import annotations

import numpy as np
import pytest

import pylrp
from pylrp.layers import GRU, LSTM, Conv, Dense, Flatten, ReLU, Tanh, Transpose
from pylrp.plot import new_figure, signal, time_by_feature

pytest.importorskip("matplotlib")
STEPS = 15


def recurrent(rng, features, *before, shape=None):
    weights = rng.normal(size=(12, features)), rng.normal(size=(12, 3))
    return pylrp.Network(
        [*before, LSTM(*weights), Dense(rng.normal(size=(2, 3)))], input_shape=shape or (STEPS, features)
    )


@pytest.mark.parametrize(
    ("before", "shape", "steps_first"),
    [
        ((), (STEPS, 4), True),
        ((Tanh(),), (STEPS, 4), True),
        ((Transpose((1, 0)),), (4, STEPS), False),
        ((Transpose((1, 0)), ReLU(), Transpose((1, 0))), (STEPS, 4), True),
        ((Transpose((1, 0)), Conv(np.ones((4, 5, 1))), Transpose((1, 0))), (STEPS, 5), True),
        ((Conv(np.ones((4, 5, 1))), Transpose((1, 0))), (5, STEPS), False),
    ],
)
def test_steps_of_recurrent_layers_are_time(rng, before, shape, steps_first):
    net = recurrent(rng, 4, *before, shape=shape)
    assert net.graph.features_last == ({"input"} if steps_first else set())
    x = rng.normal(size=shape)
    ex = net.explain(x, target=0)
    image = ex.plot(kind="time").axes[0].images[0].get_array()
    np.testing.assert_allclose(image, ex.relevance.T if steps_first else ex.relevance)


def test_a_network_without_time_has_none(rng):
    net = pylrp.Network([Flatten(), Dense(rng.normal(size=(2, 20)))], input_shape=(5, 4))
    assert not net.graph.features_last


def test_lanes_of_a_sequence_in_seconds(rng):
    x = rng.normal(size=(STEPS, 3))
    ex = recurrent(rng, 3).explain(x, target=1)
    ax = ex.plot(sample_rate=50.0, feature_names=["a", "b", "c"]).axes[0]
    np.testing.assert_allclose([image.get_array()[0] for image in ax.images], ex.relevance.T)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), np.arange(STEPS) / 50)
    np.testing.assert_allclose(ax.get_xlim(), [-0.01, 0.29])
    assert ax.get_xlabel() == "seconds"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    line = ex.plot(sample_rate=50.0, overlay="line").axes[0].collections[0]
    np.testing.assert_allclose(line.get_segments()[4][1][0], 4 / 50)
    bars = ex.plot(sample_rate=50.0, overlay="none").axes[0].patches[0]
    np.testing.assert_allclose(bars.get_data().edges, (np.arange(STEPS + 1) - 0.5) / 50)


def test_many_features_are_a_map_under_their_sums(rng):
    ex = recurrent(rng, 20).explain(rng.normal(size=(STEPS, 20)), targets=[0, 1])
    figure = ex.plot(feature_names=[f"f{i}" for i in range(20)])
    panels = [ax for ax in figure.axes if ax.images and len(ax.patches) >= 2]
    assert len(panels) == 2
    for ax, R in zip(panels, ex.relevance, strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), R.T)
        total = R.sum(1)
        above, below = (np.asarray(part.get_data().values) - part.get_data().baseline for part in ax.patches[:2])
        np.testing.assert_allclose((above + below) / np.abs(above + below).max(), total / np.abs(total).max())
    assert panels[0].images[0].get_clim() == panels[1].images[0].get_clim()
    names = [label.get_text() for label in panels[0].get_yticklabels()]
    assert names == ["sum", *(f"f{i}" for i in range(20))]


def test_letters_of_a_sequence(rng):
    ex = recurrent(rng, 6).explain(rng.normal(size=(STEPS, 6)), target=0)
    letters = list("uncharacterised")
    ax = ex.plot(tokens=letters).axes[0]
    assert [each.get_text() for each in ax.texts][: len(letters)] == letters


def test_what_does_not_fit_is_refused(rng):
    ex = recurrent(rng, 3).explain(rng.normal(size=(STEPS, 3)), target=1)
    for wrong in ({"sample_rate": 0.0}, {"sample_rate": 5.0, "kind": "ledger"}, {"kind": "time", "overlay": "line"}):
        with pytest.raises(ValueError, match=r"sample_rate|overlay"):
            ex.plot(**wrong)
    ax = new_figure(3, 2).subplots()
    with pytest.raises(ValueError, match="names"):
        time_by_feature(ax, np.ones((2, 5)), names=["one"])
    with pytest.raises(ValueError, match="sample_rate"):
        signal(ax, np.ones(5), sample_rate=-1)


def test_report_and_notebook_show_time_along_the_steps(rng, tmp_path):
    weights = rng.normal(size=(9, 3)), rng.normal(size=(9, 3))
    net = pylrp.Network([GRU(*weights, gates="rzn"), Dense(rng.normal(size=(2, 3)))], input_shape=(STEPS, 3))
    x = rng.normal(size=(STEPS, 3))
    report = pylrp.Report(net)
    report.add(x, times=np.arange(STEPS) / 50, feature_names=["a", "b", "c"])
    report.write(tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert "image/png" in net.explain(x, target=0)._repr_html_()
    with pytest.raises(ValueError, match="times"):
        report.add(x, times=np.arange(3))
