"""Entries at places that are computed of ids or masks: all relevance goes to the entry that is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pylrp

onnx = pytest.importorskip("onnx")
WORDS, WIDTH, CLASSES = 11, 4, 3
_LAST = "seen = ReduceSum <keepdims = 0> (mask, axis1); at = Sub (seen, one);"
_SAMPLES = """shape = Shape (ids); n = Slice (shape, zero, one, zero); t = Slice (shape, one, two, zero);
n0 = Squeeze (n); t0 = Squeeze (t); b = Range (nought, n0, step);"""
_END = "y = MatMul (taken, head)"
#: By what writes them so: the last token that the mask keeps, an end of text, places of a token that is masked.
WAYS = {
    "flat": f"{_LAST} {_SAMPLES} before = Mul (b, t0); all = Add (before, at); rows = Reshape (x, flat);"
    "taken = Gather <axis = 0> (rows, all);",
    "flattened": f"{_LAST} {_SAMPLES} before = Mul (b, t0); all = Add (before, at); rows = Flatten <axis = 2> (x);"
    "taken = Gather <axis = 0> (rows, all);",
    "pairs": f"{_LAST} {_SAMPLES} b1 = Unsqueeze (b, axis1); a1 = Unsqueeze (at, axis1);"
    "pair = Concat <axis = 1> (b1, a1); taken = GatherND (x, pair);",
    "apart": f"{_LAST} a1 = Unsqueeze (at, axis1); taken = GatherND <batch_dims = 1> (x, a1);",
    "elements": f"{_LAST} {_SAMPLES} a1 = Unsqueeze (at, axis1); a2 = Unsqueeze (a1, axis2);"
    "size = Concat <axis = 0> (n, ones1, wide); a3 = Expand (a2, size); row = GatherElements <axis = 1> (x, a3);"
    "taken = Squeeze (row, axis1);",
    "largest id": "at = ArgMax <axis = 1, keepdims = 0> (ids); a1 = Unsqueeze (at, axis1);"
    "taken = GatherND <batch_dims = 1> (x, a1);",
    "end of text": "hit = Equal (ids, end); hit1 = Cast <to = 6> (hit); a1 = ArgMax <axis = 1, keepdims = 1> (hit1);"
    "taken = GatherND <batch_dims = 1> (x, a1);",
}  # fmt: skip


def model(text: str, out: str = str(CLASSES), inputs: str = "int64[n, t] ids, int64[n, t] mask") -> Any:
    random = np.random.default_rng(0)
    made = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        text ({inputs}) => (float[n, {out}] y) {{ x = Gather (table, ids) {text.replace(";", chr(10))} }}"""
    )
    numbers = {"zero": [0], "one": [1], "two": [2], "axis1": [1], "axis2": [2], "nought": 0, "step": 1, "end": 7,
               "flat": [-1, WIDTH], "ones1": [1], "wide": [WIDTH]}  # fmt: skip
    arrays = {"table": random.normal(size=(WORDS, WIDTH)), "head": random.normal(size=(WIDTH, CLASSES))}
    made.graph.initializer.extend(
        [onnx.numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
        + [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    )
    return made, arrays


def batch(random: np.random.Generator, samples: int, tokens: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return inputs, and by what is looked for the place in each sample."""
    mask = np.ones((samples, tokens), np.int64)
    ids = random.integers(0, 7, (samples, tokens))
    last, end = random.integers(0, tokens, samples), random.integers(0, tokens, samples)
    for row, (a, b) in enumerate(zip(last, end, strict=True)):
        mask[row, a + 1 :] = 0
        ids[row, b] = 7
    return {"ids": ids, "mask": mask}, {"last": last, "end": end}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("samples", "tokens"), [(1, 5), (3, 1), (4, 6)])
def test_the_entry_takes_all(rng, way, samples, tokens):
    made, arrays = model("; " + WAYS[way] + _END)
    net = pylrp.load(made, dtype="float64")
    x, places = batch(rng, samples, tokens)
    at = places["end" if way in ("largest id", "end of text") else "last"]
    x = {name: x[name] for name in x if name in net.graph.facts.sides.names}
    table, head = (arrays[name].astype(np.float32).astype(np.float64) for name in ("table", "head"))
    rows = table[x["ids"][np.arange(samples), at]]
    target = rng.integers(0, CLASSES, samples)
    ex = net.explain(x if len(x) > 1 else x["ids"], target, composite="cp_lrp")
    np.testing.assert_allclose(ex.output, rows @ head, atol=1e-12)
    expected = np.zeros((samples, tokens))
    expected[np.arange(samples), at] = (rows * head[:, target].T).sum(-1)
    R = ex.relevance["ids"] if isinstance(ex.relevance, dict) else ex.relevance
    np.testing.assert_allclose(R, expected, atol=1e-12)
    assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-12


def test_several_places_of_a_sample(rng):
    made, arrays = model(
        "; a1 = Unsqueeze (at, axis2); taken = GatherND <batch_dims = 1> (x, a1);" + _END,
        f"2, {CLASSES}",
        "int64[n, t] ids, int64[n, 2] at",
    )
    net = pylrp.load(made, dtype="float64")
    ids, at = rng.integers(0, WORDS, (3, 5)), np.array([[0, 4], [2, 2], [-1, 1]])
    table, head = (arrays[name].astype(np.float32).astype(np.float64) for name in ("table", "head"))
    rows = np.take_along_axis(table[ids], at[..., None] % 5, 1)
    ex = net.explain({"ids": ids, "at": at}, (1, 2), composite="cp_lrp")
    np.testing.assert_allclose(ex.output, rows @ head, atol=1e-12)
    R = ex.relevance["ids"] if isinstance(ex.relevance, dict) else ex.relevance
    expected = np.zeros((3, 5))
    np.put_along_axis(expected, at[:, 1:] % 5, (rows[:, 1] @ head)[:, 2:], 1)
    np.testing.assert_allclose(R, expected, atol=1e-12)
    with pytest.raises(ValueError, match="5 of 5"):
        net.forward({"ids": ids, "at": np.full((3, 2), 5)})


def test_an_entry_of_another_sample_is_refused(rng):
    made, _ = model("; taken = GatherND (x, pair);" + _END, str(CLASSES), "int64[n, t] ids, int64[n, 2] pair")
    net = pylrp.load(made)
    pair = np.array([[0, 1], [1, 3], [2, 0]])
    ids = rng.integers(0, WORDS, (3, 4))
    assert net.forward({"ids": ids, "pair": pair}).shape == (3, CLASSES)
    with pytest.raises(ValueError, match="another sample"):
        net.forward({"ids": ids, "pair": pair[::-1]})
