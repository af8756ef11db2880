"""The report's overview of many samples, and the axis and lanes of signals, in a browser."""

import numpy as np
import pytest

import pylrp
from pylrp.layers import Conv, Dense, Flatten, ReLU
from pylrp.report import Report

pytestmark = pytest.mark.slow

LANES = ["left <b>", "right", "ankle"]
ROWS = "return [...document.querySelectorAll('.overview tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
HEAD = "document.querySelectorAll('.overview th button')[arguments[0]].click()"


@pytest.fixture(scope="module")
def signals(tmp_path_factory):
    rng = np.random.default_rng(0)
    net = pylrp.Network(
        [Conv(rng.normal(size=(4, 3, 9)), padding=4), ReLU(), Flatten(), Dense(rng.normal(size=(3, 400)) / 60)],
        input_shape=(3, 100),
    )
    x = rng.normal(size=(12, 3, 100))
    report = Report(net, labels=["rest", "walk", "run"])
    report.add(x, name=[f"trial {i}" for i in range(12)], feature_names=LANES, times=2 + np.arange(100) / 50)
    path = tmp_path_factory.mktemp("overview") / "signals.html"
    report.write(path)
    logits = net.forward(x)
    odds = np.exp(logits)
    return path, logits.argmax(axis=1), odds.max(axis=1) / odds.sum(axis=1)


def test_it_sorts_and_opens(browser, signals):
    path, classes, sure = signals
    browser.open(path)
    assert browser.run("return document.querySelector('.overview').open")
    assert [row[1] for row in browser.run(ROWS)] == [f"trial {i}" for i in range(12)]
    browser.run(HEAD, 3)
    order = np.argsort(sure, kind="stable")
    assert [row[1] for row in browser.run(ROWS)] == [f"trial {i}" for i in order]
    thumbs = "return [...document.querySelectorAll('nav button span')].map(s => s.textContent)"
    assert browser.run(thumbs) == [f"trial {i}" for i in order]
    browser.run(HEAD, 3)  # the other way round
    assert [row[1] for row in browser.run(ROWS)] == [f"trial {i}" for i in np.argsort(-sure, kind="stable")]
    browser.run(HEAD, 1)  # 10 comes after 9
    assert [row[1] for row in browser.run(ROWS)] == [f"trial {i}" for i in range(12)]
    browser.run(HEAD, 2)
    names = np.array(["rest", "walk", "run"])[classes]
    assert [row[2] for row in browser.run(ROWS)] == sorted(names)
    first = browser.run(ROWS)[0][1]
    browser.act("document.querySelector('.overview tbody tr').click()")
    assert browser.text(".answer .name") == first
    assert browser.run("return document.querySelectorAll('.overview [aria-selected=true]').length") == 1
    assert browser.driver.get_log("browser") == []


def test_signals_have_an_axis_and_names(browser, signals):
    browser.open(signals[0])
    ticks = browser.run(
        "return [...document.querySelectorAll('.axis span')].map(s => [s.textContent, parseFloat(s.style.left)])"
    )
    assert [float(text) for text, _ in ticks] == [2, 2.5, 3, 3.5]
    for text, left in ticks:
        assert left == pytest.approx(100 * ((float(text) - 2) * 50 + 0.5) / 100, abs=1e-6)
    browser.run("document.querySelector('.signal').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))")
    said = browser.text(".readout")
    assert said.startswith("At 3.02: value left <b> ")
    assert all(f"{name} " in said for name in LANES)


def test_many_features_have_a_map_of_time_by_feature(browser, tmp_path):
    """A red cell where one feature of one step made all of the score, named by what is pointed at."""
    rows, steps, at = 20, 40, (3, 10)
    weight = np.zeros((2, rows * steps))
    weight[0, at[0] * steps + at[1]] = 1
    net = pylrp.Network([Flatten(), Dense(weight)], input_shape=(rows, steps))
    report = Report(net)
    report.add(np.ones((rows, steps)), targets=[0], feature_names=[f"sensor {i}" for i in range(rows)])
    report.write(tmp_path / "features.html")
    browser.open(tmp_path / "features.html")
    pixels = browser.pixels(".by-feature")
    height, width, flat = pixels
    image = np.array(flat, int).reshape(height, width, -1)
    red = image[:, :, 0] - image[:, :, 2] > 60
    found = np.argwhere(red)
    assert found.size
    assert found[:, 0].mean() / height * rows == pytest.approx(at[0] + 0.5, abs=0.5)
    assert found[:, 1].mean() / width * steps == pytest.approx(at[1] + 0.5, abs=0.5)
    for key in ("ArrowUp", "ArrowUp"):
        browser.run(
            "document.querySelector('.by-feature').dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0]}))",
            key,
        )
    said = browser.run("return [...document.querySelectorAll('.readout')].map(p => p.textContent)")[-1]
    assert said.startswith(f"At position {steps // 2}, sensor {rows // 2 - 2}: relevance ")
    assert browser.driver.get_log("browser") == []


def test_what_does_not_fit_is_refused():
    net = pylrp.Network([Conv(np.ones((1, 3, 3))), Flatten(), Dense(np.ones((2, 8)))], input_shape=(3, 10))
    x = np.ones((3, 10))
    for options in ({"feature_names": ["a"]}, {"times": range(3)}, {"times": [0] * 10}, {"times": [np.nan] * 10}):
        with pytest.raises(ValueError, match=r"channels|times"):
            Report(net).add(x, **options)
    table = pylrp.Network([Dense(np.ones((2, 4)))])
    with pytest.raises(ValueError, match="times are for a signal"):
        Report(table).add(np.ones(4), times=range(4))
