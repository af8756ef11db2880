"""Tables of few positions, and weights in 16 bits that have overflown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.errors import NotFinite

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402


def model(text: str, inputs: list[Any], **constants: Any) -> Any:
    graph = helper.make_graph(
        [parser.parse_node(" ".join(part.split())) for part in text.split(";")],
        "test",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


WAYS = {
    "Range": "n = Squeeze(one); r = Range(zero, n, by); p = Gather(places, r)",
    "ids that are stored": "r = Slice(stored, first, one, at); p = Gather(places, r)",
    "ids that are repeated": "r = Slice(stored, first, one, at); e = Expand(r, s); p = Gather(places, e)",
    "rows": "p = Slice(places, first, one, first)",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("places", [7, 5, 2])
def test_a_table_of_few_positions(rng, way, places):
    constants = {name: rng.normal(size=shape).astype(np.float32) for name, shape in (
        ("places", (places, 4)), ("words", (9, 4)), ("head", (4, 3)),
    )}  # fmt: skip
    constants |= {"stored": np.arange(places)[None], "at": np.array([1]), "first": np.array([0])}
    constants |= {"zero": np.array(0), "by": np.array(1)}
    text = f"s = Shape(ids); one = Gather(s, at); w = Gather(words, ids); {WAYS[way]}; x = Add(w, p);"
    made = model(f"{text} y = MatMul(x, head)", [("ids", TensorProto.INT64, ["n", "t"])], **constants)
    net = pylrp.load(made)
    for length in (1, places):
        ids = rng.integers(0, 9, (2, length))
        expected = ReferenceEvaluator(made).run(None, {"ids": ids})[0]
        np.testing.assert_allclose(net.forward(ids), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=f"{places + 1}"):
        net.forward(np.zeros((2, places + 1), int))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("y = MatMul(x, w)", "w"),
        ("y = Gemm(x, v, b)", "b"),
        ("a = MatMul(x, v); y = Add(a, b)", "b"),
        ("s = Mul(x, f); y = MatMul(s, v)", "f"),
        ("y = BatchNormalization(x, one, one, one, f)", "f"),
    ],
)
@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.FLOAT])
def test_weights_in_16_bits_that_overflow(text, name, kind):
    large = np.array([1, 1, 1e6])
    with np.errstate(over="ignore"):
        constants = {"w": np.ones((3, 3)) * large, "v": np.ones((3, 3)), "b": large, "f": large, "one": np.ones(3)}
        constants = {key: array.astype(np.float16) for key, array in constants.items()}
    with pytest.raises(NotFinite) as caught:
        pylrp.load(model(text, [("x", kind, ["n", 3])], **constants))
    assert caught.value.what == name


def test_a_mask_in_16_bits(rng):
    """An infinity below in a mask is none of an overflow."""
    mask = np.array([0, -np.inf, 0], np.float16)
    net = pylrp.load(model("a = Add(x, m); y = Softmax<axis=1>(a)", [("x", TensorProto.FLOAT, ["n", 3])], m=mask),
                     keep_top=True)  # fmt: skip
    assert net.forward(rng.normal(size=(2, 3)).astype(np.float32))[:, 1].tolist() == [0, 0]
