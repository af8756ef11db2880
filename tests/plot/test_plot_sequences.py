"""Pictures of sequences: words, heads, patches, positions."""

from __future__ import annotations

import numpy as np
import pytest
import small_text

import pylrp

pytest.importorskip("matplotlib")
pytest.importorskip("onnx")
TOKENS = ["[CLS]", "un", "##seen", "film", "[SEP]"]


@pytest.fixture(scope="module")
def net():
    return pylrp.load(small_text.model(), dtype="float64")


@pytest.fixture
def ex(net, rng):
    return net.explain(small_text.batch(rng, 2, 5), 1, layers=net.heads)


def texts(ax):
    return [each.get_text() for each in ax.texts]


def test_words_are_drawn(ex, tmp_path):
    figure = ex.plot(tmp_path / "text.png", tokens=TOKENS, sample=1)
    (ax,) = figure.axes
    assert texts(ax)[:4] == ["unseen", "film", "[CLS]", "[SEP]"]
    assert (tmp_path / "text.png").stat().st_size > 3000
    several = ex.with_tokens([TOKENS, ["a", "b", "c", "d", "e"]])
    assert texts(several.plot(sample=1).axes[0])[:5] == ["a", "b", "c", "d", "e"]
    assert texts(several[1].plot().axes[0])[:5] == ["a", "b", "c", "d", "e"]
    assert "unseen" in several._repr_html_()
    with pytest.raises(ValueError, match="2 samples and tokens of 1"):
        ex.with_tokens([TOKENS])
    with pytest.raises(ValueError, match="3 tokens"):
        ex.plot(tokens=["a", "b", "c"])


def test_panels_of_targets(net, rng):
    ex = net.explain(small_text.batch(rng, 2, 5), targets=[0, 2], layers=net.heads)
    assert len(ex.plot(tokens=TOKENS).axes) == 2
    first, second = (ex.plot(kind="heads", target=target).axes[0].images[0].get_array() for target in (0, 2))
    R = ex.layers["heard"][0].sum((-2, -1))
    np.testing.assert_allclose(first, R[:1])
    np.testing.assert_allclose(second, R[1:])


def test_heads(net, ex):
    assert net.heads == ["heard"]
    image = ex.plot(kind="heads", sample=1).axes[0].images[0].get_array()
    np.testing.assert_allclose(image, ex.layers["heard"][1].sum((1, 2))[None])
    with pytest.raises(ValueError, match="as many heads"):
        ex.plot(kind="heads", layers=["x"])


def test_patches(rng):
    R = rng.normal(size=(17, 6))
    np.testing.assert_allclose(pylrp.plot.patches(R), R[1:].sum(1).reshape(4, 4))
    np.testing.assert_allclose(pylrp.plot.patches(R, (2, 8)), R[1:].sum(1).reshape(2, 8))
    with pytest.raises(ValueError, match="need as many tokens"):
        pylrp.plot.patches(R, (5, 4))


def test_a_layer_as_patches(ex):
    image = ex.plot(kind="patches", layer="x", shape=(2, 2)).axes[0].images[0].get_array()
    np.testing.assert_allclose(image, ex.layers["x"][0, 1:].sum(1).reshape(2, 2))


def test_positions(ex):
    ax = ex.plot(kind="positions", tokens=TOKENS, sample=1).axes[0]
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], ex.positions[1])
