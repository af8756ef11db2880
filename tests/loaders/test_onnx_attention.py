"""ONNX's Attention and Einsum of two computed values: predictions by onnx's evaluator, maps by NumPy and in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.errors import UnsupportedLayer

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402


def model(text: str, inputs: dict[str, Any], opset: int = 23, **constants: Any) -> Any:
    kinds = {"seen": TensorProto.BOOL}
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in text.split(";")],
        "test",
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), shape) for n, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


HEADS = {"q": ["n", 4, 5, 3], "k": ["n", 4, 6, 3], "v": ["n", 4, 6, 2]}
SHARED = {"q": ["n", 4, 5, 3], "k": ["n", 2, 6, 3], "v": ["n", 2, 6, 2]}
SQUARE = {"q": ["n", 4, 6, 3], "k": ["n", 4, 6, 3], "v": ["n", 4, 6, 2]}
PACKED = {"q": ["n", 5, 12], "k": ["n", 6, 12], "v": ["n", 6, 8]}
MASK = np.where(np.random.default_rng(3).random((5, 6)) < 0.3, -np.inf, 0).astype(np.float32)
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("y = Attention(q, k, v)", HEADS, {}),
    "a scale": ("y = Attention<scale=0.3>(q, k, v)", HEADS, {}),
    "causal": ("y = Attention<is_causal=1>(q, k, v)", SQUARE, {}),
    "shared keys and values": ("y = Attention(q, k, v)", SHARED, {}),
    "heads packed": ("y = Attention<q_num_heads=4, kv_num_heads=4>(q, k, v)", PACKED, {}),
    "a cap": ("y = Attention<softcap=2.0>(q, k, v)", HEADS, {}),
    "a mask": ("y = Attention(q, k, v, mask)", HEADS, {"mask": MASK}),
    "a mask of truth values": ("y = Attention(q, k, v, mask)", HEADS, {"mask": MASK == 0}),
    "a mask of the call": ("y = Attention(q, k, v, seen)", {**HEADS, "seen": ["n", 1, 5, 6]}, {}),
    "a bias that is computed": ("y = Attention(q, k, v, b)", {**HEADS, "b": ["n", 4, 5, 6]}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_attention(rng, case):
    text, inputs, constants = CASES[case]
    made = model(text, inputs, **constants)
    net = pylrp.load(made, dtype="float64")
    x: dict[str, Any] = {name: rng.normal(size=(2, *shape[1:])).astype(np.float32) for name, shape in inputs.items()}
    if "seen" in x:
        x["seen"] = x["seen"] > -1
    expected = ReferenceEvaluator(made).run(None, x)[0]
    np.testing.assert_allclose(net.forward(x), expected, rtol=1e-4, atol=1e-5)
    for composite in ("attnlrp", "cp_lrp"):
        ex = net.explain(x, target=net.forward(x), composite=composite)
        size = sum(np.abs(array).sum() for array in ex.relevance.values())
        assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-12 * size
        assert "seen" not in ex.relevance
        assert ex.relevance["q"].any() == (composite == "attnlrp")


def test_attention_is_the_products_that_it_stands_for(rng):
    parts = "t = Transpose<perm=[0, 1, 3, 2]>(k); s = MatMul(q, t); c = Mul(s, scale); p = Softmax<axis=3>(c);"
    parts += "y = MatMul(p, v)"
    x = {name: rng.normal(size=(2, *shape[1:])) for name, shape in HEADS.items()}
    start = rng.normal(size=(2, 4, 5, 2))
    maps = [
        pylrp.load(made, dtype="float64").explain(x, target=start, composite="attnlrp").relevance
        for made in (model(*CASES["plain"][:2]), model(parts, HEADS, scale=np.float64(1 / np.sqrt(3))))
    ]
    for name in HEADS:
        np.testing.assert_allclose(maps[0][name], maps[1][name], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "inputs", "words"),
    [
        ("y = Attention(q, k, v, m, k, v)", HEADS, "cache"),
        ("y, a, b, c = Attention(q, k, v)", HEADS, "more than its output"),
        ("y = Attention<q_num_heads=5, kv_num_heads=5>(q, k, v)", PACKED, "5 heads"),
    ],
)
def test_attention_that_is_refused(text, inputs, words):
    inputs = {**inputs, "m": ["n", 4, 5, 6]} if ", m," in text else inputs
    with pytest.raises(UnsupportedLayer, match=words):
        pylrp.load(model(text, inputs))


@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("bhid,bhjd->bhij", (4, 5, 3), (4, 6, 3)),
        ("bhij,bhjd->bihd", (4, 5, 6), (4, 6, 2)),
        ("bqhd,bkhd->bhqk", (5, 4, 3), (6, 4, 3)),
        ("bij,bjk->bik", (5, 6), (6, 2)),
        ("bijk,bjkl->bil", (2, 3, 4), (3, 4, 5)),
        ("b i d , b j d -> b j i", (5, 3), (6, 3)),
    ],
)
def test_einsum_of_two_values(rng, equation, left, right):
    made = model(f'y = Einsum<equation="{equation}">(l, r)', {"l": ["n", *left], "r": ["n", *right]}, 17)
    net = pylrp.load(made, dtype="float64")
    a, b = rng.normal(size=(2, *left)), rng.normal(size=(2, *right))
    c = np.einsum(equation.replace(" ", ""), a, b)
    np.testing.assert_allclose(net.forward({"l": a, "r": b}), c, rtol=1e-10)
    terms, result = equation.replace(" ", "").split("->")
    one, other = terms.split(",")
    ex = net.explain({"l": a, "r": b}, target=c, composite="attnlrp")
    np.testing.assert_allclose(ex.relevance["l"], a * np.einsum(f"{result},{other}->{one}", np.ones_like(c), b) / 2)
    np.testing.assert_allclose(ex.relevance["r"], b * np.einsum(f"{result},{one}->{other}", np.ones_like(c), a) / 2)


@pytest.mark.parametrize("equation", ["bij,bij->bij", "bij,cij->bc", "bii,bij->bj", "bij,bkl->bijkl"])
def test_einsums_that_are_none(equation):
    shapes = {"bij,bkl->bijkl": ((3, 3), (3, 3))}.get(equation, ((3, 3), (3, 3)))
    inputs = {"l": ["n", *shapes[0]], "r": ["n", *shapes[1]]}
    with pytest.raises(UnsupportedLayer):
        pylrp.load(model(f'y = Einsum<equation="{equation}">(l, r)', inputs, 17))
