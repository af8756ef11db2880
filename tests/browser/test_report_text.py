"""Words of a text in a browser: coloured by their relevance, sentences side by side, nothing runs."""

import numpy as np
import pytest
import small_text

import pylrp
from pylrp.present.words import colour
from pylrp.report import Report

pytest.importorskip("onnx")
pytestmark = pytest.mark.slow
TOKENS = ["[CLS]", "un", "##seen", "<img src=x onerror='window.harm=1'>", "[SEP]", "a", "film", "[SEP]"]


@pytest.fixture
def ex(rng):
    net = pylrp.load(small_text.model(), dtype="float64")
    one = {name: array[0] for name, array in small_text.batch(rng, 1, len(TOKENS)).items()}
    return net, net.explain(one, targets=[0, 1]).with_tokens(TOKENS)


def test_heads_and_positions(browser, rng, tmp_path):
    net = pylrp.load(small_text.model(), dtype="float64")
    x = {name: array[0] for name, array in small_text.batch(rng, 1, len(TOKENS)).items()}
    report = Report(net)
    report.add(x, targets=[0, 1], tokens=TOKENS, composites="attnlrp")
    report.write(tmp_path / "text.html")
    browser.open(tmp_path / "text.html")
    assert browser.driver.get_log("browser") == []
    again = net.explain(x, targets=[0, 1], composite="attnlrp", layers=net.heads)
    for target in (0, 1):
        browser.choose(target)
        values = again.layers["heard"][target].sum(axis=(1, 2))
        shown = "return [...document.querySelectorAll('.heads td')].map(e => getComputedStyle(e).backgroundColor)"
        require_colours(browser.run(shown), values, np.abs(values).max())
        P = again.positions[target]
        places = np.array([P[0], P[1] + P[2], P[3], P[4], P[5], P[6], P[7]])
        shown = "return [...document.querySelectorAll('.position')].map(e => getComputedStyle(e).borderBottomColor)"
        require_colours(browser.run(shown), places, np.abs(places).max())
    assert browser.run("return document.querySelectorAll('.heads thead th').length") == 3  # two heads beside the names
    assert browser.run("return window.harm") is None


def require_colours(found, values, limit):
    for ground, value in zip(found, values, strict=True):
        given = [int(part) for part in ground[4:-1].split(",")]
        expected = [int(colour(value, limit)[0][i : i + 2], 16) for i in (1, 3, 5)]
        assert np.abs(np.subtract(given, expected)).max() <= 2


def test_words_are_coloured(browser, ex, tmp_path):
    net, explained = ex
    report = Report(net)
    report.add(explained)
    report.write(tmp_path / "text.html")
    browser.open(tmp_path / "text.html")
    assert browser.driver.get_log("browser") == []
    words = browser.run("return [...document.querySelectorAll('.text .word')].map(e => e.textContent)")
    assert words == ["unseen", TOKENS[3], "[CLS]", "[SEP]", "a", "film", "[SEP]"]
    left = browser.run("return [...document.querySelectorAll('.sentence')].map(e => e.getBoundingClientRect().left)")
    assert left[1] > left[0] + 200  # side by side
    assert browser.run("return window.harm") is None
    browser.slide("clip", 100)
    for target in (0, 1):
        browser.choose(target)
        R = explained.relevance[target]
        values = np.array([R[1] + R[2], R[3], R[0], R[4], R[5], R[6], R[7]])
        limit = np.abs(values[[0, 1, 4, 5]]).max()
        grounds = browser.run(
            "return [...document.querySelectorAll('.text .word')].map(e => getComputedStyle(e).backgroundColor)"
        )
        for ground, value in zip(grounds, values, strict=True):
            found = [int(part) for part in ground[4:-1].split(",")]
            expected = [int(colour(value, limit)[0][i : i + 2], 16) for i in (1, 3, 5)]
            assert np.abs(np.subtract(found, expected)).max() <= 2
