"""Token ids and masks: what is computed of them before the core runs, what belongs to them, and bad input.

Predictions are compared with onnx's own evaluator, relevance with NumPy by hand.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import pylrp

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

TOKENS, WORDS, WIDTH = 4, 6, 3
KINDS = {"ids": TensorProto.INT64, "mask": TensorProto.INT64, "seen": TensorProto.BOOL, "x": TensorProto.FLOAT}


def model(text: str, inputs: dict[str, Any], **constants: Any) -> Any:
    nodes = [parser.parse_node(part.strip()) for part in text.split(";")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, KINDS[name], shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def table(rng):
    return rng.normal(size=(WORDS, WIDTH)).astype(np.float32)


@pytest.fixture
def head(rng):
    return rng.normal(size=(TOKENS * WIDTH, 2)).astype(np.float32)


CLASSIFY = "e = Gather(table, ids); f = Flatten(e); y = MatMul(f, head)"
IDS = np.array([[0, 5, 2, 2], [1, 1, 1, 3]])


def test_the_relevance_of_ids_is_that_of_their_rows(table, head):
    net = pylrp.load(model(CLASSIFY, {"ids": ["n", TOKENS]}, table=table, head=head), dtype="float64")
    ex = net.explain(IDS, target=1, composite="epsilon")
    rows = table[IDS].astype(np.float64)
    weights = head.astype(np.float64).reshape(TOKENS, WIDTH, 2)
    np.testing.assert_allclose(ex.relevance, (rows * weights[..., 1]).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(ex.layers["e"], rows * weights[..., 1], rtol=1e-5)
    np.testing.assert_array_equal(ex.input, IDS)
    assert ex.relevance.shape == (2, TOKENS)
    one = net.explain(IDS[0], target=1, composite="epsilon")
    np.testing.assert_allclose(one.relevance, ex.relevance[0], rtol=1e-12)
    several = net.explain(IDS, targets=[0, 1], composite="epsilon")
    np.testing.assert_allclose(several.relevance[:, 1], ex.relevance, rtol=1e-12)
    assert several.relevance.shape == (2, 2, TOKENS)
    assert "embedding" in net.summary()


def test_a_table_that_is_read_twice_is_one_input(table, head):
    text = (
        "e = Gather(table, ids); c = Cast<to=6>(ids); u = Unsqueeze(c, two); s = Squeeze(u, two); d = Gather(table, s);"
    )
    text += "a = Add(e, d); f = Flatten(a); y = MatMul(f, head)"
    made = model(text, {"ids": ["n", TOKENS]}, table=table, head=head, two=np.array([2]))
    net = pylrp.load(made, dtype="float64")
    ex = net.explain(IDS, target=0, composite="cp_lrp")
    np.testing.assert_allclose(ex.output, ReferenceEvaluator(made).run(None, {"ids": IDS})[0], rtol=1e-5)
    np.testing.assert_allclose(ex.relevance.sum(1), ex.output[:, 0], rtol=1e-9)


MASKS = {
    "a factor": "m = Cast<to=1>(mask); u = Unsqueeze(m, two); q = Mul(e, u); f = Flatten(q)",
    "a factor first": "m = Cast<to=1>(mask); u = Unsqueeze(m, two); q = Mul(u, e); f = Flatten(q)",
    "a mean": (
        "m = Cast<to=1>(mask); u = Unsqueeze(m, two); q = Mul(e, u); n = ReduceSum<keepdims=1>(u, ax);"
        "r = ReduceSum<keepdims=1>(q, ax); d = Div(r, n); x = Expand(d, shape); f = Flatten(x)"
    ),
    "a difference": "m = Cast<to=1>(mask); u = Unsqueeze(m, two); q = Sub(e, u); f = Flatten(q)",
    "minus the value": "m = Cast<to=1>(mask); u = Unsqueeze(m, two); q = Sub(u, e); f = Flatten(q)",
    "a choice": "b = Cast<to=9>(mask); u = Unsqueeze(b, two); q = Where(u, e, fill); f = Flatten(q)",
    "the other choice": "b = Cast<to=9>(mask); u = Unsqueeze(b, two); q = Where(u, fill, e); f = Flatten(q)",
    "a comparison": (
        "b = Equal(mask, zero); n = Not(b); g = Greater(ids, zero); a = And(n, g); c = Cast<to=1>(a);"
        "u = Unsqueeze(c, two); q = Mul(e, u); f = Flatten(q)"
    ),
    "expanded by the shape of the ids": (
        "s = Shape(ids); w = Concat<axis=0>(s, width); m = Cast<to=1>(mask); u = Unsqueeze(m, two); x = Expand(u, w);"
        "q = Mul(e, x); f = Flatten(q)"
    ),
}


@pytest.mark.parametrize("kind", MASKS)
def test_what_is_computed_of_masks(table, head, kind):
    constants = {
        "one": np.float32(1), "two": np.array([2]), "ax": np.array([1]), "fill": np.float32(0.5), "zero": np.array(0),
        "width": np.array([WIDTH]), "shape": np.array([1, TOKENS, 1]),
    }  # fmt: skip
    text = f"e = Gather(table, ids); {MASKS[kind]}; y = MatMul(f, head)"
    used = {name: array for name, array in constants.items() if f"{name})" in text or f"{name}," in text}
    made = model(text, {"ids": ["n", TOKENS], "mask": ["n", TOKENS]}, table=table, head=head, **used)
    net = pylrp.load(made, dtype="float64")
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    ex = net.explain({"ids": IDS, "mask": mask}, target=0, composite="cp_lrp", layers="all")
    np.testing.assert_allclose(ex.output, ReferenceEvaluator(made).run(None, {"ids": IDS, "mask": mask})[0], rtol=2e-5)
    assert isinstance(ex.relevance, np.ndarray)  # masks get none: one input is left
    assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-12
    if kind == "a factor":
        kept = (table[IDS] * head.reshape(TOKENS, WIDTH, 2)[..., 0]).sum(-1) * mask
        np.testing.assert_allclose(ex.relevance, kept, rtol=1e-5, atol=1e-9)
    if kind == "a difference":  # the ledger has what the mask takes
        np.testing.assert_allclose(
            ex.relevance.sum(1) + sum(row.constant for row in ex.ledger), ex.output[:, 0], rtol=1e-9
        )


def test_truth_values_of_attention(table):
    """A mask of truth values, with a sample of which every token is masked."""
    text = (
        "e = Gather(table, ids); t = Transpose<perm=[0, 2, 1]>(e); s = MatMul(e, t); u = Unsqueeze(seen, one);"
        "a = Where(u, s, least); p = Softmax<axis=2>(a); y = MatMul(p, e)"
    )
    made = model(
        text,
        {"ids": ["n", TOKENS], "seen": ["n", TOKENS]},
        table=table,
        one=np.array([1]),
        least=np.float32(-np.inf),
    )
    net = pylrp.load(made, dtype="float64")
    seen = np.array([[True, True, False, True], [False] * 4])
    e = table[IDS].astype(np.float64)
    power = np.exp(e @ e.swapaxes(1, 2)) * seen[:, None]
    total = power.sum(-1, keepdims=True)
    expected = np.divide(power, total, out=np.zeros_like(power), where=total > 0) @ e
    x = {"ids": IDS, "seen": seen}
    np.testing.assert_allclose(net.forward(x), expected, rtol=1e-6)
    for composite in ("attnlrp", "cp_lrp"):
        ex = net.explain(x, target=np.ones((2, TOKENS, WIDTH)), composite=composite)
        assert np.isfinite(ex.relevance).all()
        assert not ex.relevance[1].any()
        np.testing.assert_allclose(sum(row.dead[1] for row in ex.ledger), TOKENS * WIDTH)


def test_positions_of_ids_take_no_relevance_of_the_words(table, head):
    """Positions that are counted from the ids, as RoBERTa does, are a constant for the words."""
    text = (
        "n = Equal(ids, zero); o = Not(n); c = Cast<to=7>(o); k = CumSum(c, one); w = Mul(k, c); t = Gather(places, w);"
        "e = Gather(table, ids); a = Add(e, t); f = Flatten(a); y = MatMul(f, head)"
    )
    places = np.arange(5 * WIDTH, dtype=np.float32).reshape(5, WIDTH)
    made = model(text, {"ids": ["n", TOKENS]}, table=table, head=head, places=places, zero=np.array(0), one=np.array(1))
    net = pylrp.load(made, dtype="float64")
    ex = net.explain(IDS, target=1, composite="cp_lrp")
    np.testing.assert_allclose(ex.output, ReferenceEvaluator(made).run(None, {"ids": IDS})[0], rtol=1e-5)
    weights = head.astype(np.float64).reshape(TOKENS, WIDTH, 2)[..., 1]
    np.testing.assert_allclose(ex.relevance, (table[IDS] * weights).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(sum(row.constant for row in ex.ledger), ex.output[:, 1] - ex.relevance.sum(1), rtol=1e-7)


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        (np.array([[0, 6, 0, 0]]), pylrp.NotInVocabulary, "6"),
        (np.array([[0, 0, 0, -1]]), pylrp.NotInVocabulary, "-1"),
        (np.array([[0.0, 1.0, 2.0, 3.0]]), TypeError, "float64"),
        (np.array([["a", "b", "c", "d"]]), TypeError, "integers"),
        (np.array([[0, 1, 2]]), ValueError, "4"),
        (np.array(3), ValueError, "4"),
        (np.array([[True, False, True, True]]), TypeError, "bool"),
    ],
)
def test_ids_that_are_none(table, head, ids, error, words):
    net = pylrp.load(model(CLASSIFY, {"ids": ["n", TOKENS]}, table=table, head=head))
    with pytest.raises(error, match=words):
        net.explain(ids)
    with pytest.raises(error):
        net.forward(ids)


def test_an_id_outside_says_where(table, head):
    net = pylrp.load(model(CLASSIFY, {"ids": ["n", TOKENS]}, table=table, head=head))
    with pytest.raises(pylrp.NotInVocabulary) as caught:
        net.explain(np.array([[0, 1, 2, 3], [0, 1, 9, 3]]))
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.input, error.token, error.size, error.at) == ("ids", 9, WORDS, (1, 2))


def test_masks_of_another_length(table, head):
    text = f"e = Gather(table, ids); {MASKS['a factor']}; y = MatMul(f, head)"
    made = model(text, {"ids": ["n", TOKENS], "mask": ["n", TOKENS]}, table=table, head=head, two=np.array([2]))
    net = pylrp.load(made)
    for mask in (np.ones((2, 3), int), np.ones((3, TOKENS), int), np.ones(TOKENS, int)):
        with pytest.raises(ValueError, match="mask"):
            net.explain({"ids": IDS, "mask": mask})
    with pytest.raises(ValueError, match="ids"):
        net.explain({"ids": IDS})


def test_no_samples(table, head):
    net = pylrp.load(model(CLASSIFY, {"ids": ["n", TOKENS]}, table=table, head=head))
    assert net.forward(np.zeros((0, TOKENS), np.int64)).shape == (0, 2)


def test_a_network_of_ids_crosses_processes(table, head):
    net = pylrp.load(model(CLASSIFY, {"ids": ["n", TOKENS]}, table=table, head=head))
    again = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(again.forward(IDS), net.forward(IDS))


def test_a_dtype_of_ones_own(rng):
    made = model("y = MatMul(x, w)", {"x": ["n", 3]}, w=rng.normal(size=(3, 2)).astype(np.float32))
    x = rng.normal(size=(2, 3))
    assert pylrp.load(made).forward(x).dtype == np.float32
    assert pylrp.load(made, dtype="float64").forward(x).dtype == np.float64
    layers = [pylrp.layers.Dense(np.ones((2, 3), np.float32)), pylrp.layers.ReLU()]
    assert pylrp.load(layers, dtype=np.float64).dtype == np.float64
    with pytest.raises(TypeError, match="float16"):
        pylrp.load(made, dtype="float16")


# Lengths: one model for inputs of any.
LENGTHS = (
    "e = Gather(table, ids); s = Shape(ids); n = Gather(s, one); r = Range(zero, n, one); t = Gather(places, r);"
    "a = Add(e, t); k = Transpose<perm=[0, 2, 1]>(a); c = MatMul(a, k); m = Cast<to=1>(mask); u = Unsqueeze(m, axis);"
    "q = Where(b, c, least); p = Softmax<axis=2>(q); v = MatMul(p, a); f = ReduceMean<axes=[1], keepdims=0>(v);"
    "y = MatMul(f, head)"
).replace("m = Cast<to=1>(mask); u = Unsqueeze(m, axis)", "m = Cast<to=9>(mask); b = Unsqueeze(m, axis)")


@pytest.fixture
def any_length(rng, table):
    constants = {
        "table": table, "places": rng.normal(size=(9, WIDTH)).astype(np.float32), "zero": np.array(0),
        "one": np.array(1), "axis": np.array([1]), "least": np.float32(-np.inf),
        "head": rng.normal(size=(WIDTH, 2)).astype(np.float32),
    }  # fmt: skip
    return model(LENGTHS, {"ids": ["n", "t"], "mask": ["n", "t"]}, **constants)


@pytest.mark.parametrize("length", [1, 2, 5, 8, 9])
def test_inputs_of_any_length(rng, any_length, length):
    net = pylrp.load(any_length, dtype="float64")
    ids, mask = rng.integers(0, WORDS, (3, length)), np.ones((3, length), np.int64)
    mask[1, length // 2 + 1 :] = 0
    x = {"ids": ids, "mask": mask}
    expected = ReferenceEvaluator(any_length).run(None, x)[0]
    np.testing.assert_allclose(net.forward(x), expected, rtol=2e-5, atol=1e-6)
    fixed = pylrp.load(any_length, dtype="float64", input_shape={"ids": (length,), "mask": (length,)})
    for composite in ("attnlrp", "cp_lrp"):
        ex = net.explain(x, target=1, composite=composite)
        assert ex.relevance.shape == (3, length)
        np.testing.assert_array_equal(ex.relevance, fixed.explain(x, target=1, composite=composite).relevance)
        one = net.explain({name: array[1] for name, array in x.items()}, target=1, composite=composite)
        np.testing.assert_allclose(one.relevance, ex.relevance[1], rtol=1e-12)
        assert ex.layers["a"].shape == (3, length, WIDTH)


def test_lengths_share_their_weights(any_length):
    net = pylrp.load(any_length)
    for length in (3, 4, 5):
        net.explain({"ids": np.ones((1, length), int), "mask": np.ones((1, length), int)})
    kept = [each.execution for each in net._by_length._known.values()]
    graphs = [each.graph for each in (net._execution, *kept)]
    weights = [node.layer.weight for graph in graphs for node in graph.nodes if node.layer.weighted]
    assert len(weights) == 4
    assert all(np.shares_memory(weights[0], weight) for weight in weights)


def test_many_lengths_are_not_all_kept(any_length, monkeypatch):
    monkeypatch.setattr("pylrp.network.lengths.MOST", 2)
    net = pylrp.load(any_length)
    outputs = {}
    for length in (1, 2, 3, 4, 2, 1):
        x = {name: np.ones((1, length), int) for name in ("ids", "mask")}
        np.testing.assert_array_equal(net.forward(x), outputs.setdefault(length, net.forward(x)))
        assert len(net._by_length._known) <= 2


@pytest.mark.parametrize(
    ("ids", "mask", "words"),
    [
        ((1, 10), (1, 10), "at most 9"),  # positions end at 9
        ((1, 0), (1, 0), "empty"),
        ((1, 4), (1, 5), "equal"),
        ((2, 4), (1, 4), "samples"),
    ],
)
def test_lengths_that_are_none(any_length, ids, mask, words):
    net = pylrp.load(any_length)
    with pytest.raises(ValueError, match=words):
        net.explain({"ids": np.ones(ids, int), "mask": np.ones(mask, int)})


def test_a_length_may_be_fixed(any_length):
    net = pylrp.load(any_length, input_shape={"ids": (4,), "mask": (4,)})
    with pytest.raises(ValueError, match="4"):
        net.forward({"ids": np.ones((1, 5), int), "mask": np.ones((1, 5), int)})


def test_activations_of_any_length(rng):
    made = model(
        "s = MatMul(x, w); y = ReduceMean<axes=[1], keepdims=0>(s)",
        {"x": ["n", "t", 3]},
        w=rng.normal(size=(3, 2)).astype("f"),
    )
    with pytest.raises(ValueError, match="input_shape"):
        pylrp.load(made)
    net = pylrp.load(made, input_shape=(None, 3))
    for length in (1, 8, 20):
        x = rng.normal(size=(2, length, 3)).astype(np.float32)
        np.testing.assert_allclose(
            net.forward(x), ReferenceEvaluator(made).run(None, {"x": x})[0], rtol=1e-4, atol=1e-6
        )
        assert net.explain(x, target=0).relevance.shape == x.shape


def test_a_length_that_is_written_out(table, rng):
    """As exporters do that trace: the file leaves the length open, and reshapes to that of the example."""
    text = "e = Gather(table, ids); r = Reshape(e, sizes); f = ReduceMean<axes=[1], keepdims=0>(r); y = MatMul(f, head)"
    made = model(
        text,
        {"ids": ["n", "t"]},
        table=table,
        sizes=np.array([-1, 5, WIDTH]),
        head=rng.normal(size=(WIDTH, 2)).astype(np.float32),
    )
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(made)
    assert "input_shape" in caught.value.way_out
    assert pylrp.load(made, input_shape=(5,)).forward(np.ones((2, 5), int)).shape == (2, 2)
