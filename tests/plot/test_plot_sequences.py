"""Pictures of sequences: words, heads, patches, positions."""

from __future__ import annotations

import itertools

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


def test_texts_of_unequal_length_have_their_own_words(net, rng):
    samples = [{"ids": rng.integers(0, 10, n), "mask": np.ones(n, int)} for n in (3, 5)]
    ex = net.explain(samples, 1).with_tokens([["a", "b", "c"], TOKENS])
    assert texts(ex.plot().axes[0])[:3] == ["a", "b", "c"]
    assert texts(ex.plot(sample=1).axes[0])[:2] == ["unseen", "film"]


@pytest.mark.parametrize("second", [False, True])
def test_words_longer_than_a_line_are_cut(ex, second):
    long = "Donaudampfschifffahrtsgesellschaft" * 4
    tokens = ["a", "[SEP]", long, "b", "c"] if second else [long, "a", "b", "c", "d"]
    figure = ex.plot(tokens=tokens)
    (ax,) = figure.axes
    pieces = [
        each for each in ax.texts if each.get_text() not in ("a", "b", "c", "d", "[SEP]") and each.get_text() in long
    ]
    assert "".join(each.get_text() for each in pieces) == long
    assert len({each.get_position()[1] for each in pieces}) == len(pieces) > 1  # each in its line
    figure.canvas.draw()
    ends = [each.get_window_extent().x1 for each in ax.texts]
    assert max(ends) <= figure.bbox.x1
    placed = sorted((each.get_position()[1], each.get_window_extent().x0, each.get_window_extent().x1)
                    for each in ax.texts)  # fmt: skip
    for (y, _, right), (other, left, _) in itertools.pairwise(placed):
        assert y != other or right <= left


def test_letters_of_east_asia_take_their_room(ex):
    ax = ex.plot(tokens=["世界世界", "a", "b", "c", "d"]).axes[0]
    (first, *_), (second, *_) = (each.get_position() for each in ax.texts[:2])
    (third, *_) = ax.texts[2].get_position()
    assert second - first > 4 * 10 > third - second  # points: four letters as wide as the font is high


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
