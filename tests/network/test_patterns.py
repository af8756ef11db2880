"""A network for a new length, out of three that were read, is the one that reading the model for that length gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_text

import pylrp

onnx = pytest.importorskip("onnx")

LENGTHS = (5, 12, 1, 20, 3)
_PLACES = """s = Shape (ids); t = Slice (s, one, two); t0 = Squeeze (t); r = Range (nought, t0, step)
  a = Unsqueeze (r, axis1); b = Unsqueeze (r, axis0); d = Sub (a, b)"""
#: What adds to or scales the scores ``z``, (n, t, t); or makes ``x``, (n, t, WIDTH), another value.
MASKS = {
    "causal": f"{_PLACES}; ok = GreaterOrEqual (d, nought); z1 = Where (ok, z, least)",
    "window": f"{_PLACES}; far = Abs (d); ok = LessOrEqual (far, nine); z1 = Where (ok, z, least)",
    "window that is added": f"{_PLACES}; far = Abs (d); ok = LessOrEqual (far, nine)"
    "; m = Where (ok, none, least); z1 = Add (z, m)",
    "window of a few": f"{_PLACES}; far = Abs (d); ok = LessOrEqual (far, two0); z1 = Where (ok, z, least)",
    "relative positions": f"{_PLACES}; near = Clip (d, below, above); at = Add (near, above)"
    "; m = Gather (bias, at); z1 = Add (z, m)",
    "distance": f"{_PLACES}; far = Abs (d); f = Cast <to = 1> (far); m = Mul (f, slope); z1 = Add (z, m)",
    "share of the length": f"{_PLACES}; f = Cast <to = 1> (d); n = Cast <to = 1> (t0); m = Div (f, n)"
    "; z1 = Add (z, m)",
    "length in a factor": f"{_PLACES}; n = Cast <to = 1> (t0); q = Sqrt (n); z1 = Div (z, q)",
    "both masks": f"{_PLACES}; ok = GreaterOrEqual (d, nought); seen = Cast <to = 9> (mask)"
    "; m1 = Unsqueeze (seen, axis1); both = And (ok, m1); z1 = Where (both, z, least)",
    "a mask for each layer": f"{_PLACES}; ok = GreaterOrEqual (d, nought); z2 = Where (ok, z, least)"
    "; far = Abs (d); ok2 = LessOrEqual (far, nine); z1 = Where (ok2, z2, least)",
}  # fmt: skip
_TEXT = """<ir_version: 8, opset_import: ["": 17]>
text (int64[n, t] ids, int64[n, t] mask) => (float[n, {classes}] y) {{
  x0 = Gather (table, ids)
  {start}
  q = MatMul (x, to_query)
  k1 = Transpose <perm = [0, 2, 1]> (x)
  z = MatMul (q, k1)
  {scores}
  p = Softmax <axis = 2> (z1)
  h = MatMul (p, x)
  m0 = Cast <to = 1> (mask)
  {end}
  y = MatMul (pooled, head)
}}"""
_START = "x = Identity (x0)"
_END = "m3 = Unsqueeze (m0, axis2); hm = Mul (h, m3); pooled = ReduceMean <axes = [1], keepdims = 0> (hm)"
#: Where there are fewer values than tokens.
_SHORTER = """share = ReduceMean <axes = [1]> (m0); mean = ReduceMean <axes = [1], keepdims = 0> (h)
  pooled = Mul (mean, share)"""
#: Other beginnings.
PARTS = {
    "rows of a table": "s1 = Shape (ids); t1 = Slice (s1, one, two); e = Slice (places, zero, t1, zero)"
    "; x = Add (x0, e)",
    "rows from the end": "s1 = Shape (ids); t1 = Slice (s1, one, two); t2 = Neg (t1)"
    "; e = Slice (places, t2, most, zero); x = Add (x0, e)",
    "two values a token": "s1 = Shape (ids); u = Unsqueeze (x0, axis2); s2 = Concat <axis = 0> (s1, two, half)"
    "; u2 = Reshape (u, s2); u3 = Transpose <perm = [0, 2, 1, 3]> (u2); u4 = Transpose <perm = [0, 2, 1, 3]> (u3)"
    "; s3 = Concat <axis = 0> (s1, width); x = Reshape (u4, s3)",
    "steps": "c = Transpose <perm = [0, 2, 1]> (x0); c1 = Conv <strides = [2], pads = [1, 1]> (c, kernel)"
    "; x = Transpose <perm = [0, 2, 1]> (c1)",
}  # fmt: skip


def model(start: str = _START, scores: str = "z1 = Identity (z)", end: str = _END) -> Any:
    random = np.random.default_rng(0)
    width = small_text.WIDTH
    text = _TEXT.format(classes=small_text.CLASSES, start=start, scores=scores, end=end).replace(";", "\n  ")
    made = onnx.parser.parse_model(text)
    arrays = {
        "table": random.normal(size=(small_text.WORDS, width)), "places": random.normal(size=(40, width)),
        "head": random.normal(size=(width, small_text.CLASSES)), "to_query": random.normal(size=(width, width)),
        "bias": random.normal(size=9), "least": np.array(-np.inf), "none": np.array(0.0), "slope": np.array(-0.3),
        "kernel": random.normal(size=(width, width, 3)),
    }  # fmt: skip
    integers = {"zero": [0], "one": [1], "two": [2], "axis0": [0], "axis1": [1], "axis2": [2], "nought": 0, "step": 1,
                "nine": 9, "two0": 2, "below": -4, "above": 4, "most": [1 << 40], "half": [width // 2],
                "width": [width]}  # fmt: skip
    made.graph.initializer.extend(
        [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
        + [onnx.numpy_helper.from_array(np.array(value, np.int64), name) for name, value in integers.items()]
    )
    return made


def without_patterns(net: pylrp.Network) -> pylrp.Network:
    assert net._by_length is not None
    net._by_length._tries = 0
    return net


def require_equal_bits(made: Any, rng: Any, lengths: Any = LENGTHS, *, tokens: bool = False) -> pylrp.Network:
    net, other = pylrp.load(made), without_patterns(pylrp.load(made))
    for length in lengths:
        x = small_text.batch(rng, 2, length)
        np.testing.assert_array_equal(net.forward(x), other.forward(x))
        for composite in ("attnlrp", "epsilon"):
            target = (length - 1, 1) if tokens else 1
            one, two = (each.explain(x, target, composite=composite) for each in (net, other))
            for mine, its in zip(*(_arrays(each.relevance) for each in (one, two)), strict=True):
                np.testing.assert_array_equal(mine, its)
            np.testing.assert_array_equal(one.ledger.data, two.ledger.data)
            assert one.ledger.names == two.ledger.names
        assert net._execution_of(x).graph.nbytes == other._execution_of(x).graph.nbytes
    assert other._by_length._pattern is None
    return net


def _arrays(relevance: Any) -> list[Any]:
    return list(relevance.values()) if isinstance(relevance, dict) else [relevance]


@pytest.mark.parametrize("kind", ["classes", "tokens"])
def test_a_text_network(rng, kind):
    net = require_equal_bits(small_text.model(kind), rng, tokens=kind == "tokens")
    assert net._by_length._pattern is not None


@pytest.mark.slow
@pytest.mark.parametrize("mask", MASKS)
def test_masks(rng, mask):
    """What is open for three lengths may be closed for a longer one."""
    net = require_equal_bits(model(scores=MASKS[mask]), rng)
    assert (net._by_length._pattern is not None) == (mask != "length in a factor")


@pytest.mark.slow
@pytest.mark.parametrize("start", PARTS)
def test_beginnings(rng, start):
    net = require_equal_bits(model(PARTS[start], end=_SHORTER if start == "steps" else _END), rng)
    assert (net._by_length._pattern is not None) == (start != "steps")


def test_what_is_known_beyond_a_table_is_said(rng):
    net = pylrp.load(model(PARTS["rows of a table"]))
    for length in (5, 7, 40):
        net.forward(small_text.batch(rng, 1, length))
    assert net._by_length._pattern is not None
    with pytest.raises(ValueError, match="at most 40"):
        net.forward(small_text.batch(rng, 1, 41))


def test_the_model_is_read_three_times(rng, monkeypatch):
    from pylrp.loaders.onnx.reader import Reader

    net, read = pylrp.load(small_text.model()), []
    usual = Reader.read
    monkeypatch.setattr(Reader, "read", lambda self, **given: read.append(1) or usual(self, **given))
    for length in range(2, 40):
        net.explain(small_text.batch(rng, 2, length), 1)
    assert len(read) == 3
