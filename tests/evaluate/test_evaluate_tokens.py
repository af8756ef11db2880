"""Tokens left out: scores against forward passes one by one, correlations, curves, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import small_text

import pylrp
from pylrp.evaluate import evaluate_tokens, leave_one_out, token_flipping

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def net():
    return pylrp.load(small_text.model(), dtype="float64")


@pytest.fixture(scope="module")
def decoder():
    return pylrp.load(small_text.model("tokens"), dtype="float64")


@pytest.fixture
def x(rng):
    return [{name: array[0] for name, array in small_text.batch(rng, 1, n).items()} for n in (6, 4, 6)]


def deleted(sample, i):
    return {name: np.delete(row, i) for name, row in sample.items()}


def test_leaving_one_out(net, x):
    found = leave_one_out(net, x, 1)
    for sample, drops in zip(x, found, strict=True):
        expected = [net.forward(sample)[1] - net.forward(deleted(sample, i))[1] for i in range(len(sample["ids"]))]
        np.testing.assert_allclose(drops, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(leave_one_out(net, x[0], 1), found[0])
    by_text = leave_one_out(net, x, [0, 1, 2])
    np.testing.assert_allclose(by_text[1], found[1])
    top = int(net.forward(x[2]).argmax())
    np.testing.assert_allclose(leave_one_out(net, x)[2], leave_one_out(net, x[2], top))
    direction = np.array([1.0, -2.0, 0.5])
    drops = leave_one_out(net, x[0], direction)
    expected = [(net.forward(x[0]) - net.forward(deleted(x[0], i))) @ direction for i in range(6)]
    np.testing.assert_allclose(drops, expected, rtol=1e-9)


def test_masking_and_what_is_kept(net, x):
    sample = x[0]
    kept = int(sample["ids"][0])
    drops = leave_one_out(net, sample, 2, how="mask", mask=3, keep=[kept])
    for i, token in enumerate(sample["ids"].tolist()):
        changed = {**sample, "ids": np.where(np.arange(6) == i, 3, sample["ids"])}
        if token == kept:
            assert np.isnan(drops[i])
        else:
            assert drops[i] == pytest.approx(net.forward(sample)[2] - net.forward(changed)[2], abs=1e-12)
    padded = {**sample, "mask": np.array([1, 1, 1, 1, 0, 0])}
    assert np.isnan(leave_one_out(net, padded, 2)[4:]).all()


def test_an_entry_stays_where_it_was(decoder, x):
    """The score of a token's row follows it when tokens before it go."""
    drops = leave_one_out(decoder, x[0], (3, 7))
    value = decoder.forward(x[0])[3, 7]
    expected = [value - decoder.forward(deleted(x[0], i))[3 - (i < 3), 7] for i in range(6) if i != 3]
    np.testing.assert_allclose(np.delete(drops, 3), expected, rtol=1e-9, atol=1e-12)
    assert drops[3] == pytest.approx(value)  # without the row itself there is nothing


def test_curves(net, x):
    R = net.explain(x[0], 1).relevance
    curves = token_flipping(net, x[0], R, 1, steps=5)
    order = np.argsort(-R)
    expected = [net.forward({n: np.delete(row, order[:k]) for n, row in x[0].items()})[1] for k in range(6)]
    np.testing.assert_allclose(curves.scores["most"][0], expected, rtol=1e-9)
    turned = token_flipping(net, x[0], -R, 1, steps=5)
    np.testing.assert_allclose(turned.abpc, -curves.abpc)


def test_evaluation(net, x):
    drops = leave_one_out(net, x, 1)
    found = evaluate_tokens(
        net, x, ["cp_lrp", "attnlrp"], target=1, maps={"itself": drops, "against": [-d for d in drops]}
    )
    assert found.composites == ("cp_lrp", "attnlrp", "itself", "against", "random")
    np.testing.assert_allclose(found.pearson["itself"], 1)
    np.testing.assert_allclose(found.rank["against"], -1)
    for i, sample in enumerate(x):
        R = net.explain(sample, 1, "cp_lrp").relevance
        np.testing.assert_allclose(found.relevance["cp_lrp"][i], R, rtol=1e-9, atol=1e-12)
        assert found.pearson["cp_lrp"][i] == pytest.approx(np.corrcoef(R, drops[i])[0, 1])
    assert found.table().splitlines()[2].startswith("itself")
    assert "<table" in found._repr_html_()


def test_a_text_of_which_all_tokens_are_kept(net, x):
    found = evaluate_tokens(net, x[:1], ["cp_lrp"], target=1, keep=range(small_text.WORDS))
    assert np.isnan(found.pearson["cp_lrp"]).all()


def test_evaluate_takes_ids(net, x):
    found = pylrp.evaluate.evaluate(net, x, ["cp_lrp"], target=1)
    np.testing.assert_allclose(found.pearson["cp_lrp"], evaluate_tokens(net, x, ["cp_lrp"], target=1).pearson["cp_lrp"])
    with pytest.raises(ValueError, match="checks are not for networks of token ids"):
        pylrp.evaluate.evaluate(net, x, ["cp_lrp"], checks=["flipping"])


def test_what_is_refused(net, x):
    with pytest.raises(ValueError, match="needs mask="):
        leave_one_out(net, x, how="mask")
    fixed = pylrp.load(small_text.model(), input_shape={"ids": (6,), "mask": (6,)})
    with pytest.raises(ValueError, match="takes one length"):
        leave_one_out(fixed, x[0])
    assert leave_one_out(fixed, x[0], how="mask", mask=0).shape == (6,)
    with pytest.raises(ValueError, match="texts and relevance of 1"):
        token_flipping(net, x, [np.zeros(6)])
    with pytest.raises(ValueError, match="takes no token ids"):
        leave_one_out(pylrp.Network([pylrp.layers.Dense(np.ones((2, 3)))]), np.ones((1, 3)))
