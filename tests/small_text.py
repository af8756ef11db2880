"""A small network of token ids with attention, positions and open lengths, as an ONNX model, and the same in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

WORDS, WIDTH, HEADS, LONGEST, CLASSES = 11, 6, 2, 600, 3

_TEXT = """
<ir_version: 8, opset_import: ["": 17]>
text (int64[n, t] ids, int64[n, t] mask) => (float[n, {out}] y) {{
  words = Gather (table, ids)
  shape = Shape (ids)
  length = Slice (shape, one, two)
  places = Slice (positions, zero, length, zero)
  x = {x}
  q = MatMul (x, to_query)
  k = MatMul (x, to_key)
  v = MatMul (x, to_value)
  split = Concat <axis = 0> (shape, apart)
  q1 = Reshape (q, split)
  k1 = Reshape (k, split)
  v1 = Reshape (v, split)
  q2 = Transpose <perm = [0, 2, 1, 3]> (q1)
  k2 = Transpose <perm = [0, 2, 3, 1]> (k1)
  v2 = Transpose <perm = [0, 2, 1, 3]> (v1)
  scores = MatMul (q2, k2)
  seen = Cast <to = 9> (mask)
  keys = Unsqueeze (seen, middle)
  masked = Where (keys, {scores}, least)
  attention = Softmax <axis = 3> (masked)
  heard = MatMul (attention, v2)
  h1 = Transpose <perm = [0, 2, 1, 3]> (heard)
  joined = Concat <axis = 0> (shape, width)
  h2 = Reshape (h1, joined)
  h3 = MatMul (h2, to_out)
  h = Add (x, h3)
  f = MatMul (h, up)
  g = Add (f, bias)
  on = Relu (g)
  d = MatMul (on, down)
  r = Add (h, d)
  {end}
}}"""


_TOPS = {
    "classes": "top = Gather <axis = 1> (r, first)",
    "last": "top = Gather <axis = 1> (r, last)",
    "mean": "top = ReduceMean <axes = [1], keepdims = 0> (r)",
    "sum": "top = ReduceSum <keepdims = 0> (r, one)",
    "masked mean": """ones = Cast <to = 1> (mask)
  each = Unsqueeze (ones, two)
  own = Mul (r, each)
  total = ReduceSum <keepdims = 0> (own, one)
  count = ReduceSum <keepdims = 1> (ones, one)
  top = Div (total, count)""",
    "largest": "top = ReduceMax <axes = [1], keepdims = 0> (r)",
}
_BIAS = """to = Concat <axis = 0> (length, length)
  bias_of_scores = Slice (biases, from, to, one_two)
  biased = Add (scores, bias_of_scores)
  """
_NEIGHBOURS = """Add (words, places)
  turned = Transpose <perm = [0, 2, 1]> (x)
  mixed = Conv <pads = [1, 1]> (turned, kernel)
  back = Transpose <perm = [0, 2, 1]> (mixed)"""


def model(
    kind: str = "classes", seed: int = 0, *, biased: bool = False, neighbours: bool = False, scaled: bool = False
) -> Any:
    """Return an ONNX model: of ``"classes"``, from the first token, or of the next ``"tokens"``, (t, WORDS).

    ``"last"``, ``"mean"``, ``"masked mean"``, ``"sum"``, ``"largest"``: classes from something else of the tokens.
    ``biased``: a number for each head, query and key is added to the scores, -inf where the key comes after the query.
    ``neighbours``: a convolution over the tokens comes before the attention. ``scaled``: positions are factors.
    """
    from onnx import numpy_helper, parser

    random = np.random.default_rng(seed)
    classes = kind in _TOPS
    text = _TEXT.format(
        out=CLASSES if classes else f"t, {WORDS}",
        end=f"{_TOPS[kind]}\n  y = MatMul (top, head)" if classes else "y = MatMul (r, head)",
        scores="biased" if biased else "scores",
        x=_NEIGHBOURS if neighbours else f"{'Mul' if scaled else 'Add'} (words, places)",
    )
    if biased:
        text = text.replace("masked = Where", f"{_BIAS}masked = Where")
    if neighbours:
        text = text.replace("MatMul (x, to_", "MatMul (back, to_")
    made = parser.parse_model(text)
    arrays = {
        "table": random.normal(size=(WORDS, WIDTH)), "positions": random.normal(size=(LONGEST, WIDTH)),
        "head": random.normal(size=(WIDTH, CLASSES if classes else WORDS)), "up": random.normal(size=(WIDTH, 8)),
        "bias": random.normal(size=8), "down": random.normal(size=(8, WIDTH)), "least": np.array(-np.inf),
        **{name: random.normal(size=(WIDTH, WIDTH)) for name in ("to_query", "to_key", "to_value", "to_out")},
    }  # fmt: skip
    if biased:
        later = np.triu(np.full((LONGEST, LONGEST), -np.inf), 1)
        arrays["biases"] = random.normal(size=(HEADS, LONGEST, LONGEST)) + later
    if neighbours:
        arrays["kernel"] = random.normal(size=(WIDTH, WIDTH, 3))
    if biased:
        later = np.triu(np.full((LONGEST, LONGEST), -np.inf), 1)
        arrays["biases"] = random.normal(size=(HEADS, LONGEST, LONGEST)) + later
    if neighbours:
        arrays["kernel"] = random.normal(size=(WIDTH, WIDTH, 3))
    integers = {"zero": [0], "one": [1], "two": [2], "apart": [HEADS, WIDTH // HEADS], "width": [WIDTH],
                "middle": [1, 2], "first": 0, "last": -1, "from": [0, 0], "one_two": [1, 2]}  # fmt: skip
    made.graph.initializer.extend(
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
        + [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in integers.items()]
    )
    return made


def batch(random: np.random.Generator, samples: int, tokens: int) -> dict[str, Any]:
    """Return ids and a mask that leaves out the last token of all samples but the first."""
    mask = np.ones((samples, tokens), np.int64)
    mask[1:, -1] = 0
    return {"ids": random.integers(0, WORDS, (samples, tokens)), "mask": mask}
