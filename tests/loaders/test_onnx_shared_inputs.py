"""ONNX files with inputs that have no batch: positions of (tokens,), masks of (tokens, tokens)."""

from __future__ import annotations

import numpy as np
import pytest

import pylrp

onnx = pytest.importorskip("onnx")
RNG = np.random.default_rng(0)
ARRAYS = {
    "E": RNG.normal(size=(30, 8)), "P": RNG.normal(size=(20, 8)), "Q": RNG.normal(size=(8, 8)),
    "H": RNG.normal(size=(8, 3)), "low": np.array(-1e9),
}  # fmt: skip
#: What is added to the rows of ids, and what becomes of scores; the declarations of the other inputs.
MODELS = {
    "positions": ("b = Gather (P, pos)  e = Add (a, b)", "m = Identity (s)", {"pos": ("int64", "t")}),
    "mask to add": ("e = Identity (a)", "m = Add (s, mask)", {"mask": ("double", "t, t")}),
    "mask to choose by": ("e = Identity (a)", "m = Where (mask, s, low)", {"mask": ("bool", "t, t")}),
    "both": (
        "b = Gather (P, pos)  e = Add (b, a)", "m = Where (mask, s, low)",
        {"pos": ("int64", "t"), "mask": ("bool", "t, t")},
    ),
}  # fmt: skip


def model(name, *, batched=False, sizes=("n", "t")):
    rows, scores, beside = MODELS[name]
    n, t = map(str, sizes)
    inputs = [f"int64[{n}, {t}] ids"]
    for other, (kind, axes) in beside.items():
        inputs.append(f"{kind}[{f'{n}, ' * batched}{axes.replace('t', t)}] {other}")
    text = f"""<ir_version: 8, opset_import: ["": 17]> net ({", ".join(inputs)}) => (double[{n}, 3] y) {{
        a = Gather (E, ids)  {rows}  q = MatMul (e, Q)  k = Transpose <perm = [0, 2, 1]> (e)  s = MatMul (q, k)
        {scores}  p = Softmax <axis = -1> (m)  c = MatMul (p, e)  r = ReduceMean <axes = [1], keepdims = 0> (c)
        y = MatMul (r, H) }}"""
    made = onnx.parser.parse_model(text)
    used = {each for node in made.graph.node for each in node.input}
    made.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in ARRAYS.items() if n in used)
    return made


def inputs(name, batch=3, length=5):
    own = {"ids": RNG.integers(0, 30, (batch, length)), "pos": RNG.permutation(length)}
    own["mask"] = np.tri(length) > 0
    if name == "mask to add":
        own["mask"] = np.where(own["mask"], 0.0, -np.inf)
    return {each: own[each] for each in ("ids", *MODELS[name][2])}


def spread(x):
    return {name: a if name == "ids" else np.broadcast_to(a, (len(x["ids"]), *a.shape)) for name, a in x.items()}


@pytest.mark.parametrize("sizes", [("n", "t"), (1, 5)], ids=["open", "fixed"])
@pytest.mark.parametrize("name", MODELS)
def test_one_for_all_samples(name, sizes):
    net, beside = pylrp.load(model(name, sizes=sizes)), pylrp.load(model(name, batched=True, sizes=sizes))
    x = inputs(name)
    for given in (x, spread(x)):
        ex, wanted = net.explain(given, 1, composite="attnlrp"), beside.explain(spread(x), 1, composite="attnlrp")
        maps = ex.relevance if isinstance(ex.relevance, dict) else {"ids": ex.relevance}
        for each, a in maps.items():
            assert a.shape == (3, 5)
            np.testing.assert_allclose(
                a, wanted.relevance[each] if "pos" in x else wanted.relevance, rtol=1e-12, atol=1e-15
            )
        assert net.verify(given, target=1, composite="attnlrp").ok
    assert any("has no batch" in note for note in net.notes)


@pytest.mark.parametrize("name", MODELS)
def test_a_single_sample_and_lists(name):
    net = pylrp.load(model(name))
    samples = [{k: a[0] if k == "ids" else a for k, a in inputs(name, 1, length).items()} for length in (3, 6, 4)]
    together = net.explain(samples, 2, composite="cp_lrp")
    for i, sample in enumerate(samples):
        alone = net.explain(sample, 2, composite="cp_lrp").relevance
        for each in alone if isinstance(alone, dict) else ["ids"]:
            one, own = (r[each] if isinstance(r, dict) else r for r in (together.relevance, alone))
            np.testing.assert_allclose(one[i], own, rtol=1e-12, atol=1e-15)


def test_samples_that_differ_in_it_are_refused():
    net = pylrp.load(model("positions"))
    x = spread(inputs("positions"))
    x["pos"] = np.stack([np.roll(x["pos"][0], i) for i in range(3)])
    with pytest.raises(pylrp.UnfitInput, match="one for all") as error:
        net.explain(x, 1)
    assert error.value.input == "pos"


@pytest.mark.parametrize("name", MODELS)
def test_no_samples(name):
    x = inputs(name)
    x["ids"] = x["ids"][:0]
    net = pylrp.load(model(name))
    for given in (x, spread(x)):
        assert net.forward(given).shape == (0, 3)


def test_nan_in_a_mask_is_named_as_such():
    x = inputs("mask to add")
    x["mask"][0, 1] = np.nan
    with pytest.raises(pylrp.NotFinite, match="mask"):
        pylrp.load(model("mask to add")).explain(x, 1)


def test_rows_of_positions_that_are_not_added_are_refused():
    made = model("positions")
    for node in made.graph.node:
        if node.output[0] == "e":
            node.op_type = "Mul"
    with pytest.raises(pylrp.UnsupportedLayer, match="no batch axis"):
        pylrp.load(made)
