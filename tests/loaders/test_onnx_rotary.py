"""ONNX's RotaryEmbedding: predictions by onnx's evaluator, relevance by the matrix that it is, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.errors import UnsupportedLayer

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

HEADS, TOKENS, WIDTH, PLACES = 2, 3, 8, 11
BY_HEADS, PACKED = ["n", HEADS, TOKENS, WIDTH], ["n", TOKENS, HEADS * WIDTH]
IDS = np.array([[4, 0, 7], [10, 2, 2]])
CASES: dict[str, tuple[str, list[Any], int]] = {
    "halves": ("", BY_HEADS, WIDTH),
    "interleaved": ("<interleaved=1>", BY_HEADS, WIDTH),
    "a part": ("<rotary_embedding_dim=4>", BY_HEADS, 4),
    "a part, interleaved": ("<rotary_embedding_dim=4, interleaved=1>", BY_HEADS, 4),
    "packed": ("<num_heads=2>", PACKED, WIDTH),
    "a part, packed": ("<num_heads=2, rotary_embedding_dim=6>", PACKED, 6),
}


def model(text: str, shape: list[Any], called: list[Any] | None = None, **constants: Any) -> Any:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    inputs += [helper.make_tensor_value_info("ids", TensorProto.INT64, called)] if called else []
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in text.split(";")],
        "test",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def caches(width: int) -> dict[str, Any]:
    angles = np.arange(PLACES)[:, None] / 7 ** np.linspace(0, 1, width // 2)
    return {"c": np.cos(angles).astype(np.float32), "s": np.sin(angles).astype(np.float32)}


def check(made: Any, feeds: dict[str, Any], rng: np.random.Generator) -> None:
    """Compare with onnx's evaluator, and the relevance with x times the gradient of its outputs."""

    def reference(x: Any) -> Any:
        return ReferenceEvaluator(made).run(None, {**feeds, "x": x.astype(np.float32)})[0]

    net = pylrp.load(made, dtype="float64")
    x = feeds["x"]
    y = net.forward(feeds if len(feeds) > 1 else x)
    np.testing.assert_allclose(y, reference(x), rtol=1e-5, atol=1e-6)
    start = rng.normal(size=y.shape)
    c = start / y  # a linear map: R = x W^T c
    ex = net.explain(feeds if len(feeds) > 1 else x, target=start, composite="attnlrp")
    expected = np.zeros(x.shape)
    for place in np.ndindex(x.shape[1:]):
        one = np.zeros_like(x)
        one[(slice(None), *place)] = 1
        column = net.forward({**feeds, "x": one} if len(feeds) > 1 else one)
        np.testing.assert_allclose(column, reference(one), atol=1e-6)
        expected[(slice(None), *place)] = (column * c).sum(axis=tuple(range(1, y.ndim)))
    np.testing.assert_allclose(ex.relevance, x * expected, rtol=1e-9, atol=1e-9 * np.abs(x * expected).max())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["of the call", "constant", "none", "angles of the call"])
def test_rotary(rng, case, kind):
    settings, shape, width = CASES[case]
    feeds = {"x": rng.normal(size=(2, *shape[1:])).astype(np.float32)}
    tables = caches(width)
    if kind == "of the call":
        feeds["ids"] = IDS
        made = model(f"y = RotaryEmbedding{settings}(x, c, s, ids)", shape, ["n", TOKENS], **tables)
    elif kind == "constant":
        made = model(f"y = RotaryEmbedding{settings}(x, c, s, ids)", shape, **tables, ids=np.tile(IDS[:1], (2, 1)))
    elif kind == "none":
        rows = {name: np.tile(table[IDS[:1]], (2, 1, 1)) for name, table in tables.items()}
        made = model(f"y = RotaryEmbedding{settings}(x, c, s)", shape, **rows)
    else:  # as exporters write cos and sin of position ids
        feeds["ids"] = IDS
        by = np.linspace(0.1, 1, width // 2, dtype=np.float32)
        text = "f = Cast<to=1>(ids); u = Unsqueeze(f, last); a = Mul(u, by); c = Cos(a); s = Sin(a);"
        text += f"y = RotaryEmbedding{settings}(x, c, s)"
        made = model(text, shape, ["n", TOKENS], by=by, last=np.array([2]))
    check(made, feeds, rng)


def test_relevance_goes_to_the_input_alone(rng):
    x = rng.normal(size=(2, *BY_HEADS[1:])).astype(np.float32)
    net = pylrp.load(model("y = RotaryEmbedding(x, c, s, ids)", BY_HEADS, ["n", TOKENS], **caches(WIDTH)))
    for composite in ("attnlrp", "cp_lrp", "epsilon"):
        ex = net.explain({"x": x, "ids": IDS}, target=net.forward({"x": x, "ids": IDS}), composite=composite)
        assert ex.relevance.shape == x.shape
        assert all(row.bias is None or not np.any(row.bias) for row in ex.ledger)


@pytest.mark.parametrize(
    ("text", "constants"),
    [
        ("y = RotaryEmbedding(x, c, s, ids)", {**caches(WIDTH), "ids": np.array([[0, 1, PLACES]])}),
        ("y = RotaryEmbedding(x, c, s, ids)", {**caches(WIDTH), "ids": IDS}),
        ("y = RotaryEmbedding(x, c, s, ids)", {**caches(6), "ids": IDS[:1]}),
        ("y = RotaryEmbedding<rotary_embedding_dim=3>(x, c, s, ids)", {**caches(WIDTH), "ids": IDS[:1]}),
        ("c = Relu(x); y = RotaryEmbedding(x, c, s)", {"s": np.ones((1, TOKENS, 4), np.float32)}),
    ],
)
def test_rotary_that_is_refused(text, constants):
    with pytest.raises(UnsupportedLayer):
        pylrp.load(model(text, BY_HEADS, **constants))


def test_positions_outside_the_table(rng):
    x = rng.normal(size=(2, *BY_HEADS[1:])).astype(np.float32)
    net = pylrp.load(model("y = RotaryEmbedding(x, c, s, ids)", BY_HEADS, ["n", TOKENS], **caches(WIDTH)))
    with pytest.raises(ValueError, match=f"{PLACES}"):
        net.forward({"x": x, "ids": IDS + 1})
