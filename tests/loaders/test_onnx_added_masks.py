"""Masks of numbers that a user adds to attention scores: they carry no relevance and may hold -inf."""

from __future__ import annotations

import numpy as np
import pytest

import pylrp
from pylrp.errors import NotFinite, UnfitInputType

onnx = pytest.importorskip("onnx")

from onnx import numpy_helper, parser  # noqa: E402

RNG = np.random.default_rng(0)
WORDS, WQ = RNG.normal(size=(9, 4)), RNG.normal(size=(4, 4))
#: How the mask, (batch, tokens, tokens), comes to the scores a.
FORMS = {
    "added": "m = Add (a, mask)",
    "first": "m = Add (mask, a)",
    "scaled": "b = Mul (a, half) m = Add (b, mask)",
    "with heads": "u = Unsqueeze (mask, one) s = Squeeze (u, one) m = Add (a, s)",
    "bounded": "b = Add (a, mask) m = Max (b, least)",
    "of ones": "l = Sub (mask, unit) r = Mul (l, large) m = Add (a, r)",
}


def model(form, end="o = Softmax <axis = 2> (m) y = MatMul (o, x)", kind="float"):
    text = f"""
        <ir_version: 8, opset_import: ["": 17]>
        test (int64[n, t] ids, {kind}[n, t, t] mask) => (float[n, t, 4] y)
        <float half = {{0.5}}, int64[1] one = {{1}}, float least = {{-3.4028235e38}}, float unit = {{1}},
         float large = {{1e9}}> {{
          x = Gather (words, ids)
          q = MatMul (x, wq)
          t = Transpose <perm = [0, 2, 1]> (x)
          a = MatMul (q, t)
          {form}
          {end}
        }}"""
    made = parser.parse_model(" ".join(text.split()))
    for name, array in (("words", WORDS), ("wq", WQ)):
        made.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return made


def expected(ids, mask, form):
    """Return what a softmax over the open places hears, and relevance along the values (Ali et al. 2022)."""
    x = WORDS.astype(np.float32)[ids].astype(float)
    scores = x @ WQ.astype(np.float32) @ x.swapaxes(1, 2) * (0.5 if form == "scaled" else 1)
    is_open = mask > 0.5 if form == "of ones" else np.isfinite(mask)
    weights = np.where(is_open, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    total = weights.sum(-1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return weights @ x, weights[:, 1, :] * x[:, :, 2]  # of the entry (1, 2)


@pytest.mark.parametrize("form", FORMS)
def test_no_relevance_and_no_nan(form):
    net = pylrp.load(model(FORMS[form]), dtype="float64")
    ids = RNG.integers(0, 9, (3, 5))
    is_open = RNG.random((3, 5, 5)) < 0.7
    is_open[:, :, 0] = True
    mask = is_open.astype(np.float32) if form == "of ones" else np.where(is_open, 0, -np.inf).astype(np.float32)
    y, R = expected(ids, mask, form)
    ex = net.explain({"ids": ids, "mask": mask}, (1, 2), composite="cp_lrp")
    np.testing.assert_allclose(ex.output, y, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ex.relevance, R, rtol=1e-6, atol=1e-6)  # one array: the mask carries none
    assert np.isfinite(net.explain({"ids": ids, "mask": mask}, (1, 2), composite="attnlrp").relevance).all()


@pytest.mark.parametrize("composite", ["cp_lrp", "attnlrp"])
def test_a_row_of_nothing_is_zero_and_takes_nothing(composite):
    net, ids = pylrp.load(model(FORMS["added"])), RNG.integers(0, 9, (2, 5))
    mask = np.zeros((2, 5, 5), np.float32)
    mask[0, 1] = -np.inf
    ex = net.explain({"ids": ids, "mask": mask}, (1, 2), composite=composite)
    assert not ex.output[0, 1].any()
    assert not ex.relevance[0].any()
    assert ex.relevance[1].any()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_other_numbers_are_refused(wrong):
    net, ids = pylrp.load(model(FORMS["added"])), RNG.integers(0, 9, (2, 4))
    mask = np.zeros((2, 4, 4), np.float32)
    mask[1, 0, 0] = wrong
    with pytest.raises(NotFinite, match="-inf, no NaN") as caught:
        net.explain({"ids": ids, "mask": mask}, (1, 2))
    assert caught.value.sample == 1
    with pytest.raises(UnfitInputType, match="floating-point"):
        net.explain({"ids": ids, "mask": np.zeros((2, 4, 4), int)}, (1, 2))


@pytest.mark.parametrize(
    ("form", "end"),
    [
        ("m = Add (a, mask)", "o = Tanh (m) y = MatMul (o, x)"),  # no softmax
        ("m = Add (a, mask)", "o = Softmax <axis = 2> (m) b = MatMul (mask, x) c = MatMul (o, x) y = Add (b, c)"),
        ("m = Mul (a, mask)", "o = Softmax <axis = 2> (m) y = MatMul (o, x)"),
        ("c = MatMul (mask, x) b = MatMul (c, t) m = Add (a, b)", "o = Softmax <axis = 2> (m) y = MatMul (o, x)"),
    ],
)
def test_what_is_more_than_a_mask_carries_relevance(form, end):
    net = pylrp.load(model(form, end))
    assert net.graph.facts.sides.carrying == ("ids", "mask")


def test_saved_listed_and_verified(tmp_path, capsys):
    from pylrp.cli import main

    onnx.save(model(FORMS["added"]), tmp_path / "a.onnx")
    net = pylrp.load(tmp_path / "a.onnx")
    x = {"ids": RNG.integers(0, 9, (2, 4)), "mask": np.where(np.tri(4), 0, -np.inf)[None].repeat(2, 0)}
    ex = net.explain(x, (2, 1))
    net.save(tmp_path / "a.npz")
    np.testing.assert_array_equal(pylrp.load(tmp_path / "a.npz").explain(x, (2, 1)).relevance, ex.relevance)
    samples = [{"ids": x["ids"][0], "mask": x["mask"][0]}, {"ids": x["ids"][1, :3], "mask": x["mask"][1, :3, :3]}]
    np.testing.assert_allclose(net.explain(samples, (2, 1)).relevance[0], ex.relevance[0], rtol=1e-5, atol=1e-6)
    assert net.verify({**x, "mask": x["mask"].astype(np.float32)}, target=(2, 1)).ok
    assert main(["info", str(tmp_path / "a.onnx")]) == 0
    assert "a mask that is added to the scores of attention; takes no relevance" in capsys.readouterr().out


def test_weights_of_a_table_that_are_nan():
    made = model(FORMS["added"])
    broken = WORDS.astype(np.float32).copy()
    broken[3, 1] = np.nan
    made.graph.initializer[-2].CopyFrom(numpy_helper.from_array(broken, "words"))
    with pytest.raises(NotFinite, match="table"):
        pylrp.load(made).explain({"ids": [[3, 3]], "mask": np.zeros((1, 2, 2), np.float32)}, (0, 0))
