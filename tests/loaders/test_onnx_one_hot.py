"""Products of one-hot rows with a table are lookups: they have the map of Gather."""

from __future__ import annotations

import numpy as np
import pytest

import pylrp

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402

WORDS, TOKENS, WIDTH = 11, 5, 4
FORMS = {
    "equal": "u = Unsqueeze(ids, last); e = Equal(u, all); o = Cast<to=1>(e); rows = MatMul(o, table)",
    "repeated, as jax has it": "u = Unsqueeze(ids, last); r = Expand(u, full); e = Equal(r, all); o = Cast<to=1>(e);"
    "rows = MatMul(o, table)",
    "one-hot": "o = OneHot<axis=-1>(ids, depth, values); rows = MatMul(o, table)",
    "lookup": "rows = Gather(table, ids)",
}


def network(form):
    rng = np.random.default_rng(0)
    constants = {
        "last": np.array([2]),
        "full": np.array([1, TOKENS, WORDS]),
        "all": np.arange(WORDS).reshape(1, 1, -1),
        "depth": np.array(WORDS),
        "values": np.array([0, 1], np.float32),
        "table": rng.normal(size=(WORDS, WIDTH)).astype(np.float32),
        "w": rng.normal(size=(WIDTH, 6)).astype(np.float32),
        "flat": np.array([0, 6 * TOKENS]),
        "v": rng.normal(size=(6 * TOKENS, 3)).astype(np.float32),
    }
    text = f"{FORMS[form]}; h = MatMul(rows, w); a = Relu(h); f = Reshape(a, flat); y = MatMul(f, v)"
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in text.split(";")],
        "test",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", TOKENS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "lookup"])
def test_one_hot_rows(form):
    ids = np.random.default_rng(1).integers(0, WORDS, (3, TOKENS))
    net, wanted = (pylrp.load(network(each), dtype="float64") for each in (form, "lookup"))
    found, expected = (each.explain(ids, 1, composite="attnlrp") for each in (net, wanted))
    assert found.relevance.shape == ids.shape
    np.testing.assert_allclose(found.output, expected.output, rtol=1e-12)
    np.testing.assert_allclose(found.relevance, expected.relevance, atol=1e-12)
    assert np.abs(found.relevance).min() > 0


def test_it_can_be_saved(tmp_path):
    ids = np.random.default_rng(1).integers(0, WORDS, (3, TOKENS))
    net = pylrp.load(network("equal"))
    net.save(tmp_path / "net.npz")
    again = pylrp.load(tmp_path / "net.npz")
    np.testing.assert_array_equal(again.explain(ids, 1).relevance, net.explain(ids, 1).relevance)
